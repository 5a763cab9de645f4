"""ana_fx beside Brevitas, torch.ao, plain LSQ and a static straight-through estimator.

python -m examples.peers run --study cifar10 --data data --width 8
python -m examples.peers report
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from examples.paper.data import load
from examples.paper.store import Store
from examples.paper.studies import STUDIES
from examples.paper.training import Epoch, Recipe
from examples.peers.method import PRECISIONS
from examples.peers.methods import METHODS
from examples.peers.report import table
from examples.peers.run import Comparison

Out = Annotated[Path, typer.Option(help="folder of the results store")]
_OUT = Path("runs/peers")


def run(
    data: Annotated[Path, typer.Option(help="folder of the data set, or a .npz archive")] = Path("data"),
    study: Annotated[str, typer.Option(help=", ".join(STUDIES))] = "cifar10",
    methods: Annotated[str, typer.Option(help="some of these, with commas")] = ",".join(METHODS),
    precisions: Annotated[str, typer.Option(help="some of these, with commas")] = "int8,int4,ternary,all-ternary",
    seeds: Annotated[int, typer.Option(help="how many")] = 3,
    width: Annotated[int, typer.Option(help="divisor of the network's width")] = 8,
    start_epochs: Annotated[int, typer.Option(help="float epochs that all start from")] = 15,
    epochs: Annotated[int, typer.Option(help="epochs of every method after these")] = 12,
    batch_size: int = 128,
    start_learning_rate: float = 2e-3,
    learning_rate: float = 1e-3,
    share: Annotated[float, typer.Option(help="of the examples of each class")] = 1.0,
    threads: Annotated[int, typer.Option(help="of PyTorch")] = 1,
    download: bool = False,
    out: Out = _OUT,
) -> None:
    """Train and deploy; what the store holds already is not done again."""
    torch.set_num_threads(threads)
    splits = load(study, data, download=download).limited(share)
    comparison = Comparison(
        STUDIES[study],
        splits,
        f"{data.stem if data.suffix else study}, {len(splits.train):,} + {len(splits.test):,} examples",
        width,
        Recipe(start_epochs, batch_size, start_learning_rate),
        Recipe(epochs, batch_size, learning_rate),
        Store(out / "results.sqlite"),
    )
    chosen = [METHODS[name]() for name in methods.split(",") if name]
    wanted = [PRECISIONS[name] for name in precisions.split(",")]
    trials = [(w, method) for w in wanted for method in chosen if w.feature or method.replaces_activations]
    with _progress() as progress:
        task = progress.add_task("trials", total=seeds * (1 + len(trials)), facts="")
        for seed in range(seeds):
            show = _shower(progress, task, f"float, seed {seed}")
            net = comparison.run_float(seed, show)
            progress.advance(task)
            for widths, method in trials:
                show = _shower(progress, task, f"{method.name} {widths.name}, seed {seed}")
                comparison.run(method, widths, seed, net, show)
                progress.advance(task)
    report(out)


def report(out: Out = _OUT) -> None:
    """Print what the store holds, as a table in Markdown for each data set."""
    for lines in table(Store(out / "results.sqlite")):
        print("\n".join(lines), end="\n\n")


def _shower(progress: Progress, task: TaskID, name: str) -> Callable[[Epoch], None]:
    def show(epoch: Epoch) -> None:
        facts = f"{name}: epoch {epoch.number + 1}, loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.1%}"
        progress.update(task, facts=facts)

    return show


def _progress() -> Progress:
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


app = typer.Typer(help=__doc__, no_args_is_help=True)
app.command()(run)
app.command()(report)

if __name__ == "__main__":
    sys.exit(app())

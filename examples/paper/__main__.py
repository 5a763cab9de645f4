"""The three studies of the ANA paper: run the design, draw the figures, print the ranking.

python -m examples.paper run cifar10 --data data --scale width=8,epochs=0.04
python -m examples.paper figures
python -m examples.paper ranking
python -m examples.paper export results.jsonl
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from examples.paper.cost import seconds_of
from examples.paper.data import load
from examples.paper.engines import Engine, Here, OnCores, Place
from examples.paper.exported import read_lines, write_lines
from examples.paper.figures import FIGURES, draw
from examples.paper.ranking import rankings
from examples.paper.store import Finished, Store
from examples.paper.studies import STUDIES, Scale
from examples.paper.training import Epoch
from examples.paper.trials import DEGREES, Trial, grid

Out = Annotated[Path, typer.Option(help="folder of the results store")]
Results = Annotated[
    Path | None, typer.Option(help="a store, .sqlite, or lines of JSON, .jsonl; if not said, the store of --out")
]
_OUT = Path("runs/paper")


def run(
    study: Annotated[str, typer.Argument(help=", ".join(STUDIES))],
    data: Annotated[Path, typer.Option(help="folder of the data set, or a .npz archive")] = Path("data"),
    scale: Annotated[str, typer.Option(help="full, or such as width=8,epochs=0.04,data=0.5")] = "full",
    folds: Annotated[int, typer.Option(help="of the cross-validation; 0 measures on the test set")] = 5,
    seeds: Annotated[int, typer.Option(help="how many")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="such as strategy=mode,random; may be repeated")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    workers: Annotated[int, typer.Option(help="trials at a time on this machine")] = 1,
    nproc: Annotated[int, typer.Option(help="processes of each trial, started by torchrun")] = 1,
    threads: Annotated[int, typer.Option(help="of each process")] = 1,
    ray: Annotated[bool, typer.Option(help="run through Ray Tune; needs the extra ray")] = False,
    ray_address: Annotated[str | None, typer.Option(help="of a cluster; implies --ray")] = None,
    download: Annotated[bool, typer.Option(help="fetch the data set first")] = False,
    out: Out = _OUT,
) -> None:
    """Run what is not in the store yet; started again after any end, it goes on."""
    if study not in STUDIES:
        raise typer.BadParameter(f"unknown study {study!r}; studies are {', '.join(STUDIES)}")
    load(study, data, download=download)  # refused here, not in a worker
    place = Place(data, out / "checkpoints", device, nproc, threads)
    engine: Engine = Here(place)
    if ray or ray_address:
        from examples.paper.on_ray import OnRay

        engine = OnRay(place, ray_address, None if workers == 1 else workers * nproc * threads)
    elif workers > 1:
        engine = OnCores(place, workers)
    name = data.stem if data.suffix else study
    trials = list(grid(STUDIES[study], _scale(scale), name, num_folds=folds, seeds=seeds, only=_confined(only or ())))
    run_missing(trials, engine, Store(out / "results.sqlite"), place.checkpoints)


def run_missing(trials: list[Trial], engine: Engine, store: Store, checkpoints: Path) -> None:
    """Run the trials that the store does not hold, and put each into it as soon as it is finished."""
    missing = [trial for trial in trials if trial.settings not in store]
    with _Display(len(trials), len(trials) - len(missing)) as display:
        for trial, epochs in engine.run(missing, display.show):
            store.add(trial.settings, {"accuracy": epochs[-1].accuracy}, epochs)
            trial.checkpoint_in(checkpoints).unlink(missing_ok=True)
            display.finish(trial)


def cost(
    study: Annotated[str, typer.Argument(help=", ".join(STUDIES))],
    data: Annotated[Path, typer.Option(help="folder of the data set, or a .npz archive")] = Path("data"),
    scale: Annotated[str, typer.Option(help="as of run")] = "full",
    folds: Annotated[int, typer.Option(help="as of run")] = 5,
    seeds: Annotated[int, typer.Option(help="as of run")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    steps: Annotated[int, typer.Option(help="that are timed, of a network all of whose layers learn")] = 20,
) -> None:
    """Say how long the whole grid of a study would take on this device, from the time of a few steps."""
    name = data.stem if data.suffix else study
    trials = list(grid(STUDIES[study], _scale(scale), name, num_folds=folds, seeds=seeds, only={}))
    static = next(trial for trial in trials if dict(trial.schedule).get("variance") == "static")
    seconds = seconds_of(static, data, device=device, steps=steps)
    print(
        f"{study}, {static.scale.describe(STUDIES[study].recipe)}: {_duration(seconds)} a trial, {len(trials):,} "
        f"trials, {_duration(seconds * len(trials))} at most on one {device} device; trials that freeze layers "
        f"take less"
    )


def figures(
    numbers: Annotated[list[int] | None, typer.Argument(help="which, 1 to 7; all if none is named")] = None,
    results: Results = None,
    out: Annotated[Path, typer.Option(help="folder of the pictures, and of the store if no results are named")] = _OUT,
) -> None:
    """Draw the figures of the paper from what is stored."""
    unknown = set(numbers or ()) - {figure.number for figure in FIGURES}
    if unknown:
        raise typer.BadParameter(f"the paper has figures 1 to {len(FIGURES)}, got {sorted(unknown)}")
    trials = _finished(results, out)
    for figure in FIGURES:
        if not numbers or figure.number in numbers:
            paths = draw(figure, trials, out)
            found = ", ".join(map(str, paths)) or f"nothing of {figure.study} is stored that it shows"
            print(f"figure {figure.number}: {found}")


def ranking(results: Results = None, out: Out = _OUT) -> None:
    """Print the configurations of each study from the best to the worst."""
    for lines in rankings(_finished(results, out)):
        print("\n".join(lines), end="\n\n")


def export(path: Annotated[Path, typer.Argument(help="file of lines to write")], out: Out = _OUT) -> None:
    """Write what is in the store as lines of JSON, which `figures` and `ranking` read too."""
    trials = Store(out / "results.sqlite").finished()
    write_lines(trials, path)
    print(f"{path}: {len(trials):,} trials, {path.stat().st_size / 1000:.0f} kB")


def _finished(results: Path | None, out: Path) -> list[Finished]:
    path = results or out / "results.sqlite"
    if not path.exists():
        raise typer.BadParameter(f"found no results in {path}; run a study first, or say --results")
    return read_lines(path) if path.suffix == ".jsonl" else Store(path).finished()


def _duration(seconds: float) -> str:
    """In the unit that leaves a number which can be read."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _scale(text: str) -> Scale:
    try:
        return Scale.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _confined(only: Any) -> dict[str, tuple[str, ...]]:
    confined = {}
    for each in only:
        name, _, values = each.partition("=")
        if name not in DEGREES or not values:
            raise typer.BadParameter(f"needed such as strategy=mode,random with one of {', '.join(DEGREES)}: {each!r}")
        confined[name] = tuple(values.split(","))
    return confined


class _Display:
    """A bar for the grid, and a line for each trial that is being run."""

    def __init__(self, total: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
        self._progress = Progress(
            *columns, TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), console=Console(stderr=True)
        )
        self._grid = self._progress.add_task("trials", total=total, completed=done, facts="")
        self._running: dict[Trial, TaskID] = {}

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, trial: Trial, epoch: Epoch) -> None:
        """What an epoch gave."""
        if trial not in self._running:
            total = trial.scale.recipe(STUDIES[trial.study].recipe).epochs
            self._running[trial] = self._progress.add_task(trial.label, total=total, facts="")
        facts = f"loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.1%}"
        self._progress.update(self._running[trial], completed=epoch.number + 1, facts=facts)

    def finish(self, trial: Trial) -> None:
        """Take its line away."""
        if trial in self._running:
            self._progress.remove_task(self._running.pop(trial))
        self._progress.advance(self._grid)


app = typer.Typer(help=__doc__, no_args_is_help=True)
app.command()(run)
app.command()(cost)
app.command()(figures)
app.command()(ranking)
app.command()(export)

if __name__ == "__main__":
    sys.exit(app())

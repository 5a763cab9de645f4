"""`python -m tests.fuzz`: random models, lossless or refused; crashes and mismatches go into the corpus."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz.campaign import Summary, run_campaign, run_seed
from tests.fuzz.corpus import CORPUS
from tests.fuzz.grammar import draw_case

app = typer.Typer(add_completion=False)


@app.command()
def main(
    seconds: Annotated[float, typer.Option(help="How long cases are started.")] = 600.0,
    graphs: Annotated[int | None, typer.Option(help="How many, instead of how long.")] = None,
    first: Annotated[int | None, typer.Option(help="The first seed; by default another one each time.")] = None,
    processes: Annotated[int, typer.Option(help="At once.")] = os.cpu_count() or 1,
    corpus: Annotated[Path, typer.Option(help="Where failures are written.")] = CORPUS,
    summary: Annotated[Path, typer.Option(help="The JSON file of counts and findings.")] = Path("runs/fuzz.json"),
    show: Annotated[int | None, typer.Option(help="Print the case of this seed and what becomes of it.")] = None,
) -> None:
    """Run random models through every form; exit with 1 if one crashes or differs."""
    console = Console()
    if show is not None:
        outcome = run_seed(show)
        console.print(draw_case(show).text(f"Seed {show}"), markup=False, highlight=False)
        console.print(f"{outcome.kind} {outcome.site}\n{outcome.message}", markup=False)
        raise typer.Exit(int(outcome.failed))
    start = int(time.time()) * 1000 if first is None else first
    console.print(f"cases from seed {start} on, in {processes} process(es)")
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=seconds if graphs is None else graphs)

        def update(found: Summary) -> None:
            done = found.seconds if graphs is None else found.num_graphs
            progress.update(task, completed=done, description=found.line())

        found = run_campaign(
            first_seed=start,
            corpus=corpus,
            seconds=seconds if graphs is None else None,
            most_graphs=graphs,
            num_processes=processes,
            show=update,
        )
    found.write(summary)
    for (kind, site), each in found.findings.items():
        note = "open, in the corpus" if each["is_open"] else each.get("file", "not shrunk")
        console.print(f"{kind} {len(each['seeds'])}× {site}, seed {each['seeds'][0]}: {note}", markup=False)
    console.print(f"{found.line()}; {summary}")
    raise typer.Exit(int(bool(found.findings)))


if __name__ == "__main__":
    app()

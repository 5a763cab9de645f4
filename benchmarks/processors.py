"""`python -m benchmarks.processors`: the same files on every processor, as a table in docs/processors.md.

A small zoo of networks is exported at four precisions to three targets, and run natively, under qemu's emulation of
x86 and Arm processors, and in WebAssembly. Where qemu or Node is missing, the table says what to install.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import track

from benchmarks.processor_cases import ALL, FEW, Case, write_cases
from benchmarks.processor_columns import COLUMNS, Column, Outcome, run_column
from benchmarks.processor_table import differences, report

__all__ = ["main"]

REPORT = Path("docs/processors.md")
CACHE = Path.home() / ".cache" / "ana_fx"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the zoo and write the report, or check it; the exit status."""
    known = {column.name: column for column in COLUMNS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processors", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="COLUMN", choices=known, help=f"some of {', '.join(known)}")
    parser.add_argument("--few", action="store_true", help="fewer networks, with kernels of every kind")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 unless every output is equal")
    parser.add_argument("--out", type=Path, help=f"the report (default: {REPORT}, if nothing is left out)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for foreign programs (default: %(default)s)")
    options = parser.parse_args(arguments)
    cases = FEW if options.few else ALL
    outcomes = _run(cases, [known[name] for name in options.only or known], options.cache)
    if options.check:
        return _check(outcomes)
    out = options.out or (None if options.only or options.few else REPORT)
    _write(report(cases, outcomes), out)
    return 0


def _run(cases: Sequence[Case], columns: Sequence[Column], cache: Path) -> list[Outcome]:
    console = Console(stderr=True)
    with TemporaryDirectory() as folder:
        for _ in track(write_cases(cases, Path(folder)), "exporting", total=len(cases), console=console):
            pass
        return [
            run_column(column, Path(folder), cache.resolve()) for column in track(columns, "running", console=console)
        ]


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text)
        return
    out.parent.mkdir(exist_ok=True)
    out.write_text(text)
    print(f"{out} is written")


def _check(outcomes: Sequence[Outcome]) -> int:
    for line in differences(outcomes):
        print(line)
    for outcome in outcomes:
        if outcome.is_clean:
            print(f"{outcome.column.name}: 0 outputs differ in {len(outcome.cases)} files ({outcome.runtime})")
    return 0 if all(outcome.is_clean for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

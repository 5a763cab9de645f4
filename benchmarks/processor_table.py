"""What `benchmarks.processors` found, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.processor_cases import Case
from benchmarks.processor_columns import Outcome

__all__ = ["differences", "report"]


def report(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> str:
    """The page: the processors, what differs on each, and why what is missing was not run."""
    lines = [
        "# The same integers on every processor",
        "",
        f"Written by `make processors` (`python -m benchmarks.processors`), with torch {version('torch')} and onnx",
        f"{version('onnx')}. Each network, with random weights, is prepared for the target, calibrated, converted and",
        "exported with integers at its borders. The file then runs on some samples: one of the highest levels alone,",
        "one of the lowest, some of both at random, and random ones. A cell is how many of its outputs differ from",
        "those of the program that was validated, which torch computes in integers.",
        "",
        "The emulators are Debian's package `qemu-user`, WebAssembly needs Node.js with npm; where one is missing, the",
        "table says so. Columns of x86 run the Python at hand, those of Arm one of Debian, which apt-get and pip fetch",
        "into `~/.cache/ana_fx`; nothing is installed. qemu cannot emulate AVX-512.",
        "",
        "## Processors",
        "",
        "| column | how | kernels | runtime | outputs that differ |",
        "|---|---|---|---|--:|",
        *(_processor(outcome) for outcome in outcomes),
        "",
        "## Differing outputs",
        "",
        f"| network | precision | target | outputs | {' | '.join(outcome.column.name for outcome in outcomes)} |",
        f"|---|---|---|--:|{'--:|' * len(outcomes)}",
        *(_row(case, outcomes) for case in cases),
    ]
    refused = differences(outcome for outcome in outcomes if any("error" in each for each in outcome.cases.values()))
    if refused:
        lines += ["", "## Refused", "", *(f"- {line}" for line in refused if " refused: " in line)]
    return "\n".join(lines) + "\n"


def differences(outcomes: Iterable[Outcome]) -> list[str]:
    """A line for each column that was not run, and for each of its files that was refused or that differs."""
    lines = []
    for outcome in outcomes:
        name = outcome.column.name
        if outcome.reason:
            lines.append(f"{name}: not run: {outcome.reason}")
        for case, found in outcome.cases.items():
            if "error" in found:
                lines.append(f"{name}: {case}: refused: {found['error']}")
            elif found["different"]:
                lines.append(f"{name}: {case}: {found['different']} of {found['compared']} outputs differ")
    return lines


def _processor(outcome: Outcome) -> str:
    column = outcome.column
    runtime, total = f"not run: {outcome.reason}", ""
    if not outcome.reason:
        counts = [case for case in outcome.cases.values() if "different" in case]
        different, compared = (sum(case[key] for case in counts) for key in ("different", "compared"))
        runtime, total = outcome.runtime, f"{different:,} of {compared:,}"
    return f"| {column.name} | {column.how} | {column.kernels} | {runtime} | {total} |"


def _row(case: Case, outcomes: Sequence[Outcome]) -> str:
    found = [outcome.cases.get(case.name, {}) for outcome in outcomes]
    compared = next((str(each["compared"]) for each in found if "compared" in each), "")
    cells = [_cell(each) for each in found]
    return f"| {' | '.join([case.title, case.precision, case.target, compared, *cells])} |"


def _cell(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return "refused"
    if "different" not in found:
        return "–"
    return f"**{found['different']}**" if found["different"] else "0"

"""A campaign: cases of consecutive seeds in processes of their own, until time or number is spent."""

from __future__ import annotations

import json
import multiprocessing as mp
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.fuzz.case import load_text
from tests.fuzz.corpus import open_sites, write_case
from tests.fuzz.float_model import UnsoundError
from tests.fuzz.grammar import draw_case
from tests.fuzz.outcome import CRASH, LOSSLESS, MISMATCH, REFUSED, Outcome
from tests.fuzz.run_one import run_one
from tests.fuzz.shrink import shrink

__all__ = ["Summary", "Worker", "run_campaign", "run_seed"]

SECONDS_A_CASE = 60
SECONDS_TO_SHRINK = 300
_UNSOUND = "unsound"


@dataclass
class Summary:
    """What a campaign found.

    Args:
        first_seed: Of its cases; the others follow.
        counts: How many cases ended in which way; unsound ones, whose float model does not run, do not count.
        findings: For each crash and mismatch, by kind and site: the seeds, an error's text, the file in the corpus,
            and whether the corpus knows it as open.
        refusals: How often which error was raised.
        seconds: That it took.
    """

    first_seed: int
    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def num_graphs(self) -> int:
        """How many were tried."""
        return sum(number for kind, number in self.counts.items() if kind != _UNSOUND)

    @property
    def new(self) -> list[dict[str, Any]]:
        """The findings that the corpus does not know as open."""
        return [each for each in self.findings.values() if not each["is_open"]]

    def line(self) -> str:
        """All of it in a line."""
        c = self.counts
        return (
            f"{self.num_graphs:,} graphs: {c[LOSSLESS]:,} lossless, {c[REFUSED]:,} refused, {c[CRASH]} crashes, "
            f"{c[MISMATCH]} mismatches ({len(self.findings)} findings, {len(self.new)} new)"
        )

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        findings = [{"kind": kind, "site": site, **found} for (kind, site), found in self.findings.items()]
        kept = {"graphs": self.num_graphs, "seconds": round(self.seconds, 1), "first_seed": self.first_seed}
        kept |= {"counts": dict(self.counts), "findings": findings, "refusals": dict(self.refusals.most_common())}
        path.write_text(json.dumps(kept, indent=1))


class Worker:
    """A process that runs one case at a time."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.task: tuple[str, int] | None = None
        self.deadline = 0.0

    def give(self, task: str, seed: int, corpus: Path) -> None:
        """Start a task."""
        self.task = (task, seed)
        self.deadline = time.monotonic() + (SECONDS_A_CASE if task == "run" else SECONDS_TO_SHRINK)
        self.pipe.send((task, seed, corpus))

    def result(self) -> Any:
        """What it found; an Outcome if it died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Outcome(CRASH, f"the process died with exit code {self.process.exitcode}")

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def _work(pipe: Connection) -> None:
    while True:
        try:
            task, seed, corpus = pipe.recv()
        except EOFError:
            return
        pipe.send(run_seed(seed) if task == "run" else _shrink_seed(seed, corpus))


def run_seed(seed: int) -> Outcome:
    """What becomes of the case of a seed."""
    try:
        return run_one(load_text(draw_case(seed)))
    except UnsoundError as error:
        return Outcome(_UNSOUND, message=str(error))


def _shrink_seed(seed: int, corpus: Path) -> Path:
    case = draw_case(seed)
    outcome = run_one(load_text(case))
    return write_case(shrink(case, outcome), outcome, corpus)


def run_campaign(
    *,
    first_seed: int,
    corpus: Path,
    seconds: float | None = None,
    most_graphs: int | None = None,
    num_processes: int = 1,
    found_in: Path | None = None,
    show: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Run cases until time or number is spent; each new failure is shrunk and written.

    Args:
        first_seed: The others follow.
        corpus: The folder of what is known.
        seconds: After which no case is started.
        most_graphs: After which none is.
        num_processes: That run at once.
        found_in: The folder that new failures are written into; by default the corpus.
        show: Called after each case.
    """
    summary, known, folder = Summary(first_seed), open_sites(corpus), found_in or corpus
    start, seed, to_shrink = time.monotonic(), first_seed, []
    workers = [Worker() for _ in range(num_processes)]
    try:
        while True:
            is_over = seconds is not None and time.monotonic() - start > seconds
            is_over |= most_graphs is not None and seed - first_seed >= most_graphs
            for worker in workers:
                if worker.task is None and to_shrink:
                    worker.give("shrink", to_shrink.pop(), folder)
                elif worker.task is None and not is_over:
                    worker.give("run", seed, folder)
                    seed += 1
            busy = [worker for worker in workers if worker.task is not None]
            if not busy:
                break
            ready = set(wait([worker.pipe for worker in busy], timeout=1.0))
            for index, worker in enumerate(workers):
                if worker.task is None:
                    continue
                if worker.pipe in ready:
                    result = worker.result()
                elif time.monotonic() > worker.deadline:
                    result = Outcome(CRASH, f"ran longer than {SECONDS_A_CASE} s")
                else:
                    continue
                task, own = worker.task
                worker.task = None
                if not worker.process.is_alive() or worker.pipe not in ready:
                    worker.end()
                    workers[index] = Worker()
                if task == "shrink":
                    _note_file(summary, own, result)
                elif _note(summary, own, result, known):
                    to_shrink.append(own)
                summary.seconds = time.monotonic() - start
                show(summary)
    finally:
        for worker in workers:
            worker.end()
    return summary


def _note(summary: Summary, seed: int, outcome: Outcome, known: set[tuple[str, str]]) -> bool:
    """Count an outcome; whether it is a failure that was never seen."""
    summary.counts[outcome.kind] += 1
    if outcome.kind == REFUSED:
        summary.refusals[outcome.same[1]] += 1
    if not outcome.failed:
        return False
    is_first = outcome.same not in summary.findings
    new = {"site": outcome.site, "message": outcome.message, "seeds": [], "is_open": outcome.same in known}
    summary.findings.setdefault(outcome.same, new)["seeds"].append(seed)
    return is_first and outcome.same not in known and "process" not in outcome.site


def _note_file(summary: Summary, seed: int, written: Path | Outcome) -> None:
    for found in summary.findings.values():
        if found["seeds"][0] == seed and isinstance(written, Path):
            found["file"] = str(written)

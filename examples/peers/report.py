"""The comparison as tables in Markdown: means over seeds with their spread, in training form and as deployed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from examples.paper.store import Finished, Store

__all__ = ["table"]


def table(store: Store) -> Iterator[list[str]]:
    """The lines of a table for each combination of network, data and recipes."""
    groups: dict[str, list[Finished]] = defaultdict(list)
    for trial in store.finished():
        groups[_title(trial.settings)].append(trial)
    for title, trials in groups.items():
        yield [title, "", *_rows(trials)]


def _title(settings: Any) -> str:
    start, recipe = settings["start"], settings["recipe"]
    return (
        f"{settings['study']}, {settings['data']}, width 1/{settings['width']}; {start['epochs']} float epochs (Adam, "
        f"{start['learning_rate']:g}), then {recipe['epochs']} (Adam, {recipe['learning_rate']:g}), batches of "
        f"{recipe['batch_size']}, the learning rate a tenth after {recipe['drop']:.0%}:"
    )


def _rows(trials: list[Finished]) -> Iterator[str]:
    floats = {t.settings["seed"]: t.result["trained"] for t in trials if t.settings["method"] == "float"}
    cells: dict[tuple[str, str], list[Finished]] = defaultdict(list)
    for trial in trials:
        cells[trial.settings["precision"], trial.settings["method"]].append(trial)
    yield "| precision | method | seeds | last epoch | validated | float less it | deployed | changed predictions |"
    yield "|---|---|---|---|---|---|---|---|"
    for (precision, method), found in cells.items():
        accuracies = [trial.result["trained"] for trial in found]
        loss = [floats[t.settings["seed"]] - t.result["trained"] for t in found if t.settings["seed"] in floats]
        last = [trial.epochs[-1].accuracy for trial in found]
        first = f"| {precision} | {method} | {len(found)} | {_spread(last)} | {_spread(accuracies)} "
        yield f"{first}| {_spread(loss) if loss else '–'} | {_deployed(found)} | {_changed(found)} |"


def _deployed(found: list[Finished]) -> str:
    accuracies = [trial.result["deployed"] for trial in found if "deployed" in trial.result]
    if accuracies:
        return _spread(accuracies)
    return "refused" if any("refusal" in trial.result for trial in found) else "–"


def _changed(found: list[Finished]) -> str:
    counted = [trial.result for trial in found if "changed" in trial.result]
    if not counted:
        return "–"
    changed, examples = sum(each["changed"] for each in counted), sum(each["examples"] for each in counted)
    return f"{changed} of {examples:,}" + (f" ({changed / examples:.2%})" if changed else "")


def _spread(shares: list[float]) -> str:
    """Mean and standard deviation in percent."""
    spread = f" ± {100 * stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * mean(shares):.1f}{spread}"

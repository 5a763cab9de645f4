"""The configurations of a study from the best to the worst."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from examples.paper.store import Finished
from examples.paper.studies import STUDIES, Scale
from examples.paper.trials import label_of

__all__ = ["rankings"]


def rankings(trials: Sequence[Finished]) -> Iterator[list[str]]:
    """The lines of a table in Markdown for each study, scale and data set: mean accuracy of the last epoch."""
    groups: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        study, settings = STUDIES[trial.settings["study"]], trial.settings
        title = f"{study.title}; {settings['data']}; {Scale(**settings['scale']).describe(study.recipe)}:"
        measured = "test set" if settings["fold"] is None else f"{settings['num_folds']}-fold cross-validation"
        groups[title, measured][label_of(settings["schedule"])].append(trial.epochs[-1].accuracy)
    for (title, measured), configurations in groups.items():
        yield [title, "", *_rows(configurations, measured)]


def _rows(configurations: dict[str, list[float]], measured: str) -> Iterator[str]:
    yield f"| rank | configuration | runs | accuracy, {measured} |"
    yield "|---|---|---|---|"
    ranked = sorted(configurations.items(), key=lambda item: -mean(item[1]))
    for rank, (label, accuracies) in enumerate(ranked, start=1):
        spread = f" ± {100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        yield f"| {rank} | {label} | {len(accuracies)} | {100 * mean(accuracies):.2f}{spread} |"

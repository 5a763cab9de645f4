"""What became of a case, and where."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

import ana_fx

__all__ = ["CRASH", "LOSSLESS", "MISMATCH", "REFUSED", "DifferenceError", "Outcome", "outcome_of"]

LOSSLESS, REFUSED, CRASH, MISMATCH = "lossless", "refused", "crash", "mismatch"
MAY_REFUSE = ("prepare", "train", "convert", "export")  # what was converted and written has to run
_OURS = tuple(Path(ana_fx.__file__).parent.parent / folder for folder in ("ana_fx", "passes", "targets"))
_WAYS_OUT = re.compile(r"needed|way out|write |give |use |prepare |unknown", re.IGNORECASE)


class DifferenceError(Exception):
    """Two forms of a model gave different numbers."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        kind: lossless, refused, crash or mismatch.
        site: Which error, and the innermost place of our code that raised it; with `kind` it tells one finding from
            another.
        message: The error's text.
    """

    kind: str
    site: str = ""
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether somebody has to mend something."""
        return self.kind in (CRASH, MISMATCH)

    @property
    def same(self) -> tuple[str, str]:
        """Equal for the same finding."""
        return self.kind, re.sub(r":\d+", "", self.site)


def outcome_of(error: Exception, stage: str) -> Outcome:
    """Refused in a way that a user can act on, or not."""
    site, message = f"{stage}: {type(error).__name__} at {_site(error)}", str(error)
    if isinstance(error, ana_fx.VerifyError) and "does not run in" in message:
        return Outcome(CRASH, site, message)
    if isinstance(error, (ana_fx.MismatchError, ana_fx.VerifyError, DifferenceError)):
        return Outcome(MISMATCH, site, message)
    if stage not in MAY_REFUSE:
        return Outcome(CRASH, site, message)
    is_ours = isinstance(error, ana_fx.AnaFxError) or (type(error) is ValueError and _raised_by_us(error))
    if is_ours and "bug of ana_fx" not in message and _WAYS_OUT.search(message):
        return Outcome(REFUSED, site, message)
    return Outcome(CRASH, site, message)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return any(Path(frame.filename).is_relative_to(folder) for folder in _OURS)


def _raised_by_us(error: BaseException) -> bool:
    frames = _frames(error)
    return bool(frames) and _is_ours(frames[-1])


def _site(error: BaseException) -> str:
    """The innermost frame of ours."""
    for frame in reversed(_frames(error)):
        if _is_ours(frame):
            return f"{Path(frame.filename).relative_to(_OURS[0].parent)}:{frame.lineno} {frame.name}"
    return "no line of ours"

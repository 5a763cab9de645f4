"""Everything that ana_fx raises about a user's model, data or files.

AnaFxError
├── TraceError            the model cannot be traced to a graph
├── UnsupportedError      the graph holds something that no pass knows
├── PrecisionError        a width that the target cannot hold
├── ScheduleError         a schedule that does not fit the graph
├── CalibrationError      a scale is missing, or the data given for it is unfit
├── SettingsError         a state was trained with other settings than the model has
├── ConvertError          the trained model cannot be lowered
│   ├── NotAnnealedError  its noise is not gone yet
│   ├── AccumulatorError  a sum does not fit the accumulator
│   ├── ProofError        an encoding is not equal to the trained staircase
│   └── MismatchError     two forms of the model differ on an input
└── ExportError           a file cannot be written
    └── VerifyError       a file computes something else
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AccumulatorError",
    "AnaFxError",
    "CalibrationError",
    "ConvertError",
    "ExportError",
    "MismatchError",
    "NotAnnealedError",
    "PrecisionError",
    "ProofError",
    "ScheduleError",
    "SettingsError",
    "TraceError",
    "UnsupportedError",
    "VerifyError",
    "listing",
]


class AnaFxError(Exception):
    """Base of all errors that ana_fx raises about a model, its data or its files."""


class TraceError(AnaFxError):
    """The model cannot be traced to a graph."""


class UnsupportedError(AnaFxError):
    """The graph holds operations that cannot be quantised; all of them are listed."""


class PrecisionError(AnaFxError):
    """A layer asks for a width that the target cannot hold."""


class ScheduleError(AnaFxError):
    """A schedule breaks the order of the graph without saying so, or names layer maps that are not there."""


class CalibrationError(AnaFxError):
    """A scale is unknown, or the data that should give it is unfit."""


class SettingsError(AnaFxError):
    """A state was trained with other settings than the model it is loaded into was prepared with."""


class ConvertError(AnaFxError):
    """The trained model cannot be lowered to integers."""


class NotAnnealedError(ConvertError):
    """The model still computes with noise, so its integer form would be another function."""


class AccumulatorError(ConvertError):
    """A sum of products can leave the accumulator."""


class ProofError(ConvertError):
    """No encoding of a requantizer equals the trained staircase."""


class MismatchError(ConvertError):
    """The trained model and the integer program differ on an input."""


class ExportError(AnaFxError):
    """A program cannot be written for a target."""


class VerifyError(ExportError):
    """A file computes something else than the program it was written from."""


def listing(heading: str, lines: Sequence[str], way_out: str) -> str:
    """One message for many findings: heading, a line for each, and the way out."""
    return "\n".join([heading, *(f"  {line}" for line in lines), f"Way out: {way_out}"])

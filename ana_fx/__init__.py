"""Train networks to 2–8 bits with additive noise annealing, and ship the integers that were validated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ana_fx.annealer import Annealer, annealing_ranges
from ana_fx.describe import Summary, describe
from ana_fx.distiller import Distiller
from ana_fx.errors import (
    AccumulatorError,
    AnaFxError,
    CalibrationError,
    ConvertError,
    ExportError,
    MismatchError,
    NotAnnealedError,
    PrecisionError,
    ProofError,
    ScheduleError,
    SettingsError,
    TraceError,
    UnsupportedError,
    VerifyError,
)
from ana_fx.image_input import ImageInput
from ana_fx.noise import NoiseType
from ana_fx.numbers import IntegerType
from ana_fx.precision import Precision
from ana_fx.presets import preset
from ana_fx.quantizers import Rounding
from ana_fx.reestimate import reestimate_batch_norms
from ana_fx.schedule import AnnealingRange, Interval, LayerSchedule, Power, Rule, Schedule, Strategy
from ana_fx.settings import Settings, settings_of
from ana_fx.stages import Stage
from ana_fx.target import Requantizer, Target

if TYPE_CHECKING:
    __version__: str
    from ana_fx.convergence import Convergence, compositional_convergence
    from ana_fx.design_grid import all_schedules, reduced_schedules
    from ana_fx.passes.convert import convert
    from ana_fx.passes.prepare import prepare
    from ana_fx.passes.supported_operators import Operators, supported_operators
    from ana_fx.plots import plot_convergence, plot_quantizer, plot_schedule
    from ana_fx.target_list import targets
    from ana_fx.targets.export import ExportReport, export
    from ana_fx.targets.inspect import FileReport, inspect
    from ana_fx.targets.verify import VerifyReport, verify
    from ana_fx.theory import HypothesisReport, check_hypotheses

__all__ = [
    # the path from a float model to a file
    "prepare",
    "Annealer",
    "Distiller",
    "reestimate_batch_norms",
    "convert",
    "export",
    "verify",
    # looking
    "annealing_ranges",
    "describe",
    "inspect",
    "supported_operators",
    "targets",
    "AnnealingRange",
    "ExportReport",
    "FileReport",
    "Operators",
    "Stage",
    "Summary",
    "VerifyReport",
    "plot_convergence",
    "plot_quantizer",
    "plot_schedule",
    # the theory and the experiments of the paper
    "all_schedules",
    "check_hypotheses",
    "compositional_convergence",
    "reduced_schedules",
    "Convergence",
    "HypothesisReport",
    # settings
    "ImageInput",
    "IntegerType",
    "Interval",
    "LayerSchedule",
    "NoiseType",
    "Power",
    "Precision",
    "Rounding",
    "Requantizer",
    "Rule",
    "Schedule",
    "Settings",
    "Strategy",
    "Target",
    "preset",
    "settings_of",
    # errors
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
]

_LAZY = {
    "prepare": "ana_fx.passes.prepare",
    "convert": "ana_fx.passes.convert",
    "supported_operators": "ana_fx.passes.supported_operators",
    "Operators": "ana_fx.passes.supported_operators",
    "export": "ana_fx.targets.export",
    "ExportReport": "ana_fx.targets.export",
    "inspect": "ana_fx.targets.inspect",
    "FileReport": "ana_fx.targets.inspect",
    "verify": "ana_fx.targets.verify",
    "VerifyReport": "ana_fx.targets.verify",
    "plot_convergence": "ana_fx.plots",
    "plot_quantizer": "ana_fx.plots",
    "plot_schedule": "ana_fx.plots",
    "all_schedules": "ana_fx.design_grid",
    "reduced_schedules": "ana_fx.design_grid",
    "check_hypotheses": "ana_fx.theory",
    "HypothesisReport": "ana_fx.theory",
    "compositional_convergence": "ana_fx.convergence",
    "Convergence": "ana_fx.convergence",
}


def __getattr__(name: str) -> Any:
    if name == "targets":
        return import_module("ana_fx.targets")  # a package that can be called
    if name == "__version__":
        return import_module("ana_fx.version").installed_version()
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""Train networks to 2–8 bits with additive noise annealing, and ship the integers that were validated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from warnings import warn

from ana_fx.annealing.annealer import Annealer, annealing_ranges
from ana_fx.annealing.stages import Stage
from ana_fx.describe import Summary, describe
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
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.precision.rounding import Rounding
from ana_fx.prepared.settings import Settings, settings_of
from ana_fx.schedule.degrees import DecayInterval, DecayPower, NoiseRule, Strategy
from ana_fx.schedule.noise import Noise, NoiseType
from ana_fx.schedule.presets import preset
from ana_fx.schedule.schedule import AnnealingRange, LayerSchedule, Schedule
from ana_fx.target import Requantizer, Target
from ana_fx.training.distiller import Distiller
from ana_fx.training.reestimate import reestimate_batch_norms

if TYPE_CHECKING:
    __version__: str
    from ana_fx.analysis.latency_table import LatencyTable
    from ana_fx.analysis.layer_errors import LayerErrors
    from ana_fx.analysis.search_widths import search_widths
    from ana_fx.analysis.sensitivities import Sensitivities
    from ana_fx.passes.convert import convert
    from ana_fx.passes.post_training.compare_layers import compare_layers
    from ana_fx.passes.post_training.equalize import equalize
    from ana_fx.passes.post_training.reconstruct import reconstruct
    from ana_fx.passes.post_training.sensitivity import sensitivity
    from ana_fx.passes.prepare import prepare
    from ana_fx.passes.supported_operators import Operators, supported_operators
    from ana_fx.study.convergence import Convergence, compositional_convergence
    from ana_fx.study.design_grid import all_schedules, reduced_schedules
    from ana_fx.study.plots import plot_convergence, plot_quantizer, plot_schedule
    from ana_fx.study.theory import HypothesisReport, check_hypotheses
    from ana_fx.target_registry import targets
    from ana_fx.targets.export import ExportReport, export
    from ana_fx.targets.files.program_file import load, save
    from ana_fx.targets.inspection import FileReport, inspect
    from ana_fx.targets.report_pages.program_report import ProgramReport, report
    from ana_fx.targets.verify import VerifyReport, verify

__all__ = [
    # the path from a float model to a file
    "prepare",
    "Annealer",
    "Distiller",
    "reestimate_batch_norms",
    "equalize",
    "reconstruct",
    "convert",
    "export",
    "verify",
    "save",
    "load",
    # looking
    "annealing_ranges",
    "compare_layers",
    "describe",
    "inspect",
    "report",
    "search_widths",
    "sensitivity",
    "supported_operators",
    "targets",
    "AnnealingRange",
    "ExportReport",
    "FileReport",
    "LatencyTable",
    "LayerErrors",
    "Operators",
    "ProgramReport",
    "Sensitivities",
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
    "DecayInterval",
    "DecayPower",
    "ImageInput",
    "IntegerType",
    "LayerSchedule",
    "Noise",
    "NoiseRule",
    "NoiseType",
    "Precision",
    "Rounding",
    "Requantizer",
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
    "compare_layers": "ana_fx.passes.post_training.compare_layers",
    "LatencyTable": "ana_fx.analysis.latency_table",
    "LayerErrors": "ana_fx.analysis.layer_errors",
    "equalize": "ana_fx.passes.post_training.equalize",
    "reconstruct": "ana_fx.passes.post_training.reconstruct",
    "search_widths": "ana_fx.analysis.search_widths",
    "sensitivity": "ana_fx.passes.post_training.sensitivity",
    "Sensitivities": "ana_fx.analysis.sensitivities",
    "prepare": "ana_fx.passes.prepare",
    "convert": "ana_fx.passes.convert",
    "supported_operators": "ana_fx.passes.supported_operators",
    "Operators": "ana_fx.passes.supported_operators",
    "export": "ana_fx.targets.export",
    "ExportReport": "ana_fx.targets.export",
    "inspect": "ana_fx.targets.inspection",
    "load": "ana_fx.targets.files.program_file",
    "save": "ana_fx.targets.files.program_file",
    "FileReport": "ana_fx.targets.inspection",
    "report": "ana_fx.targets.report_pages.program_report",
    "ProgramReport": "ana_fx.targets.report_pages.program_report",
    "verify": "ana_fx.targets.verify",
    "VerifyReport": "ana_fx.targets.verify",
    "plot_convergence": "ana_fx.study.plots",
    "plot_quantizer": "ana_fx.study.plots",
    "plot_schedule": "ana_fx.study.plots",
    "all_schedules": "ana_fx.study.design_grid",
    "reduced_schedules": "ana_fx.study.design_grid",
    "check_hypotheses": "ana_fx.study.theory",
    "HypothesisReport": "ana_fx.study.theory",
    "compositional_convergence": "ana_fx.study.convergence",
    "Convergence": "ana_fx.study.convergence",
}

_RENAMED = {"Interval": "DecayInterval", "Power": "DecayPower", "Rule": "NoiseRule"}


def __getattr__(name: str) -> Any:
    if name == "targets":
        return import_module("ana_fx.targets")  # a package that can be called
    if name == "__version__":
        return import_module("ana_fx.version").installed_version()
    if name in _RENAMED:
        new = _RENAMED[name]
        warn(f"ana_fx.{name} goes in the next version; write ana_fx.{new}", DeprecationWarning, stacklevel=2)
        return globals()[new]
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

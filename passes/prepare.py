"""`prepare`: from a float model to one that trains with noisy quantizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ana_fx.annealing.annealing_notes import start_record
from ana_fx.annealing.freezing import resume_phases
from ana_fx.graph import quantizers
from ana_fx.numerics.float32 import in_float32, usual_torch
from ana_fx.passes.base_pass import Pass, run_pipeline
from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.drop_identities import DropIdentities
from ana_fx.passes.checks.check_finite import CheckFinite
from ana_fx.passes.checks.check_float_maps import CheckFloatMaps
from ana_fx.passes.checks.check_precision import CheckPrecision
from ana_fx.passes.checks.check_target import CheckTarget
from ana_fx.passes.checks.check_trace import CheckTrace
from ana_fx.passes.frontend.trace_model import num_arguments, trace
from ana_fx.passes.fusion.calibrate import Calibrate, model_inputs
from ana_fx.passes.fusion.fold_image_normalization import FoldImageNormalization
from ana_fx.passes.fusion.fuse_layer_maps import FuseLayerMaps
from ana_fx.passes.fusion.insert_constants import InsertConstants
from ana_fx.passes.fusion.swap_pool_and_activation import SwapPoolAndActivation
from ana_fx.passes.quantization.assign_annealing_ranges import AssignAnnealingRanges
from ana_fx.passes.quantization.first_last_precision import FirstLastPrecision
from ana_fx.passes.quantization.insert_quantizers import InsertQuantizers
from ana_fx.passes.quantization.insert_requantizers import InsertRequantizers
from ana_fx.passes.quantization.keep_float import KeepFloat
from ana_fx.passes.quantization.quantize_weights import QuantizeWeights
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.prepared.model_config import keep_config
from ana_fx.prepared.parameter_bank import ParameterBank
from ana_fx.prepared.pickling import refuse_pickling
from ana_fx.prepared.recognize import float_model, unwrap
from ana_fx.prepared.settings import keep_settings
from ana_fx.prepared.state_names import names_of, refuse_float_state, remember_names
from ana_fx.schedule.own_schedule import ScheduleFunction
from ana_fx.schedule.presets import preset
from ana_fx.schedule.schedule import Schedule
from ana_fx.target import Target
from ana_fx.target_registry import target_called
from ana_fx.training.batches import Batches, tensors_of

__all__ = ["Wanted", "prepare", "training_pipeline"]


@usual_torch()
def prepare(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    precision: Precision | str = "int8",
    schedule: Schedule | ScheduleFunction | str = "lsq",
    target: str = "onnxruntime",
    calibration: Iterable[Any] | None = None,
    concrete_args: Mapping[str, Any] | None = None,
    leaf_modules: Iterable[type[nn.Module] | str] = (),
    wrapped_functions: Iterable[Callable[..., Any]] = (),
) -> GraphModule:
    """Make a quantisation-aware copy of a float model, ready to be trained.

    In training mode the copy computes with noisy quantizers; in eval mode it computes exactly what
    `convert` and `export` will ship. It learns as it is, in any training loop; if the schedule anneals, an `Annealer`
    takes the noise away.

    Args:
        model: The float model; it is not touched. Wrappers such as `DistributedDataParallel` or `torch.compile`
            are taken off the copy, and a note in its `meta["notes"]` says so.
        example_inputs: A tensor or a tuple of tensors with a leading batch axis. It tells the shape
            and the sign of the inputs, makes sizes known while tracing, and guards the trace.
        precision: A Precision or the name of a preset: "binary", "ternary", "all-ternary", "int2" … "int8".
        schedule: How the noise is annealed, a function of layer and time (see `Schedule`), or the name of a preset (see
            `ana_fx.preset`). "lsq" keeps the noise of the start and learns the steps: of what was measured it ends best
            (docs/accuracy.md). `Schedule()` anneals layer after layer, as the paper does.
        target: Where the model will run; it decides which staircases eval mode uses.
        calibration: Batches from which scales are taken. Without them batch norms tell theirs, and the first training
            batch sets the others.
        concrete_args: Values for arguments of `forward`, which then are no inputs of the copy.
        leaf_modules: Types, or patterns of paths such as "encoder.*", of modules that stay one node.
        wrapped_functions: Functions that stay one node.

    Returns:
        A GraphModule in the mode (train or eval) that `model` is in.

    Raises:
        TraceError: The model's control flow depends on data.
        UnsupportedError: It holds operations that cannot be quantised, or numbers that are not finite.
        PrecisionError: A width does not fit.
        ScheduleError: The schedule breaks the order of the graph without saying so, or overrides what is not there.
        CalibrationError: The example inputs or the calibration batches do not fit the model.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is unknown, or `model` was prepared already.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> qat = prepare(model, torch.rand(2, 1, 8, 8), precision="ternary")
        >>> qat(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    wanted = Wanted(_precision(precision), _schedule(schedule), target_called(target))
    notes: list[str] = []
    model, concrete_args = in_float32(float_model(model), notes), concrete_args or {}
    if example_inputs is not None:
        num_inputs = num_arguments(unwrap(model), concrete_args)
        example_inputs = tensors_of(example_inputs, "example_inputs", num_inputs, wanted.image)
    gm = trace(
        model,
        example_inputs,
        concrete_args=concrete_args,
        leaf_modules=leaf_modules,
        wrapped_functions=wrapped_functions,
    )
    gm.meta["notes"] += notes
    inputs = () if example_inputs is None else model_inputs(gm, example_inputs)
    num_inputs = len(gm.graph.find_nodes(op="placeholder"))
    batches = None if calibration is None else Batches(calibration, num_inputs, wanted.image)
    run_pipeline(gm, (Canonicalize(), DropIdentities(), CheckTrace(unwrap(model), inputs, concrete_args)))
    float_names = names_of(gm)  # before layer maps take the parameters over
    run_pipeline(gm, training_pipeline(wanted, inputs, batches))
    remember_names(gm, float_names)
    keep_config(gm, unwrap(model))
    keep_settings(gm, wanted.precision, target)
    gm.meta.update(schedule=wanted.schedule, target=target, example_inputs=inputs)
    _make_resumable(gm)
    return gm


@dataclass(frozen=True)
class Wanted:
    """What the caller of `prepare` wants, checked."""

    precision: Precision
    schedule: Schedule
    target: Target

    @property
    def image(self) -> ImageInput | None:
        """How the model's images are normalised; None if its inputs are no images."""
        return self.precision.input if isinstance(self.precision.input, ImageInput) else None


def training_pipeline(wanted: Wanted, inputs: tuple[Any, ...], batches: Batches | None) -> tuple[Pass, ...]:
    """The passes from the canonical graph of a float model to one that trains with noisy quantizers."""
    schedule, target = wanted.schedule, wanted.target
    return (
        SwapPoolAndActivation(),  # lets layer maps swallow activations behind max pools
        InsertConstants(),
        FuseLayerMaps(),
        CheckFinite(),
        Calibrate(batches),  # on reals: before any quantizer is there
        FoldImageNormalization(wanted.image),  # with the samples of the images as they are
        FirstLastPrecision(wanted.precision),  # all passes below ask it for widths
        KeepFloat(),  # while no layer map has a quantizer
        InsertRequantizers(aligns_sums=target.aligned_sums, fills_ranges=target.whole_ranges),
        CheckPrecision(),  # requantizers have widths too
        InsertQuantizers(schedule, target, inputs),
        QuantizeWeights(schedule, target),  # within what the types of the inputs leave
        CheckTarget(target),  # of the types that were just chosen
        AssignAnnealingRanges(schedule),
        CheckFloatMaps(),  # of thresholds that a schedule moves
    )


def _make_resumable(gm: GraphModule) -> None:
    """Name the quantizers, and hook in what happens when the model is saved, loaded, or run."""
    for name, quantizer in quantizers(gm):
        quantizer.name = name
    gm.register_load_state_dict_pre_hook(refuse_float_state)
    gm.register_load_state_dict_post_hook(resume_phases)
    gm.register_forward_pre_hook(ParameterBank())
    gm.register_buffer("annealing_step", torch.zeros((), dtype=torch.int64))
    start_record(gm)
    refuse_pickling(gm)


def _precision(precision: Precision | str) -> Precision:
    parsed = Precision.parse(precision)
    if parsed.stays_float:
        raise ValueError(
            "stays_float is said of layers, got it of the whole model; needed a width for all others, such as "
            "Precision('int8', overrides={'head': 'float'})"
        )
    return parsed


def _schedule(schedule: Schedule | ScheduleFunction | str) -> Schedule:
    if isinstance(schedule, Schedule):
        return schedule
    return Schedule(function=schedule) if callable(schedule) else preset(schedule)

"""`prepare`: from a float model to one that trains with noisy quantizers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ana_fx.annealing.annealing_notes import start_record
from ana_fx.annealing.freezing import resume_phases
from ana_fx.errors import TraceError
from ana_fx.graph import quantizers
from ana_fx.numerics.float32 import in_float32, usual_torch
from ana_fx.passes.base_pass import Pass, run_pipeline
from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.drop_identities import DropIdentities
from ana_fx.passes.checks.check_finite import CheckFinite
from ana_fx.passes.checks.check_precision import CheckPrecision
from ana_fx.passes.checks.check_target import CheckTarget
from ana_fx.passes.frontend.output_containers import plain
from ana_fx.passes.frontend.trace_model import bound, trace
from ana_fx.passes.fusion.calibrate import Calibrate, model_inputs, run_floats
from ana_fx.passes.fusion.fold_image_normalization import FoldImageNormalization
from ana_fx.passes.fusion.fuse_layer_maps import FuseLayerMaps
from ana_fx.passes.fusion.insert_constants import InsertConstants
from ana_fx.passes.fusion.swap_pool_and_activation import HoistActivations
from ana_fx.passes.quantization.assign_annealing_ranges import AssignAnnealingRanges
from ana_fx.passes.quantization.first_last_precision import with_end_layers
from ana_fx.passes.quantization.insert_quantizers import InsertQuantizers
from ana_fx.passes.quantization.insert_requantizers import InsertRequantizers
from ana_fx.passes.quantization.quantize_weights import QuantizeWeights
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.prepared.pickling import refuse_pickling
from ana_fx.prepared.recognize import float_model, unwrap
from ana_fx.prepared.settings import keep_settings
from ana_fx.prepared.state_names import names_of, refuse_float_state, remember_names
from ana_fx.prepared.weight_bank import WeightBank
from ana_fx.schedule.presets import preset
from ana_fx.schedule.schedule import Schedule
from ana_fx.target import Target
from ana_fx.target_registry import target_called
from ana_fx.training.batches import Batches, tensors_of

__all__ = ["prepare"]


@usual_torch()
def prepare(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    precision: Precision | str = "int8",
    schedule: Schedule | str | None = None,
    target: str = "onnxruntime",
    calibration: Iterable[Any] | None = None,
    concrete_args: Mapping[str, Any] | None = None,
    leaf_modules: Iterable[type[nn.Module] | str] = (),
    wrapped_functions: Iterable[Callable[..., Any]] = (),
) -> GraphModule:
    """Make a quantisation-aware copy of a float model, ready to be trained.

    In training mode the copy computes with noisy quantizers; in eval mode it computes exactly what
    `convert` and `export` will ship. Its noise is that of the start of training: it learns as it is, and an
    `Annealer` takes the noise away.

    Args:
        model: The float model; it is not touched. Wrappers such as `DistributedDataParallel` or `torch.compile`
            are taken off the copy, and a note in its `meta["notes"]` says so.
        example_inputs: A tensor or a tuple of tensors with a leading batch axis. It tells the shape
            and the sign of the inputs, makes sizes known while tracing, and guards the trace.
        precision: A Precision or the name of a preset: "ternary", "all-ternary", "int2" … "int8".
        schedule: How the noise is annealed, or the name of a preset such as "ste" (see `ana_fx.preset`); by
            default a partition of the first 70 % of training.
        target: Where the model will run; it decides which staircases eval mode uses.
        calibration: Batches from which the scales that no batch norm tells are taken. Without them
            the first training batch sets these.
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

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> qat = prepare(model, torch.rand(2, 1, 8, 8), precision="ternary")
        >>> qat(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    precision = Precision.parse(precision)
    image = precision.input if isinstance(precision.input, ImageInput) else None
    schedule = _schedule(schedule)
    chosen = target_called(target)
    notes: list[str] = []
    model = in_float32(float_model(model), notes)
    if example_inputs is not None:
        example_inputs = tensors_of(example_inputs, "example_inputs", _num_inputs(model, concrete_args or {}), image)
    gm = trace(
        model,
        example_inputs,
        concrete_args=concrete_args,
        leaf_modules=leaf_modules,
        wrapped_functions=wrapped_functions,
    )
    run_pipeline(gm, (Canonicalize(), DropIdentities()))
    gm.meta["notes"] += notes
    float_names = names_of(gm)
    inputs = () if example_inputs is None else model_inputs(gm, example_inputs)
    num_inputs = sum(node.op == "placeholder" for node in gm.graph.nodes)
    batches = None if calibration is None else Batches(calibration, num_inputs, image)
    if inputs:
        _check_trace(unwrap(model), gm, inputs, concrete_args or {})
    run_pipeline(gm, _to_layer_maps(batches, image))
    given, precision = precision, with_end_layers(precision, gm)
    run_pipeline(gm, _to_quantizers(precision, schedule, chosen, inputs))
    remember_names(gm, float_names)
    keep_settings(gm, given, target)
    gm.meta.update(schedule=schedule, precision=precision, target=target, example_inputs=inputs)
    _make_resumable(gm)
    return gm


def _to_layer_maps(batches: Batches | None, image: ImageInput | None) -> tuple[Pass, ...]:
    """From the canonical float graph to one of layer maps, with samples of what they give."""
    return (
        HoistActivations(),  # lets layer maps swallow activations behind max pools
        InsertConstants(),
        FuseLayerMaps(),
        CheckFinite(),
        Calibrate(batches),  # on reals: before any quantizer is there
        FoldImageNormalization(image),
    )


def _to_quantizers(
    precision: Precision, schedule: Schedule, target: Target, inputs: tuple[Any, ...]
) -> tuple[Pass, ...]:
    """From float layer maps to noisy ones, each with its annealing range."""
    return (
        InsertRequantizers(precision, aligns_sums=target.aligned_sums, fills_ranges=target.whole_ranges),
        CheckPrecision(precision),  # requantizers have widths too
        InsertQuantizers(precision, schedule, target, inputs),
        QuantizeWeights(precision, schedule, target),  # within what the types of the inputs leave
        CheckTarget(target),  # of the types that were just chosen
        AssignAnnealingRanges(schedule),
    )


def _make_resumable(gm: GraphModule) -> None:
    """What a prepared model does when it is saved and loaded, and before each forward pass."""
    for name, quantizer in quantizers(gm):
        quantizer.name = name
    gm.register_load_state_dict_pre_hook(refuse_float_state)
    gm.register_load_state_dict_post_hook(resume_phases)
    gm.register_forward_pre_hook(WeightBank())
    gm.register_buffer("annealing_step", torch.zeros((), dtype=torch.int64))
    start_record(gm)
    refuse_pickling(gm)


def _schedule(schedule: Schedule | str | None) -> Schedule:
    if schedule is None or isinstance(schedule, Schedule):
        return schedule or Schedule()
    return preset(schedule)


def _num_inputs(model: nn.Module, concrete_args: Mapping[str, Any]) -> int | None:
    """How many tensors `forward` takes at most; None if any number."""
    parameters = inspect.signature(unwrap(model).forward).parameters
    if any(each.kind is each.VAR_POSITIONAL for each in parameters.values()):
        return None
    return sum(name not in concrete_args and each.kind is not each.VAR_KEYWORD for name, each in parameters.items())


@torch.no_grad()
def _check_trace(model: nn.Module, gm: GraphModule, inputs: tuple[Any, ...], concrete_args: Mapping[str, Any]) -> None:
    """The traced graph gives what the model gives: nothing was baked in that depends on the input."""

    def copies() -> tuple[Any, ...]:
        return tuple(entry.clone() if isinstance(entry, Tensor) else entry for entry in inputs)

    traced = _outputs(run_floats(gm, copies(), "example_inputs"))
    expected = _outputs(bound(copy.deepcopy(model).eval(), concrete_args)(*copies()))
    is_same = _is_close if gm.meta["is_written_out"] else _is_same
    if len(traced) != len(expected) or not all(map(is_same, traced, expected)):
        raise TraceError(
            f"the traced graph of {type(model).__name__} gives other outputs than the model on example_inputs; "
            f"found code that tracing cannot record, such as `x += y` on a tensor that has another name, or random "
            f"numbers in eval mode; needed a pure function of the inputs; write `x = x + y` instead"
        )


def _outputs(output: Any) -> list[Any]:
    """The leaves of an output, whatever containers hold them."""
    return pytree.tree_leaves(plain(output))


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool(torch.isclose(first, second, rtol=0, atol=0, equal_nan=True).all())
    return bool(first == second)


def _is_close(first: Any, second: Any) -> bool:
    """Alike but for the order of sums.

    A sum of n floats in another order moves by about sqrt(n) * 2**-24 of its size, and a hundred layers add up
    ten times that: 2e-5 for n = 1000. Something baked in moves the output by much more than 1e-4.
    """
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or not second.is_floating_point():
        return _is_same(first, second)
    if first.shape != second.shape:
        return False
    largest = float(second.abs().nan_to_num().max()) if second.numel() else 0.0
    return bool(torch.isclose(first, second, rtol=0, atol=1e-4 * largest, equal_nan=True).all())

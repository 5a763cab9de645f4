"""`convert`: from a trained model to a proven integer program."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ana_fx.annealing.annealer import annealing_ranges
from ana_fx.annealing.annealing_notes import noise_left
from ana_fx.errors import CalibrationError, MismatchError, NotAnnealedError, listing
from ana_fx.graph import layer_maps, location, quantizers
from ana_fx.numerics.float32 import usual_torch
from ana_fx.passes.base_pass import run_pipeline
from ana_fx.passes.checks.check_finite import CheckFinite
from ana_fx.passes.lowering.bound_pairs import BoundPairs
from ana_fx.passes.lowering.lower import Lower
from ana_fx.passes.lowering.prove import Prove
from ana_fx.passes.lowering.recording import Run, record
from ana_fx.prepared.recognize import prepared
from ana_fx.program.tensor_spec import spec_of
from ana_fx.target_registry import target_called

__all__ = ["convert"]

_LOG = logging.getLogger("ana_fx")


@usual_torch()
def convert(qat: nn.Module) -> GraphModule:
    """Lower a trained model to integers, and prove that nothing changes.

    Args:
        qat: What `prepare` returned, trained until its noise is annealed; it is not touched. It may stand inside
            `DataParallel`, `DistributedDataParallel`, `AveragedModel` or `torch.compile`. If a training left noise, a
            warning in the log "ana_fx" and a note that `describe` shows say so.

    Returns:
        A GraphModule that takes and gives the same floats as `qat` in eval mode, bit for bit, and
        computes on integers between its quantize and dequantize nodes.

    Raises:
        CalibrationError: A scale is not known yet.
        NotAnnealedError: The training forward pass is still another function than eval mode's.
        AccumulatorError: A sum of products can leave 32 bits.
        ProofError: A requantizer cannot be encoded exactly, or products could saturate in a kernel of the target.
        MismatchError: The program differs from the model on example inputs.
        UnsupportedError: Weights are NaN or infinite.
        TypeError: `qat` is no module.
        ValueError: It was not prepared.

    Example:
        >>> import ana_fx
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> qat = ana_fx.prepare(model, torch.rand(16, 4), calibration=[torch.rand(16, 4)])
        >>> x = torch.rand(3, 4)
        >>> torch.equal(convert(qat)(x), qat.eval()(x))
        True
    """
    qat = prepared(qat, "convert()")
    _check_calibrated(qat)
    _check_annealed(qat)
    device = next((tensor.device for tensor in qat.state_dict().values()), torch.device("cpu"))
    program = _copy(qat)
    CheckFinite()(program)
    recording = record(program)  # of the trained model, before anything is lowered
    run_pipeline(program, (Lower(recording), Prove(), BoundPairs(target_called(qat.meta["target"]))))
    program.meta["annealing_ranges"] = annealing_ranges(qat)
    note = noise_left(qat)
    if note is not None:
        program.meta["notes"] = [*program.meta["notes"], note]
        _LOG.warning(note)
    for trained in recording.runs:
        _check_equal(trained, program)
    return program.to(device)


def _copy(qat: GraphModule) -> GraphModule:
    """The model in eval mode, on the CPU, to be lowered; weights that become integers are the model's own."""
    quantized = [each for each in layer_maps(qat).values() if each.weight_quantizer is not None]
    weights = [weight for each in quantized for name, weight in each.named_parameters() if name == "weight"]
    memo = {id(weight): nn.Parameter(weight.detach().cpu(), requires_grad=False) for weight in weights}
    return copy.deepcopy(qat, memo).eval().cpu()


def _check_calibrated(qat: GraphModule) -> None:
    missing = [name for name, quantizer in quantizers(qat) if not quantizer.is_calibrated]
    if missing:
        raise CalibrationError(
            listing(
                f"{len(missing)} scale(s) are not known yet:",
                missing,
                "run a training batch through the model in train(), or give prepare(..., calibration=batches); a "
                "quantizer that saw nothing but zeros can be told one by set_scale()",
            )
        )


def _check_annealed(qat: GraphModule) -> None:
    """The training forward pass, batch statistics aside, is the function that eval mode computes."""
    noisy = [
        f"{name}: {q.strategy.value} with noise of mean {float(q.mean):.3g} and std {float(q.std):.3g} steps"
        for name, q in quantizers(qat)
        if float(q.mean) != 0.0 or (not q.strategy.gives_levels and float(q.std) != 0.0)
    ]
    if noisy:
        raise NotAnnealedError(
            listing(
                f"{len(noisy)} quantizer(s) still compute with noise, needed none:",
                noisy,
                f"train on until annealer.progress is {qat.meta['schedule'].stop:g}, or use strategy='mode' with a "
                f"static mean, which can be converted at any time",
            )
        )


@torch.no_grad()
def _check_equal(trained: Run, program: GraphModule) -> None:
    """Run the program on what the trained model was run on and compare every number; the last guard behind proofs."""
    waiting: dict[nn.Module, list[Node]] = {}
    for node in program.graph.find_nodes(op="call_module"):
        waiting.setdefault(program.get_submodule(str(node.target)), []).append(node)

    def compare(module: nn.Module, _: Any, found: Tensor) -> None:
        node = waiting[module].pop(0)
        if node.name in trained.tensors and not found.is_floating_point():
            spec = spec_of(node)
            assert spec.levels is not None
            real = trained.tensors[node.name].movedim(spec.layout.batch_axis or 0, 0)
            _compare(node, real, found.to(torch.float32) * spec.levels.scale)  # logits may be above 2**24

    hooks = [module.register_forward_hook(compare) for module in waiting]
    try:
        outputs = program(*trained.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for wanted, given in zip(_leaves(trained.outputs), _leaves(outputs), strict=True):
        _compare(program.graph.output_node(), wanted, given)


def _leaves(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _compare(node: Node, wanted: Tensor, found: Tensor) -> None:
    is_different = wanted != found
    if bool(is_different.any()):
        index = tuple(is_different.nonzero()[0].tolist())
        raise MismatchError(
            f"{location(node)}: the program differs from the trained model at {node.name!r} first: "
            f"{int(is_different.sum())} of {is_different.numel()} numbers, at {index} found {found[index].item()}, "
            f"needed {wanted[index].item()}; this is a bug of ana_fx, please report it"
        )

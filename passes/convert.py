"""`convert`: from a trained model to a proven integer program."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import torch
from torch import nn
from torch.fx import GraphModule

from ana_fx.annealing.annealer import annealing_ranges
from ana_fx.annealing.annealing_notes import noise_left
from ana_fx.graph import layer_maps
from ana_fx.numerics.float32 import usual_torch
from ana_fx.passes.base_pass import Pass, run_pipeline
from ana_fx.passes.checks.check_annealed import CheckAnnealed
from ana_fx.passes.checks.check_calibrated import CheckCalibrated
from ana_fx.passes.checks.check_finite import CheckFinite
from ana_fx.passes.lowering.bound_pairs import BoundPairs
from ana_fx.passes.lowering.compare_runs import CompareRuns
from ana_fx.passes.lowering.lower import Lower
from ana_fx.passes.lowering.prove import Prove
from ana_fx.prepared.recognize import prepared
from ana_fx.target import Target
from ana_fx.target_registry import target_called

__all__ = ["convert", "integer_pipeline"]

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

    Examples:
        >>> import ana_fx
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> qat = ana_fx.prepare(model, torch.rand(16, 4), calibration=[torch.rand(16, 4)])
        >>> x = torch.rand(3, 4)
        >>> torch.equal(convert(qat)(x), qat.eval()(x))
        True
    """
    qat = prepared(qat, "convert()")
    device = next((tensor.device for tensor in qat.state_dict().values()), torch.device("cpu"))
    program = run_pipeline(_copy(qat), integer_pipeline(target_called(qat.meta["target"])))
    program.meta["annealing_ranges"] = {
        path: replace(each, override=None, path=None) for path, each in annealing_ranges(qat).items()
    }
    note = noise_left(qat)
    if note is not None:
        program.meta["notes"] = [*program.meta["notes"], note]
        _LOG.warning(note)
    return program.to(device)


def integer_pipeline(target: Target) -> tuple[Pass, ...]:
    """The passes from a trained model in eval mode to a program, for what the model was prepared for."""
    return (
        CheckCalibrated(),
        CheckAnnealed(),
        CheckFinite(),  # before the model runs, which NaN would not survive
        Lower(),
        Prove(),
        BoundPairs(target),
        CompareRuns(),  # last: it would find what the proofs overlook
    )


def _copy(qat: GraphModule) -> GraphModule:
    """Copy the model in eval mode to the CPU, to be lowered; weights that become integers are shared with the model."""
    quantized = [each for each in layer_maps(qat).values() if each.weight_quantizer is not None]
    weights = [weight for each in quantized for name, weight in each.named_parameters() if name == "weight"]
    memo = {id(weight): nn.Parameter(weight.detach().cpu(), requires_grad=False) for weight in weights}
    return copy.deepcopy(qat, memo).eval().cpu()

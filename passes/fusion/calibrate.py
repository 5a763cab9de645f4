"""Samples of every tensor that needs a scale, from batches of the user's data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import CalibrationError, listing
from ana_fx.graph import layer_map_of, location
from ana_fx.layers.batch_statistics import batch_statistics
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.fusion.observation import note_samples, note_shape, observation_of
from ana_fx.passes.node_by_node import NodeByNode

__all__ = ["Calibrate", "model_inputs", "run_floats"]

_SAMPLES_PER_BATCH = 8192


@dataclass(frozen=True)
class Calibrate(Pass):
    """Run the float graph on batches and keep samples of inputs, layer map outputs and what is joined.

    before   x -> layer map
    after    the same; `observation_of(node)` has numbers that were seen there

    Dropout is off. Batch norms that were never trained compute with the statistics of each batch, as training
    will; their running statistics stay as they are, like everything else of the model.

    Args:
        batches: Tensors, or tuples that begin with the model's inputs (the rest, labels say, is ignored).
    """

    name: ClassVar[str] = "calibrate"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = FUSED
    batches: Iterable[Any] | None

    def run(self, gm: GraphModule) -> bool:
        if self.batches is None:
            return False
        samples: dict[Node, list[Tensor]] = defaultdict(list)
        num_batches = 0
        console = Console(stderr=True)
        batches = track(self.batches, "calibrating", console=console, transient=True, disable=not console.is_terminal)
        with batch_statistics(gm):
            for batch in batches:
                run_floats(gm, model_inputs(gm, batch), f"calibration batch {num_batches}", samples)
                num_batches += 1
        if not num_batches:
            raise CalibrationError("calibration holds no batch; needed at least one, or calibration=None")
        found = {node: torch.cat(seen) for node, seen in samples.items()}
        is_new = any(not _is_equal(observation_of(node).samples, seen) for node, seen in found.items())
        for node, seen in found.items():
            note_samples(node, seen)
        _check_finite(found)
        return is_new


def _is_equal(known: Tensor | None, seen: Tensor) -> bool:
    return known is not None and torch.equal(known, seen)


def _check_finite(samples: Mapping[Node, Tensor]) -> None:
    problems = [
        f"{location(node)}: NaN or infinite in {int(is_bad.sum())} of {len(is_bad)} samples"
        for node, seen in samples.items()
        if bool((is_bad := ~torch.isfinite(seen)).any())
    ]
    if problems:
        raise CalibrationError(
            listing(
                "the calibration batches are finite, but not what the model makes of them:",
                problems,
                "look at the first of these layers: its weights, or a division in it",
            )
        )


def model_inputs(gm: GraphModule, batch: Any) -> tuple[Any, ...]:
    """Return the model's inputs out of a batch: the tensor itself, or the first entries of a tuple."""
    num_inputs = len([node for node in gm.graph.nodes if node.op == "placeholder"])
    entries = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    return entries[:num_inputs]


@torch.no_grad()
def run_floats(
    gm: GraphModule, inputs: tuple[Any, ...], what: str, samples: dict[Node, list[Tensor]] | None = None
) -> Any:
    """Run the float graph in eval mode; what its layer maps saw goes to `samples`.

    Raises:
        CalibrationError: An input is not finite, or the model does not take inputs of that shape.
    """
    for entry in inputs:
        if isinstance(entry, Tensor) and not bool(torch.isfinite(entry).all()):
            raise CalibrationError(f"{what} holds NaN or infinite numbers; needed finite inputs")
    was_training = gm.training
    gm.eval()

    def see(node: Node, result: Any) -> None:
        if not isinstance(result, Tensor):
            return
        note_shape(node, tuple(result.shape[1:]))
        if samples is not None and _is_sampled(node):
            samples[node].append(_subsample(result))

    runner = NodeByNode(gm, see)
    try:
        return runner.run(*inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        shapes = ", ".join(str(tuple(entry.shape)) if isinstance(entry, Tensor) else repr(entry) for entry in inputs)
        where = location(runner.current) if runner.current is not None else "the model's input"
        raise CalibrationError(
            f"the model cannot compute {what} with shape(s) {shapes}: {where} says: {str(error).splitlines()[0]}; "
            f"needed inputs as in training, with a leading batch axis, and more than one sample for a batch norm that "
            f"was never trained"
        ) from error
    finally:
        gm.train(was_training)


def _is_sampled(node: Node) -> bool:
    """Whether a node is an input, a layer map, or what a join may have to requantise."""
    if node.op == "placeholder" or layer_map_of(node) is not None:
        return True
    return node.op != "get_attr" and any(len(user.all_input_nodes) > 1 for user in node.users)


def _subsample(x: Tensor) -> Tensor:
    flat = x.detach().flatten().float()
    return flat[:: max(1, len(flat) // _SAMPLES_PER_BATCH)].cpu()

"""A prepared model and its float twin, run node by node on the same batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from ana_fx.errors import CalibrationError
from ana_fx.passes.fusion.calibrate import model_inputs
from ana_fx.passes.quantization.first_last_precision import precision_of
from ana_fx.precision.image_input import ImageInput
from ana_fx.training.batches import Batches

__all__ = ["Pair", "SideBySide", "batches_for"]

Pair = tuple[Any, Any]


def batches_for(qat: GraphModule, batches: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the inputs that the model takes out of each batch, checked as in `prepare`.

    Raises:
        TypeError: It does not hold batches.
        CalibrationError: There is none, or one is unfit.
    """
    image = precision_of(qat).input
    num_inputs = len(qat.graph.find_nodes(op="placeholder"))
    found = list(Batches(batches, num_inputs, image if isinstance(image, ImageInput) else None))
    if not found:
        raise CalibrationError("batches holds no batch; needed at least one")
    return [model_inputs(qat, batch) for batch in found]


class SideBySide:
    """Two runs of one network, quantised and float, in step: all batches go through a node before the next one runs.

    So a caller may change a layer of the prepared model after it saw what the layer reads and before it runs. What no
    later node reads is let go; the memory is that of the activations which are alive at once, for all batches.

    Args:
        qat: A prepared model in eval mode.
        twin: Its float twin.
        batches: Inputs of the model.
    """

    def __init__(self, qat: GraphModule, twin: GraphModule, batches: list[tuple[Any, ...]]) -> None:
        self.nodes = [node for node in qat.graph.nodes if node.op != "output"]
        self.num_batches = len(batches)
        self._batches = batches
        self._runs = Interpreter(qat), Interpreter(twin)
        self._twins: dict[str, Node] = {node.name: node for node in twin.graph.nodes}
        self._values: tuple[list[dict[Node, Any]], list[dict[Node, Any]]] = (
            [{} for _ in batches],
            [{} for _ in batches],
        )
        self._num_readers = Counter(source for node in qat.graph.nodes for source in node.all_input_nodes)
        self._placeholders = [node for node in self.nodes if node.op == "placeholder"]

    def read_by(self, node: Node, num_inputs: int) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Return, for each batch, the first arguments of a node that runs next: quantised and float."""
        sources = [each for each in node.args[:num_inputs] if isinstance(each, Node)]
        return [
            (tuple(ours[each] for each in sources), tuple(theirs[self._twins[each.name]] for each in sources))
            for ours, theirs in zip(*self._values, strict=True)
        ]

    @torch.no_grad()
    def run(self, node: Node) -> list[Pair]:
        """Run a node; return its output for each batch, quantised and float (None where the twin has no such node)."""
        twin = self._twins.get(node.name)
        found: list[Pair] = []
        for index in range(self.num_batches):
            ours, theirs = self._values[0][index], self._values[1][index]
            ours[node] = self._result(0, node, index)
            if twin is not None:
                theirs[twin] = self._result(1, twin, index)
            found.append((ours[node], None if twin is None else theirs[twin]))
        self._let_go(node)
        return found

    def _result(self, side: int, node: Node, index: int) -> Any:
        if node.op == "placeholder":
            position = [each.name for each in self._placeholders].index(node.name)
            return self._batches[index][position]
        run = self._runs[side]
        run.env = self._values[side][index]
        return run.run_node(node)

    def _let_go(self, node: Node) -> None:
        """Forget the tensors that no later node reads."""
        self._num_readers.subtract(node.all_input_nodes)
        for source in {*node.all_input_nodes, node}:
            if self._num_readers[source] > 0:
                continue
            twin = self._twins.get(source.name)
            for ours, theirs in zip(*self._values, strict=True):
                ours.pop(source, None)
                if twin is not None:
                    theirs.pop(twin, None)

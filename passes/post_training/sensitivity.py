"""`sensitivity`: how much the outputs suffer when one tensor alone has few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ana_fx.analysis.sensitivities import ActivationSensitivity, Sensitivities, WeightSensitivity, bits_of
from ana_fx.graph import calls_of, layer_map_calls
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.numerics.spread_samples import tail_samples
from ana_fx.passes.post_training.float_twin import float_twin
from ana_fx.passes.post_training.patches import has_patches
from ana_fx.passes.post_training.reconstruct import rounded_weight
from ana_fx.passes.post_training.side_by_side import batches_for
from ana_fx.passes.prepare import prepare
from ana_fx.passes.quantization.scale_groups import level_producers, scale_groups
from ana_fx.precision.precision import Precision
from ana_fx.target import Target
from ana_fx.target_registry import target_called
from ana_fx.text.wording import unknown

__all__ = ["WIDTHS", "sensitivity"]

WIDTHS = ("ternary", "int2", "int3", "int4", "int5", "int6", "int7", "int8")
_NUM_SAMPLES = 2**15  # from which the scale of an output is taken
_WHOLE = (2, 4, 8)  # bits of activations on targets that clip to nothing else


@torch.no_grad()
def sensitivity(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    widths: Sequence[str] = WIDTHS,
    target: str = "onnxruntime",
) -> Sensitivities:
    """Measure, without labels, what each weight and each activation costs at each width, all else being float.

    Weights are rounded, and means corrected, as by `reconstruct`. The float network runs once; for each tensor and
    width only what lies behind it runs again. So it takes about half a float run for each tensor and width.

    Args:
        model: The float network; it is not touched.
        batches: Tensors, or tuples that begin with the model's inputs; a hundred samples tell much. All activations of
            the float network are in memory at once.
        widths: Those of the weights, by default "ternary" and "int2" to "int8"; activations have the unsigned type of
            the same bits, or its signed sibling. Only those that the target holds are measured.
        target: Where the model will run.

    Returns:
        A number for each tensor and width; `search_widths` makes a precision of them.

    Raises:
        TypeError: `batches` does not hold batches.
        ValueError: A width or the target is unknown, or the target holds none of the widths.
        CalibrationError: There is no batch, or one is unfit.
        AnaFxError: The model cannot be prepared, as by `prepare`.

    Examples:
        >>> from torch import nn
        >>> found = sensitivity(nn.Sequential(nn.Linear(4, 2)), [torch.rand(32, 4)], widths=("int2", "int8"))
        >>> found.weights[0].errors["int2"] > found.weights[0].errors["int8"]
        True
    """
    found = list(batches)
    chosen = _held(widths, target_called(target))
    precisions = {width: Precision(width, f"uint{bits_of(width)}") for width in chosen}
    example = found[0] if found else None
    models = {
        width: prepare(model, example, precision=precision, calibration=found, target=target, schedule="ste")
        for width, precision in precisions.items()
    }
    first = next(iter(models.values()))
    return _Measurement(float_twin(first), models, _joined(batches_for(first, found))).run()


def _held(widths: Sequence[str], target: Target) -> list[str]:
    """The widths that the target holds, in weights and in activations, fewest bits first."""
    for width in widths:
        if width not in WIDTHS:
            raise ValueError(unknown("width", width, WIDTHS))
    lowest = max(target.weight_bits[0], target.activation_bits[0])
    highest = min(target.weight_bits[1], target.activation_bits[1])
    held = [each for each in WIDTHS if each in widths and lowest <= bits_of(each) <= highest]
    if target.whole_ranges:
        held = [each for each in held if bits_of(each) in _WHOLE]
    if not held:
        raise ValueError(f"target {target.name!r} holds none of {', '.join(widths)}; it has {lowest} to {highest} bits")
    return held


def _joined(batches: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Join all batches to one."""
    return tuple(
        torch.cat(entries) if isinstance(entries[0], Tensor) else entries[0] for entries in zip(*batches, strict=True)
    )


class _Measurement:
    """Holds the float network's tensors, and measures what becomes of the outputs if one of them changes.

    Args:
        twin: The float network.
        models: For each width, a model that was prepared with it, whose nodes have the names of the twin's.
        inputs: The inputs of all of them.
    """

    def __init__(self, twin: GraphModule, models: dict[str, GraphModule], inputs: tuple[Any, ...]) -> None:
        self._models = models
        self._nodes = list(twin.graph.nodes)
        self._run = Interpreter(twin, garbage_collect_values=False)
        self._run.run(*inputs)
        self._values = dict(self._run.env)
        self._wanted = self._outputs(self._values)
        self._power = sum(float(each.double().square().sum()) for each in self._wanted) or 1.0
        self._layer_maps = [node for node, _ in layer_map_calls(twin)]
        self._maps = dict(calls_of(twin, OperatorMap))

    def run(self) -> Sensitivities:
        """Measure every tensor at every width."""
        quantized = [{node.name: each for node, each in layer_map_calls(gm)} for gm in self._models.values()]
        by_width = dict(zip(self._models, quantized, strict=True))
        weights = self._readers_of_weights(quantized[0])
        outputs = [node for node in self._layer_maps if quantized[0][node.name].output_quantizer is not None]
        groups = self._groups(outputs)
        console = Console(stderr=True)
        hidden = not console.is_terminal
        every = [*weights, *groups]
        rows = [
            self._errors(nodes, by_width, is_weight=index < len(weights))
            for index, nodes in enumerate(
                track(every, "measuring sensitivity", console=console, transient=True, disable=hidden)
            )
        ]
        sources = self._sources(groups)
        activations = [
            ActivationSensitivity(_paths(nodes), errors)
            for nodes, errors in zip(groups, rows[len(weights) :], strict=True)
        ]
        return Sensitivities(
            tuple(self._weight_row(nodes, errors, sources) for nodes, errors in zip(weights, rows, strict=False)),
            tuple(activations),
        )

    def _readers_of_weights(self, quantized: dict[str, LayerMap]) -> list[list[Node]]:
        """For each quantised weight, the nodes that read it."""
        readers: dict[int, list[Node]] = {}
        for node, layer_map in self._maps.items():
            if quantized[node.name].weight_quantizer is not None:
                readers.setdefault(id(layer_map.weight), []).append(node)
        return list(readers.values())

    def _groups(self, outputs: list[Node]) -> list[list[Node]]:
        """The groups of nodes whose outputs have one type."""
        names = {node.name: node for node in outputs}
        groups = scale_groups(next(iter(self._models.values())))
        found = [[names[node.name] for node in group if node.name in names] for group in groups]
        return [group for group in found if group]

    def _sources(self, groups: list[list[Node]]) -> dict[str, int | None]:
        """For each node of the prepared model, the group of its first input; None for the model's inputs."""
        gm = next(iter(self._models.values()))
        place = {node.name: index for index, group in enumerate(groups) for node in group}
        producers = {node.name: each for node, each in level_producers(gm).items()}
        found: dict[str, int | None] = {}
        for node, _ in layer_map_calls(gm):
            source = node.all_input_nodes[0]
            names = [source.name, *(each.name for each in producers.get(source.name, ()))]
            found[node.name] = next((place[name] for name in names if name in place), None)
        return found

    def _errors(
        self, nodes: list[Node], by_width: dict[str, dict[str, LayerMap]], *, is_weight: bool
    ) -> dict[str, float]:
        """Measure the error of the outputs for each width; widths that give one type count once, as the widest."""
        errors: dict[str, float] = {}
        seen: dict[IntegerType, str] = {}
        for width, quantized in by_width.items():
            quantizer = _quantizer(quantized[nodes[0].name], is_weight=is_weight)
            name = width if is_weight else f"uint{bits_of(width)}"
            known = seen.pop(quantizer.integer_type, None)
            if known is not None:
                errors[name] = errors.pop(known)
            elif is_weight:
                weight = self._rounded(nodes, quantizer)
                errors[name] = self._error(nodes, partial(self._with_weight, weight=weight))
            else:
                errors[name] = sum(self._error([node], self._with_output(quantized[node.name])) for node in nodes)
            seen[quantizer.integer_type] = name
        return errors

    def _rounded(self, nodes: list[Node], quantizer: Quantizer) -> Tensor:
        """Quantise the weight that some nodes share, rounded as by `reconstruct` where that can be done."""
        layer_map = self._maps[nodes[0]]
        assert layer_map.weight is not None
        if len(nodes) > 1 or not has_patches(layer_map) or quantizer.integer_type.levels:
            return quantizer.quantize(layer_map.weight) * positive(quantizer.scale.detach())
        inputs = tuple(self._values[source] for source in nodes[0].all_input_nodes)
        wanted = layer_map.operator.real(inputs, layer_map.weight, layer_map.bias)
        rounded = rounded_weight(layer_map, quantizer, list(inputs), [wanted])
        return (rounded.levels * rounded.scales).float().reshape(layer_map.weight.shape)

    def _with_weight(self, node: Node, weight: Tensor) -> Tensor:
        """Run a layer map with another weight on what it reads now; the mean of each output channel stays."""
        layer_map = self._maps[node]
        inputs = tuple(self._run.env[source] for source in node.all_input_nodes)
        lost = layer_map.operator.real(inputs, layer_map.weight) - layer_map.operator.real(inputs, weight)
        axis = layer_map.operator.channel_axis(lost.ndim)
        mean = lost.movedim(axis, -1).flatten(0, -2).mean(0)
        changed: dict[str, Tensor] = {"weight": weight}
        norm = layer_map.norm
        if layer_map.bias is not None:
            changed["bias"] = layer_map.bias + mean
        elif isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            changed["norm.running_mean"] = norm.running_mean - mean
        found: Tensor = functional_call(layer_map, changed, inputs)
        return found

    def _with_output(self, layer_map: LayerMap) -> Callable[[Node], Tensor]:
        """Make a function that quantises the output of a node, by the scale that fits its float output."""
        quantizer = layer_map.output_quantizer
        assert quantizer is not None

        def quantized(node: Node) -> Tensor:
            y: Tensor = self._values[node]
            if not quantizer.shares_scale and not layer_map.has_own_scale:
                quantizer.calibrate(*tail_samples(y, _NUM_SAMPLES))
            return quantizer.quantize(y) * positive(quantizer.scale.detach())

        return quantized

    def _error(self, changed: list[Node], give: Callable[[Node], Tensor]) -> float:
        """Run what lies behind nodes that give something else; return the power of the outputs' error over that of the
        outputs.
        """
        self._run.env = dict(self._values)
        dirty: set[Node] = set()
        for node in self._nodes:
            if node in changed:
                self._run.env[node] = give(node)
            elif node.op == "output" or dirty.isdisjoint(node.all_input_nodes):
                continue
            else:
                self._run.env[node] = self._run.run_node(node)
            dirty.add(node)
        found = self._outputs(self._run.env)
        errors = zip(found, self._wanted, strict=True)
        return sum(float((ours.double() - wanted.double()).square().sum()) for ours, wanted in errors) / self._power

    def _outputs(self, values: dict[Node, Any]) -> list[Tensor]:
        returned = torch.fx.node.map_arg(self._nodes[-1].args[0], values.__getitem__)
        return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]

    def _weight_row(
        self, nodes: list[Node], errors: dict[str, float], sources: dict[str, int | None]
    ) -> WeightSensitivity:
        layer_map = self._maps[nodes[0]]
        assert layer_map.weight is not None
        terms = layer_map.operator.integer_weight(layer_map.weight.detach())[0].numel()
        products = tuple(self._values[node][0].numel() * terms for node in nodes)
        inputs = tuple(sources[node.name] for node in nodes)
        shapes = tuple(self._shape(node) for node in nodes)
        return WeightSensitivity(_paths(nodes), errors, layer_map.weight.numel(), products, inputs, shapes)

    def _shape(self, node: Node) -> str:
        """What decides how long a layer takes at given widths: its operator and the sizes, of one sample."""
        layer_map = self._maps[node]
        assert layer_map.weight is not None
        read, given = (self._values[each].shape[1:] for each in (node.all_input_nodes[0], node))
        parts = [layer_map.kind, f"{_sizes(read)}->{_sizes(given)}", f"weight {_sizes(layer_map.weight.shape)}"]
        for name in ("stride", "dilation"):
            steps = getattr(layer_map.operator, name, ())
            parts += [f"{name} {_sizes(steps)}"] * any(step != 1 for step in steps)
        return " ".join(parts)


def _paths(nodes: list[Node]) -> tuple[str, ...]:
    return tuple(str(node.target) for node in nodes)


def _sizes(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _quantizer(layer_map: LayerMap, *, is_weight: bool) -> Quantizer:
    found = layer_map.weight_quantizer if is_weight else layer_map.output_quantizer
    assert found is not None
    return found

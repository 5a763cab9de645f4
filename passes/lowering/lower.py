"""From a trained graph to an integer program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from ana_fx.errors import AccumulatorError, ConvertError, listing
from ana_fx.graph import location, module_of, unique_path
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.quantizers import ImageQuantizer, InputQuantizer
from ana_fx.numerics.scale_search import positive
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import ADAPTIVE_MAX_POOLS, MAX_POOLS, is_dropout, is_movement
from ana_fx.passes.lowering.lower_layer_map import lower_layer_map
from ana_fx.passes.lowering.recording import Recording
from ana_fx.passes.lowering.trace_movement import derive
from ana_fx.program.integer_modules import IntegerConstant, IntegerMap, IntegerMaxPool, Repeat
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeImage
from ana_fx.program.tensor_spec import LevelRange, TensorSpec, set_spec

__all__ = ["Lower"]


@dataclass(frozen=True)
class Lower(Pass):
    """Fold quantizers, batch norms, biases and activations into integer arithmetic.

    before   x -> input quantizer -> layer map(·, scale) -> dropout -> view -> layer map(·, scale)
    after    x -> quantize -> integer map -> reshape -> integer head -> dequantize

    Tensors of the program have their batch axis in front. A layer map without quantizers stays float
    behind a dequantize.

    Args:
        recording: Shapes and sizes of the graph that is lowered.
    """

    name: ClassVar[str] = "lower"
    recording: Recording

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        problems: list[str] = []
        levels: dict[Node, LevelRange] = {}
        layouts = dict(self.recording.layouts)
        nodes = list(gm.graph.nodes)
        for node in nodes:
            module = module_of(node)
            if isinstance(module, InputQuantizer):
                scale, integer_type = positive(module.scale.detach()), module.integer_type
                quantize = Quantize(scale, integer_type, module.shape)
                if isinstance(module, ImageQuantizer):
                    quantize = QuantizeImage(scale, integer_type, module.gain, module.shift, module.shape)
                gm.add_submodule(str(node.target), quantize.eval())
                levels[node] = LevelRange(integer_type, integer_type.qmin, integer_type.qmax, scale)
            elif isinstance(module, ConstantMap):
                levels[node] = self._lower_constant(gm, node, module)
            elif isinstance(module, LayerMap) and module.is_quantized:
                problems += lower_layer_map(gm, node, module, levels, layouts)
                _fold_constant(gm, node, levels)
            elif isinstance(module, LayerMap) or node.op == "output":
                _dequantize_inputs(gm, node, levels, layouts)
            elif isinstance(module, (*MAX_POOLS, *ADAPTIVE_MAX_POOLS)):
                _lower_max_pool(gm, node, module, levels, layouts)
            elif is_dropout(module):
                node.replace_all_uses_with(node.all_input_nodes[0])
                gm.graph.erase_node(node)
            elif is_movement(node) and node in layouts and self._moved(node, levels, layouts):
                self._lower_movement(gm, node, levels, layouts)
        if problems:
            raise AccumulatorError(
                listing(
                    f"{len(problems)} operation(s) do not fit:",
                    problems,
                    "give the weights or the input of these layers fewer bits, or split the layers",
                )
            )
        for node in gm.graph.nodes:
            if node in layouts:
                set_spec(node, TensorSpec(layouts[node], levels.get(node)))
        for node in reversed(gm.graph.nodes):  # scales, sizes and float constants have no readers any more
            if not node.users and node.op not in ("placeholder", "output"):
                gm.graph.erase_node(node)
        _delete_unread_tensors(gm)
        return True

    def _lower_constant(self, gm: GraphModule, node: Node, module: ConstantMap) -> LevelRange:
        assert module.output_quantizer is not None
        scale = positive(module.output_quantizer.scale.detach())
        value = self.recording.values[node.all_input_nodes[0]]
        constant = IntegerConstant(module.output_quantizer.quantize(value), module.output_quantizer.integer_type, scale)
        gm.add_submodule(str(node.target), constant.eval())
        node.args = ()
        return LevelRange(constant.integer_type, constant.lo, constant.hi, scale)

    def _moved(self, node: Node, levels: dict[Node, LevelRange], layouts: dict[Node, Layout]) -> list[Node]:
        """The tensors of levels that a movement moves, through nodes that give several tensors."""
        found: list[Node] = []
        for source in node.all_input_nodes:
            if source in levels or (source in layouts and source not in self.recording.values):
                found.append(source)
            elif source not in self.recording.values:
                found += self._moved(source, levels, layouts)
        return list(dict.fromkeys(found))

    def _lower_movement(
        self, gm: GraphModule, node: Node, levels: dict[Node, LevelRange], layouts: dict[Node, Layout]
    ) -> None:
        """Replace a movement by the modules that do the same on tensors with the batch in front."""
        sources = self._moved(node, levels, layouts)
        try:
            modules = derive(self._function(gm, node, sources), [layouts[each] for each in sources], layouts[node])
        except ValueError as reason:
            raise ConvertError(
                f"{location(node)}: {reason}; needed a leading batch axis of any size; write x.flatten(1) or "
                f"x.view(x.size(0), -1)"
            ) from reason
        current: list[Node] = []
        with gm.graph.inserting_before(node):
            for source in sources:
                current.append(_repeated(gm, source, layouts, levels) if layouts[source].batch_axis is None else source)
            tensors = [
                torch.zeros(BATCH * layouts[each].rows, *layouts[each].row, dtype=torch.uint8) for each in current
            ]
            for module in modules:
                path = unique_path(gm, f"{node.name}_{type(module).__name__.lower()}")
                gm.add_submodule(path, module.eval())
                call = gm.graph.call_module(path, tuple(current))
                call.meta, call.stack_trace = dict(node.meta), node.stack_trace
                tensors = [module(*tensors)]
                layouts[call] = Layout(tuple(tensors[0].shape), 0)
                known = [levels[each] for each in current if each in levels]
                if known:
                    levels[call] = LevelRange.union(known)
                current = [call]
        (result,) = current
        if result not in sources:  # a constant that was repeated is another node even where nothing moved
            layouts[result] = layouts[node]
        node.replace_all_uses_with(result)
        gm.graph.erase_node(node)

    def _function(self, gm: GraphModule, node: Node, sources: list[Node]) -> Callable[..., Tensor]:
        """A node as a function of the tensors that it moves."""

        def evaluate(each: Node, known: dict[Node, Any]) -> Any:
            if each in known:
                return known[each]
            if each in self.recording.values:
                return self.recording.values[each]
            args = map_arg(each.args, lambda n: evaluate(n, known))
            kwargs = map_arg(each.kwargs, lambda n: evaluate(n, known))
            if each.op == "call_module":
                return gm.get_submodule(str(each.target))(*args, **kwargs)
            if each.op == "call_method":
                return getattr(args[0], str(each.target))(*args[1:], **kwargs)
            assert callable(each.target)
            return each.target(*args, **kwargs)

        return lambda *tensors: evaluate(node, dict(zip(sources, tensors, strict=True)))


def _fold_constant(gm: GraphModule, node: Node, levels: dict[Node, LevelRange]) -> None:
    """Compute what a requantizer makes of a constant now: files hold constants without a batch, layers with one."""
    sources, requantizer = [module_of(source) for source in node.all_input_nodes], module_of(node)
    constants = [each.levels for each in sources if isinstance(each, IntegerConstant)]
    if not isinstance(requantizer, IntegerMap) or len(constants) < len(sources):
        return
    folded = IntegerConstant(requantizer(*constants), requantizer.integer_type, levels[node].scale)
    gm.add_submodule(str(node.target), folded.eval())
    node.args = ()
    node.meta.pop("thresholds", None)


def _delete_unread_tensors(gm: GraphModule) -> None:
    """Delete the parameters and buffers of containers that no node reads, such as those of constants."""
    read = {str(node.target) for node in gm.graph.nodes if node.op in ("call_module", "get_attr")}
    called = tuple(f"{path}." for path in read)
    for path, module in gm.named_modules():
        if f"{path}.".startswith(called):
            continue
        for name in [*module._parameters, *module._buffers]:
            if f"{path}.{name}".removeprefix(".") not in read:
                delattr(module, name)


def _repeated(gm: GraphModule, constant: Node, layouts: dict[Node, Layout], levels: dict[Node, LevelRange]) -> Node:
    """A constant for each sample."""
    (first,) = [node for node in gm.graph.nodes if isinstance(module_of(node), Quantize)][:1]
    path = unique_path(gm, f"{constant.name}_repeat")
    gm.add_submodule(path, Repeat().eval())
    call = gm.graph.call_module(path, (constant, first))
    call.meta = dict(constant.meta)
    layouts[call], levels[call] = layouts[constant], levels[constant]
    return call


def _lower_max_pool(
    gm: GraphModule, node: Node, module: nn.Module, levels: dict[Node, LevelRange], layouts: dict[Node, Layout]
) -> None:
    (source,) = node.all_input_nodes
    sizes, results = layouts[source].shape[2:], layouts[node].shape[2:]
    rank = len(results)
    if isinstance(module, ADAPTIVE_MAX_POOLS):
        if any(size % result for size, result in zip(sizes, results, strict=True)):
            raise ConvertError(
                f"{location(node)}: adaptive max pooling from {sizes} to {results} has windows of different sizes; "
                f"needed an output size that divides the input's; pool to another size, or with nn.MaxPool2d"
            )
        kernel = tuple(size // result for size, result in zip(sizes, results, strict=True))
        pool = IntegerMaxPool(kernel, kernel, ((0, 0),) * rank, (1,) * rank)
    else:
        kernel, stride, padding, dilation = (
            _tuple(each, rank) for each in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        windows = zip(sizes, results, kernel, stride, padding, dilation, strict=True)
        if any(_has_empty_window(*each) for each in windows):
            raise ConvertError(
                f"{location(node)}: max pooling of {sizes} has windows that hold padding only, whose largest number is "
                f"minus infinity; needed a number in each; use less padding or dilation"
            )
        reach = [
            (result - 1) * s + d * (k - 1) + 1 - size - p
            for result, s, d, k, size, p in zip(results, stride, dilation, kernel, sizes, padding, strict=True)
        ]
        pads = tuple((p, max(0, after)) for p, after in zip(padding, reach, strict=True))
        pool = IntegerMaxPool(kernel, stride, pads, dilation)
    gm.add_submodule(str(node.target), pool.eval())
    levels[node] = levels[source]


def _has_empty_window(size: int, num_windows: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    starts = [index * stride - padding for index in range(num_windows)]
    return not all(any(0 <= start + dilation * k < size for k in range(kernel)) for start in starts)


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank


def _dequantize_inputs(
    gm: GraphModule, node: Node, levels: dict[Node, LevelRange], layouts: dict[Node, Layout]
) -> None:
    for source in node.all_input_nodes:
        if source not in levels:
            continue
        if layouts[source].batch_axis != 0:
            raise ConvertError(
                f"{location(source)}: the output {layouts[source].shape} for {BATCH} samples has its batch on axis "
                f"{layouts[source].batch_axis}, needed a leading batch axis of any size; write x.flatten(1) or "
                f"x.view(x.size(0), -1)"
            )
        path = unique_path(gm, f"{source.name}_dequantize")
        gm.add_submodule(path, Dequantize(levels[source].scale))
        with gm.graph.inserting_before(node):
            call = gm.graph.call_module(path, (source,))
        call.meta, layouts[call] = dict(source.meta), layouts[source]
        node.replace_input_with(source, call)

"""`equalize`: move scale between neighbouring layers of a float network, so that its channels need like ranges."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from ana_fx.graph import calls_of
from ana_fx.layers.norms import gain_and_offset
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import ClipRange
from ana_fx.passes.canonical.canonical_dialect import passes_levels
from ana_fx.passes.post_training.float_twin import float_twin
from ana_fx.passes.post_training.patches import has_patches
from ana_fx.passes.post_training.side_by_side import batches_for
from ana_fx.passes.prepare import prepare
from ana_fx.prepared.recognize import unwrap
from ana_fx.target_registry import target_called

__all__ = ["equalize"]

_HOMOGENEOUS = (ClipRange(), ClipRange(minimum=0.0))  # f(s·x) = s·f(x) for s > 0: no activation, and a ReLU
_NUM_SWEEPS = 20


@torch.no_grad()
def equalize(model: nn.Module, batches: Iterable[Any], *, target: str = "onnxruntime") -> nn.Module:
    """Make the channels between two layers of a float network alike in range, without changing what it computes.

    Where nothing but a ReLU, poolings of maxima and movements stand between two layers, what the first one gives in a
    channel can be divided by s > 0 if the second one multiplies it by s (Nagel et al., "Data-Free Quantization Through
    Weight Equalization and Bias Correction", 2019, section 4.1). Here s is √(r₁ / r₂), for r₂ the largest weight by
    which the second layer multiplies the channel, and r₁

    - the largest output of the channel on the batches where the target has a scale for each channel of a weight, for
      then the weights of the first layer do not mind (as Xiao et al., "SmoothQuant", 2023, equation 4);
    - the largest weight of the channel in the first layer, batch norm included, where it has one scale for all.

    Each s is rounded to a power of two. So the outputs are those of `model` bit for bit, as long as no number falls
    below the smallest normal one.

    It moves errors from one tensor to another and does not always help; measure it. `reconstruct` needs it rarely.

    Args:
        model: The float network; it is not touched.
        batches: As for calibration; no labels are read.
        target: Where the model will run.

    Returns:
        A copy for `prepare`, without wrappers such as `DistributedDataParallel`. Layers that share a weight, those
        whose outputs are added to others, and batch norms without weights keep their numbers.

    Raises:
        TypeError: `batches` does not hold batches.
        ValueError: The target is unknown, or the model was prepared already.
        CalibrationError: There is no batch, or one is unfit.
        AnaFxError: The model cannot be prepared, as by `prepare`.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> equal = equalize(model, [torch.rand(32, 4)])
        >>> x = torch.rand(5, 4)
        >>> torch.equal(equal(x), model(x))
        True
    """
    found = list(batches)
    gm = prepare(model, found[0] if found else None, schedule="ste", target=target)
    ranges = _Ranges(float_twin(gm))
    for batch in batches_for(gm, found):
        ranges.run(*batch)
    names: dict[str, str] = gm.meta["float_names"]
    by_weight = not target_called(target).per_channel
    pairs = list(_pairs(ranges, {id(each): names.get(name) for name, each in ranges.twin.named_parameters()}))
    for _ in range(_NUM_SWEEPS):
        changes = [_balance(pair, by_weight=by_weight) for pair in pairs]
        if not any(changes):
            break
    equal = copy.deepcopy(unwrap(model))
    for name, parameter in ranges.twin.named_parameters():
        before = gm.get_parameter(name)
        if not torch.equal(parameter, before):
            theirs = equal.get_parameter(names[name])  # of another width perhaps
            theirs.mul_(torch.where(before == 0, torch.ones_like(before), parameter / before).to(theirs))
    return equal


class _Ranges(Interpreter):
    """Runs the float network; remembers the shape of each tensor and the largest output of each layer's channels."""

    def __init__(self, twin: GraphModule) -> None:
        super().__init__(twin)
        self.twin = twin
        self.maps = dict(calls_of(twin, OperatorMap))
        self.shapes: dict[Node, torch.Size] = {}
        self.largest: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.shapes[n] = found.shape
        if n in self.maps and isinstance(found, Tensor) and found.is_floating_point():
            axis = self.maps[n].operator.channel_axis(found.ndim)
            largest = found.abs().movedim(axis, 0).flatten(1).amax(1)
            self.largest[n] = torch.maximum(largest, self.largest[n]) if n in self.largest else largest
        return found


@dataclass
class _Pair:
    """A layer and its only readers, between which scale can move.

    Args:
        first: The layer.
        largest: The largest output of each of its channels, which changes as they are divided.
        readers: Each reader, with the channel of `first` that each of its input channels comes from.
    """

    first: OperatorMap
    largest: Tensor
    readers: list[tuple[OperatorMap, Tensor]]

    def rows(self) -> list[nn.Parameter]:
        """The parameters that are divided, channel by channel along axis 0."""
        norm = self.first.norm
        last = (self.first.weight, self.first.bias) if norm is None else (norm.weight, norm.bias)
        return [each for each in last if each is not None]

    def parameters(self) -> list[nn.Parameter]:
        """All parameters that change."""
        return [*self.rows(), *(layer_map.weight for layer_map, _ in self.readers if layer_map.weight is not None)]


def _pairs(ranges: _Ranges, names: dict[int, str | None]) -> Iterator[_Pair]:
    """The pairs between which scale can move.

    Args:
        ranges: The float network, once it ran.
        names: The name of each parameter, by its `id`, in the user's model; None if that has no such parameter.
    """
    num_readers = Counter(id(each) for layer_map in ranges.maps.values() for each in layer_map.parameters(recurse=True))
    for node, layer_map in ranges.maps.items():
        readers = _readers(node, ranges) if _gives_channels(layer_map) and node in ranges.largest else None
        if not readers:
            continue
        pair = _Pair(layer_map, ranges.largest[node], readers)
        if all(num_readers[id(each)] == 1 and names.get(id(each)) is not None for each in pair.parameters()):
            yield pair


def _gives_channels(layer_map: OperatorMap) -> bool:
    """Whether each channel of a layer's output can be divided by a number of its own."""
    is_homogeneous = layer_map.clip_range in _HOMOGENEOUS and layer_map.line[1] == 0.0
    has_rows = has_patches(layer_map) or layer_map.weight is None
    divided = layer_map.weight if layer_map.norm is None else layer_map.norm.weight
    return is_homogeneous and has_rows and divided is not None


def _readers(node: Node, ranges: _Ranges) -> list[tuple[OperatorMap, Tensor]] | None:
    """The layers with weights that read the channels of a node, or None if something else does too.

    Instead of its outputs, the numbers of their channels, from 1, are sent through the graph; those that arrive at a
    reader tell which channels it reads.
    """
    shape = ranges.shapes[node]
    axis = ranges.maps[node].operator.channel_axis(len(shape))
    numbers = torch.arange(1.0, shape[axis] + 1).reshape(-1, *[1] * (len(shape) - 1 - axis % len(shape)))
    found: list[tuple[OperatorMap, Tensor]] = []
    todo = [(user, {node: numbers.expand(shape).contiguous()}) for user in node.users]
    while todo:
        user, env = todo.pop()
        reader = ranges.maps.get(user)
        if reader is None and passes_levels(user) and len(user.all_input_nodes) == 1:
            moved = Interpreter(ranges.twin)
            moved.env = dict(env)
            todo += [(each, {user: moved.run_node(user)}) for each in user.users]
            continue
        (read,) = env.values()
        origins = None if reader is None else _origins(reader, read)
        if reader is None or origins is None:
            return None
        found.append((reader, origins))
    return found


def _origins(reader: OperatorMap, numbers: Tensor) -> Tensor | None:
    """The channel, from 0, that each input channel of a layer comes from; None where one comes from several."""
    if not has_patches(reader):
        return None
    rows = numbers.movedim(reader.operator.channel_axis(numbers.ndim), 0).flatten(1)
    channels = rows.amax(1)
    is_one = ((rows == channels[:, None]) | (rows == 0)).all() & (channels > 0).all()  # zeros are padding
    return channels.long() - 1 if bool(is_one) else None


def _balance(pair: _Pair, *, by_weight: bool) -> bool:
    """Divide the channels of a layer, multiply them in its readers, and return whether any factor was not 1."""
    first = _effective_rows(pair.first) if by_weight else pair.largest
    second = torch.zeros_like(first)
    for layer_map, origins in pair.readers:
        columns = _columns(layer_map)
        second = second.scatter_reduce(0, origins, columns.abs().amax((1, 3)).flatten(), "amax")
    is_known = (first > 0) & (second > 0)
    if not by_weight and all(_is_depthwise(layer_map) for layer_map, _ in pair.readers):
        octaves = first.log2()  # each weight has a scale of its own
    else:
        octaves = 0.5 * (first.log2() - second.log2())
    octaves = torch.where(is_known, octaves, torch.zeros_like(first))
    middle = octaves[is_known].median() if bool(is_known.any()) else octaves.new_zeros(())
    factors = torch.where(is_known, 2.0 ** torch.round(octaves - middle), torch.ones_like(first))
    for each in pair.rows():
        each.div_(factors.reshape(-1, *[1] * (each.ndim - 1)))
    pair.largest = pair.largest / factors
    for layer_map, origins in pair.readers:
        columns = _columns(layer_map)
        columns.mul_(factors[origins].reshape(len(columns), 1, -1, 1))
    return bool((factors != 1).any())


def _is_depthwise(layer_map: OperatorMap) -> bool:
    assert layer_map.weight is not None
    return layer_map.operator.is_depthwise(layer_map.weight)


def _effective_rows(layer_map: OperatorMap) -> Tensor:
    """The largest weight of each channel, batch norm included."""
    weight, norm = layer_map.weight, layer_map.norm
    one = torch.ones(1, dtype=torch.float64)
    gain = one if norm is None else gain_and_offset(norm, one, torch.zeros_like(one))[0].abs()
    return (gain if weight is None else gain * weight.flatten(1).abs().amax(1)).float()


def _columns(layer_map: OperatorMap) -> Tensor:
    """A view of a weight, [groups, outputs of each, inputs of each, kernel]."""
    weight, operator = layer_map.weight, layer_map.operator
    assert weight is not None
    groups = operator.num_groups
    return weight.data.view(groups, len(weight) // groups, weight.shape[1], -1)

"""Where training goes on: which layer maps still learn, and which already run as deployed.

A layer map whose noise is gone has a zero gradient, so nothing upstream of it learns through it
(paper, section 5). Then nothing needs to be recorded there.
"""

from __future__ import annotations

from collections import defaultdict

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import constant_parameters, layer_map_of, layer_maps, module_of
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.layers.layer_map import LayerMap, Phase
from ana_fx.prepared.graph_form import is_program

__all__ = ["resume_phases", "set_phases"]


def set_phases(gm: GraphModule, annealed: set[LayerMap]) -> None:
    """Tell each layer map its phase, given those whose noise is gone.

    - An annealed one is frozen, unless it shares parameters with one that is not: it records nothing,
      and its statistics stay. If its inputs are levels, it runs as deployed.
    - One that is not annealed, but reaches the output only through annealed ones, cannot learn: it
      computes as before, and records nothing.
    - All others learn.
    - One that hands reals on, inside an island of floats, is frozen with all that read it.

    Parameters that no layer map learns any more lose the gradient they have, so that no optimiser
    moves them.
    """
    nodes = [(node, module_of(node)) for node in gm.graph.nodes]
    learning = {m for m in _useful(nodes, annealed) if m not in annealed}
    fixed = annealed - _sharing_parameters(nodes, annealed)
    carries_levels: set[Node] = set()
    for node, module in nodes:
        has_level_inputs = all(source in carries_levels for source in node.all_input_nodes if source.op != "get_attr")
        layer_map = layer_map_of(node)
        if layer_map is not None and layer_map.is_quantized:
            layer_map.set_phase(_phase(layer_map, learning, fixed, has_level_inputs))
        elif layer_map is not None and layer_map.stays_float:  # it hands reals on, to what may be annealed
            layer_map.set_phase(Phase.LEARNING if layer_map in learning else Phase.FROZEN)
        is_dropping = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        hands_on = has_level_inputs and not is_dropping and layer_map is None
        if hands_on or module in annealed or isinstance(module, InputQuantizer):
            carries_levels.add(node)
    _drop_gradients(nodes, learning)


def resume_phases(gm: GraphModule, _incompatible_keys: object) -> None:
    """After a state was loaded: the phases that its noise stands for; a program, made of a copy, has none."""
    if is_program(gm):
        return
    maps = layer_maps(gm).values() if int(gm.get_buffer("annealing_step")) else ()
    set_phases(gm, {m for m in maps if not any(float(q.mean) or float(q.std) for q in m.quantizers()[-1:])})


def _phase(layer_map: LayerMap, learning: set[LayerMap], fixed: set[LayerMap], has_level_inputs: bool) -> Phase:
    if layer_map in learning:
        return Phase.LEARNING
    if layer_map not in fixed:
        return Phase.UNRECORDED
    return Phase.DEPLOYED if has_level_inputs else Phase.FROZEN


def _useful(nodes: list[tuple[Node, nn.Module | None]], annealed: set[LayerMap]) -> set[LayerMap]:
    """The layer maps from which the output can be reached with no annealed one after them."""
    useful: set[Node] = set()
    for node, module in reversed(nodes):
        if node.op == "output" or node in useful:
            useful.add(node)
            if module not in annealed:
                useful.update(node.all_input_nodes)
    return {found for node in useful if (found := layer_map_of(node)) is not None}


def _sharing_parameters(nodes: list[tuple[Node, nn.Module | None]], annealed: set[LayerMap]) -> set[LayerMap]:
    """The layer maps that share a parameter with one that is not annealed."""
    users: dict[nn.Parameter, set[LayerMap]] = defaultdict(set)
    for node, _ in nodes:
        layer_map = layer_map_of(node)
        if layer_map is not None:
            for parameter in layer_map.parameters():
                if parameter.requires_grad or not any(parameter is q.scale for q in layer_map.quantizers()):
                    users[parameter].add(layer_map)
    return {each for sharing in users.values() if not sharing <= annealed for each in sharing}


def _drop_gradients(nodes: list[tuple[Node, nn.Module | None]], learning: set[LayerMap]) -> None:
    learned: set[nn.Parameter] = set()
    known: set[nn.Parameter] = set()
    for node, _ in nodes:
        layer_map = layer_map_of(node)
        if layer_map is None or not (layer_map.is_quantized or layer_map.stays_float):
            continue
        parameters = {*layer_map.parameters(), *(() if layer_map.takes_scales else constant_parameters(node))}
        known |= parameters
        if layer_map in learning:
            learned |= parameters
    for parameter in known - learned:
        parameter.grad = None

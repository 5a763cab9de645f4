"""`save` and `load`: an integer program as plain data.

A file holds a description of the graph and the program's tensors (see `ana_fx.targets.files.array_file`), no code of
any kind. What is loaded is not believed: names, types and sizes are checked before anything is built, shapes before
anything is computed, and each requantizer is proven again, as convert() does it.
"""

from __future__ import annotations

import json
import keyword
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule, Interpreter, Node

from ana_fx.annealing.ordering import OrderBreak
from ana_fx.errors import AnaFxError, ExportError, VerifyError
from ana_fx.graph import calls_to, module_of
from ana_fx.passes.lowering.bound_pairs import BoundPairs
from ana_fx.passes.lowering.prove import Prove
from ana_fx.precision.precision import Precision
from ana_fx.prepared.graph_form import GraphForm, is_program, set_form
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.level_flow import levels_given
from ana_fx.program.program_borders import Dequantize, Quantize
from ana_fx.program.tensor_spec import LevelRange, TensorSpec, has_spec, sample_shape_of, set_spec, spec_of
from ana_fx.schedule.schedule import AnnealingRange
from ana_fx.target_registry import find_target
from ana_fx.targets.files.array_file import pack, parse_json, unpack
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.files.plain_values import MODULES, Plain, Reader, Store
from ana_fx.targets.files.regular_file import read_regular_file, reason_of

__all__ = ["load", "save"]

_FORMAT, _KEY = 1, "ana_fx.program"
_LARGEST_FILE = 2**31 - 1
_LARGEST_TENSOR = 2**28  # numbers, of one sample
_LONGEST_NAME = 1000
_READERS = (IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax, IntegerTable)
_META: dict[str, Any] = {
    "annealing_ranges": dict[str, AnnealingRange],
    "example_inputs": tuple[Tensor, ...],
    "is_written_out": bool,
    "notes": tuple[str, ...],
    "order_breaks": tuple[OrderBreak, ...],
    "precision": Precision,
    "scale_groups": tuple[tuple[str, ...], ...],
    "target": str,
}


def save(integer: GraphModule, path: str | os.PathLike[str]) -> None:
    """Write an integer program to a file that holds data only; `load` gives it back.

    Of the example inputs the first sample is kept. The same program gives the same bytes.

    Args:
        integer: What `convert` returned.
        path: The file; it is replaced as a whole, or left as it was. `.anafx` tells what it is.

    Raises:
        ExportError: The program holds a module or an output that files do not, or cannot be written.
        ValueError: `integer` is not a converted program.
    """
    if not is_program(integer):
        raise ValueError(f"needed a program from ana_fx.convert, got {type(integer).__name__}")
    store = Store()
    try:
        description = {
            "format": _FORMAT,
            "name": type(integer).__name__,
            "meta": {name: store.plain(_kept(name, integer.meta[name])) for name in _META if name in integer.meta},
            "modules": _modules(integer, store),
            "nodes": [_node(node) for node in integer.graph.nodes],
        }
        text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
        data = pack({_KEY: text}, store.arrays)
    except ValueError as error:
        raise ExportError(f"cannot save the program: {error}; needed a program as convert() makes it") from error
    write_files({Path(path): data})


def load(path: str | os.PathLike[str], *, largest: int = _LARGEST_FILE) -> GraphModule:
    """The program that `save` wrote: the same integers, the same files when it is exported.

    No code of the file is run, whoever wrote it.

    Args:
        path: The file.
        largest: The most bytes that it may have.

    Raises:
        VerifyError: It cannot be read, or is no such file, or says something that no program does.
    """
    path = Path(path)
    try:
        metadata, arrays = unpack(read_regular_file(path, largest))
        if metadata.keys() != {_KEY}:
            raise ValueError("it does not say that it holds a program")
        return _program(parse_json(metadata[_KEY]), Reader(arrays))
    except (OSError, ValueError, AnaFxError) as error:
        raise VerifyError(f"cannot load {path}: {reason_of(error)}; needed a file that ana_fx.save wrote") from error


def _kept(name: str, value: Any) -> Any:
    return tuple(each[:1] for each in value) if name == "example_inputs" else value


def _modules(integer: GraphModule, store: Store) -> dict[str, Plain]:
    paths = dict.fromkeys(str(node.target) for node in integer.graph.nodes if node.op == "call_module")
    _check_paths(paths)
    modules = {}
    for path in paths:
        module = integer.get_submodule(path)
        if type(module) not in MODULES:
            raise ValueError(f"module {path!r} is {type(module).__name__}")
        modules[path] = store.plain(module)
    return modules


def _node(node: Node) -> dict[str, Plain]:
    """A node, with the shape of a sample where it gives a tensor."""
    known: dict[str, Plain] = {"op": node.op, "name": node.name}
    if node.op == "output":
        return known | {"value": _structure(node.args[0])}
    if node.op not in ("placeholder", "call_module") or node.kwargs or (node.op == "placeholder" and node.args):
        raise ValueError(f"found node {node.name!r} that is {node.op} of {node.target}")
    inputs = [each.name for each in node.args if isinstance(each, Node)]
    if len(inputs) != len(node.args):
        raise ValueError(f"found node {node.name!r} with an argument that is no tensor")
    shape = sample_shape_of(node) if has_spec(node) else None
    return known | {"target": str(node.target), "inputs": inputs, "shape": None if shape is None else list(shape)}


def _structure(value: Any) -> Plain:
    """What the graph returns, tuples, lists and dictionaries of nodes."""
    if isinstance(value, Node):
        return {"is": "node", "name": value.name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"is": "dict", "items": [[key, _structure(each)] for key, each in value.items()]}
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return {"is": "tuple" if isinstance(value, tuple) else "list", "items": [_structure(each) for each in value]}
    raise ValueError(f"found an output of {type(value).__name__}, needed tensors in tuples, lists and dictionaries")


def _program(description: Plain, reader: Reader) -> GraphModule:
    """The program that a description says."""
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        raise ValueError(f"found format {str(found)[:20]}, needed {_FORMAT}; another version of ana_fx may read it")
    if description.keys() != {"format", "name", "meta", "modules", "nodes"}:
        raise ValueError("found other parts than format, name, meta, modules and nodes")
    name, metas, modules, nodes = (description[each] for each in ("name", "meta", "modules", "nodes"))
    if not isinstance(metas, dict) or not isinstance(modules, dict) or not isinstance(nodes, list):
        raise ValueError("found parts of another type")
    if not metas.keys() <= _META.keys() or not {"annealing_ranges", "target"} <= metas.keys():
        raise ValueError("found other notes than those of a program")
    meta = {each: reader.value(plain, _META[each]) for each, plain in metas.items()}
    _check_paths(modules)
    made = {path: reader.value(plain, nn.Module) for path, plain in modules.items()}
    if not all(type(module) in MODULES for module in made.values()):
        raise ValueError("found a module that stands in no program")
    if reader.unused():
        raise ValueError(f"found {len(reader.unused())} arrays that nothing uses")
    graph = _graph(nodes, modules.keys())
    try:
        program = GraphModule(made, graph, _identifier(name)).eval()
        program.meta.update(meta)
        set_form(program, GraphForm.PROGRAM)
    except Exception as error:  # names that contradict each other; torch's errors share no base
        raise ValueError(f"cannot build the graph: {reason_of(error)[:200]}") from error
    shapes = {each["name"]: tuple(each["shape"]) for each in nodes if each.get("shape") is not None}
    _specify(program, shapes)
    Prove()(program)
    target = find_target(meta["target"])
    if target is not None:
        BoundPairs(target)(program)
    return program


def _check_paths(paths: Iterable[str]) -> None:
    """Refuse names of modules that could be more than names in the code that torch writes for a graph."""
    root, inner = GraphModule(nn.Module(), Graph()), nn.Module()
    for path in paths:
        parts = path.split(".")
        is_plain = all(part and part.isprintable() and not set(part) & set("\"'\\`{}") for part in parts)
        is_free = not hasattr(root, parts[0]) and not any(hasattr(inner, part) for part in parts)
        if len(path) > _LONGEST_NAME or not is_plain or not is_free:
            raise ValueError(f"found module {path[:60]!r}, needed a path of plain names")


def _identifier(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name == "self":
        raise ValueError(f"found name {str(name)[:60]!r}, needed an identifier")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"found a name of {len(name):,} characters")
    return name


def _graph(nodes: list[Plain], paths: Any) -> Graph:
    graph, known = Graph(), dict[str, Node]()
    for each in nodes:
        if not isinstance(each, dict) or _is_closed(graph):
            raise ValueError("found a node behind the output, or one without a name")
        name = _identifier(each.get("name"))
        if each.get("op") == "output" and each.keys() == {"op", "name", "value"}:
            node = graph.create_node("output", "output", (_built(each["value"], known, 0),), {}, name)
        elif each.keys() == {"op", "name", "target", "inputs", "shape"}:
            node = _call(graph, each, known, paths)
        else:
            raise ValueError(f"found node {name!r} of another kind")
        if node.name != name:  # torch renames what it knows already
            raise ValueError(f"found name {name!r}, which another node has, or Python")
        known[name] = node
    if not _is_closed(graph):
        raise ValueError("found no output")
    graph.lint()
    return graph


def _is_closed(graph: Graph) -> bool:
    """Whether a graph has its output."""
    return bool(graph.find_nodes(op="output"))


def _call(graph: Graph, each: dict[str, Plain], known: dict[str, Node], paths: Any) -> Node:
    """An input, or the call of a module."""
    target, inputs, shape = each["target"], each["inputs"], each["shape"]
    if not isinstance(inputs, list) or not all(isinstance(name, str) and name in known for name in inputs):
        raise ValueError(f"found node {each['name']!r} before its inputs")
    if each["op"] == "placeholder" and not inputs:
        node = graph.create_node("placeholder", _identifier(target), (), {}, each["name"])
    elif each["op"] == "call_module" and isinstance(target, str) and target in paths:
        node = graph.create_node("call_module", target, tuple(known[name] for name in inputs), {}, each["name"])
    else:
        raise ValueError(f"found node {each['name']!r} of another kind")
    if shape is not None and not (isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)):
        raise ValueError(f"found shape {str(shape)[:60]} of node {each['name']!r}")
    return node


def _built(plain: Plain, known: dict[str, Node], depth: int) -> Any:
    """What a graph returns, from its description."""
    if plain is None or type(plain) in (bool, int, float, str):
        return plain
    if depth > 20 or not isinstance(plain, dict):
        raise ValueError(f"found an output of {str(plain)[:60]}")
    if plain.get("is") == "node" and isinstance(plain.get("name"), str) and plain["name"] in known:
        return known[plain["name"]]
    items = plain.get("items")
    if not isinstance(items, list):
        raise ValueError(f"found an output of {str(plain)[:60]}")
    if plain.get("is") in ("tuple", "list"):
        built = [_built(each, known, depth + 1) for each in items]
        return tuple(built) if plain["is"] == "tuple" else built
    if plain.get("is") == "dict" and all(isinstance(i, list) and len(i) == 2 and isinstance(i[0], str) for i in items):
        return {key: _built(each, known, depth + 1) for key, each in items}
    raise ValueError(f"found an output of {str(plain)[:60]}")


def _specify(program: GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compute what is known of every tensor, without any number, and compare its shape with what the file says."""
    inputs = []
    for node in program.graph.find_nodes(op="placeholder"):
        if node.users and node.name not in shapes:
            raise ValueError(f"found input {node.name!r} without a shape")
        inputs.append(_sample(shapes.get(node.name, ())))
    if not calls_to(program, Quantize):
        raise ValueError("found no input that is quantised")
    layouts = _Layouts(program, shapes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layouts.run(*(torch.empty(BATCH, *shape) for shape in inputs))
    for node, layout in layouts.found.items():
        set_spec(node, TensorSpec(layout, _levels(node)))


def _sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    size = math.prod(shape)
    if size > _LARGEST_TENSOR:
        raise ValueError(f"found samples of {size:,} numbers, needed at most {_LARGEST_TENSOR:,}")
    return shape


class _Layouts(Interpreter):
    def __init__(self, program: GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(program)
        self.found: dict[Node, Layout] = {}
        self._shapes = shapes

    def run_node(self, n: Node) -> Any:
        """The tensor, which has the shape that the file says."""
        stated = self._shapes.get(n.name)
        if stated is None and n.op == "call_module":
            raise ValueError(f"found node {n.name!r} without a shape")
        if stated is not None:
            _sample(stated)
        try:
            result = super().run_node(n)
        except Exception as error:  # torch's errors share no base
            kind = type(module_of(n)).__name__
            raise ValueError(f"node {n.name!r} ({kind}) cannot compute: {str(error).splitlines()[0][:200]}") from error
        if not isinstance(result, Tensor) or n.op == "output":
            return result
        found = tuple(result.shape)
        row = found[1:] if n.all_input_nodes or n.op == "placeholder" else found  # a constant has no batch
        if n.op == "call_module" and stated != row:
            raise ValueError(f"node {n.name!r} gives samples of {row}, the file says {stated}")
        self.found[n] = Layout(found, None if row == found else 0)
        return result


def _levels(node: Node) -> LevelRange | None:
    """The levels that a node gives.

    Raises:
        ValueError: Something computes with logits or reals.
    """
    module, inputs = module_of(node), [spec_of(each) for each in node.all_input_nodes]
    if module is None:
        return None
    if isinstance(module, _READERS) and any(each.levels is None or each.levels.integer_type is None for each in inputs):
        raise ValueError(f"node {node.name!r} ({type(module).__name__}) reads what are no levels")
    return LevelRange.of_logits(_scale_of(node)) if isinstance(module, IntegerHead) else levels_given(module, inputs)


def _scale_of(head: Node) -> Tensor:
    """The scale of logits: that of the dequantize behind them."""
    seen = [head]
    for node in seen:
        module = module_of(node)
        if isinstance(module, Dequantize):
            return module.scale
        seen += [user for user in node.users if user not in seen]
    raise ValueError(f"found logits at node {head.name!r} that nothing dequantises")

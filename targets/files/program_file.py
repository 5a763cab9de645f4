"""`save` and `load`: an integer program as plain data.

A file holds a description of the graph and the program's tensors (see `ana_fx.targets.files.array_file`), no code of
any kind. What is loaded is not believed: names, types and sizes are checked before anything is built, shapes before
anything is computed, and each requantizer is proven again, as convert() does it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from ana_fx.annealing.ordering import OrderBreak
from ana_fx.errors import AnaFxError, ExportError, VerifyError
from ana_fx.passes.lowering.bound_pairs import BoundPairs
from ana_fx.passes.lowering.prove import Prove
from ana_fx.precision.precision import Precision
from ana_fx.prepared.graph_form import GraphForm, set_form
from ana_fx.prepared.recognize import program
from ana_fx.schedule.schedule import AnnealingRange
from ana_fx.target_registry import find_target
from ana_fx.targets.files.array_file import pack, parse_json, unpack
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.files.plain_values import MODULES, Plain, Reader, Store
from ana_fx.targets.files.regular_file import read_regular_file, reason_of
from ana_fx.targets.files.saved_graph import check_paths, graph_of, identifier, plain_node
from ana_fx.targets.files.saved_specs import specify

__all__ = ["load", "save"]

_FORMAT, _KEY = 1, "ana_fx.program"
_LARGEST_FILE = 2**31 - 1
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


def save(integer: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write an integer program to a file that holds data only; `load` gives it back.

    Of the example inputs the first sample is kept. The same program gives the same bytes.

    Args:
        integer: What `convert` returned.
        path: The file; it is replaced as a whole, or left as it was. `.anafx` tells what it is.

    Raises:
        ExportError: The program holds a module or an output that files do not, or cannot be written.
        TypeError: `integer` is no module.
        ValueError: It is not a converted program.
    """
    integer = program(integer, "save()")
    store = Store()
    try:
        description = {
            "format": _FORMAT,
            "name": type(integer).__name__,
            "meta": {name: store.plain(_kept(name, integer.meta[name])) for name in _META if name in integer.meta},
            "modules": _modules(integer, store),
            "nodes": [plain_node(node) for node in integer.graph.nodes],
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
        largest: The most bytes that it may have, by default 2 GiB.

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
    check_paths(paths)
    modules = {}
    for path in paths:
        module = integer.get_submodule(path)
        if type(module) not in MODULES:
            raise ValueError(f"module {path!r} is {type(module).__name__}")
        modules[path] = store.plain(module)
    return modules


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
    check_paths(modules)
    made = {path: reader.value(plain, nn.Module) for path, plain in modules.items()}
    if not all(type(module) in MODULES for module in made.values()):
        raise ValueError("found a module that stands in no program")
    if reader.unused():
        raise ValueError(f"found {len(reader.unused())} arrays that nothing uses")
    graph = graph_of(nodes, modules.keys())
    try:
        program = GraphModule(made, graph, identifier(name)).eval()
        program.meta.update(meta)
        set_form(program, GraphForm.PROGRAM)
    except Exception as error:  # names that contradict each other; torch's errors share no base
        raise ValueError(f"cannot build the graph: {reason_of(error)[:200]}") from error
    shapes = {each["name"]: tuple(each["shape"]) for each in nodes if each.get("shape") is not None}
    specify(program, shapes)
    Prove()(program)
    target = find_target(meta["target"])
    if target is not None:
        BoundPairs(target)(program)
    return program

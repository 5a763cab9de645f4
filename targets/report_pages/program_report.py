"""`report`: what a program is, layer by layer, as a page and as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.describe import Row, describe
from ana_fx.graph import module_of
from ana_fx.numerics.float32 import usual_torch
from ana_fx.passes.lowering.recording import run
from ana_fx.prepared.recognize import program
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.tensor_spec import has_spec, sample_shape_of, spec_of
from ana_fx.program.weight_sizes import weight_size
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.program_outputs import given_or_probes
from ana_fx.targets.verify import VerifyReport, verify
from ana_fx.text.json_text import JsonReport
from ana_fx.version import installed_version

__all__ = ["FileFacts", "NodeFacts", "ProgramReport", "program_facts", "report"]

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class NodeFacts:
    """A node of the graph of a program.

    Args:
        name: Its module path, or its name where it calls no module.
        kind: What it computes: "input", "convolution", "max pool", "reshape", "output" …
        reads: The names of the nodes that it reads.
        shape: The shape of one sample of its tensor; None where none is known.
        levels: The smallest and the largest integer that it can give; None for reals and logits.
        row: What `describe` says of it; None for what is no layer map.
        num_weights: Its trained weights.
        weight_bits: The fewest bits that hold each of them.
        weight_bytes: Bytes of its weights, packed with so many bits each.
        multiplier: The largest integer multiplier of its requantizer.
        shifts: The smallest and the largest shift of its requantizer.
        saturated: The share of its outputs that are its lowest or highest level, on the inputs that were given.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    levels: tuple[int, int] | None = None
    row: Row | None = None
    num_weights: int = 0
    weight_bits: int | None = None
    weight_bytes: int = 0
    multiplier: int | None = None
    shifts: tuple[int, int] | None = None
    saturated: float | None = None


@dataclass(frozen=True)
class FileFacts:
    """A file that was written from the program, and what running it gave.

    Args:
        path: The file.
        bytes: Its size.
        verified: What ran it, and how many outputs differed.
    """

    path: Path
    bytes: int
    verified: VerifyReport


@dataclass(frozen=True)
class ProgramReport(JsonReport):
    """What a program is. Prints as one line; `page` and `data` are the files that were written.

    Args:
        name: The name of the page, without its suffix.
        version: Version of the library.
        target: The target that it was prepared for.
        num_weights: Weights of all layers.
        weight_bytes: Their bytes, packed with the fewest bits of each layer.
        float_bytes: Their bytes in float32.
        nodes: The graph, in order.
        files: The files that were run.
        notes: What `describe` notes.
        page: The HTML file.
        data: The JSON file.
    """

    name: str
    version: str
    target: str
    num_weights: int
    weight_bytes: int
    float_bytes: int
    nodes: tuple[NodeFacts, ...]
    files: tuple[FileFacts, ...]
    notes: tuple[str, ...]
    page: Path
    data: Path

    @property
    def ratio(self) -> float:
        """How many times fewer bytes its weights have than in float32; 1 without weights."""
        return self.float_bytes / self.weight_bytes if self.weight_bytes else 1.0

    def __str__(self) -> str:
        layers = sum(node.row is not None for node in self.nodes)
        weights = f"{self.weight_bytes:,} bytes of weights, 1/{self.ratio:.1f} of float32"
        return f"{self.page}: {self.name} for {self.target}, {layers} layer maps, {weights}"


@usual_torch()
@torch.no_grad()
def report(
    integer: nn.Module,
    path: str | os.PathLike[str],
    *,
    files: Sequence[str | os.PathLike[str]] = (),
    inputs: Any = None,
) -> ProgramReport:
    """Write what a program is as one self-contained HTML page, and as JSON beside it.

    The page shows the graph, and for each layer map widths, scale, range, the bound of its accumulator, its multiplier,
    its proof and its bytes. It needs no network connection and no script to be read.

    Args:
        integer: What `convert` returned.
        path: The page, "model.html"; the JSON gets the same name with the suffix ".json". Both are replaced as a whole.
        files: Files that `export` wrote from this program; each is run by `verify`, and the report says with what.
        inputs: Float inputs as the model takes them, a tensor or a tuple of tensors; from them the report counts how
            many outputs of each layer are its lowest or highest level. Without them it leaves this out.

    Raises:
        TypeError: `integer` is no module, or `inputs` hold no tensors.
        ValueError: `integer` is not a converted program, `path` ends in ".json", or the program takes other inputs.
        VerifyError: A file cannot be run, or was not written from this program.
    """
    from ana_fx.targets.report_pages.report_page import page_of

    page = Path(path)
    data = page.with_suffix(".json")
    if page == data:
        raise ValueError(
            f"{page} is where the JSON goes; needed a path of the page, such as {page.with_suffix('.html')}"
        )
    integer = program(integer, "report()")
    ran = tuple(FileFacts(Path(each), Path(each).stat().st_size, verify(integer, each, inputs)) for each in files)
    given = None if inputs is None else given_or_probes(integer, inputs)
    facts = program_facts(integer, page, given, ran)
    write_files({page: page_of(facts).encode(), data: f"{facts.to_json()}\n".encode()})
    return facts


def program_facts(
    integer: GraphModule, page: Path, inputs: tuple[Tensor, ...] | None = None, files: tuple[FileFacts, ...] = ()
) -> ProgramReport:
    """Collect what the report of a program says; nothing is written."""
    summary = describe(integer)
    rows = {row.name: row for row in summary.rows}
    shares = {} if inputs is None else _saturated_shares(integer, inputs)
    nodes = tuple(_facts(node, rows, shares) for node in integer.graph.nodes)
    num_weights = sum(node.num_weights for node in nodes)
    return ProgramReport(
        name=page.stem,
        version=installed_version(),
        target=str(integer.meta.get("target", "unknown")),
        num_weights=num_weights,
        weight_bytes=sum(node.weight_bytes for node in nodes),
        float_bytes=num_weights * _FLOAT_BYTES,
        nodes=nodes,
        files=files,
        notes=summary.notes,
        page=page,
        data=page.with_suffix(".json"),
    )


def _facts(node: Node, rows: dict[str, Row], shares: dict[Node, float]) -> NodeFacts:
    name, module = _name_of(node), module_of(node)
    levels = spec_of(node).levels if has_spec(node) else None
    weights = weight_size(module)
    requantizer = module if isinstance(module, IntegerMap) else None
    return NodeFacts(
        name=name,
        kind=_kind(node, module, rows.get(name)),
        reads=tuple(dict.fromkeys(map(_name_of, node.all_input_nodes))),
        shape=sample_shape_of(node) if has_spec(node) else None,
        levels=None if levels is None or levels.integer_type is None else (levels.lo, levels.hi),
        row=rows.get(name),
        num_weights=weights.number,
        weight_bits=weights.bits or None,
        weight_bytes=weights.packed_bytes,
        multiplier=None if requantizer is None else int(requantizer.multiplier.abs().max()),
        shifts=None if requantizer is None else (int(requantizer.shift.min()), int(requantizer.shift.max())),
        saturated=shares.get(node),
    )


def _saturated_shares(integer: GraphModule, inputs: tuple[Tensor, ...]) -> dict[Node, float]:
    """For each node that gives levels of a type, the share of its outputs that are the lowest or the highest of it."""
    device = next(iter(integer.buffers())).device
    shares = {}
    for node, value in run(integer, tuple(x.to(device) for x in inputs)).items():
        levels = spec_of(node).levels if has_spec(node) else None
        if levels is not None and levels.integer_type is not None and value.numel():
            ends = (value == levels.integer_type.qmin) | (value == levels.integer_type.qmax)
            shares[node] = float(ends.float().mean())
    return shares


def _name_of(node: Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _kind(node: Node, module: nn.Module | None, row: Row | None) -> str:
    if node.op in ("placeholder", "output"):
        return "input" if node.op == "placeholder" else "output"
    if row is not None:
        return row.operation
    called = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
    return "".join(f" {each.lower()}" if each.isupper() else each for each in called.removeprefix("Integer")).strip(
        "_ "
    )

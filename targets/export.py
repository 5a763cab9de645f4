"""`export`: from an integer program to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import GraphModule

from ana_fx.errors import ExportError, listing
from ana_fx.graph import outputs
from ana_fx.numerics.float32 import usual_torch
from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.prepared.model_config import labels_of
from ana_fx.prepared.recognize import program
from ana_fx.program.tensor_spec import sample_shape_of
from ana_fx.program.weight_sizes import weights_line
from ana_fx.target import Target
from ana_fx.target_registry import target_called
from ana_fx.targets.file_family import FileOrder, family_at, family_of
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.files.metadata import LABELS
from ana_fx.targets.node_report import NodeReport
from ana_fx.targets.program_needs import program_misfits
from ana_fx.targets.runtimes.kernel_families import KernelFamily, proven_families
from ana_fx.text.json_text import JsonReport
from ana_fx.text.plain_text import cell, markup
from ana_fx.text.printed import printed
from ana_fx.text.wording import brief, unknown

__all__ = ["ExportReport", "export"]

_TITLE_WIDTH = 80
_FLOAT_BYTES = 4
_MUCH = 1.5  # by so much more than packed that it is worth a line
_PAIRS_PROVEN = f"No sum of two products leaves 16 bits ({PAIR_LIMIT:,}): exact on every processor."
_PAIRS_NEED_VNNI = f"Sums of two products can leave 16 bits ({PAIR_LIMIT:,}): inexact on x86 without VNNI."


@dataclass(frozen=True)
class ExportReport(JsonReport):
    """What was written. Prints as a table, a row for each layer map.

    Args:
        path: The file.
        target: Name of the target.
        io: "integer" or "float", the type at the borders.
        bytes: Size of the file.
        nodes: How each layer map stands in the file, in graph order.
        companions: Names of the files that were written beside it.
        weight_bytes: Bytes of all weights in the file.
        float_bytes: The same in float32.
    """

    path: Path
    target: str
    io: str
    bytes: int
    nodes: tuple[NodeReport, ...]
    companions: tuple[str, ...] = ()
    weight_bytes: int = 0
    float_bytes: int = 0

    @property
    def ratio(self) -> float:
        """How many times fewer bytes the weights have in the file than in float32; 1 without weights."""
        return self.float_bytes / self.weight_bytes if self.weight_bytes else 1.0

    @property
    def packed_bytes(self) -> int:
        """Bytes of the weights if each had the fewest bits of its layer; files of bytes have more."""
        return sum(-(-node.num_weights * (node.weight_bits or 0) // 8) for node in self.nodes)

    @property
    def needs_vnni(self) -> tuple[str, ...]:
        """The layer maps that could saturate on x86 processors without VNNI."""
        return tuple(node.name for node in self.nodes if node.needs_vnni)

    @property
    def proven_for(self) -> tuple[KernelFamily, ...]:
        """The kernels of onnxruntime that are proven to compute the program's integers; none if it is for others."""
        return proven_families(target_called(self.target), self.needs_vnni)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """The layers that stay in floats, of which nothing is proven."""
        return tuple(node.name for node in self.nodes if node.operator == "float")

    def __str__(self) -> str:
        return printed(self, Console(width=120, no_color=True))

    def __rich__(self) -> Table:
        """The table, for rich consoles."""
        table = Table(
            title=markup(f"{self.path.name}: target {self.target}, {self.io} borders, {self.bytes:,} bytes"),
            title_justify="left",
            min_width=_TITLE_WIDTH,
        )
        has_pairs = any(node.pair_sum is not None for node in self.nodes)
        for column in ("layer map", "operator", "arithmetic", *["pair sum"] * has_pairs, "note"):
            table.add_column(column)
        for node in self.nodes:
            note = node.reason or ("needs VNNI on x86, saturates without" if node.needs_vnni else "")
            pair_sum = ["–" if node.pair_sum is None else f"{node.pair_sum:,}"] * has_pairs
            table.add_row(*map(cell, (node.name, node.operator, node.arithmetic, *pair_sum, note)))
        said = [_PAIRS_NEED_VNNI if self.needs_vnni else _PAIRS_PROVEN] if has_pairs else []
        if self.float_layers:
            said.append(f"Not proven: float. {len(self.float_layers)} layer(s) stay in float32.")
        said.append(weights_line(self.weight_bytes, self.float_bytes))
        if self.weight_bytes >= _MUCH * self.packed_bytes > 0:
            said.append(
                f"Packed they would have {self.packed_bytes:,}: this file holds each in a byte or more, target 'qdq' "
                f"packs those of up to 4 bits."
            )
        table.caption = "\n".join(said)
        table.caption_justify = "left"
        return table


@usual_torch()
def export(
    integer: nn.Module,
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    io: str = "integer",
    labels: Sequence[str] | None = None,
) -> ExportReport:
    """Write an integer program as a file of its target: of ONNX, with a dynamic batch axis, or of TFLite.

    The files of `deeploy` and `dory` have a batch of one, and golden inputs and outputs beside them under the names
    that these tools expect: give each network a folder of its own.

    Args:
        integer: What `convert` returned.
        path: The file; it is replaced as a whole, or left as it was, and so are those beside it. Links are followed,
            permissions kept; `docs/threat_model.md` says what a process that is killed leaves.
        target: One of `ana_fx.targets()`; by default the one the model was prepared for.
        io: "integer": integer tensors in and out, their scales in the metadata; "float": floats in
            and out, quantised and dequantised in the file.
        labels: What the channels of the output stand for, in their order; kept in the metadata. By default those of
            the model's `config.id2label`, if there is one for each channel.

    The metadata of the file says of each input and output `name`: `name.shape` of one sample,
    `name.type`, `name.scale` and `name.zero_point`, so that real = (stored − zero_point) · scale. Of an output that
    a float layer gives, with `output="float"`, it says shape and type, which is "float32".

    Returns:
        A report of what each layer map became.

    Raises:
        ExportError: The file cannot be written, or the target cannot hold the program.
        TypeError: `integer` is no module, or `labels` no list of names.
        ValueError: An argument is unknown, or `integer` is not a converted program, or the path has the suffix of other
            files.
    """
    integer = program(integer, "export()")
    chosen = _target_taking(io, target or integer.meta["target"])
    family = family_of(chosen)
    _refuse_misfits(program_misfits(integer, chosen) + family.misfits(integer, chosen), chosen, integer.meta["target"])
    path = Path(path)
    _check_suffix(path, chosen)
    named = _labels_of_config(integer) if labels is None else labels
    notes = {} if named is None else {LABELS: _labels(named, integer)}
    emission = family.emit(integer, FileOrder(chosen, io == "float", path.name, notes))
    companions = {path.with_name(name): content for name, content in emission.companions.items()}
    write_files({**companions, path: emission.data})
    return ExportReport(
        path,
        chosen.name,
        io,
        len(emission.data),
        emission.nodes,
        tuple(emission.companions),
        sum(node.weight_bytes for node in emission.nodes),
        sum(_FLOAT_BYTES * node.num_weights for node in emission.nodes),
    )


def _target_taking(io: str, name: str) -> Target:
    """Find the target of that name, and refuse borders that its files do not have."""
    if io not in ("integer", "float"):
        raise ValueError(unknown("io", io, ("integer", "float")))
    chosen = target_called(name)
    if io not in chosen.borders:
        raise ValueError(f"target {chosen.name!r} takes io={' or '.join(map(repr, chosen.borders))}, got {io!r}")
    return chosen


def _refuse_misfits(misfits: Sequence[str], target: Target, prepared_for: str) -> None:
    if not misfits:
        return
    way_out = "change precision, the network or the target; ana_fx.targets() says what each accepts"
    if target.name != prepared_for:
        way_out = f"prepare the model with target={target.name!r}, which refuses what the target cannot hold"
    raise ExportError(listing(f"target {target.name!r} cannot hold the program:", misfits, way_out))


def _check_suffix(path: Path, target: Target) -> None:
    """Refuse a name by which `verify` and `inspect` would take the file for one of another family."""
    if family_at(path) is not family_of(target):
        raise ValueError(f"files of target {target.name!r} end with {target.file_format.suffix!r}, got {path.name!r}")


def _labels_of_config(integer: GraphModule) -> tuple[str, ...] | None:
    labels, shapes = labels_of(integer), [sample_shape_of(node) for _, node in outputs(integer)]
    return labels if labels and len(shapes) == 1 and shapes[0][:1] == (len(labels),) else None


def _labels(labels: Sequence[str], integer: GraphModule) -> str:
    """Write the labels as JSON, if there is one for each channel of the only output."""
    given: object = labels
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise TypeError(f"labels is a list with the name of each output channel, got {brief(given)}")
    shapes = [sample_shape_of(node) for _, node in outputs(integer)]
    sizes = [shape[0] for shape in shapes if shape]
    if len(shapes) != 1 or sizes != [len(labels)]:
        raise ValueError(f"{len(labels)} labels for outputs with {sizes or 'no'} channels, needed one for each")
    return json.dumps(list(labels))

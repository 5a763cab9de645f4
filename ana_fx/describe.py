"""A table of what each layer map is: depth, annealing range, widths, scales, bounds, proofs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.fx import Node

from ana_fx.annealing.annealing_notes import noise_left
from ana_fx.graph import layer_map_of, layer_maps, module_of
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.prepared.graph_form import is_program
from ana_fx.prepared.recognize import prepared_or_program
from ana_fx.program.integer_layers import IntegerHead, IntegerMap, IntegerThresholds
from ana_fx.program.program_borders import QuantizeFloat
from ana_fx.program.weight_sizes import weight_size, weights_line
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.requantizers.staircase import QLinearStaircase
from ana_fx.schedule.degrees import Gradient
from ana_fx.schedule.schedule import AnnealingRange, NoiseConstants, Schedule
from ana_fx.text.json_text import JsonReport
from ana_fx.text.plain_text import cell, markup, plain
from ana_fx.text.printed import printed

if TYPE_CHECKING:  # these take long to import
    from rich.console import Group

    from ana_fx.annealing.ordering import OrderBreak

__all__ = ["NOT_PROVEN", "Row", "Summary", "describe"]

NOT_PROVEN = "not proven: float"
"""What reports say of a layer that stays in floats."""

_WIDTH = 160
_LONGEST_NOTE = 10_000


@dataclass(frozen=True)
class Row:
    """One layer map. What a stage does not know yet is None.

    Args:
        name: Module path.
        operation: Kind of the affine map, and what is fused into it.
        depth: Layer maps before it on the longest path.
        start: Fraction of training at which its noise begins to decay, of a prepared model; None if it never does.
        end: Fraction of training at which its noise is gone, likewise.
        noise: Family and strategy of its noise, where layer maps differ in it.
        weight: Type of the weights.
        output: Type of the output.
        scale: Step of the output.
        accumulator: Largest absolute value that the accumulator can reach.
        pair_sum: Largest absolute sum of two neighbouring products, where kernels of the target add them in 16 bits.
        encoding: How the requantizer is computed.
        multiplier_bits: Bits of the largest integer multiplier.
        proof: What was compared; of a layer in floats, that nothing is proven.
    """

    name: str
    operation: str
    depth: int | None = None
    start: float | None = None
    end: float | None = None
    noise: str | None = None
    weight: str | None = None
    output: str | None = None
    scale: float | None = None
    accumulator: int | None = None
    pair_sum: int | None = None
    encoding: str | None = None
    multiplier_bits: int | None = None
    proof: str | None = None


@dataclass(frozen=True)
class Summary(JsonReport):
    """The rows of `describe`, in graph order, and what is to be noted under them; prints as a table.

    Args:
        title: Stage, number of layer maps, target.
        rows: A row for each layer map.
        notes: Lines below the table.
        weight_bytes: Bytes of all weights, packed with the fewest bits of each layer; files may take more, which
            `ExportReport` says.
        float_bytes: The same in float32.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    weight_bytes: int = 0
    float_bytes: int = 0

    def __str__(self) -> str:
        from rich.console import Console

        return printed(self, Console(width=_WIDTH, no_color=True))

    def __rich__(self) -> Group:
        """The table and the notes, for rich consoles; columns without an entry are left out."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=markup(self.title), title_justify="left")
        shown = [f.name for f in fields(Row) if any(getattr(row, f.name) is not None for row in self.rows)]
        for name in shown:
            is_text = name in _TEXT
            table.add_column(name.replace("_", " "), justify="left" if is_text else "right", no_wrap=name == "name")
        for row in self.rows:
            table.add_row(*(cell(_cell(getattr(row, name))) for name in shown))
        said = (weights_line(self.weight_bytes, self.float_bytes, " packed"), *self.notes)
        return Group(table, *(Text(plain(note, _LONGEST_NOTE), no_wrap=True, overflow="ignore") for note in said))


_TEXT = ("name", "operation", "noise", "encoding", "proof")


def describe(module: nn.Module) -> Summary:
    """Describe a prepared model or a converted program, a row for each layer map.

    Args:
        module: What `prepare` or `convert` returned, inside `DataParallel` and the like too.

    Raises:
        TypeError: It is no module.
        ValueError: It is another model.
    """
    gm = prepared_or_program(module, "describe()")
    rows: list[Row] = []
    for node in gm.graph.nodes:
        row = _row(node, gm.meta.get("annealing_ranges", {}))
        if row is not None:
            rows.append(row)
    shows_program = is_program(gm)
    if not shows_program:
        rows = _with_noise(rows, layer_maps(gm), gm.meta["schedule"])
    stage = "integer program" if shows_program else "prepared model"
    title = f"{stage}: {len(rows)} layer maps, target {gm.meta.get('target', 'unknown')}"
    notes = (*gm.meta.get("notes", ()), *_group_notes(gm.meta.get("scale_groups", ())))
    left = None if shows_program else noise_left(gm)
    said = (*notes, *_order_notes(gm.meta.get("order_breaks", ())), *(() if left is None else (left,)))
    called = {id(each): each for node in gm.graph.nodes if (each := module_of(node)) is not None}
    sizes = [weight_size(each) for each in called.values()]
    packed, floats = sum(each.packed_bytes for each in sizes), sum(each.float_bytes for each in sizes)
    return Summary(title, tuple(rows), said, packed, floats)


def _with_noise(rows: list[Row], maps: Mapping[str, LayerMap], schedule: Schedule) -> list[Row]:
    """The rows with their noise, if it is not the same for all; noise that stays has no start and no end."""
    constants = {path: schedule.constants(each.annealing_range) for path, each in maps.items()}
    static = {path for path, each in constants.items() if each.is_static}
    rows = [replace(row, start=None, end=None) if row.name in static else row for row in rows]
    said = {path: _said_of(each) for path, each in constants.items()}
    if len(set(said.values())) < 2:
        return rows
    return [replace(row, noise=said.get(row.name)) for row in rows]


def _said_of(constants: NoiseConstants) -> str:
    own = [str(constants.gradient)] if constants.gradient != Gradient() else []
    return ", ".join([constants.noise.name, constants.strategy.value, *["static"] * constants.is_static, *own])


def _group_notes(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Which layer maps have one scale, because their outputs are joined."""
    return tuple(f"One scale, since their outputs are joined: {', '.join(group)}" for group in groups)


def _order_notes(breaks: tuple[OrderBreak, ...]) -> tuple[str, ...]:
    """Where the schedule breaks the order of the graph."""
    if not breaks:
        return ()
    return (f"The schedule breaks the compositional order at {len(breaks)} edge(s):", *(f"  {each}" for each in breaks))


def _row(node: Node, ranges: dict[str, AnnealingRange]) -> Row | None:
    name, module, layer_map = str(node.target), module_of(node), layer_map_of(node)
    if layer_map is not None:
        is_float = layer_map.stays_float or not layer_map.is_quantized
        row = _trained_row(name, layer_map)
        return _float_row(row, node, layer_map, ranges.get(name)) if is_float else row
    if name not in ranges or module is None:
        return None
    timing = {"depth": ranges[name].depth}
    write: _RowWriter = _PROGRAM_ROWS.get(type(module), _exact_row)
    return write(name, module, timing)


def _head_row(name: str, module: IntegerHead, timing: dict[str, Any]) -> Row:
    return Row(
        name,
        type(module.operator).__name__.lower(),
        **timing,
        weight=module.operator.weight_range(module.weight),
        output="int32",
        accumulator=module.bound * module.factor + int(module.bias.abs().max()),
        pair_sum=module.pair_sum,
        encoding="accumulator",
    )


def _thresholds_row(name: str, module: IntegerThresholds, timing: dict[str, Any]) -> Row:
    return Row(
        name,
        type(module.operator).__name__.lower(),
        **timing,
        weight=module.operator.weight_range(module.weight),
        output=str(module.integer_type),
        scale=float(module.output_scale),
        accumulator=module.bound,
        pair_sum=module.pair_sum,
        encoding="thresholds",
        proof=f"{module.thresholds.numel():,} thresholds",
    )


def _map_row(name: str, module: IntegerMap, timing: dict[str, Any]) -> Row:
    proof = module.proof
    return Row(
        name,
        type(module.operator).__name__.lower(),
        **timing,
        weight=module.operator.weight_range(module.weight),
        output=str(module.integer_type),
        scale=float(module.output_scale),
        accumulator=module.bound,
        pair_sum=module.pair_sum,
        encoding=_encoding(module),
        multiplier_bits=module.multiply_shift.multiplier_bits,
        proof=None if proof is None else f"{proof.num_thresholds:,} thresholds",
    )


def _exact_row(name: str, module: nn.Module, timing: dict[str, Any]) -> Row:
    """A module that computes on integers just what eval mode does; there is nothing to prove."""
    kind = type(module).__name__.removeprefix("Integer").lower()
    output = str(getattr(module, "integer_type", ""))
    return Row(name, kind, **timing, output=output, scale=float(getattr(module, "output_scale", 1.0)), encoding="exact")


_RowWriter = Callable[[str, Any, dict[str, Any]], Row]
_PROGRAM_ROWS: dict[type[nn.Module], _RowWriter] = {
    IntegerHead: _head_row,
    IntegerMap: _map_row,
    IntegerThresholds: _thresholds_row,
}  # all others are exact


def _encoding(module: IntegerMap) -> str:
    family = ""
    if isinstance(module.staircase, QLinearStaircase):
        family = "QLinear = "
    elif isinstance(module.staircase, FixedPointStaircase):
        family = f"{module.staircase.rounding} = "
    return f"{family}multiply-shift{'' if module.correction is None else ', corrected'}"


def _trained_row(name: str, layer_map: LayerMap) -> Row:
    timing = layer_map.annealing_range
    output = layer_map.output_quantizer
    return Row(
        name,
        layer_map.operation,
        depth=None if timing is None else timing.depth,
        start=None if timing is None else timing.start,
        end=None if timing is None else timing.end,
        weight=_type(layer_map.weight_quantizer),
        output=_type(output) or ("int32" if layer_map.is_quantized else "float"),
        scale=float(output.scale.detach()) if output is not None and output.is_calibrated else None,
    )


def _float_row(row: Row, node: Node, layer_map: LayerMap, known: AnnealingRange | None) -> Row:
    """The row of a layer that stays in floats, with the type of the integers that go on behind it."""
    row = replace(row, weight=None if getattr(layer_map, "weight", None) is None else "float32", proof=NOT_PROVEN)
    if known is not None:
        row = replace(row, depth=known.depth)
    behind = [module for user in node.users if isinstance(module := module_of(user), QuantizeFloat)]
    if not behind:
        return row
    return replace(row, output=str(behind[0].integer_type), scale=float(behind[0].scale))


def _type(quantizer: Quantizer | None) -> str | None:
    return None if quantizer is None else str(quantizer.integer_type)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)

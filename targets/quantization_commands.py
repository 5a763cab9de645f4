"""The commands that quantise a float model without training, and say what comes of it: `compare` and `search`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ana_fx.analysis.latency_table import LatencyTable
from ana_fx.analysis.search_widths import cost_of, search_widths
from ana_fx.passes.post_training.compare_layers import compare_layers
from ana_fx.passes.post_training.reconstruct import reconstruct
from ana_fx.passes.post_training.sensitivity import WIDTHS, sensitivity
from ana_fx.passes.prepare import prepare
from ana_fx.precision.precision_json import precision_to_json
from ana_fx.targets.command_inputs import LARGEST_TEXT, batches_in, read_float_model
from ana_fx.targets.command_output import errors_in_one_line, show
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.files.regular_file import read_regular_file

__all__ = ["FloatModel", "compare", "search"]

FloatModel = Annotated[
    str, typer.Argument(help="A function without arguments that makes the float model, 'package.module:function'.")
]
FloatState = Annotated[Path | None, typer.Option(help="Its state_dict, of torch.save, if the function loads none.")]
Data = Annotated[Path, typer.Option(help="Inputs of the model, an array of numpy.save; no labels are needed.")]


def compare(
    model: FloatModel,
    data: Data,
    state: FloatState = None,
    precision: Annotated[str, typer.Option(help="As in prepare, 'int4' say.")] = "int8",
    target: Annotated[str, typer.Option(help="As in prepare.")] = "onnxruntime",
    rebuild: Annotated[bool, typer.Option(help="Reconstruct the layers first, as export does.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON in place of the table.")] = False,
    html: Annotated[Path | None, typer.Option(help="A page to write too.")] = None,
) -> None:
    """Quantise a float model without training, and say which layer hurts and what is wrong with it."""
    with errors_in_one_line():
        batches, float_model = batches_in(data), read_float_model(model, state)
        qat = prepare(float_model, batches[0], precision=precision, target=target, calibration=batches)
        if rebuild:
            reconstruct(qat, batches)
        report = compare_layers(qat, float_model, batches)
        if html is not None:
            write_files({html: report.to_html().encode()})
        show(report.to_json() if as_json else report)


def search(
    model: FloatModel,
    data: Data,
    state: FloatState = None,
    weight_bytes: Annotated[float | None, typer.Option(help="What all weights may take together.")] = None,
    mac_bits: Annotated[
        float | None, typer.Option(help="Bits of weights times bits of what they meet, over all multiplications.")
    ] = None,
    latency: Annotated[float | None, typer.Option(help="What all layers may take by --latency-table.")] = None,
    latency_table: Annotated[
        Path | None, typer.Option(help="CSV (layer, weight_bits, activation_bits, cost) or JSON, of your device.")
    ] = None,
    interpolate: Annotated[bool, typer.Option(help="Take widths that it lacks to lie between others.")] = False,
    activation: Annotated[str | None, typer.Option(help="The width of all activations; by default chosen.")] = None,
    width: Annotated[list[str] | None, typer.Option(help="What to choose from, once for each; by default all.")] = None,
    target: Annotated[str, typer.Option(help="As in prepare.")] = "onnxruntime",
) -> None:
    """Search the widths with the least error that fit a budget, and write the precision as JSON."""
    with errors_in_one_line():
        table = None
        if latency_table is not None:
            text = read_regular_file(latency_table, LARGEST_TEXT).decode()
            table = LatencyTable.of_text(text, interpolates=interpolate)
        found = sensitivity(read_float_model(model, state), batches_in(data), widths=width or WIDTHS, target=target)
        budgets = {"weight_bytes": weight_bytes, "mac_bits": mac_bits, "latency": latency}
        chosen = search_widths(found, **budgets, latency_table=table, activation=activation)
        cost = cost_of(found, chosen, table)
        report = {"cost": asdict(cost), "precision": precision_to_json(chosen)}
        show(json.dumps(report, indent=1, ensure_ascii=False))

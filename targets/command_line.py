"""The command line: `ana-fx`, or `python -m ana_fx`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.fx import GraphModule

from ana_fx.errors import SettingsError
from ana_fx.passes.convert import convert
from ana_fx.passes.post_training.reconstruct import reconstruct
from ana_fx.passes.prepare import prepare
from ana_fx.passes.supported_operators import supported_operators
from ana_fx.prepared.settings import settings_of
from ana_fx.target_registry import targets
from ana_fx.targets.command_inputs import LARGEST_TEXT, batches_in, make_model, read_float_model, read_state, unloadable
from ana_fx.targets.command_output import errors_in_one_line, show
from ana_fx.targets.export import export
from ana_fx.targets.files.arrays import read_array
from ana_fx.targets.files.program_file import load
from ana_fx.targets.files.program_file import save as save_program
from ana_fx.targets.files.regular_file import read_regular_file
from ana_fx.targets.inspection import inspect
from ana_fx.targets.limited_verify import verify_in_limits
from ana_fx.targets.quantization_commands import FloatModel, compare, search
from ana_fx.targets.report_pages.program_report import report
from ana_fx.version import installed_version

__all__ = ["app"]

_EPILOG = """From a trained state to a file, and every output bit compared:

ana-fx export my_net:make model.onnx --state qat.pt --example x.npy --save program.anafx

ana-fx verify model.onnx --against program.anafx
"""

app = typer.Typer(
    help="Integer networks: quantise, export, inspect, report, verify.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
)


def _say_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"ana-fx {installed_version()}, torch {torch.__version__}")
        raise typer.Exit


File = Annotated[Path, typer.Argument(help="A file that ana_fx wrote, .onnx, .tflite or .tosa.", show_default=False)]


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Integer networks: quantise, export, inspect, report, verify."""


@app.command("targets")
def list_targets() -> None:
    """List the targets and what each accepts."""
    show(targets())


@app.command("operators")
def list_operators() -> None:
    """List the modules, functions and methods that a model may use."""
    show(supported_operators())


@app.command("inspect")
def inspect_file(file: File) -> None:
    """Say what stands in a file: borders, operators, constants."""
    with errors_in_one_line():
        show(inspect(file))


@app.command("verify")
def verify_file(
    file: File,
    against: Annotated[
        Path, typer.Option(help="The program, of ana_fx.save or `export --save`; or a .onnx; or a .npz with outputs.")
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Option(help="A .npy for each input of the file, or one .npz; by default random levels."),
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option(help="What runs the file, once for each; by default all of its target that are installed."),
    ] = None,
    trust_code: Annotated[
        bool, typer.Option(help="Let --against be a .pt2 or .pt of torch, and run its code.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long it may take.")] = 600.0,
    gigabytes: Annotated[float, typer.Option(min=0.0, help="How much memory it may take.")] = 8.0,
) -> None:
    """Run a file in its target's runtimes, or in others, and compare every output bit, in a process with limits."""
    with errors_in_one_line():
        limits = {"seconds": seconds, "gigabytes": gigabytes}
        show(verify_in_limits(file, against, inputs or [], runtimes=runtimes or [], trusts_code=trust_code, **limits))


@app.command("report")
def report_program(
    program: Annotated[Path, typer.Argument(help="A program, of ana_fx.save or `export --save`.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="The HTML page; by default beside the program. The JSON is beside it.")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", help="A file of yours that was exported from it: run, and told of.")
    ] = None,
    inputs: Annotated[list[Path] | None, typer.Option(help="Arrays of numpy.save, to count what saturates.")] = None,
) -> None:
    """Write what a program is, layer by layer, as an HTML page and as JSON."""
    with errors_in_one_line():
        given = tuple(torch.from_numpy(read_array(each)) for each in inputs) if inputs else None
        show(report(load(program), output or program.with_suffix(".html"), files=files or (), inputs=given))


@app.command("export")
def export_model(
    model: FloatModel,
    output: Annotated[Path, typer.Argument(help="The file to write, .tflite for the targets of TFLite, else .onnx.")],
    state: Annotated[Path | None, typer.Option(help="The trained state_dict, of torch.save.")] = None,
    example: Annotated[
        list[Path] | None, typer.Option(help="The example inputs of prepare, arrays of numpy.save.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Inputs for quantising without training, .npy; the model is float then, --state too."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="As in prepare, 'int4' say; by default the state's.")] = None,
    schedule: Annotated[str, typer.Option(help="As in prepare.")] = "lsq",
    prepared_for: Annotated[
        str | None, typer.Option(help="The target that prepare was given; by default the state's.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The target of the file; by default the same.")] = None,
    io: Annotated[str, typer.Option(help="The borders, 'integer' or 'float'.")] = "integer",
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of each output channel.")] = None,
    save: Annotated[Path | None, typer.Option(help="Where to write the program, for `verify --against`.")] = None,
) -> None:
    """Convert a model and write its file: by --state as it was trained, or by --calibration without training."""
    with errors_in_one_line():
        if calibration is not None:
            batches = batches_in(calibration)
            float_model = read_float_model(model, state)
            qat = prepare(
                float_model,
                batches[0],
                precision=precision or "int8",
                schedule=schedule,
                target=prepared_for or target or "onnxruntime",
                calibration=batches,
            )
            reconstruct(qat, batches)
        else:
            qat = _trained(model, state, example or [], precision, schedule, prepared_for)
        names = None if labels is None else read_regular_file(labels, LARGEST_TEXT).decode().split("\n")
        names = None if names is None else [name.strip() for name in names if name.strip()]
        program = convert(qat.eval())
        report = export(program, output, target=target, io=io, labels=names)
        if save is not None:
            save_program(program, save)
        show(report)


app.command("compare")(compare)
app.command("search")(search)


def _trained(
    model: str,
    state: Path | None,
    example: list[Path],
    precision: str | None,
    schedule: str,
    prepared_for: str | None,
) -> GraphModule:
    """A prepared model with its trained state."""
    if state is None or not example:
        raise ValueError("export needs --state and --example of a trained model, or --calibration to do without")
    inputs = tuple(torch.from_numpy(read_array(each)) for each in example)
    made = make_model(model)
    trained = read_state(state)
    settings = settings_of(trained)
    if settings is None and (precision is None or prepared_for is None):
        raise ValueError(f"{state} does not tell its settings; needed --precision and --prepared-for")
    qat = prepare(
        made,
        inputs,
        precision=precision or settings.precision,  # type: ignore[union-attr]  # one of them is there
        schedule=schedule,
        target=prepared_for or settings.target,  # type: ignore[union-attr]  # likewise
    )
    _load_state(qat, trained, state)
    return qat


def _load_state(qat: nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        qat.load_state_dict(state)
    except SettingsError:
        raise
    except Exception as error:  # torch's are RuntimeErrors and others
        raise unloadable(path, error) from error

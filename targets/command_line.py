"""The command line: `ana-fx`, or `python -m ana_fx`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn
from torch.fx import GraphModule

from ana_fx.analysis.latency_table import LatencyTable
from ana_fx.analysis.search_widths import cost_of, search_widths
from ana_fx.errors import AnaFxError, SettingsError
from ana_fx.passes.convert import convert
from ana_fx.passes.post_training.compare_layers import compare_layers
from ana_fx.passes.post_training.reconstruct import reconstruct
from ana_fx.passes.post_training.sensitivity import WIDTHS, sensitivity
from ana_fx.passes.prepare import prepare
from ana_fx.passes.supported_operators import supported_operators
from ana_fx.precision.precision_json import precision_to_json
from ana_fx.prepared.settings import settings_of
from ana_fx.target_registry import targets
from ana_fx.targets.compare import check_archive
from ana_fx.targets.export import export
from ana_fx.targets.files.arrays import read_array
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.files.program_file import load
from ana_fx.targets.files.program_file import save as save_program
from ana_fx.targets.files.regular_file import read_regular_file, reason_of
from ana_fx.targets.inspection import inspect
from ana_fx.targets.limited_verify import verify_in_limits
from ana_fx.targets.report_pages.program_report import report
from ana_fx.text.plain_text import plain
from ana_fx.text.wording import brief
from ana_fx.version import installed_version

__all__ = ["app"]

app = typer.Typer(
    help="Integer networks: quantise, export, inspect, report, verify.", no_args_is_help=True, add_completion=False
)

_LARGEST_TEXT = 2**24
_LONGEST_LINE = 2000
_BATCH_SIZE = 64  # of calibration


def _say_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"ana-fx {installed_version()}, torch {torch.__version__}")
        raise typer.Exit


File = Annotated[Path, typer.Argument(help="A file that ana_fx wrote, .onnx, .tflite or .tosa.", show_default=False)]

FloatModel = Annotated[str, typer.Argument(help="What makes the float model, 'package.module:function'.")]
FloatState = Annotated[Path | None, typer.Option(help="Its state_dict, of torch.save, if the function loads none.")]
Data = Annotated[Path, typer.Option(help="Inputs of the model, an array of numpy.save; no labels are needed.")]


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
    _show(targets())


@app.command("operators")
def list_operators() -> None:
    """List the modules, functions and methods that a model may use."""
    _show(supported_operators())


@app.command("inspect")
def inspect_file(file: File) -> None:
    """Say what stands in a file: borders, operators, constants."""
    with _errors_in_one_line():
        _show(inspect(file))


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
        list[str] | None, typer.Option(help="What runs the file, once for each; by default the first of its target.")
    ] = None,
    trust_code: Annotated[
        bool, typer.Option(help="Let --against be a .pt2 or .pt of torch, and run its code.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long it may take.")] = 600.0,
    gigabytes: Annotated[float, typer.Option(min=0.0, help="How much memory it may take.")] = 8.0,
) -> None:
    """Run a file in its runtime, or in others, and compare every output bit, in a process with limits."""
    with _errors_in_one_line():
        limits = {"seconds": seconds, "gigabytes": gigabytes}
        chosen: list[str | None] = [*runtimes] if runtimes else [None]
        for name in chosen:
            _show(verify_in_limits(file, against, inputs or [], runtime=name, trusts_code=trust_code, **limits))


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
    with _errors_in_one_line():
        given = tuple(torch.from_numpy(read_array(each)) for each in inputs) if inputs else None
        _show(report(load(program), output or program.with_suffix(".html"), files=files or (), inputs=given))


@app.command("export")
def export_model(
    model: Annotated[str, typer.Argument(help="What makes the float model, 'package.module:function'.")],
    output: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    state: Annotated[Path | None, typer.Option(help="The trained state_dict, of torch.save.")] = None,
    example: Annotated[
        list[Path] | None, typer.Option(help="The example inputs of prepare, arrays of numpy.save.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Inputs for quantising without training, .npy; the model is float then, --state too."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="As in prepare; by default the state's.")] = None,
    schedule: Annotated[str | None, typer.Option(help="As in prepare.")] = None,
    prepared_for: Annotated[
        str | None, typer.Option(help="The target that prepare was given; by default the state's.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The target of the file; by default the same.")] = None,
    io: Annotated[str, typer.Option(help="The borders, 'integer' or 'float'.")] = "integer",
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of each output channel.")] = None,
    save: Annotated[Path | None, typer.Option(help="Where to write the program, for `verify --against`.")] = None,
) -> None:
    """Prepare a model as for training, load its trained state, or quantise it without one; convert and export it."""
    with _errors_in_one_line():
        if calibration is not None:
            batches = _batches(calibration)
            float_model = _float_model(model, state)
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
        names = None if labels is None else read_regular_file(labels, _LARGEST_TEXT).decode().split("\n")
        names = None if names is None else [name.strip() for name in names if name.strip()]
        program = convert(qat.eval())
        report = export(program, output, target=target, io=io, labels=names)
        if save is not None:
            save_program(program, save)
        _show(report)


@app.command("compare")
def compare(
    model: FloatModel,
    data: Data,
    state: FloatState = None,
    precision: Annotated[str, typer.Option(help="As in prepare.")] = "int8",
    target: Annotated[str, typer.Option(help="As in prepare.")] = "onnxruntime",
    rebuild: Annotated[bool, typer.Option(help="Reconstruct the layers first, as export does.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON in place of the table.")] = False,
    html: Annotated[Path | None, typer.Option(help="A page to write too.")] = None,
) -> None:
    """Quantise a float model without training, and say which layer hurts and what is wrong with it."""
    with _errors_in_one_line():
        batches, float_model = _batches(data), _float_model(model, state)
        qat = prepare(float_model, batches[0], precision=precision, target=target, calibration=batches)
        if rebuild:
            reconstruct(qat, batches)
        report = compare_layers(qat, float_model, batches)
        if html is not None:
            write_files({html: report.to_html().encode()})
        _show(report.to_json() if as_json else report)


@app.command("search")
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
    with _errors_in_one_line():
        table = None
        if latency_table is not None:
            text = read_regular_file(latency_table, _LARGEST_TEXT).decode()
            table = LatencyTable.of_text(text, interpolates=interpolate)
        found = sensitivity(_float_model(model, state), _batches(data), widths=width or WIDTHS, target=target)
        budgets = {"weight_bytes": weight_bytes, "mac_bits": mac_bits, "latency": latency}
        chosen = search_widths(found, **budgets, latency_table=table, activation=activation)
        cost = cost_of(found, chosen, table)
        report = {"cost": asdict(cost), "precision": precision_to_json(chosen)}
        _show(json.dumps(report, indent=1, ensure_ascii=False))


def _batches(path: Path) -> list[torch.Tensor]:
    """The inputs in a file, a few at a time."""
    return list(torch.from_numpy(read_array(path)).split(_BATCH_SIZE))


def _float_model(reference: str, state: Path | None) -> nn.Module:
    """The model of a function, with the float state in a file if there is one, in eval mode."""
    made = _made(reference)
    if state is not None:
        found = _read_state(state)
        try:
            made.load_state_dict(found)
        except Exception as error:  # torch's are RuntimeErrors and others
            raise _unloadable(state, error, "the float model") from error
    return made.eval()


def _trained(
    model: str,
    state: Path | None,
    example: list[Path],
    precision: str | None,
    schedule: str | None,
    prepared_for: str | None,
) -> GraphModule:
    """A prepared model with its trained state."""
    if state is None or not example:
        raise ValueError("export needs --state and --example of a trained model, or --calibration to do without")
    inputs = tuple(torch.from_numpy(read_array(each)) for each in example)
    made = _made(model)
    trained = _read_state(state)
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


def _made(reference: str) -> nn.Module:
    """The model of a function that is written 'package.module:function'."""
    module, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does it
    try:
        make = getattr(import_module(module), name)
    except Exception as error:  # of the user's own module
        raise ValueError(f"cannot import {reference!r}: {error}; needed 'package.module:function'") from error
    made = _call(make, reference)
    if not isinstance(made, nn.Module):
        raise ValueError(f"{reference!r} made {type(made).__name__}, needed a torch.nn.Module")
    return made


def _call(make: Any, reference: str) -> Any:
    if not callable(make):
        raise ValueError(f"{reference!r} is {brief(make)}, needed a function that makes the model")
    try:
        return make()
    except Exception as error:  # of the user's own code
        raise ValueError(f"{reference!r} raised {type(error).__name__}: {error}") from error


def _read_state(path: Path) -> dict[str, Any]:
    """The state_dict in a file, alone or under "model"; no code in it is run."""
    try:
        check_archive(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        found: dict[str, Any] = state.get("model", state)
        settings_of(found)  # looks at every name
    except SettingsError:
        raise
    except Exception as error:  # pickle's, zip's and torch's errors share no base
        raise _unloadable(path, error) from error
    return found


def _load_state(qat: nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        qat.load_state_dict(state)
    except SettingsError:
        raise
    except Exception as error:  # torch's are RuntimeErrors and others
        raise _unloadable(path, error) from error


def _unloadable(path: Path, error: Exception, whose: str = "the prepared model") -> ValueError:
    return ValueError(f"cannot load {path}: {reason_of(error)}; needed the state_dict of {whose}")


def _show(report: object) -> None:
    if sys.stdout.isatty() and not isinstance(report, str):
        Console().print(report)
    else:
        typer.echo("\n".join(plain(line, _LONGEST_LINE) for line in str(report).split("\n")))


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """What we foresee goes to stderr without a traceback, and as text that a terminal shows as it is."""
    try:
        yield
    except (AnaFxError, ValueError, TypeError, OSError) as error:
        lines = [plain(line, _LONGEST_LINE) for line in str(error).split("\n")]
        typer.echo("\n".join(["ana-fx: " + lines[0], *lines[1:]]), err=True)
        raise typer.Exit(1) from error

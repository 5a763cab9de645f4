"""Every refusal says what, where, found, needed, and the way out.

This covers `errors.py` too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from tests.graphs import Written
from tests.models import Chain
from tests.programs import converted

IMAGES = torch.linspace(0, 1, 8 * 3 * 6 * 6).reshape(8, 3, 6, 6)


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0.5:  # the line that is named
            return torch.sigmoid(x)
        return x


def small(extra: nn.Module | None = None) -> nn.Module:
    """block.conv, what is given at block.extra, and a head."""
    block = nn.Sequential()
    block.conv = nn.Conv2d(3, 4, 3)
    block.extra = extra or nn.ReLU()
    return nn.Sequential(block, nn.Flatten(), nn.Linear(64, 2))


def line_of(function: Callable[..., object], offset: int) -> str:
    lines, first = inspect.getsourcelines(function)
    return f"{Path(__file__).name}:{first + offset}: {lines[offset].strip()}"


def control_flow_on_data(folder: Path) -> None:
    ana_fx.prepare(small(Gate()))


def unsupported_operators(folder: Path) -> None:
    inner = Written(lambda m, x: torch.cumsum(x, 1) / x)
    ana_fx.prepare(small(nn.Sequential(nn.GLU(), inner)))


def nan_weights_in_the_model(folder: Path) -> None:
    model = small()
    model[0].conv.weight.data[0, 0, 0] = torch.nan
    ana_fx.prepare(model)


def infinite_weights_after_training(folder: Path) -> None:
    qat = ana_fx.prepare(small(), IMAGES, calibration=[IMAGES])
    qat.get_submodule("2").bias.data[1] = torch.inf
    ana_fx.convert(qat)


def calibration_of_another_shape(folder: Path) -> None:
    ana_fx.prepare(small(), IMAGES, calibration=[IMAGES, IMAGES[:, :1]])


def conversion_before_any_scale_is_known(folder: Path) -> None:
    ana_fx.convert(ana_fx.prepare(small(), IMAGES))


def conversion_while_expectation_is_noisy(folder: Path) -> None:
    schedule = ana_fx.Schedule(strategy="expectation")
    qat = ana_fx.prepare(small(), IMAGES, schedule=schedule, calibration=[IMAGES])
    ana_fx.Annealer(qat, 100)
    ana_fx.convert(qat)


def an_accumulator_that_cannot_fit(folder: Path) -> None:
    x = torch.rand(2, 700_000)
    ana_fx.convert(ana_fx.prepare(nn.Sequential(nn.Linear(700_000, 2)), x, calibration=[x]))


def a_normalised_row_that_is_too_long(folder: Path) -> None:
    x = torch.rand(2, 300_000)
    ana_fx.convert(ana_fx.prepare(nn.Sequential(nn.LayerNorm(300_000)), x, calibration=[x]))


def adaptive_max_pooling_into_uneven_windows(folder: Path) -> None:
    model = nn.Sequential(nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(48, 2))
    ana_fx.convert(ana_fx.prepare(model, IMAGES, calibration=[IMAGES]))


def a_width_that_the_target_cannot_hold(folder: Path) -> None:
    ana_fx.prepare(small(nn.Softmax(1)), IMAGES, target="dory")


def an_unwritable_path(folder: Path) -> None:
    ana_fx.export(converted(Chain), folder / "missing" / "model.onnx")


@dataclass(frozen=True)
class Message:
    """What a message must hold, in any order."""

    kind: type[ana_fx.AnaFxError]
    what: str
    where: tuple[str, ...]
    found: str
    needed: str
    way_out: str


REFUSALS: dict[Callable[[Path], None], Message] = {
    control_flow_on_data: Message(
        ana_fx.TraceError,
        what="cannot trace",
        where=("module '0.extra'", line_of(Gate.forward, 1)),
        found="found: symbolically traced variables cannot be used as inputs to control flow",
        needed="needed: a forward whose operations do not depend on the values of its tensors",
        way_out="(1) replace the condition by torch.where",
    ),
    unsupported_operators: Message(
        ana_fx.UnsupportedError,
        what="3 operation(s) cannot be quantised",
        where=("module '0.extra.0'", "module '0.extra.1'", line_of(unsupported_operators, 1)),
        found="GLU has no integer form here",
        needed="ana_fx.supported_operators() lists what has",
        way_out="Way out: replace them by supported ones, or keep this part of the model outside prepare()",
    ),
    nan_weights_in_the_model: Message(
        ana_fx.UnsupportedError,
        what="1 tensor(s) are not finite",
        where=("module '0.conv'",),
        found="weight holds 3 NaN or infinite of 108 numbers",
        needed="finite",
        way_out="Way out: load a checkpoint from before the training diverged",
    ),
    infinite_weights_after_training: Message(
        ana_fx.UnsupportedError,
        what="1 tensor(s) are not finite",
        where=("module '2'",),
        found="bias holds 1 NaN or infinite of 2 numbers",
        needed="finite",
        way_out="lower the learning rate",
    ),
    calibration_of_another_shape: Message(
        ana_fx.CalibrationError,
        what="the model cannot compute calibration batch 1",
        where=("module '0.conv'",),
        found="with shape(s) (8, 1, 6, 6)",
        needed="expected input[8, 1, 6, 6] to have 3 channels",
        way_out="needed inputs as in training, with a leading batch axis",
    ),
    conversion_before_any_scale_is_known: Message(
        ana_fx.CalibrationError,
        what="2 scale(s) are not known yet",
        where=("input_1_quantizer", "0.conv.output_quantizer"),
        found="not known yet",
        needed="run a training batch through the model in train()",
        way_out="or give prepare(..., calibration=batches)",
    ),
    conversion_while_expectation_is_noisy: Message(
        ana_fx.NotAnnealedError,
        what="3 quantizer(s) still compute with noise",
        where=("0.conv.weight_quantizer", "0.conv.output_quantizer", "2.weight_quantizer"),
        found="expectation with noise of mean 0 and std 0.289 steps",
        needed="needed none",
        way_out="train on until annealer.progress is 0.7",
    ),
    an_accumulator_that_cannot_fit: Message(
        ana_fx.AccumulatorError,
        what="the accumulator of channel",
        where=("module '0'",),
        found="can reach ",
        needed="needed at most 2147483647 (32 bits)",
        way_out="Way out: give the weights or the input of these layers fewer bits, or split the layers",
    ),
    a_normalised_row_that_is_too_long: Message(
        ana_fx.AccumulatorError,
        what="1 operation(s) do not fit",
        where=("module '0'",),
        found="it normalises rows of 300000 numbers",
        needed="needed at most 90090 (64 bits)",
        way_out="Way out: give the weights or the input of these layers fewer bits, or split the layers",
    ),
    adaptive_max_pooling_into_uneven_windows: Message(
        ana_fx.ConvertError,
        what="adaptive max pooling",
        where=("module '0'",),
        found="from (6, 6) to (4, 4) has windows of different sizes",
        needed="needed an output size that divides the input's",
        way_out="pool to another size, or with nn.MaxPool2d",
    ),
    a_width_that_the_target_cannot_hold: Message(
        ana_fx.PrecisionError,
        what="target 'dory' cannot hold the model",
        where=("module '0.extra'",),
        found="it is a softmax",
        needed="needed one of",
        way_out="Way out: change precision, the network or the target",
    ),
    an_unwritable_path: Message(
        ana_fx.ExportError,
        what="cannot write",
        where=("/missing/model.onnx",),
        found="No such file or directory",
        needed="in a writable folder that exists",
        way_out="nothing was written",
    ),
}


@pytest.mark.parametrize(("refused", "wanted"), REFUSALS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_refusal_says_all_that_a_user_needs(refused, wanted, tmp_path):
    with pytest.raises(ana_fx.AnaFxError) as caught:
        refused(tmp_path)
    assert type(caught.value) is wanted.kind
    for part in (wanted.what, *wanted.where, wanted.found, wanted.needed, wanted.way_out):
        assert part in str(caught.value)


@pytest.mark.parametrize("refused", [control_flow_on_data, calibration_of_another_shape, an_unwritable_path])
def test_a_refusal_keeps_what_caused_it(refused, tmp_path):
    with pytest.raises(ana_fx.AnaFxError) as caught:
        refused(tmp_path)
    assert caught.value.__cause__ is not None


def test_all_unsupported_operators_are_listed_one_a_line():
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        unsupported_operators(Path())
    for operator in ("GLU", "cumsum()", "truediv()"):
        assert sum(operator in line for line in str(caught.value).splitlines()) == 1


def test_every_error_of_ours_is_one_kind():
    names = {name for name in ana_fx.errors.__all__ if name.endswith("Error")}
    assert names <= set(ana_fx.__all__)
    assert all(issubclass(getattr(ana_fx, name), ana_fx.AnaFxError) for name in names)


def test_wrong_arguments_are_value_errors_that_list_what_is_known():
    for call, message in (
        (lambda: ana_fx.prepare(small(), precision="int9"), "unknown precision 'int9'; known are 'binary', 'ternary'"),
        (
            lambda: ana_fx.prepare(small(), target="tpu"),
            "unknown target 'tpu'; known are 'onnxruntime', 'onnxruntime-vnni'",
        ),
        (lambda: ana_fx.Schedule(interval="never"), "unknown interval 'never'; known are 'partition', "),
        (lambda: ana_fx.Precision("uint4"), "weights are signed, got uint4"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

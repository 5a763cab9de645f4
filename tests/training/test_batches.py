"""Example inputs and calibration as users give them: one line says what is wrong, and what is right."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ana_fx
from tests.models import Chain, example

X = example(Chain)
LOADER = DataLoader(TensorDataset(X, torch.zeros(len(X))), batch_size=2)
NO_TENSORS = {
    "an array": (X.numpy(), "is a numpy array, float32 .*needed a tensor.*torch.from_numpy"),
    "an array in a tuple": ((X.numpy(),), "is a numpy array, float32"),
    "a dict": ({"x": X}, "is a dict of 'x'; needed a tensor .*in the order of the arguments of forward"),
    "a shape": ((4, 3, 8, 8), r"is a shape, \(4, 3, 8, 8\); needed a tensor, such as torch.rand\(4, 3, 8, 8\)"),
    "a size": (X.shape, "is a shape"),
    "a loader": (LOADER, r"is a DataLoader; .*take one batch of it, next\(iter\(loader\)\)"),
    "a tuple in a tuple": (((X,),), "is a tuple of 1; needed a tensor or a tuple of tensors"),
    "a name": ("x", "is 'x'; needed a tensor"),
}


@pytest.mark.parametrize(("given", "message"), NO_TENSORS.values(), ids=NO_TENSORS)
def test_what_is_no_tensor_is_named_without_its_contents(given, message):
    with pytest.raises(TypeError, match=f"example_inputs {message}") as refused:
        ana_fx.prepare(Chain(), given)
    assert len(str(refused.value)) < 150
    with pytest.raises(TypeError, match=f"calibration batch 0 {message}") as refused:
        ana_fx.prepare(Chain(), X, calibration=[given])
    assert len(str(refused.value)) < 150


NO_BATCHES = {
    "a tensor": (X, r"got a single one, float32 .*; write calibration=\[x\]"),
    "an array": (X.numpy(), r"got a single one, a numpy array"),
    "a data set": (TensorDataset(X), "got a TensorDataset, which gives samples; put a DataLoader around it"),
    "a dict": ({"x": X}, "got a dict of 'x'"),
    "a number": (3, "got 3"),
    "a model": (nn.ReLU(), "got a ReLU"),
}


@pytest.mark.parametrize(("given", "message"), NO_BATCHES.values(), ids=NO_BATCHES)
def test_calibration_holds_batches(given, message):
    with pytest.raises(TypeError, match=f"calibration holds batches.*{message}"):
        ana_fx.prepare(Chain(), X, calibration=given)


UNFIT = {
    "no sample": (X[:0], r"example_inputs holds no sample, float32 \(0, 3, "),
    "the meta device": (X.to("meta"), "example_inputs is on the meta device"),
    "a sparse tensor": (X.to_sparse(), "example_inputs is sparse"),
    "complex numbers": (X.to(torch.complex64), "example_inputs is complex"),
}


@pytest.mark.parametrize(("given", "message"), UNFIT.values(), ids=UNFIT)
def test_tensors_without_real_numbers_are_refused(given, message):
    with pytest.raises(ana_fx.CalibrationError, match=message):
        ana_fx.prepare(Chain(), given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_any_width_are_taken(dtype):
    qat = ana_fx.prepare(Chain(), X.to(dtype), calibration=[X.to(dtype)])
    assert qat(X.to(dtype)).dtype is torch.float32


def test_labels_behind_the_inputs_may_be_anything():
    ana_fx.prepare(Chain(), (X, ["a cat"]), calibration=[(X, {"label": 1})])
    ana_fx.prepare(Chain(), next(iter(LOADER)), calibration=LOADER)


IMAGE = ana_fx.Precision(input=ana_fx.ImageInput(mean=0.5, std=0.25))
OF_CHANNELS = ana_fx.Precision(input=ana_fx.ImageInput(mean=(0.4, 0.5, 0.6), std=0.25))


@pytest.mark.parametrize("precision", [IMAGE, OF_CHANNELS])
def test_example_inputs_in_pixels_are_refused(precision):
    with pytest.raises(ana_fx.CalibrationError, match=r"example_inputs is no normalised image.*pixel / 255 - mean"):
        ana_fx.prepare(nn.Conv2d(3, 4, 3), 255 * torch.rand(2, 3, 8, 8), precision=precision)


def test_calibration_in_pixels_is_refused():
    with pytest.raises(ana_fx.CalibrationError, match=r"calibration batch 1 is no normalised image: .* from -2 to 2"):
        ana_fx.prepare(nn.Conv2d(3, 4, 3), calibration=[torch.rand(2, 3, 8, 8), 255 * X], precision=IMAGE)


def test_pixels_as_integers_are_sent_to_the_file():
    with pytest.raises(ana_fx.CalibrationError, match="it is the exported file that takes pixels"):
        ana_fx.prepare(nn.Conv2d(3, 4, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), precision=IMAGE)


def test_random_example_inputs_may_leave_the_range_a_little():
    ana_fx.prepare(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), precision=IMAGE)

"""Images: uint8 pixels in, whatever the normalisation.

This covers `passes/fusion/fold_image_normalization.py` and `layers/image_normalization.py` too.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.numerics.integer_type import IntegerType

ONE = {"mean": 0.3, "std": 0.25}
EACH = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def network(padding):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=padding, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def pixels(count=6):
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalized(image, mean, std):
    """As torchvision's ToTensor and Normalize do it."""
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in (mean, std))
    return (image.float() / 255 - mean) / std


def program(normalization, padding=1, precision="int8", target="onnxruntime"):
    model = network(padding)
    x = normalized(pixels(), **normalization)
    model(x)
    precision = ana_fx.Precision(precision, f"u{precision}", input=ana_fx.ImageInput(**normalization))
    qat = ana_fx.prepare(model, x, precision=precision, target=target)
    qat.train()(x)
    return qat.eval(), ana_fx.convert(qat)


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize(
    ("normalization", "padding"),
    [(ONE, 1), ({"mean": 0.5, "std": 0.5}, 1), ({"mean": 0.0, "std": 1.0}, 1), (EACH, 0)],
    ids=["one", "half", "none", "each"],
)
def test_the_file_takes_raw_pixels_and_gives_what_the_model_gives(tmp_path, normalization, padding, target):
    qat, integer = program(normalization, padding, target=target)
    path = tmp_path / "image.onnx"
    ana_fx.export(integer, path, target=target)
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    (logits,) = session.run(None, {session.get_inputs()[0].name: pixels().numpy()})
    x = normalized(pixels(), **normalization)
    metadata = session.get_modelmeta().custom_metadata_map
    (scale,) = (float(value) for key, value in metadata.items() if key.endswith("output.scale"))
    assert np.array_equal(logits.astype(np.float32) * np.float32(scale), qat(x).detach().numpy())
    assert ana_fx.verify(integer, path, x).num_different == 0
    assert ana_fx.verify(integer, path).num_different == 0


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize(("normalization", "padding"), [(ONE, 1), (EACH, 0)], ids=["one", "each"])
def test_float_borders_take_normalised_images(tmp_path, normalization, padding, target):
    _, integer = program(normalization, padding)
    path = tmp_path / "image.onnx"
    ana_fx.export(integer, path, target=target, io="float")
    assert ana_fx.verify(integer, path, normalized(pixels(), **normalization)).num_different == 0


@pytest.mark.parametrize(("normalization", "padding"), [(ONE, 1), (EACH, 0)], ids=["one", "each"])
def test_the_network_is_the_float_one_but_for_its_quantizers(normalization, padding):
    """Weights of 8 bits are off by 1/254 of their largest, images by half a step, activations by half a step."""
    model = network(padding)
    x = normalized(pixels(), **normalization)
    with torch.no_grad():
        model.train()(x)
    wanted = model.eval()(x)
    precision = ana_fx.Precision("int8", "uint8", input=ana_fx.ImageInput(**normalization))
    qat = ana_fx.prepare(model, x, precision=precision, calibration=[x]).eval()
    error = (qat(x) - wanted).detach().abs().max()
    assert float(error) < 0.05 * float(wanted.detach().abs().max())


def test_the_metadata_says_which_pixel_is_zero(tmp_path):
    _, integer = program(ONE)
    ana_fx.export(integer, tmp_path / "image.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "image.onnx").metadata_props}
    names = {key.rsplit(".", 1)[0] for key in metadata if key.endswith(".zero_point")}
    (name,) = names - {"output"}
    assert metadata[f"{name}.zero_point"] == str(round(255 * 0.3))
    assert metadata[f"{name}.type"] == "uint8"
    assert float(metadata[f"{name}.scale"]) == float(np.float32(1 / (255 * 0.25)))


def test_a_pixel_is_a_level_of_a_shifted_type():
    image = ana_fx.ImageInput(**ONE)
    kind = IntegerType(bits=8, signed=True, zero_point=76)
    assert image.integer_type == kind
    assert (kind.qmin, kind.qmax, kind.magnitude, str(kind)) == (-76, 179, 179, "uint8 - 76")


@pytest.mark.parametrize(
    "settings", [{"zero_point": 0}, {"zero_point": 256}, {"signed": False, "zero_point": 3}, {"narrow": True}]
)
def test_a_zero_point_outside_the_bytes_is_refused(settings):
    with pytest.raises(ValueError, match="a zero point is of a signed type that is not narrow"):
        IntegerType(**({"bits": 8, "signed": True, "zero_point": 3} | settings))


@pytest.mark.parametrize(
    ("mean", "std", "reason"),
    [
        (1.5, 1.0, "mean is in"),
        (0.5, 0.0, "std positive"),
        ((0.1, 0.2), (0.1, 0.2, 0.3), "mean has 2 numbers and std 3"),
    ],
)
def test_a_normalisation_that_is_none_is_refused(mean, std, reason):
    with pytest.raises(ValueError, match=reason):
        ana_fx.ImageInput(mean, std)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x) + self.conv(torch.relu(x))


@pytest.mark.parametrize(
    "model",
    [network(1), nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), Twice(), nn.Sequential(nn.MaxPool2d(2), network(1))],
    ids=["padded", "flat", "shared", "pooled"],
)
@pytest.mark.parametrize("precision", ["int8", "int4", "ternary", "binary"])
def test_a_normalisation_of_each_channel_goes_in_front_where_it_does_not_fold(tmp_path, model, precision):
    x = normalized(pixels(), **EACH)
    with torch.no_grad():
        model(x)
    image = ana_fx.ImageInput(**EACH)
    given = ana_fx.Precision.parse(precision)
    given = ana_fx.Precision(given.weight, given.activation, input=image, first="int8")
    qat = ana_fx.prepare(model, x, precision=given, calibration=[x]).eval()
    row = ana_fx.describe(qat).rows[0]
    assert row.name.endswith("_normalization")
    assert (row.operation, row.output) == ("image normalisation", "int8")
    integer, path = ana_fx.convert(qat), tmp_path / "image.onnx"
    assert torch.equal(integer(x), qat(x))
    ana_fx.export(integer, path)
    assert ana_fx.inspect(path).inputs[0].dtype == np.uint8
    assert ana_fx.verify(integer, path, x).num_different == 0
    assert ana_fx.verify(integer, path).num_different == 0


def test_the_normalisation_in_front_gives_the_nearest_of_255_levels():
    """The weight of a channel is exact, the bias is rounded to what a step of the accumulator is."""
    x, image = normalized(pixels(), **EACH), ana_fx.ImageInput(**EACH)
    qat = ana_fx.prepare(_seen(network(1)), x, precision=ana_fx.Precision("int4", "uint4", input=image)).eval()
    normalization = qat.get_submodule("input_1_normalization")
    found = normalization(qat.get_submodule("input_1_quantizer")(x), qat.get_submodule("input_1_quantizer").scale)
    step = normalization.output_quantizer.scale.item()
    assert step == pytest.approx(max((1 - m) / s for m, s in zip(EACH["mean"], EACH["std"], strict=True)) / 127)
    assert float((found - x).abs().max()) < 0.51 * step


def test_the_first_layer_is_the_one_behind_the_normalisation_and_has_its_depth():
    x, image = normalized(pixels(), **EACH), ana_fx.ImageInput(**EACH)
    precision = ana_fx.Precision("ternary", "uint2", input=image, first="int4")
    qat = ana_fx.prepare(_seen(network(1)), x, precision=precision)
    rows = {row.name: row for row in ana_fx.describe(qat).rows}
    assert rows["0"].weight == "int4"
    assert rows["input_1_normalization"].depth == rows["0"].depth == 0
    assert rows["3"].depth == 1
    assert not any(each.requires_grad for each in qat.get_submodule("input_1_normalization").parameters() if each.ndim)


def test_a_padded_network_behind_a_normalisation_is_the_float_one_but_for_its_quantizers():
    """As without padding: weights of 8 bits are off by 1/254 of their largest, features by half a step."""
    x, model = normalized(pixels(), **EACH), _seen(network(1)).eval()
    precision = ana_fx.Precision("int8", "uint8", input=ana_fx.ImageInput(**EACH))
    qat = ana_fx.prepare(model, x, precision=precision, calibration=[x]).eval()
    with torch.no_grad():
        wanted, found = model(x), qat(x)
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


@pytest.mark.parametrize("gives_example", [True, False])
def test_a_normalisation_of_other_channels_is_refused(gives_example):
    precision = ana_fx.Precision("int8", input=ana_fx.ImageInput((0.1, 0.2), 0.3))
    with pytest.raises(ana_fx.UnsupportedError, match="it reads 3 channels, the normalisation has 2") as caught:
        ana_fx.prepare(nn.Conv2d(3, 3, 1), normalized(pixels(), **EACH) if gives_example else None, precision=precision)
    assert "give a mean and a std for each channel" in str(caught.value)


def test_an_image_keeps_its_quantizer_through_a_checkpoint():
    qat, _ = program(ONE)
    again = ana_fx.prepare(
        _seen(network(1)),
        precision=ana_fx.Precision("int8", "uint8", input=ana_fx.ImageInput(**ONE)),
    )
    again.load_state_dict(qat.state_dict())
    x = normalized(pixels(), **ONE)
    assert torch.equal(again.eval()(x), qat(x))


def _seen(model):
    model(torch.zeros(2, 3, 8, 8))
    return model


@pytest.mark.parametrize("shape", [(4,), (3, 8), (3, 2, 8, 8)])
def test_pixels_of_what_is_no_image_are_refused(shape):
    model = nn.Linear(shape[-1], 5)
    precision = ana_fx.Precision(input=ana_fx.ImageInput(**ONE))
    with pytest.raises(ana_fx.CalibrationError, match=r"found samples of shape .*needed images"):
        ana_fx.prepare(model, torch.rand(2, *shape), precision=precision)
    qat = ana_fx.prepare(model, precision=precision)
    with pytest.raises(ana_fx.CalibrationError, match=r"found samples of shape .*needed images"):
        qat.train()(torch.rand(2, *shape))


class Normalizes(nn.Module):
    """A network that normalises its images itself."""

    def __init__(self, divides):
        super().__init__()
        self.divides = divides
        self.register_buffer("mean", torch.tensor(EACH["mean"]).reshape(1, 3, 1, 1))
        self.std = nn.Parameter(torch.tensor(EACH["std"]).reshape(1, 3, 1, 1), requires_grad=False)
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        x = x - self.mean
        return self.conv(x / self.std if self.divides else x * (1 / self.std))


def test_dividing_by_the_models_own_tensor_is_multiplying_by_its_reciprocal():
    x = pixels() / 255
    divided, multiplied = (ana_fx.prepare(Normalizes(each), x, calibration=[x]).eval() for each in (True, False))
    assert torch.equal(divided(x), multiplied(x))
    assert torch.equal(ana_fx.convert(divided)(x), divided(x))


def test_dividing_by_a_tensor_of_activations_is_refused_with_what_can_be_divided_by():
    class Divides(nn.Module):
        def forward(self, x):
            return x / (x + 2)

    with pytest.raises(ana_fx.UnsupportedError, match="to divide by, a parameter or buffer"):
        ana_fx.prepare(Divides(), torch.rand(2, 3))

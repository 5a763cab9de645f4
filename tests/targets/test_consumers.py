"""Files in the tools that read them, for real; each test needs its tool, of the extra `consumers`."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from examples.networks import DSCNN, VGG8
from tests.models import Residual


def mobilenet() -> nn.Module:
    """MobileNetV2 at a quarter of its width."""
    models = pytest.importorskip("torchvision.models")
    return models.MobileNetV2(num_classes=10, width_mult=0.25)


NETWORKS = {
    "VGG8/8": (partial(VGG8, 8), (3, 32, 32)),
    "DS-CNN": (DSCNN, (1, 49, 10)),
    "residual": (Residual, (3, 8, 8)),
    "MobileNetV2/4": (mobilenet, (3, 32, 32)),
}
CASES = [
    pytest.param(name, precision, marks=[pytest.mark.slow] if name == "MobileNetV2/4" else [])
    for name in NETWORKS
    for precision in ("ternary", "int4", "int8")
]
every_network = pytest.mark.parametrize(("name", "precision"), CASES)


@cache
def program(name: str, precision: str) -> tuple[GraphModule, Tensor]:
    """An integer program that has seen one training batch, and inputs."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = make(), torch.rand(8, *shape)
        qat = ana_fx.prepare(model, x, precision=precision)
        qat.train()(x)
        return ana_fx.convert(qat.eval()), torch.rand(16, *shape)


def verified(
    name: str, precision: str, folder: Path, target: str, *, io: str = "integer", runtimes: list[str] | None = None
) -> ana_fx.VerifyReport:
    integer, x = program(name, precision)
    ana_fx.export(integer, folder / "model.onnx", target=target, io=io)
    return ana_fx.verify(integer, folder / "model.onnx", x, runtimes=runtimes)


@pytest.mark.extra("consumers", "tract")
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("name", ["VGG8/8", "DS-CNN", "residual"])
def test_tract_gives_the_integers_of_the_integer_target(name, precision, tmp_path):
    """Not of MobileNetV2: tract's optimiser needs exponential time for residual sums of integers in a row."""
    assert verified(name, precision, tmp_path, "integer", runtimes=["tract"]).num_different == 0


@pytest.mark.extra("consumers", "tract")
def test_tract_computes_in_64_bits_where_it_must(tmp_path):
    """Products of 2**40 and more, whose offsets leave 32 bits."""
    torch.manual_seed(0)
    x = torch.rand(64, 300)
    model = nn.Sequential(nn.Linear(300, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
    qat = ana_fx.prepare(model, x, precision="int8", target="integer")
    qat.train()(x)
    integer = ana_fx.convert(qat.eval())
    report = ana_fx.export(integer, tmp_path / "model.onnx")
    assert report.nodes[0].arithmetic == "int64"
    assert ana_fx.verify(integer, tmp_path / "model.onnx", x, runtimes=["tract"]).num_different == 0


@pytest.mark.extra("consumers", "tract")
@every_network
def test_tract_gives_the_integers_of_qdq_with_bytes(name, precision, tmp_path):
    """In float arithmetic, which no tie meets here."""
    report = verified(name, precision, tmp_path, "qdq-int8", runtimes=["onnxruntime", "tract"])
    assert report.different == (0, 0)


@pytest.mark.extra("consumers", "openvino")
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("name", ["VGG8/8", "DS-CNN"])
def test_openvino_gives_the_integers_of_qdq_where_nothing_is_added(name, precision, tmp_path):
    report = verified(name, precision, tmp_path, "qdq-int8", runtimes=["onnxruntime", "openvino"])
    assert report.different == (0, 0)


@pytest.mark.extra("consumers", "openvino")
def test_openvino_reads_weights_of_four_bits(tmp_path):
    report = verified("VGG8/8", "int4", tmp_path, "qdq", runtimes=["onnxruntime", "openvino"])
    assert report.different == (0, 0)


@pytest.mark.extra("consumers", "openvino")
def test_what_openvino_rounds_otherwise_in_a_sum_is_stated(tmp_path):
    report = verified("residual", "int8", tmp_path, "qdq", runtimes=["onnxruntime", "openvino"])
    assert report.different[0] == 0
    assert report.different[1] > 0
    assert f": {report.different[1]}" in str(report)
    assert str(report).endswith(" in onnxruntime)")


@pytest.mark.extra("consumers", "qonnx")
@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("target", ["qonnx", "qonnx-multithreshold"])
@every_network
def test_the_qonnx_executor_gives_the_same_integers_after_its_cleanup(name, precision, target, io, tmp_path):
    report = verified(name, precision, tmp_path, target, io=io)
    assert report.runtimes[0].startswith("qonnx ")
    assert report.num_different == 0


class Tokens(nn.Module):
    """A layer norm, attention without projections, a GELU; one tensor that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(12, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        x = nn.functional.gelu(x + torch.softmax(x @ x.transpose(1, 2), -1) @ x)
        return self.head(x * x)


@pytest.mark.extra("consumers", "qonnx")
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_the_qonnx_executor_runs_what_is_no_convolution(precision, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(8, 7, 12)
    qat = ana_fx.prepare(Tokens(), x, precision=precision, target="qonnx")
    qat.train()(x)
    integer = ana_fx.convert(qat.eval())
    ana_fx.export(integer, tmp_path / "model.onnx")
    assert ana_fx.verify(integer, tmp_path / "model.onnx", x).num_different == 0


@pytest.mark.parametrize("io", ["integer", "float"])
@pytest.mark.parametrize("target", ["qdq", pytest.param("qonnx", marks=pytest.mark.extra("consumers", "qonnx"))])
def test_images_are_taken_as_pixels(target, io, tmp_path):
    """With a zero point that is not in the middle of the byte."""
    torch.manual_seed(0)
    mean, std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)
    x = (torch.randint(0, 256, (8, 3, 8, 8)) / 255 - mean[0]) / std[0]
    precision = ana_fx.Precision("int4", "uint4", input=ana_fx.ImageInput(mean, std))
    qat = ana_fx.prepare(Residual(), x, precision=precision)
    qat.train()(x)
    integer = ana_fx.convert(qat.eval())
    ana_fx.export(integer, tmp_path / "model.onnx", target=target, io=io)
    assert ana_fx.verify(integer, tmp_path / "model.onnx", x).num_different == 0


def mlp() -> nn.Sequential:
    """Two hidden layers."""
    hidden = (nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(12, 5))


def cnn() -> nn.Sequential:
    """Two convolutions and a pool."""
    first = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))


@pytest.mark.extra("consumers", "hls4ml")
@pytest.mark.slow  # a minute of g++ each
@pytest.mark.filterwarnings("ignore")  # hls4ml's own
@pytest.mark.parametrize("precision", ["ternary", "int4"])
@pytest.mark.parametrize(("make", "shape"), [(mlp, (16,)), (cnn, (3, 10, 10))], ids=["mlp", "cnn"])
def test_hls4ml_compiles_qonnx_to_the_same_logits(make, shape, precision, tmp_path):
    import hls4ml

    torch.manual_seed(0)
    x = torch.rand(64, *shape)
    qat = ana_fx.prepare(make(), x, precision=precision, target="qonnx")
    qat.train()(x)
    integer = ana_fx.convert(qat.eval())
    ana_fx.export(integer, tmp_path / "model.onnx")
    model = for_hls4ml(tmp_path / "model.onnx", has_images=len(shape) == 3)
    settings = {"backend": "Vitis", "granularity": "name", "default_precision": "fixed<64,24>"}
    config = hls4ml.utils.config_from_onnx_model(model, **settings)
    compiled = hls4ml.converters.convert_from_onnx_model(
        model,
        output_dir=str(tmp_path / "hls"),
        io_type="io_stream" if len(shape) == 3 else "io_parallel",
        backend="Vitis",
        hls_config=config,
    )
    compiled.compile()
    quantize, dequantize = (integer.get_submodule(name) for name in ends(integer))
    logits = torch.round(integer(x) / dequantize.scale).numpy()
    found = compiled.predict(quantize(x).float().numpy()).reshape(logits.shape)
    assert np.array_equal(found, logits)


def ends(integer: GraphModule) -> tuple[str, str]:
    """The names of the modules at the borders of a program with one input and one output."""
    calls = [str(node.target) for node in integer.graph.nodes if node.op == "call_module"]
    return calls[0], calls[-1]


def for_hls4ml(path: Path, *, has_images: bool):
    """The file for batch size 1, channels last, with constants that have no batch axis, as hls4ml reads it."""
    import onnx
    from qonnx.core import onnx_exec
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueNodeNames
    from qonnx.util.cleanup import cleanup_model

    from ana_fx.targets.runtimes.runtimes import with_batch

    with patch.object(onnx_exec, "qonnx_make_model", partial(onnx_exec.qonnx_make_model, ir_version=9)):
        model = cleanup_model(ModelWrapper(with_batch(onnx.load(path), 1)))
        if has_images:
            model = model.transform(ConvertToChannelsLastAndClean())
            model = model.transform(GiveUniqueNodeNames()).transform(GiveReadableTensorNames())
    for node in model.graph.node:
        constant = model.get_initializer(node.input[1]) if node.op_type in ("Mul", "Add") else None
        if constant is not None:
            model.set_initializer(node.input[1], constant.reshape(-1))
    return model

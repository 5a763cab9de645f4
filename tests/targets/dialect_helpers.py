"""What the parsers of Deeploy and DORY ask of a file, as plain assertions; and programs in their dialects."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import outputs
from ana_fx.passes.lowering.recording import run
from ana_fx.program.program_borders import Quantize
from ana_fx.targets.runtimes.emulation import emulate
from examples.networks import DSCNN, VGG8
from tests.models import Residual

PRECISIONS = ["ternary", "int4", "int8"]
INT32 = 2**31 - 1


def mobilenet() -> nn.Module:
    return pytest.importorskip("torchvision").models.MobileNetV2(num_classes=10, width_mult=0.25)


NETWORKS = {
    "vgg8": (lambda: VGG8(8), (3, 32, 32)),
    "ds-cnn": (DSCNN, (1, 49, 10)),
    "residual": (Residual, (3, 8, 8)),
    "mobilenet": (mobilenet, (3, 32, 32)),
}
NAMES = ["vgg8", "ds-cnn", "residual", pytest.param("mobilenet", marks=pytest.mark.slow)]


@cache
def network(name: str, precision: str, target: str) -> GraphModule:
    """The program of a network that has seen a batch."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return program(make(), torch.rand(8, *shape), precision, target)


def program(model: nn.Module, x: torch.Tensor, precision="int4", target="deeploy") -> GraphModule:
    qat = ana_fx.prepare(model, x, precision=precision, target=target)
    qat.train()(x)
    return ana_fx.convert(qat)


def written(integer: GraphModule, folder: Path, target: str | None = None) -> onnx.ModelProto:
    """The file, which its target's readers find as network.onnx."""
    ana_fx.export(integer, folder / "network.onnx", target=target)
    return onnx.load(folder / "network.onnx")


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def assert_static(model: onnx.ModelProto) -> None:
    """Every value has a shape, and a batch of one."""
    known = shapes(model)
    computed = [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output]
    assert all(known[name][0] == 1 and 0 not in known[name] for name in computed)


def integers(integer: GraphModule, x: torch.Tensor) -> list[np.ndarray]:
    """What the program computes before it makes floats of it."""
    with torch.no_grad():
        seen = run(integer, (x,))
    return [seen[node.all_input_nodes[0]].numpy() for _, node in outputs(integer)]


def assert_equal_to_program(integer: GraphModule, model: onnx.ModelProto, num_samples: int = 3) -> None:
    """The arithmetic of the tool's kernels gives the program's integers, on random levels."""
    (quantize,) = (module for module in integer.modules() if isinstance(module, Quantize))
    shape, kind = shapes(model)[model.graph.input[0].name][1:], quantize.integer_type
    levels = torch.randint(kind.qmin, kind.qmax + 1, (num_samples, *shape), generator=torch.Generator().manual_seed(1))
    found, wanted = emulate(model, {"x": levels.numpy()}), integers(integer, quantize.real(levels))
    assert len(found) == len(wanted)
    assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))

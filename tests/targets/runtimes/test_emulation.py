"""The arithmetic of the kernels, operator by operator, against C's as plain Python."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ana_fx.targets.runtimes.emulation import emulate


def model(node: onnx.NodeProto, num_inputs: int = 1, **constants) -> onnx.ModelProto:
    names = ["x", "y"][:num_inputs]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 3]) for name in names]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2, 3])]
    tensors = [numpy_helper.from_array(np.array(each, np.float32), name) for name, each in constants.items()]
    graph = helper.make_graph([node], "one", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 10), helper.make_opsetid("PACTOps", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=5)


def tensors(**numbers):
    return {name: numpy_helper.from_array(np.array([number], np.float32)) for name, number in numbers.items()}


@pytest.mark.parametrize(("shift", "num_levels", "signed"), [(0, 256, 1), (4, 256, 0), (6, 4, 1), (1, 16, 0)])
def test_requant_shift_adds_half_before_it_shifts_and_clips(shift, num_levels, signed):
    settings = tensors(div=2**shift, n_levels_out=num_levels, signed=signed)
    node = helper.make_node("RequantShift", ["x", "mul", "add"], ["z"], domain="PACTOps", **settings)
    multiplier, addend = np.array([[3], [-5]]), np.array([[7], [-100]])
    x = np.random.default_rng(0).integers(-200, 200, (4, 2, 3))
    (found,) = emulate(model(node, mul=multiplier, add=addend), {"x": x})
    lowest = -num_levels // 2 if signed else 0
    total = x * multiplier + addend + (1 << (shift - 1) if shift else 0)
    assert np.array_equal(found, np.clip(total >> shift, lowest, lowest + num_levels - 1))


def test_an_add_with_attributes_requantises_its_inputs_and_its_sum():
    given = {"in1_mul": 3, "in1_add": -7, "in1_shift": 1, "in2_mul": 1, "in2_add": 0, "in2_shift": 0}
    given |= {"out_mul": -5, "out_add": 9, "out_shift": 2, "out_n_levels": 16, "out_signed": 1, "out_rq": 1}
    x, y = np.random.default_rng(0).integers(-20, 20, (2, 4, 2, 3))
    (found,) = emulate(model(helper.make_node("Add", ["x", "y"], ["z"], **given), 2), {"x": x, "y": y})
    assert np.array_equal(found, np.clip(((((3 * x - 7) >> 1) + y) * -5 + 9) >> 2, -8, 7))


def test_an_add_without_attributes_adds():
    x, y = np.random.default_rng(0).integers(-20, 20, (2, 4, 2, 3))
    (found,) = emulate(model(helper.make_node("Add", ["x", "y"], ["z"]), 2), {"x": x, "y": y})
    assert np.array_equal(found, x + y)


def test_constants_and_casts_do_not_round():
    large = 2**31 - 1
    tensor = numpy_helper.from_array(np.array(float(large)), "large")
    cast = model(helper.make_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT))
    cast.graph.node[0].output[0] = "w"
    cast.graph.initializer.append(tensor)
    cast.graph.node.append(helper.make_node("Add", ["w", "large"], ["z"]))
    x = np.ones((1, 2, 3), np.int64)
    (found,) = emulate(cast, {"x": x})
    assert (found == large + 1).all()

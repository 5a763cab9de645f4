"""Movements in the file: onnxruntime and the reference move every type of number as the modules do."""

import numpy as np
import onnx.checker
import onnx.reference
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from ana_fx.program.data_movement import Concat, Movement, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.target_registry import target_called
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.writers.write_movement import movements

TYPES = {"uint8": ir.DataType.UINT8, "int8": ir.DataType.INT8, "int32": ir.DataType.INT32, "float32": ir.DataType.FLOAT}
SHAPE = (3, 4)
MOVEMENTS = {
    "reshape": (Reshape((2, 6)), [SHAPE], ["Reshape"]),
    "reshape to one number": (Reshape(()), [SHAPE], ["Reshape"]),
    "reshape to the same": (Reshape((3, 4)), [SHAPE], ["Identity"]),  # which names the output
    "permute": (Permute((0, 2, 1)), [SHAPE], ["Transpose"]),
    "slice": (Slice(((1, 2, 1), (0, 4, 3))), [SHAPE], ["Slice"]),
    "slice of nothing": (Slice(((0, 3, 1), (0, 4, 1))), [SHAPE], ["Slice"]),
    "take": (Take(2, torch.tensor([3, 0, 0])), [SHAPE], ["Gather"]),
    "pad": (Pad(((0, 1), (2, 0))), [SHAPE], ["Pad"]),
    "concat": (Concat(1), [SHAPE, (2, 4), SHAPE], ["Concat"]),
    "rearrange": (Rearrange(torch.tensor([12, 1, 1, 5]), (2, 2), (12,)), [SHAPE], ["Reshape", "Gather", "Reshape"]),
    "rearrange with zeros": (
        Rearrange(torch.tensor([12, 0, 14, 0]), (2, 2), (12, 2)),
        [SHAPE, (2,)],
        ["Reshape", "Concat", "Pad", "Gather", "Reshape"],
    ),
}


def written(modules: list[Movement], shapes: list[tuple[int, ...]], dtype: ir.DataType, zero_point: int):
    """The file of a chain of movements, its first on inputs of these sample shapes."""
    builder = Builder()
    inputs = [builder.input(f"x{index}", dtype, shape) for index, shape in enumerate(shapes)]
    stored = [StoredTensor(value, zero_point, shape) for value, shape in zip(inputs, shapes, strict=True)]
    samples = [torch.zeros(1, *shape) for shape in shapes]
    for number, module in enumerate(modules):
        samples = [module(*samples)]
        shape = tuple(samples[0].shape[1:])
        w = NodeWriter(builder, INTEGER, target_called("integer"), f"move{number}", module, tuple(stored), shape)
        stored = [movements[type(module)](w, module)]
    builder.output(stored[0].value, "y")
    model = ir.to_proto(builder.model(name="movement", opset=19, ir_version=9, metadata={}))
    onnx.checker.check_model(model, full_check=True)
    return model


def assert_file_moves_alike(modules, shapes, kind="uint8", zero_point=0):
    model = written(modules, shapes, TYPES[kind], zero_point)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    reference = onnx.reference.ReferenceEvaluator(model)
    for batch_size in (1, 3):
        levels = [torch.randint(-100, 100, (batch_size, *shape)) for shape in shapes]
        wanted = modules[0](*levels)
        for module in modules[1:]:
            wanted = module(wanted)
        feeds = {f"x{index}": (x + zero_point).numpy().astype(kind) for index, x in enumerate(levels)}
        for (found,) in (session.run(None, feeds), reference.run(None, feeds)):
            assert found.dtype == kind
            np.testing.assert_array_equal(found, (wanted + zero_point).numpy().astype(kind))
    return model


@pytest.mark.parametrize(
    ("kind", "zero_point"), [("uint8", 128), ("int8", 0), ("int8", 3), ("int32", 0), ("float32", 0)]
)
@pytest.mark.parametrize(("module", "shapes", "operators"), MOVEMENTS.values(), ids=MOVEMENTS)
def test_every_movement_is_exact_in_both_runtimes(module, shapes, operators, kind, zero_point):
    model = assert_file_moves_alike([module], shapes, kind, zero_point)
    assert [node.op_type for node in model.graph.node] == operators


def test_values_have_the_shapes_that_are_found():
    model = written([Reshape((2, 6)), Permute((0, 2, 1)), Pad(((1, 0), (0, 0)))], [SHAPE], TYPES["int8"], 0)
    (output,) = model.graph.output
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == ["N", 7, 2]


def test_a_leading_axis_of_another_length_has_another_name():
    """Of equal names, onnxruntime writes the larger into the memory of the smaller, and fails."""
    windows, back = Reshape((2, 2)), Reshape((12,))
    chain = [Slice(((0, 2, 1), (0, 2, 1))), Permute((0, 2, 1)), Take(1, torch.arange(6) % 2), windows]
    chain += [Permute((0, 2, 1)), Pad(((0, 0), (0, 0))), Permute((0, 2, 1)), back]
    model = assert_file_moves_alike(chain, [SHAPE])
    values = {value.name: value.type.tensor_type.shape for value in [*model.graph.value_info, *model.graph.output]}
    leading = {name: shape.dim[0].dim_param for name, shape in values.items() if name == "y" or "/" in name}
    assert leading["move2/Gather"] == leading["y"] == "N"
    assert {leading[name] for name in ("move3/Reshape", "move4/Transpose", "move5/Pad")} == {"N*3"}


def test_rows_are_gathered_within_their_sample():
    assert_file_moves_alike([Reshape((2,)), Rearrange(torch.tensor([3, 4, 1, 2]), (2,), (4,))], [(2, 2)])

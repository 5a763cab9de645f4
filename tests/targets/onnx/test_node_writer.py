"""What a writer has in hand: names from the path, shapes and types from the node, numbers of stored levels.

They cover `onnx/stored_tensor.py` too.
"""

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from ana_fx.target_registry import target_called
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.onnx.builder import Builder, sample_shape
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor

UINT8, INT8, INT32 = ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT32


def writer(dtype=UINT8, zero_point=0):
    builder = Builder()
    x = StoredTensor(builder.input("x", dtype, (3,)), zero_point, (3,))
    return NodeWriter(builder, INTEGER, target_called("integer"), "block.layer", None, (x,), (3,))


def computed(w, value, x):
    w.builder.output(value, "y")
    model = ir.to_proto(w.builder.model(name="test", opset=19, ir_version=9, metadata={}))
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    return found


def test_an_operator_has_the_name_shape_and_type_of_its_node():
    w = writer()
    value = w.op("Add", w.levels(w.x), w.number(2, "two"))
    assert value.name == "block.layer/Add"
    assert (sample_shape(value), value.dtype) == ((3,), INT32)
    assert w.number(2, "two").name == "block.layer.two_1"


@pytest.mark.parametrize(("dtype", "zero_point"), [(UINT8, 0), (UINT8, 128), (INT8, 0)])
def test_levels_are_stored_numbers_less_the_zero_point(dtype, zero_point):
    w, x = writer(dtype, zero_point), np.array([[0, 1, 127]], dtype.numpy())
    found = computed(w, w.levels(w.x), x)
    assert (found.dtype, found.tolist()) == (np.int32, [[-zero_point, 1 - zero_point, 127 - zero_point]])


@pytest.mark.parametrize("distance", [0, 128])
def test_shifted_numbers_keep_their_distance(distance):
    w, x = writer(INT8), np.array([[0, 1, 127]], np.int8)
    found = computed(w, w.shifted(w.x.value, distance, UINT8), x)
    assert (found.dtype, found.tolist()) == (np.uint8, [[distance, 1 + distance, 127 + distance]])


def test_notes_are_shared_by_writers_of_other_types_and_become_the_report():
    w = writer()
    w.typed(ir.DataType.INT64).note(operator="Add", arithmetic="int64")
    w.note(reason="for a test")
    assert (w.report().name, w.report().operator, w.report().reason) == ("block.layer", "Add", "for a test")

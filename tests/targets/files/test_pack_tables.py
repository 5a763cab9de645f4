"""Files as bytes, there and back, and in the classes that LiteRT generates from the whole of `tflite/schema.py`'s."""

import numpy as np
import pytest

from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.tflite.schema import OPTIONS, TABLES, TFLITE_SCHEMA, Activation, Code
from tests.targets.tflite.one_operator import one_pair, one_product


def plain(value):
    """Values that compare with ==."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.mark.parametrize("code", [Code.CONV_2D, Code.DEPTHWISE_CONV_2D, Code.FULLY_CONNECTED])
def test_what_is_packed_is_unpacked(code):
    data = one_product(code, 112, Activation.RELU).data
    model = unpack_tables(TFLITE_SCHEMA, data)
    (graph,) = model["subgraphs"]
    assert [tensor["name"] for tensor in graph["tensors"]] == ["x", "w", "b", "y"]
    assert graph["operators"][0]["options"][1]["fused_activation_function"] == Activation.RELU
    assert plain(unpack_tables(TFLITE_SCHEMA, pack_tables(TFLITE_SCHEMA, model))) == plain(model)


def test_numbers_lie_where_kernels_can_read_them():
    data = one_product(Code.CONV_2D, 0, Activation.NONE).data
    weight = bytes(unpack_tables(TFLITE_SCHEMA, data)["buffers"][1]["data"])
    assert data.index(weight) % 16 == 0


@pytest.mark.extra("tflite", "ai_edge_litert")
@pytest.mark.parametrize(
    "data",
    [one_product(Code.CONV_2D, 3, Activation.NONE).data, one_pair(Code.ADD, tuple(np.float32([1, 1, 2])))[0]],
)
def test_the_generated_classes_read_the_same(data):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    theirs = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    assert_same(theirs, unpack_tables(TFLITE_SCHEMA, data), "Model")


@pytest.mark.extra("tflite", "ai_edge_litert")
@pytest.mark.parametrize("code", list(OPTIONS))
def test_operators_have_the_numbers_of_the_schema(code):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    number, table, _ = OPTIONS[code]
    assert getattr(schema.BuiltinOperator, code.name) == code
    assert getattr(schema.BuiltinOptions, table) == number


def assert_same(theirs, ours, table):
    """Each field of ours is theirs, under the name that the schema gives it."""
    for key, value in ours.items():
        if key in ("options_type", "options"):
            continue
        found = getattr(theirs, camel(key))
        kind = TABLES[table][key][1].strip("[]")
        if kind in TABLES:
            pairs = zip(found, value, strict=True) if isinstance(value, list) else [(found, value)]
            for one, other in pairs:
                assert_same(one, other, kind)
        elif isinstance(found, np.ndarray):
            assert found.tobytes() == bytes(np.asarray(value).tobytes())
        else:
            assert (found.decode() if isinstance(found, bytes) else found) == value


def camel(key):
    first, *others = key.split("_")
    return first + "".join(each.capitalize() for each in others)

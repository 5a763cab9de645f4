"""Files that somebody else made: refused in a sentence, whatever stands in them; `tflite/tflite_file.py` reads them."""

import random

import pytest

from ana_fx.errors import VerifyError
from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.tflite.schema import TFLITE_SCHEMA, Activation, Code
from ana_fx.targets.tflite.tflite_file import read_tflite
from tests.targets.tflite.one_operator import one_product

DATA = one_product(Code.CONV_2D, 0, Activation.NONE).data


def test_what_is_no_tflite_file_is_refused():
    with pytest.raises(ValueError, match="no TFLite file"):
        unpack_tables(TFLITE_SCHEMA, b"something else")


def test_too_many_tables_are_refused():
    with pytest.raises(ValueError, match="more tables"):
        unpack_tables(TFLITE_SCHEMA, DATA, most_tables=5)


def test_a_field_that_nobody_writes_is_refused():
    data = bytearray(DATA)
    root = int.from_bytes(data[:4], "little")
    slots = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    data[slots : slots + 2] = (30).to_bytes(2, "little")  # the slots of what follows count as fields
    with pytest.raises(ValueError, match=r"export\(\) does not write|cut"):
        unpack_tables(TFLITE_SCHEMA, bytes(data))


def test_whatever_is_changed_is_read_or_refused_in_a_sentence(tmp_path):
    rng, path = random.Random(0), tmp_path / "m.tflite"
    for _ in range(400):
        data = bytearray(DATA)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        with pytest.raises(VerifyError, match="needed a file that"):  # it has no metadata, so none is whole
            read_tflite(path)


def test_a_constant_with_fewer_numbers_than_its_shape_is_refused(tmp_path):
    model = unpack_tables(TFLITE_SCHEMA, DATA)
    model["buffers"][1]["data"] = b"\0"
    (tmp_path / "m.tflite").write_bytes(pack_tables(TFLITE_SCHEMA, model))
    with pytest.raises(VerifyError, match="holds 1 bytes"):
        read_tflite(tmp_path / "m.tflite")

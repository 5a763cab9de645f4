"""Files that somebody else made: refused in a sentence, whatever stands in them."""

from __future__ import annotations

import json
import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.errors import VerifyError
from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.tosa.tosa_file import read_tosa
from ana_fx.targets.tosa.tosa_schema import TOSA_SCHEMA, Op
from tests.targets.tosa.test_tosa_rescale import one_rescale

DATA = one_rescale(np.array([2**30]), np.array([30]), 0)


@pytest.fixture
def good(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    qat = ana_fx.prepare(model, torch.rand(2, 1, 8, 8), precision="int8", target="tosa")
    qat.train()(torch.rand(2, 1, 8, 8))
    ana_fx.export(ana_fx.convert(qat.eval()), tmp_path / "m.tosa")
    return tmp_path / "m.tosa"


def test_whatever_is_changed_is_read_or_refused_in_a_sentence(good):
    rng, whole = random.Random(0), good.read_bytes()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        good.write_bytes(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        with suppress(VerifyError):  # and with no other error
            read_tosa(good).contents()


def test_a_file_without_metadata_is_refused(tmp_path):
    (tmp_path / "m.tosa").write_bytes(DATA)
    with pytest.raises(VerifyError, match="needed a file that export"):
        read_tosa(tmp_path / "m.tosa")


def a_constant_is_cut(block):
    next(each for each in block["tensors"] if "data" in each)["data"] = b"\0\0\0"


def an_operator_reads_what_nothing_gave(block):
    block["operators"].append(block["operators"].pop(0) | {})
    block["operators"][0]["location"] = block["operators"][-1].pop("location")


def two_tensors_have_one_name(block):
    block["tensors"][1]["name"] = block["tensors"][0]["name"]


def an_output_is_missing(block):
    block["outputs"] = ["nothing"]


def a_tensor_is_too_large(block):
    block["tensors"][0]["shape"] = np.array([1, 2**16, 2**16])


def an_operator_has_attributes_of_another(block):
    block["operators"][0] |= {"op": Op.ADD}


def the_metadata_are_no_texts(block):
    block["operators"][0]["location"]["text"] = json.dumps({"ana_fx.target": 1})


def a_zero_point_is_no_byte(block):
    text = block["operators"][0]["location"]["text"]
    block["operators"][0]["location"]["text"] = text.replace('held_zero_point": "-128"', 'held_zero_point": "-129"')


def an_output_has_another_type(block):
    text = block["operators"][0]["location"]["text"]
    block["operators"][0]["location"]["text"] = text.replace('output.type": "int8"', 'output.type": "int32"')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (a_constant_is_cut, "holds 3 bytes, needed"),
        (an_operator_reads_what_nothing_gave, "tensor that is not there"),
        (two_tensors_have_one_name, "do not have a name each"),
        (an_output_is_missing, "an output is not there"),
        (a_tensor_is_too_large, "has shape"),
        (an_operator_has_attributes_of_another, "attributes of another one"),
        (the_metadata_are_no_texts, "no JSON of texts"),
        (an_output_has_another_type, "is int8, and its metadata say int32"),
        (a_zero_point_is_no_byte, "has zero point -129"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, reason, good):
    graph = unpack_tables(TOSA_SCHEMA, good.read_bytes())
    change(graph["regions"][0]["blocks"][0])
    good.write_bytes(pack_tables(TOSA_SCHEMA, graph))
    with pytest.raises(VerifyError, match=reason):
        read_tosa(good)

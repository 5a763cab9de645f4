"""Our part of the schema is the schema's, as the classes have it that Arm generates from the whole."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.tosa.tosa_schema import ATTRIBUTES, TOSA_SCHEMA, DataType, Op
from tests.targets.files.test_pack_tables import plain
from tests.targets.tosa.test_tosa_rescale import one_rescale

classes = pytest.mark.extra("tosa", "tosa")
DATA = one_rescale(np.array([2**30, 2**30 + 1]), np.array([30, 31]), 3)


def of(name):
    return getattr(import_module(f"tosa.{name}"), name)


def camel(key):
    return "".join(each.capitalize() for each in key.strip("_").split("_"))


@classes
@pytest.mark.parametrize("op", Op)
def test_operators_have_the_numbers_of_the_schema(op):
    assert getattr(of("Op"), op.name) == op
    assert getattr(of("Attribute"), ATTRIBUTES[op]) == op


@classes
@pytest.mark.parametrize("kind", DataType)
def test_types_have_the_numbers_of_the_schema(kind):
    assert getattr(of("DType"), kind.name) == kind


@classes
@pytest.mark.parametrize("table", TOSA_SCHEMA.tables)
def test_fields_have_the_places_of_the_schema(table):
    """A builder of theirs puts each field where ours does."""
    module = import_module(f"tosa.{table}")
    for key, (number, _) in TOSA_SCHEMA.tables[table].items():
        name = f"Add{'_' if key.startswith('_') else ''}{camel(key)}"
        found = next(each for each in (name, f"{table}{name}") if hasattr(module, each))
        slots: list[int] = []
        getattr(module, found)(_Slots(slots), 0)
        assert slots == [number], key


class _Slots:
    """A builder that keeps the numbers of fields."""

    def __init__(self, slots):
        self.slots = slots

    def __getattr__(self, name):
        return lambda slot, *_: self.slots.append(slot)


@classes
def test_their_classes_read_what_ours_wrote():
    graph = of("TosaGraph").GetRootAs(DATA, 0)
    version = graph.Version()
    block = graph.Regions(0).Blocks(0)
    assert (version._Major(), version._Minor(), version._Patch(), version._Draft()) == (1, 0, 0, False)
    operators = [block.Operators(index) for index in range(block.OperatorsLength())]
    assert [each.Op() for each in operators] == [Op.CONST] * 4 + [Op.RESCALE]
    rescale = of("RescaleAttribute")()
    rescale.Init(operators[-1].Attribute().Bytes, operators[-1].Attribute().Pos)
    assert (rescale.Scale32(), rescale.RoundingMode(), rescale.PerChannel()) == (True, 1, True)
    assert operators[-1].Inputs(0) == b"x"
    tensors = [block.Tensors(index) for index in range(block.TensorsLength())]
    multiplier = next(each for each in tensors if each.Name() == b"multiplier")
    numbers = bytes(multiplier.Data(index) for index in range(multiplier.DataLength()))
    assert np.frombuffer(numbers, "<i4").tolist() == [2**30, 2**30 + 1]


def test_what_is_packed_is_unpacked():
    graph = unpack_tables(TOSA_SCHEMA, DATA)
    assert plain(unpack_tables(TOSA_SCHEMA, pack_tables(TOSA_SCHEMA, graph))) == plain(graph)

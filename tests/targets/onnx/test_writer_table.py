"""Tables of writers: filled by their own file, each class once."""

import pytest

from ana_fx.targets.onnx.writer_table import WriterTable
from ana_fx.targets.writers.write_accumulators import accumulators


def write(w, subject):
    return subject


def test_a_writer_is_found_by_the_classes_that_it_was_entered_for():
    table = WriterTable(__name__)
    assert table.writes(int, str)(write) is write
    assert dict(table) == {int: write, str: write}
    assert bool not in table


def test_a_second_writer_of_a_class_is_refused():
    table = WriterTable(__name__)
    table.writes(int)(write)
    with pytest.raises(ValueError, match="int has a writer already: write"):
        table.writes(int)(write)


def test_another_file_adds_nothing():
    with pytest.raises(ValueError, match=r"write_accumulators is not changed from .*extend a dialect"):
        accumulators.writes(int)(write)
    assert int not in accumulators

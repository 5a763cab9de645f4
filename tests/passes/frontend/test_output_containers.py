"""Outputs of models as containers that a graph can make."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

from ana_fx.passes.frontend.output_containers import plain


@dataclass
class Output:
    logits: int
    hidden: tuple[int, ...] = (2, 3)


Pair = namedtuple("Pair", ["first", "second"])


def test_a_dataclass_becomes_a_dictionary():
    assert plain(Output(1)) == {"logits": 1, "hidden": (2, 3)}


def test_containers_of_other_classes_become_plain_ones_at_any_depth():
    found = plain(OrderedDict(a=[Pair(1, Output(2))], b=3))
    assert found == {"a": [(1, {"logits": 2, "hidden": (2, 3)})], "b": 3}
    assert type(found) is dict
    assert type(found["a"][0]) is tuple


def test_what_is_no_container_stays():
    assert plain(Output) is Output
    assert plain(None) is None

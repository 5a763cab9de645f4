"""The contract of passes, with passes made up for each rule; that every pass keeps it, `test_every_pass.py` shows."""

from __future__ import annotations

import contextvars
import sys
import types
from collections.abc import Callable

import pytest
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.passes.base_dialect import ANY_GRAPH, TRACED, DialectError
from ana_fx.passes.base_pass import Pass, PassResult, run_pipeline
from ana_fx.passes.canonical.canonical_graph import CANONICAL
from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.drop_identities import DropIdentities
from ana_fx.passes.frontend.trace_model import trace
from ana_fx.passes.fusion.fuse_layer_maps import FuseLayerMaps
from ana_fx.prepared.graph_form import GraphForm, form_of
from tests.graphs import assert_graph, canonical
from tests.test_packaging import ROOT


class Relu(Pass):
    """Puts a ReLU behind the last node, as a function, which no canonical graph holds."""

    name = "relu"
    requires = ensures = CANONICAL

    def run(self, gm: GraphModule) -> bool:
        output = gm.graph.output_node()
        with gm.graph.inserting_before(output):
            output.args = (gm.graph.call_function(F.relu, output.args),)
        return True


class Secret(Relu):
    """The same, without a word."""

    name, requires, ensures = "secret", ANY_GRAPH, ANY_GRAPH

    def run(self, gm: GraphModule) -> bool:
        super().run(gm)
        return False


def failing(error: Exception) -> Pass:
    class Failing(Pass):
        name = "failing"
        requires = ensures = ANY_GRAPH

        def run(self, gm: GraphModule) -> bool:
            raise error

    return Failing()


def unchecked(call: Callable[[], object]) -> object:
    """As outside of tests, where nobody turned the checks on."""
    return contextvars.Context().run(call)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Identity(), nn.ReLU())


def test_a_pass_says_whether_it_changed_anything():
    gm = run_pipeline(trace(model()), (Canonicalize(),))
    assert DropIdentities()(gm) == PassResult(modified=True)
    assert DropIdentities()(gm) == PassResult(modified=False)


def test_a_graph_knows_its_form():
    gm = trace(model())
    assert form_of(gm) is GraphForm.TRACED
    Canonicalize()(gm)
    assert form_of(gm) is GraphForm.CANONICAL
    assert form_of(model()) is None


def test_a_graph_of_another_form_is_refused_even_unchecked():
    with pytest.raises(DialectError, match="found a traced graph, needed a canonical graph"):
        unchecked(lambda: FuseLayerMaps()(trace(model())))


def test_a_graph_that_has_the_form_already_is_left_alone():
    gm = canonical(model())
    text = str(gm.graph)
    assert not Canonicalize()(gm).modified
    assert str(gm.graph) == text


def test_a_node_that_does_not_belong_is_named():
    with pytest.raises(DialectError, match=r"do not belong into a canonical graph:\n  relu .*: <function relu"):
        Relu()(canonical(model()))


def test_nodes_are_held_against_the_dialect_only_where_checks_are_on():
    unchecked(lambda: run_pipeline(canonical(model()), (Relu(),)))
    with pytest.raises(DialectError, match="relu"):
        unchecked(lambda: run_pipeline(canonical(model()), (Relu(),), checks=True))


def test_a_change_that_a_pass_keeps_secret_is_found_even_unchecked():
    with pytest.raises(DialectError, match="'secret' changed the graph and did not say so"):
        unchecked(lambda: Secret()(trace(model())))


def test_an_error_that_no_pass_foresaw_says_in_which_pass_it_arose_and_after_which():
    with pytest.raises(ZeroDivisionError) as caught:
        run_pipeline(trace(model()), (Canonicalize(), DropIdentities(), failing(ZeroDivisionError("by zero"))))
    assert str(caught.value) == "by zero"
    assert caught.value.__notes__ == ["in the pass 'failing' of ana_fx, after 'canonicalize', 'drop-identities'"]


def test_a_refusal_of_ours_passes_as_it_is():
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        run_pipeline(trace(model()), (failing(ana_fx.UnsupportedError("no")),))
    assert not hasattr(caught.value, "__notes__")


def test_the_first_pass_has_none_before_it():
    with pytest.raises(KeyError) as caught:
        run_pipeline(trace(model()), (failing(KeyError("key")),))
    assert caught.value.__notes__ == ["in the pass 'failing' of ana_fx, the first"]


def test_a_traced_graph_holds_anything():
    TRACED.verify(trace(model()))


def test_the_pass_of_the_guide_does_what_it_says():
    guide = (ROOT / "docs" / "adding_a_pass.md").read_text(encoding="utf-8")
    code = guide.split("```python\n")[1].split("```")[0]
    module = types.ModuleType("guide")
    sys.modules["guide"] = module  # where dataclasses look for annotations
    try:
        exec(code, module.__dict__)
        gm = canonical(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.ReLU()))
        assert module.DropDropout()(gm) == PassResult(modified=True)
        assert module.DropDropout()(gm) == PassResult(modified=False)
    finally:
        del sys.modules["guide"]
    assert_graph(gm, "input -> Conv2d -> ReLU -> output")

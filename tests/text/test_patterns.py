"""Patterns of module paths mean something, or are refused with the names there are."""

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.text.patterns import matches

X = torch.rand(2, 3, 8, 8)


class Gate(nn.Module):
    """A squeeze-and-excitation gate, its mean and its product written as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.mean((2, 3), keepdim=True)))


def gates() -> nn.Module:
    """Three gates in `blocks`, and a head."""
    return nn.Sequential(
        *(nn.Sequential(Gate(), Gate(), Gate()), nn.Flatten(), nn.Linear(192, 2)),
    )


MATCHES = {
    "the path": ("blocks.2.conv", True),
    "a star": ("blocks.*.conv", True),
    "a module around it": ("blocks.2", True),
    "a star that ends at a module around it": ("block*.2", False),
    "a star that goes on": ("block*.2.*", True),
    "another module": ("blocks.20", False),
    "the end of another name": ("locks.2", False),
}


@pytest.mark.parametrize(("pattern", "is_match"), MATCHES.values(), ids=MATCHES)
def test_a_pattern_means_paths_and_a_name_what_lies_inside(pattern, is_match):
    assert matches("blocks.2.conv", pattern) is is_match


def test_what_functions_become_has_the_same_name_in_every_module():
    paths = list(layer_maps(ana_fx.prepare(gates(), X)))
    assert [path for path in paths if path.startswith("0.0.")] == [
        path.replace("0.2.", "0.0.") for path in paths if path.startswith("0.2.")
    ]


def test_one_pattern_means_the_function_of_every_module():
    precision = ana_fx.Precision("int4", "uint4", overrides={"0.*.mean": "int6"})
    maps = layer_maps(ana_fx.prepare(gates(), X, precision=precision))
    bits = [m.output_quantizer.integer_type.bits for path, m in maps.items() if "mean" in path]
    assert bits == [6, 6, 6]


def test_an_override_of_a_module_holds_for_all_inside():
    precision = ana_fx.Precision("int4", "uint4", overrides={"0.1": "int2"})
    maps = layer_maps(ana_fx.prepare(gates(), X, precision=precision))
    assert [m.weight_quantizer.integer_type.bits for path, m in maps.items() if "conv" in path] == [4, 2, 4]


@pytest.mark.parametrize("pattern", ["layers.*", "0.1.con", r"0\.\d+"])
def test_a_precision_pattern_that_matches_nothing_is_refused_with_the_names(pattern):
    precision = ana_fx.Precision(overrides={pattern: "int4", "0.0": "int4"})
    with pytest.raises(ana_fx.PrecisionError, match=r"1 override.*\n.*matches no layer map") as refused:
        ana_fx.prepare(gates(), X, precision=precision)
    assert "its layer maps are '0.0." in str(refused.value)


def test_the_nearest_name_is_suggested():
    with pytest.raises(ana_fx.PrecisionError, match=r"pattern '0.1.con': .*did you mean '0.1.conv'"):
        ana_fx.prepare(gates(), X, precision=ana_fx.Precision(overrides={"0.1.con": "int4"}))


def test_a_star_that_ends_at_modules_is_told_to_go_on():
    with pytest.raises(ana_fx.PrecisionError, match=r"pattern '0\.\[12\]': .*did you mean '0\.\[12\]\.\*'"):
        ana_fx.prepare(gates(), X, precision=ana_fx.Precision(overrides={"0.[12]": "int4"}))


def test_a_schedule_pattern_means_what_lies_inside_too():
    schedule = ana_fx.Schedule(overrides={"0.1": ana_fx.LayerSchedule(half_width=0.25)})
    ranges = ana_fx.annealing_ranges(ana_fx.prepare(gates(), X, schedule=schedule))
    assert {path for path, each in ranges.items() if each.override} == {p for p in ranges if p.startswith("0.1.")}


def test_a_leaf_pattern_that_matches_nothing_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"pattern 'encoder.\*': it matches no module\nWay out: its modules are '0'"):
        ana_fx.prepare(gates(), X, leaf_modules=["encoder.*"])


def test_a_leaf_type_need_not_occur():
    ana_fx.prepare(gates(), X, leaf_modules=[nn.LSTM])


def test_a_leaf_pattern_means_a_module_inside_a_wrapper():
    model = nn.Sequential(nn.DataParallel(nn.Sequential(nn.Linear(3, 3), nn.ReLU())))
    ana_fx.prepare(model, torch.rand(2, 3), leaf_modules=["0.0"])

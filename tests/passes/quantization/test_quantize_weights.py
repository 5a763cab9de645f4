"""Quantizers on weights: within what no kernel of the target saturates at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.graph import layer_maps


class Net(nn.Module):
    """A dense, a depthwise and a grouped convolution, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.multiplied = nn.Conv2d(8, 16, 1, groups=8)
        self.grouped = nn.Conv2d(16, 8, 1, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.dense, self.depthwise, self.multiplied, self.grouped):
            x = torch.relu(conv(x))
        return self.head(x.mean((2, 3)))


def magnitudes(target: str, precision: ana_fx.Precision | str = "int8") -> dict[str, int]:
    qat = ana_fx.prepare(Net(), torch.rand(2, 3, 8, 8), precision=precision, target=target)
    return {p: m.weight_quantizer.integer_type.magnitude for p, m in layer_maps(qat).items() if m.weight_quantizer}


@pytest.mark.parametrize("target", ["onnxruntime", "qdq", "qdq-int8"])
def test_weights_next_to_bytes_have_seven_bits_unless_they_are_depthwise(target):
    assert magnitudes(target) == {"dense": 63, "depthwise": 127, "multiplied": 63, "grouped": 63, "head": 63}


def test_only_matrix_products_of_the_integer_target_add_pairs():
    assert set(magnitudes("integer").values()) == {63, 127}
    assert [path for path, magnitude in magnitudes("integer").items() if magnitude == 63] == ["head"]


@pytest.mark.parametrize("target", ["onnxruntime-vnni", "qonnx", "deeploy"])
def test_targets_without_such_kernels_have_all_eight_bits(target):
    assert set(magnitudes(target).values()) == {127}


@pytest.mark.parametrize(("activation", "magnitude"), [("uint8", 63), ("uint7", 127), ("uint4", 127), ("int4", 121)])
def test_narrower_inputs_leave_room_for_wider_weights(activation, magnitude):
    found = magnitudes("onnxruntime", ana_fx.Precision("int8", activation))
    assert found["grouped"] == magnitude
    assert found["dense"] == 63  # it reads the input of eight bits


@pytest.mark.parametrize("precision", ["ternary", "int4", "int7"])
def test_narrow_weights_stay_as_they_are(precision):
    whole = ana_fx.Precision.parse(precision).weight.magnitude
    assert set(magnitudes("onnxruntime", precision).values()) == {whole}


def test_a_weight_that_two_layers_share_is_safe_for_both():
    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Conv2d(4, 4, 1)
            self.first = nn.Conv2d(4, 4, 1)
            self.second = nn.Conv2d(4, 4, 1)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(torch.relu(self.narrow(x))) + x)

    precision = ana_fx.Precision("int8", "uint8", overrides={"narrow": ana_fx.Precision("int8", "uint4")})
    maps = layer_maps(ana_fx.prepare(Sharing(), torch.rand(2, 4, 3, 3), precision=precision))
    assert maps["first"].input_types[0].bits == 4  # next to which it could have all eight bits
    assert maps["first"].weight_quantizer is maps["second"].weight_quantizer
    assert maps["first"].weight_quantizer.integer_type.magnitude == 63


def test_a_description_says_where_weights_are_cut_and_which_target_does_not():
    qat = ana_fx.prepare(Net(), torch.rand(2, 3, 8, 8))
    assert "4 layer map(s) keep weights within ±63 (reduce_range)" in str(ana_fx.describe(qat))
    assert "reduce_range" not in str(ana_fx.describe(ana_fx.prepare(Net(), target="onnxruntime-vnni")))


@pytest.mark.parametrize(
    ("precision", "packed", "whole"), [("ternary", 7, 127), ("int2", 3, 63), ("int4", 1, 15), ("int5", 7, 7)]
)
def test_weights_that_are_stored_in_four_bits_have_the_head_room_of_these(precision, packed, whole):
    def factors(target: str) -> set[int]:
        maps = layer_maps(ana_fx.prepare(Net(), torch.rand(2, 3, 8, 8), precision=precision, target=target))
        return {layer_map.factor for layer_map in maps.values() if layer_map.weight_quantizer}

    assert factors("tflite-micro") == {packed}
    assert factors("litert") == factors("tflite") == {whole}


def test_bytes_are_stored_twofold_where_all_kernels_must_agree():
    maps = layer_maps(ana_fx.prepare(Net(), torch.rand(2, 3, 8, 8), target="tflite"))
    assert {m.factor for m in maps.values() if m.weight_quantizer} == {2}
    assert set(magnitudes("tflite").values()) == {63}


def test_the_step_of_a_frozen_weight_does_not_learn():
    model = Net()
    model.dense.weight.requires_grad_(False)
    maps = layer_maps(ana_fx.prepare(model, torch.rand(2, 3, 8, 8)))
    learns = {path: each.weight_quantizer.scale.requires_grad for path, each in maps.items() if each.weight_quantizer}
    assert learns == {"dense": False, "depthwise": True, "multiplied": True, "grouped": True, "head": True}

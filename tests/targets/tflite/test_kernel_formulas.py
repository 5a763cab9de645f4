"""What the kernels of LiteRT and TFLite Micro compute: the facts on which the targets stand."""

from __future__ import annotations

import numpy as np
import pytest

from ana_fx.targets.tflite.adds import reference_add, xnnpack_add
from ana_fx.targets.tflite.schema import Activation, Code
from ana_fx.targets.tflite.tflite_runtimes import TFLITE_RUNTIMES
from tests.targets.tflite import formulas
from tests.targets.tflite.one_operator import one_pair, one_product

CONVOLUTIONS = (Code.CONV_2D, Code.DEPTHWISE_CONV_2D)
FORMULAS = ("float32", "q31", "q31_half_up", "single_rounding")
KERNELS = [
    pytest.param("litert", "float32", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
    pytest.param("litert-builtin", "q31_half_up", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
    pytest.param("litert-reference", "q31", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
    pytest.param("tflite-micro", "q31", marks=pytest.mark.extra("tflite", "tflite_micro")),
]


def levels(one, zero_point, activation):
    """What each formula makes of the accumulators."""
    lowest = zero_point if activation is Activation.RELU else -128
    channels = range(one.accumulators.shape[1])
    found = {"float32": formulas.float32_rounded(one.accumulators, one.slope32)} | {
        name: np.stack([getattr(formulas, name)(one.accumulators[:, c], one.slope64[c]) for c in channels], 1)
        for name in FORMULAS[1:]
    }
    return {name: (each + zero_point).clip(lowest, 127) for name, each in found.items()}


def ran(runtime, data, **feeds):
    (found,) = TFLITE_RUNTIMES[runtime].run(data, feeds)
    return found.reshape(len(found), -1)


@pytest.mark.parametrize(
    ("zero_point", "activation", "code"),
    [
        *((-5, Activation.NONE, code) for code in (*CONVOLUTIONS, Code.TRANSPOSE_CONV)),
        *((112, Activation.RELU, code) for code in CONVOLUTIONS),
    ],
)
@pytest.mark.parametrize(("runtime", "formula"), KERNELS)
def test_each_kernel_set_has_its_formula(runtime, formula, code, zero_point, activation):
    one = one_product(code, zero_point, activation)
    assert np.array_equal(ran(runtime, one.data, x=one.x), levels(one, zero_point, activation)[formula])


@pytest.mark.parametrize("code", CONVOLUTIONS)
def test_the_accumulators_tell_all_formulas_apart(code):
    found = levels(one_product(code, -5, Activation.NONE), -5, Activation.NONE)
    assert all((found[a] != found[b]).sum() > 100 for a in FORMULAS for b in FORMULAS if a < b)


@pytest.mark.parametrize(
    ("requantize", "wanted"),
    [
        (formulas.cmsis_nn, formulas.q31),
        (formulas.cmsis_nn_helium, formulas.q31),
        (formulas.cmsis_nn_single, formulas.single_rounding),
        (formulas.cmsis_nn_helium_single, formulas.single_rounding),
    ],
)
def test_the_algebra_of_cmsis_nn_is_that_of_micro(requantize, wanted):
    """On the accumulators on which Micro's kernels were run above, and on random ones with slopes up to 2**7."""
    one, rng = one_product(Code.CONV_2D, -5, Activation.NONE), np.random.default_rng(0)
    steep = rng.integers(-(2**22), 2**22, (1000, 8)), 2.0 ** rng.uniform(-12, 7, 8)
    for accumulators, slopes in ((one.accumulators, one.slope64), steep):
        for channel, slope in enumerate(slopes):
            acc = accumulators[:, channel]
            assert np.array_equal(requantize(acc, slope), wanted(acc, slope))


@pytest.mark.parametrize(
    ("runtime", "formula"),
    [case for case in KERNELS if case.values[0] != "litert-reference"],
)
def test_matrices_have_the_formula_of_convolutions_but_in_the_reference_kernels(runtime, formula):
    one = one_product(Code.FULLY_CONNECTED, -5, Activation.NONE)
    assert np.array_equal(ran(runtime, one.data, x=one.x), levels(one, -5, Activation.NONE)[formula])


@pytest.mark.extra("tflite", "ai_edge_litert")
def test_the_reference_kernel_of_matrices_has_none_of_these():
    """So that linear layers are written as convolutions."""
    one = one_product(Code.FULLY_CONNECTED, -5, Activation.NONE)
    found = ran("litert-reference", one.data, x=one.x)
    assert not any(np.array_equal(found, each) for each in levels(one, -5, Activation.NONE).values())


@pytest.mark.parametrize("code", CONVOLUTIONS)
@pytest.mark.parametrize(
    ("runtime", "formula"),
    [pytest.param(*case.values, marks=case.marks) for case in KERNELS[1:]]
    + [pytest.param("litert", "q31_half_up", marks=pytest.mark.extra("tflite", "ai_edge_litert"))],
)
def test_weights_of_four_bits_have_the_formula_of_bytes_but_leave_xnnpack(runtime, formula, code):
    """So that `tflite-micro` alone stores weights in four bits."""
    one = one_product(code, -5, Activation.NONE, is_int4=True)
    assert np.array_equal(ran(runtime, one.data, x=one.x), levels(one, -5, Activation.NONE)[formula])


@pytest.mark.extra("tflite", "tflite_micro")
def test_micro_has_no_matrices_of_four_bits_with_a_scale_for_each_channel():
    one = one_product(Code.FULLY_CONNECTED, -5, Activation.NONE, is_int4=True)
    with pytest.raises(RuntimeError, match="failed to allocate"):
        ran("tflite-micro", one.data, x=one.x)


@pytest.mark.parametrize("width", [256, 1])
@pytest.mark.parametrize("y_scale", [0.5, 1.0, 0.37, 1.9, 2.0, 0.1234, 100.0, 0.013])
@pytest.mark.parametrize(
    ("runtime", "add"),
    [
        pytest.param("litert", xnnpack_add, marks=pytest.mark.extra("tflite", "ai_edge_litert")),
        pytest.param("litert-builtin", reference_add, marks=pytest.mark.extra("tflite", "ai_edge_litert")),
        pytest.param("litert-reference", reference_add, marks=pytest.mark.extra("tflite", "ai_edge_litert")),
        pytest.param("tflite-micro", reference_add, marks=pytest.mark.extra("tflite", "tflite_micro")),
    ],
)
def test_sums_of_tensors_with_one_scale(runtime, add, y_scale, width):
    """Of all 65,536 pairs."""
    x_scale, y_scale = np.float32(0.713), np.float32(0.713 * y_scale)
    data, feeds = one_pair(Code.ADD, (x_scale, x_scale, y_scale), width=width)
    sums = feeds["a"].astype(np.int64) + feeds["b"]
    assert np.array_equal(ran(runtime, data, **feeds), add(sums, x_scale, y_scale).clip(-128, 127))


SCALES = [(2**-5, 2**-5, 2**-5), (0.013, 0.02, 0.0071), (0.5, 0.5, 64.0), (0.03, 1 / 255, 0.03), (3.0, 1.0, 2.0)]


def products(feeds, scales, zero_points):
    """What each formula makes of the products of all bytes."""
    a, b, y = zero_points
    found = (feeds["a"].astype(np.int64) - a) * (feeds["b"].astype(np.int64) - b)
    slope32, slope64 = (scales[0] * scales[1]) / scales[2], np.prod(np.float64(scales[:2])) / np.float64(scales[2])
    of = {"float32": formulas.float32_rounded(found, slope32)}
    of |= {name: getattr(formulas, name)(found, float(slope64)) for name in FORMULAS[1:]}
    return {name: (each + y).clip(-128, 127) for name, each in of.items()}


@pytest.mark.parametrize("width", [256, 1])
@pytest.mark.parametrize("zero_points", [(0, 0, 0), (3, -7, 5), (-128, -128, -128)])
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(
    ("runtime", "formula"),
    [
        pytest.param("litert", "float32", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
        pytest.param("litert-builtin", "q31", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
        pytest.param("litert-reference", "q31", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
        pytest.param("tflite-micro", "q31", marks=pytest.mark.extra("tflite", "tflite_micro")),
    ],
)
def test_products_have_the_formulas_of_convolutions(runtime, formula, scales, zero_points, width):
    """Of all 65,536 pairs."""
    scales = tuple(map(np.float32, scales))
    data, feeds = one_pair(Code.MUL, scales, zero_points, width)
    assert np.array_equal(ran(runtime, data, **feeds), products(feeds, scales, zero_points)[formula])


def test_the_products_tell_the_formulas_apart():
    scales = tuple(map(np.float32, SCALES[0]))
    found = products(one_pair(Code.MUL, scales)[1], scales, (0, 0, 0))
    assert all((found[a] != found[b]).sum() > 100 for a in FORMULAS for b in FORMULAS if a < b)

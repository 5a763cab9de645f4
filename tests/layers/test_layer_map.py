"""The layer map in eval mode: the integers of a plain rewrite, whatever the batch, the threads and the context.

This covers `layers/norms.py` and `layers/operator_map.py` too.
"""

import numpy as np
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from tests.models import INPUT_SHAPES, Chain, Depthwise, OneDimensional, Residual, Shared, example, make_awkward, train
from tests.references import convolve

NETWORKS = [Chain, Residual, Depthwise, OneDimensional, Shared]
SHAPE = (3, 8, 8)
FLATTEST = 2.0**-21  # a stored accumulator unit of less than this many levels is taken for nothing


def network(activation):
    """A convolution with batch norm, and a head behind it."""
    conv = nn.Conv2d(3, 12, 3, stride=2, padding=1, groups=3)
    return make_awkward(nn.Sequential(conv, nn.BatchNorm2d(12), activation, nn.Flatten(), nn.Linear(192, 4)))


def trained_map(activation, precision, target):
    """The first layer map after some training, with what it takes and gives in eval mode."""
    precision = ana_fx.Precision(*precision[:2], rounding=precision[2])
    qat = ana_fx.prepare(network(activation), torch.rand(2, *SHAPE), precision=precision, target=target)
    train(qat, SHAPE, 3)
    layer_map = next(iter(layer_maps(qat).values()))
    seen = []
    layer_map.register_forward_hook(lambda module, operands, output: seen.extend([*operands, output]))
    with torch.no_grad():
        qat.eval()(torch.rand(16, *SHAPE))
    return layer_map, *(tensor.numpy() for tensor in seen)


def integers(layer_map, x, x_scale):
    """Accumulators in int64; slope and intercept of the real output in levels, in float64; lowest and highest level."""
    norm, weight, output = layer_map.norm, layer_map.weight_quantizer, layer_map.output_quantizer
    half = weight.rounding.offset
    n_x = np.rint(x / x_scale).astype("int64")
    n_w = np.floor(layer_map.weight.numpy(force=True) / weight.scale.numpy(force=True) + np.float32(half))
    n_w = n_w.clip(weight.integer_type.qmin, weight.integer_type.qmax).astype("int64")
    mean, variance, gamma, beta, bias = (
        tensor.numpy(force=True).astype("float64")
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias, layer_map.bias)
    )
    gain = weight.scale.numpy(force=True).astype("float64").ravel() * (1 / np.sqrt(variance + norm.eps) * gamma)
    offset = (bias - mean) * (1 / np.sqrt(variance + norm.eps)) * gamma + beta
    y_scale = output.scale.numpy(force=True)
    lo = 0 if output.clip_range.minimum == 0 else output.integer_type.qmin
    hi = min(output.integer_type.qmax, np.rint(np.float32(output.clip_range.maximum) / y_scale))
    slope = np.abs(gain) * (x_scale.astype("float64") / y_scale.astype("float64"))
    accumulator = convolve(n_x, n_w, layer_map.operator) * np.sign(gain).astype("int64")[:, None, None]
    return accumulator, slope, offset / y_scale.astype("float64"), lo, hi


def along_channels(x):
    return np.asarray(x)[:, None, None]


WIDTHS = [("ternary", "uint2"), ("ternary", "ternary"), ("int4", "uint4"), ("int8", "uint8"), ("int3", "uint7")]
PRECISIONS = [(*widths, rounding) for widths in WIDTHS for rounding in ("nearest", "floor")]
ACTIVATIONS = [nn.ReLU(), nn.ReLU6(), nn.Identity()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_eval_mode_is_the_qlinear_formula(precision, activation):
    layer_map, x, x_scale, y = trained_map(activation, precision, "onnxruntime")
    accumulator, slope, target, lo, hi = integers(layer_map, x, x_scale)
    largest = layer_map.weight_quantizer.integer_type.magnitude
    factor = min(127 // largest, 32767 // (2 * 255 * largest))
    factor = max(1, factor - (factor % 2 == 0))
    is_constant = slope / factor < FLATTEST
    stored_slope = np.where(is_constant, 1.0, slope / factor)
    if precision[2] == "nearest":
        bias = np.where(is_constant, np.rint(target), np.rint(target / stored_slope))
    else:
        bias = np.where(is_constant, np.floor(target), np.floor((target - 0.5) / stored_slope) + 1)
    y_scale = layer_map.output_quantizer.scale.numpy(force=True)
    weight_scale = (np.minimum(stored_slope, 2.0**10) * (np.float64(y_scale) / np.float64(x_scale))).astype("float32")
    stored = accumulator * along_channels(np.where(is_constant, 0, factor)) + along_channels(bias.clip(-(2**40), 2**40))
    scaled = stored.astype("float32") * along_channels((x_scale * weight_scale) / y_scale)
    np.testing.assert_array_equal(y, np.rint(scaled).clip(lo, hi).astype("float32") * y_scale)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_eval_mode_is_the_shift_formula_where_the_target_shifts(precision, activation):
    layer_map, x, x_scale, y = trained_map(activation, precision, "integer")
    accumulator, slope, target, lo, hi = integers(layer_map, x, x_scale)
    half = layer_map.output_quantizer.rounding.offset
    is_constant = slope < FLATTEST
    cut = np.where(is_constant, 1.0, np.minimum(slope, 2.0**10))
    constant = np.rint(target) if half else np.floor(target)
    steepness = np.where(is_constant, 1.0, slope) / cut  # 1, but for slopes that are cut
    target = np.where(is_constant, constant, (target + half) / steepness)
    shift = 16 - np.frexp(cut)[1].astype("int64")
    multiplier = np.where(is_constant, 0, np.rint(cut * 2.0**shift)).astype("int64")
    limit = 256 + 2.0**19 * cut  # no accumulator reaches 2**19: beyond this all of them saturate
    offset = np.floor(target.clip(-limit, limit) * 2.0**shift).astype("int64")
    shifted = (accumulator * along_channels(multiplier) + along_channels(offset)) >> along_channels(shift)
    y_scale = layer_map.output_quantizer.scale.numpy(force=True)
    np.testing.assert_array_equal(y, shifted.clip(lo, hi).astype("float32") * y_scale)


def evaluated(kind, precision="int4"):
    """A trained network in eval mode, and inputs."""
    qat = ana_fx.prepare(kind(), example(kind), precision=precision)
    train(qat, INPUT_SHAPES[kind], 2)
    return qat.eval(), example(kind, 64)


@pytest.mark.parametrize("precision", ["ternary", "int8"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_sample_gives_the_same_in_every_batch_and_on_any_threads(kind, precision):
    qat, x = evaluated(kind, precision)
    expected = qat(x)
    for size in (1, 7):
        assert torch.equal(qat(x[:size]), expected[:size])
    torch.set_num_threads(1)
    assert torch.equal(qat(x), expected)
    if x.ndim == 4:
        assert torch.equal(qat(x.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", NETWORKS)
def test_autocast_does_not_change_eval_mode(kind, dtype):
    qat, x = evaluated(kind)
    expected = qat(x)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(qat(x), expected)


@pytest.mark.parametrize("kind", NETWORKS)
def test_eval_mode_gives_multiples_of_the_output_scale_and_changes_nothing(kind):
    qat, x = evaluated(kind)
    before = {name: tensor.clone() for name, tensor in qat.state_dict().items()}
    outputs = []
    for layer_map in layer_maps(qat).values():
        layer_map.register_forward_hook(lambda module, operands, output: outputs.append((module, output)))
    qat(x)
    for layer_map, output in outputs:
        if layer_map.output_quantizer is not None:
            levels = torch.round(output / layer_map.output_quantizer.scale)
            assert torch.equal(levels * layer_map.output_quantizer.scale, output)
            assert int(levels.abs().max()) <= layer_map.output_quantizer.integer_type.magnitude
    assert [name for name, tensor in qat.state_dict().items() if not torch.equal(tensor, before[name])] == []


def without_norm():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_eval_mode_is_refused_before_any_scale_is_known():
    qat = ana_fx.prepare(without_norm(), torch.rand(2, *SHAPE)).eval()
    with pytest.raises(
        ana_fx.CalibrationError, match=r"the scale of .* is not known yet: found no calibration .*train\(\)"
    ):
        qat(torch.rand(2, *SHAPE))


def test_eval_mode_is_refused_while_a_layer_s_scale_is_not_known():
    qat = ana_fx.prepare(without_norm(), torch.rand(2, *SHAPE))
    qat.get_submodule("input_1_quantizer").calibrate(torch.rand(2, *SHAPE))
    with pytest.raises(ana_fx.CalibrationError, match=r"scale of 0\.output_quantizer is not known"):
        qat.eval()(torch.rand(2, *SHAPE))


@pytest.mark.parametrize("calibration", [None, [torch.rand(8, *SHAPE)]])
def test_one_training_batch_or_calibration_makes_every_scale_known(calibration):
    qat = ana_fx.prepare(without_norm(), torch.rand(2, *SHAPE), calibration=calibration)
    if calibration is None:
        qat.train()(torch.rand(8, *SHAPE))
    assert bool(torch.isfinite(qat.eval()(torch.rand(2, *SHAPE))).all())


def test_weights_that_are_fixed_bound_the_accumulators_by_what_they_can_reach():
    qat = ana_fx.prepare(nn.Sequential(nn.Linear(1200, 4), nn.ReLU()), torch.rand(8, 1200)).train()
    qat(torch.rand(8, 1200))
    (layer_map,) = layer_maps(qat.eval()).values()
    shape, scales, x = (8, 1200), (torch.ones(()),), torch.randint(0, 256, (8, 1200)).float()
    anyhow = layer_map.integer_form(scales, shape)
    expected = layer_map.deployed((x,), anyhow, scales)
    fixed = layer_map.current_form(scales, shape)
    reach = [int(w.clamp_min(0).sum()) * 255 for w in (fixed.weight, -fixed.weight)]
    assert anyhow.bound >= 2**24  # what any int8 weights reach needs wider numbers than float32
    assert max(int(w.abs().max()) for w in fixed.weight) * 255 < fixed.bound <= max(reach)
    assert torch.equal(layer_map(x, *scales), expected)

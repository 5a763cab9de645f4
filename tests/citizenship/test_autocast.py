"""Under autocast affine maps run in half precision; everything that decides a level stays in float32.

Kept in float32, and why:

- Steps, and the division by them: n · scale is exact to float32's rounding, while bfloat16's 8 bits of mantissa cannot
  even tell the levels 128 … 255 of an eight-bit quantizer from their neighbours.
- Noise, thresholds and the gradient's factor: an element is compared with thresholds half a step away.
- Parameters, their gradients and batch statistics: as autocast always does.
- All of eval mode: it is the deployed integer program, so autocast is turned off inside.

In training the affine map itself reads its operands in half precision; that is what autocast is for. It rounds what the
*next* quantizer sees, as any other noise does, and is gone in eval mode.
"""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.noise import NoiseType
from tests.citizenship.training import TOTAL, WithNorm, WithoutNorm, batch_of, prepared, trained
from tests.models import Chain, Depthwise, OneDimensional, Residual, Shared, example

X, Y = batch_of(100, 32)
HALVES = [torch.bfloat16, torch.float16]


def autocast(dtype):
    return torch.autocast("cpu", dtype=dtype)


def outputs_of_quantizers(qat, x):
    """What every quantizer gives, with its step and its type."""
    seen = []
    for _, layer_map in layer_maps(qat).items():
        for quantizer in layer_map.quantizers():
            quantizer.register_forward_hook(lambda q, _inputs, output: seen.append((q, output.detach())))
    qat(x)
    return seen


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("noise", NoiseType)
@pytest.mark.parametrize("strategy", [Strategy.MODE, Strategy.RANDOM])
def test_quantised_tensors_are_exact_multiples_of_their_step(strategy, noise, dtype):
    qat = prepared(strategy=strategy, noise=noise, mean="dynamic")
    with autocast(dtype):
        seen = outputs_of_quantizers(qat, X)
    assert len(seen) == 5
    for quantizer, output in seen:
        levels = torch.round(output / quantizer.scale)
        assert output.dtype == torch.float32
        assert torch.equal(levels * quantizer.scale, output)
        assert levels.unique().numel() > 2


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_weights_are_quantised_as_without_autocast(dtype):
    qat = prepared()
    with autocast(dtype):
        found = [q(m.weight) for m in layer_maps(qat).values() if (q := m.weight_quantizer) is not None]
    expected = [q(m.weight) for m in layer_maps(qat).values() if (q := m.weight_quantizer) is not None]
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_affine_maps_run_in_half_precision(dtype):
    qat = prepared()
    seen = []
    qat.get_submodule("4").norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].dtype))
    with autocast(dtype):
        output = qat(X)
    assert seen == [dtype]
    assert output.dtype == dtype  # as that of a float model's last linear layer


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_and_parameters_stay_in_float32_and_near_those_without_autocast(dtype):
    """Near, since a number within half precision's rounding of a threshold takes another level."""
    qat = prepared(WithoutNorm)

    def gradients():
        qat.zero_grad()
        nn.functional.cross_entropy(qat(X).float(), Y).backward()
        return torch.cat([p.grad.flatten() for p in qat.parameters() if p.requires_grad])

    expected = gradients()
    with autocast(dtype):
        found = gradients()
    assert found.dtype == torch.float32
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.98


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("is_calibrated", [True, False])
@pytest.mark.parametrize("kind", [WithNorm, WithoutNorm])
def test_training_under_autocast_ends_in_a_program_that_is_proven(kind, is_calibrated, dtype):
    qat = prepared(kind, is_calibrated=is_calibrated)
    with autocast(dtype):
        trained(qat)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in qat.parameters())
    assert torch.equal(ana_fx.convert(qat)(X), qat.eval()(X))


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("kind", [Chain, Residual, Depthwise, OneDimensional, Shared])
def test_eval_mode_and_the_program_give_the_same_integers(kind, precision, target):
    qat = ana_fx.prepare(kind(), example(kind), precision=precision, target=target)
    x = example(kind, 16)
    qat(x)
    integer = ana_fx.convert(qat)
    expected = qat.eval()(x)
    for dtype in HALVES:
        for model in (qat, integer):
            with autocast(dtype):
                found = model(x)
            assert found.dtype == torch.float32
            assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_model_is_converted_under_autocast(dtype):
    qat = trained(prepared())
    with autocast(dtype):
        integer = ana_fx.convert(qat)
    assert torch.equal(integer(X), qat.eval()(X))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_float_tail_is_the_only_thing_that_autocast_changes_in_eval_mode(dtype):
    qat = ana_fx.prepare(WithNorm(), X, precision=ana_fx.Precision("int4", "uint4", output="float"))
    qat(X)
    seen = []
    qat.eval().get_submodule("8").register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    expected = qat(X)
    with autocast(dtype):
        found = qat(X)
    assert torch.equal(*seen)
    assert (expected.dtype, found.dtype) == (torch.float32, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_inputs_in_half_precision_are_taken(dtype):
    qat = prepared()
    exact = X.to(dtype)
    assert torch.equal(qat.eval()(exact), qat(exact.float()))


def test_a_gradient_scaler_steps_to_the_end_though_nothing_learns_any_more():
    """What fp16 needs. It refuses to step where no parameter has a gradient; a zero of the model has one, of zero."""
    qat = prepared()
    optimizer, annealer = torch.optim.SGD(qat.parameters(), lr=0.1), ana_fx.Annealer(qat, TOTAL)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    for step in range(TOTAL):
        x, y = batch_of(step)
        with autocast(torch.float16):
            loss = nn.functional.cross_entropy(qat(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        annealer.step()
    assert annealer.progress == 1.0
    assert torch.equal(ana_fx.convert(qat)(X), qat.eval()(X))

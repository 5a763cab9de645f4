"""The annealer: noise over steps, and training that goes on as if it had not been interrupted."""

import copy
import io

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps, quantizers
from ana_fx.schedule.degrees import DecayInterval, DecayPower
from ana_fx.schedule.schedule import Schedule
from tests.models import INPUT_SHAPES, Chain, Residual, Shared, example

TOTAL = 10


class WithNorm(nn.Sequential):
    """Scales from batch norms."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )


class WithoutNorm(nn.Sequential):
    """Scales from the first batch."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU6(), nn.Linear(8, 3))


SHAPES = {WithNorm: (1, 6, 6), WithoutNorm: (1, 6, 6), Shared: INPUT_SHAPES[Shared]}


def prepared(kind=WithNorm, **options):
    """A network with new random weights, ready to be trained."""
    schedule = Schedule(**options)
    return ana_fx.prepare(kind(), torch.rand(2, *SHAPES[kind]), precision="int4", schedule=schedule)


def noise_of(layer_map):
    """Mean and standard deviation of its quantizers, which are the same for all."""
    noises = {(float(q.mean), float(q.std)) for q in layer_map.quantizers()}
    assert len(noises) == 1
    return noises.pop()


def noises(qat):
    """The standard deviation of every quantizer."""
    return {name: float(quantizer.std) for name, quantizer in quantizers(qat)}


def as_float32(*numbers):
    return tuple(torch.tensor(numbers).tolist())


@pytest.mark.parametrize("interval", DecayInterval)
@pytest.mark.parametrize("power", DecayPower)
def test_each_step_sets_the_noise_that_the_schedule_says(interval, power):
    qat = prepared(interval=interval, power=power, mean="dynamic")
    schedule, ranges = qat.meta["schedule"], ana_fx.annealing_ranges(qat)
    annealer = ana_fx.Annealer(qat, TOTAL)
    for step in range(TOTAL + 1):
        assert annealer.progress == step / TOTAL
        for path, layer_map in layer_maps(qat).items():
            assert noise_of(layer_map) == as_float32(*schedule.noise_at(step / TOTAL, ranges[path], 3))
        annealer.step()


def test_depths_follow_the_graph_and_noise_leaves_them_in_order():
    qat = ana_fx.prepare(Residual(), example(Residual), precision="ternary", schedule=ana_fx.Schedule())
    ranges, maps = ana_fx.annealing_ranges(qat), layer_maps(qat)
    assert list(ranges) == list(maps)
    order = sorted(ranges, key=lambda path: ranges[path].depth)
    annealer = ana_fx.Annealer(qat, 50)
    for _ in range(50):
        stds = [noise_of(maps[path])[1] for path in order]
        assert stds == sorted(stds)
        annealer.step()


def test_the_input_has_no_noise():
    qat = prepared(mean="dynamic")
    ana_fx.Annealer(qat, TOTAL)
    assert noises(qat)["input_1_quantizer"] == 0.0


def test_noise_is_gone_from_the_stop_on():
    qat = prepared(stop=0.5, mean="dynamic")
    annealer = ana_fx.Annealer(qat, TOTAL)
    for _ in range(TOTAL // 2):
        assert any(noises(qat).values())
        annealer.step()
    for _ in range(TOTAL):
        assert not any(noises(qat).values())
        annealer.step()
    assert annealer.progress == 1.0


def test_a_weight_with_two_readers_has_the_noise_of_the_deeper_one():
    qat = prepared(Shared)
    first, second = (m for m in layer_maps(qat).values() if m.weight is not None and m.weight.shape == (6, 6, 3, 3))
    assert first.weight_quantizer is second.weight_quantizer
    annealer = ana_fx.Annealer(qat, 50)
    for _ in range(50):
        assert noise_of(second) == (float(first.weight_quantizer.mean), float(first.weight_quantizer.std))
        annealer.step()


def test_noise_never_comes_back_where_modules_are_shared():
    qat = prepared(Shared)
    annealer = ana_fx.Annealer(qat, 50)
    before = noises(qat)
    for _ in range(50):
        annealer.step()
        after = noises(qat)
        assert all(after[name] <= before[name] for name in before)
        before = after


def test_a_shared_weight_has_the_same_noise_after_loading_as_without():
    qat, other = prepared(Shared), prepared(Shared)
    annealer = ana_fx.Annealer(qat, 50)
    for _ in range(8):  # the first reader is being annealed, the second is not yet
        annealer.step()
    other.load_state_dict(qat.state_dict())
    ana_fx.Annealer(other, 50)
    assert noises(other) == noises(qat)


def test_the_state_is_the_step_and_the_total():
    annealer = ana_fx.Annealer(prepared(), TOTAL)
    for _ in range(5):
        annealer.step()
    assert annealer.state_dict() == {"step": 5, "total_steps": TOTAL}


def test_a_loaded_state_sets_progress_and_noise():
    source, target = prepared(), prepared()
    annealer, other = ana_fx.Annealer(source, TOTAL), ana_fx.Annealer(target, 100)
    for _ in range(5):
        annealer.step()
    other.load_state_dict(annealer.state_dict())
    assert other.state_dict() == annealer.state_dict()
    assert other.progress == annealer.progress == 5 / TOTAL
    assert noises(target) == noises(source)


def test_an_annealer_goes_on_from_a_checkpoint_that_is_loaded_into_its_model():
    source, target = prepared(), prepared()
    annealer, other = ana_fx.Annealer(source, TOTAL), ana_fx.Annealer(target, TOTAL)
    for _ in range(3):
        annealer.step()
    for _ in range(7):
        other.step()
    target.load_state_dict(source.state_dict())
    assert other.progress == 3 / TOTAL
    annealer.step()
    other.step()
    assert noises(target) == noises(source)


def test_a_copied_model_is_annealed_on_its_own():
    qat = prepared()
    annealer = ana_fx.Annealer(qat, TOTAL)
    for _ in range(3):
        annealer.step()
    expected, copied = noises(qat), copy.deepcopy(qat)
    other = ana_fx.Annealer(copied, TOTAL)
    assert (other.progress, noises(copied)) == (3 / TOTAL, expected)
    other.step()
    assert (annealer.progress, noises(qat)) == (3 / TOTAL, expected)


def test_a_model_that_is_copied_with_its_annealer_stays_with_it():
    qat = prepared()
    annealer = ana_fx.Annealer(qat, TOTAL)
    annealer.step()
    copied, other = copy.deepcopy((qat, annealer))
    for _ in range(4):
        other.step()
    assert noises(qat) != noises(copied)
    for _ in range(4):
        annealer.step()
    assert noises(qat) == noises(copied)


def batch_of(step, kind):
    """The same inputs and labels at a step, whatever happened before."""
    generator = torch.Generator().manual_seed(step)
    return torch.rand(4, *SHAPES[kind], generator=generator), torch.randint(3, (4,), generator=generator)


class Training:
    """A model, its optimiser and its annealer, as a user would write them."""

    def __init__(self, kind, **options):
        self.kind = kind
        self.qat = prepared(kind, **options)
        self.optimizer = torch.optim.Adam(self.qat.parameters(), lr=0.01)
        self.annealer = ana_fx.Annealer(self.qat, TOTAL)

    def run(self, steps):
        for step in steps:
            x, y = batch_of(step, self.kind)
            torch.manual_seed(step)  # of the random strategy
            nn.functional.cross_entropy(self.qat(x), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.annealer.step()
        return self

    def save(self):
        file = io.BytesIO()
        parts = (self.qat, self.optimizer, self.annealer)
        torch.save([part.state_dict() for part in parts], file)
        return file.getvalue()

    def load(self, saved, *, annealer=True):
        model, optimizer, steps = torch.load(io.BytesIO(saved))
        self.qat.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        if annealer:
            self.annealer.load_state_dict(steps)
        return self


def assert_same_state(found, expected):
    assert list(found) == list(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def assert_goes_on(kind, interruption, **options):
    """Training that is interrupted, saved, rebuilt and loaded ends as training that is not."""
    first = Training(kind, **options)
    saved = first.run(range(interruption)).save()
    second = Training(kind, **options).load(saved)  # its own weights are others
    first.run(range(interruption, TOTAL))
    second.run(range(interruption, TOTAL))
    assert_same_state(second.qat.state_dict(), first.qat.state_dict())
    x = batch_of(TOTAL, kind)[0]
    assert torch.equal(second.qat.eval()(x), first.qat.eval()(x))


@pytest.mark.parametrize("interruption", [0, 2, 5])
@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("kind", [WithNorm, WithoutNorm, Shared])
def test_a_rebuilt_model_goes_on_with_the_same_numbers(kind, learn_scales, interruption):
    assert_goes_on(kind, interruption, learn_scales=learn_scales)


@pytest.mark.parametrize("strategy", ["random", "expectation"])
def test_every_strategy_goes_on_with_the_same_numbers(strategy):
    assert_goes_on(WithNorm, 3, strategy=strategy, mean="dynamic", interval="same_start")


@pytest.mark.parametrize("steps_before", [0, 8])
@pytest.mark.parametrize("kind", [WithNorm, Shared])
def test_a_checkpoint_that_is_loaded_over_another_training_goes_on_with_the_same_numbers(kind, steps_before):
    first = Training(kind).run(range(4))
    second = Training(kind).run(range(steps_before))
    second.load(first.save(), annealer=False)  # it finds its step in the model
    first.run(range(4, TOTAL))
    second.run(range(4, TOTAL))
    assert_same_state(second.qat.state_dict(), first.qat.state_dict())


def test_the_model_s_state_alone_is_enough_for_the_noise():
    first = Training(WithNorm).run(range(5))
    second = prepared(WithNorm)
    second.load_state_dict(first.qat.state_dict())
    annealer = ana_fx.Annealer(second, TOTAL)
    assert annealer.progress == 5 / TOTAL
    assert noises(second) == noises(first.qat)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": Schedule("normal", "random", "same_start", "progressive", "dynamic", "static")},
        {"schedule": Schedule(learn_scales=True)},
        {"precision": "int8"},
        {"precision": "all-ternary"},
        {"precision": ana_fx.Precision("int3", "uint6", "int8", rounding="floor", overrides={"*head*": "int8"})},
        {"target": "integer"},
        {"calibration": [torch.rand(4, *INPUT_SHAPES[Chain])]},
    ],
    ids=str,
)
def test_names_of_the_state_depend_on_the_model_only(options):
    expected = ana_fx.prepare(Chain(), example(Chain), precision="ternary", schedule=ana_fx.Schedule()).state_dict()
    found = ana_fx.prepare(Chain(), example(Chain), **options)
    assert sorted(found.state_dict()) == sorted(expected)
    found(example(Chain))
    ana_fx.Annealer(found, 3).step()
    assert sorted(found.state_dict()) == sorted(expected)


@pytest.mark.parametrize("total_steps", [0, -1])
def test_a_total_that_is_not_positive_is_refused(total_steps):
    with pytest.raises(ValueError, match=f"total_steps is positive, got {total_steps}"):
        ana_fx.Annealer(prepared(), total_steps)


def test_a_model_that_was_not_prepared_is_refused():
    with pytest.raises(
        ValueError, match=r"needs a model from ana_fx\.prepare, got WithNorm, a model that was not prepared"
    ):
        ana_fx.Annealer(torch.fx.symbolic_trace(WithNorm()), TOTAL)


def test_an_annealer_says_how_far_it_is():
    annealer = ana_fx.Annealer(prepared(), 200)
    annealer.step()
    assert repr(annealer) == "Annealer(step 1 of 200, 0.5 %)"


def test_a_state_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"needed what Annealer.state_dict.. gave.*got a dict of 'lr'"):
        ana_fx.Annealer(prepared(), TOTAL).load_state_dict({"lr": 0.1})

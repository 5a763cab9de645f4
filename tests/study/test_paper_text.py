"""What the text of the paper says, against the library: equations (3), (20), (21), densities, counts, Theorem 2.

Written from the text alone: each formula stands here as the paper prints it.
"""

import math
from itertools import pairwise

import pytest
import torch

from ana_fx import LayerSchedule, Schedule, Strategy
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.levels import Levels
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.noise import NOISES, Logistic, Normal, Triangular, Uniform
from ana_fx.study.design_grid import SPEECH_COMMANDS_RULES, all_schedules, reduced_schedules

HEAVISIDE = Levels(0, 1, 1.0)  # one threshold, at 0, where the level is 1 already: H of equation (2)
FLOAT32 = 2.0**-22  # two roundings of numbers up to 1, and one of the quotient that is rounded


def sigma(x, noise, mean, std):
    """σ_λ = µ_λ ∗ H."""
    one, alpha, beta = torch.ones(()), torch.tensor(mean), torch.tensor(std)
    settings = {"noise": noise, "strategy": Strategy.EXPECTATION, "num_neighbours": 0}
    return fake_quantize(x, one, alpha, beta, levels=HEAVISIDE, **settings)


# Section 2.2


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.0, 1 / (2 * math.sqrt(3))), (0.5, 1 / (2 * math.sqrt(3))), (-0.3, 0.1), (0.0, 2.0)]
)
def test_equation_3_is_a_ramp_with_the_density_as_its_slope(alpha, beta):
    x = torch.linspace(-5, 5, 4001, requires_grad=True)
    a, b = alpha - math.sqrt(3) * beta, alpha + math.sqrt(3) * beta
    found = sigma(x, Uniform(), alpha, beta)
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(found.detach(), ((x.detach() - a) / (b - a)).clamp(0, 1), rtol=0, atol=FLOAT32 / beta)
    inside = (x > a + 1e-5) & (x < b - 1e-5)
    outside = (x < a - 1e-5) | (x > b + 1e-5)
    torch.testing.assert_close(slope[inside], torch.full_like(slope[inside], 1 / (b - a)), rtol=FLOAT32, atol=0)
    assert not slope[outside].any()


def test_the_named_regularisations_are_what_section_2_calls_them():
    x = torch.linspace(-2, 2, 1001)
    beta = 1 / (2 * math.sqrt(3))
    hard_sigmoid, clipped_relu = (x + 0.5).clamp(0, 1), x.clamp(0, 1)
    torch.testing.assert_close(sigma(x, Uniform(), 0.0, beta), hard_sigmoid, rtol=0, atol=FLOAT32)
    torch.testing.assert_close(sigma(x, Uniform(), 0.5, beta), clipped_relu, rtol=0, atol=FLOAT32)
    erf = (1 + torch.erf(x / (0.3 * math.sqrt(2)))) / 2
    torch.testing.assert_close(sigma(x, Normal(), 0.0, 0.3), erf, rtol=0, atol=FLOAT32)
    scale = 0.3 * math.sqrt(3) / math.pi
    torch.testing.assert_close(sigma(x, Logistic(), 0.0, 0.3), torch.sigmoid(x / scale), rtol=0, atol=2 * FLOAT32)


# Section 2.4


def most_likely(x, noise, std, levels):
    """The level k with the largest µ_{λ,x}(I_k)."""
    edges = torch.tensor([-math.inf, *(k - levels.offset for k in range(levels.lo + 1, levels.hi + 1)), math.inf])
    passed = noise.cdf((edges.double() - x.double()[:, None]) / std)
    return levels.lo + passed.diff(dim=1).argmax(1)


@pytest.mark.parametrize("noise", NOISES.values(), ids=str)
def test_the_mode_is_the_quantizer_while_the_noise_is_no_wider_than_a_bin_and_not_beyond(noise):
    x, levels = torch.arange(-3, 3, 1 / 64) + 1 / 128, Levels(-1, 1, 0.5)
    exact = (x + 0.5).floor().clamp(-1, 1)
    assert torch.equal(most_likely(x, noise, noise.std_of(0.5), levels), exact.long())
    assert not torch.equal(most_likely(x, noise, noise.std_of(2.0), levels), exact.long())


# Section 4.1

DENSITIES = {
    Uniform(): lambda x, a, b: ((x - a).abs() <= math.sqrt(3) * b).to(x) / (2 * math.sqrt(3) * b),
    Triangular(): lambda x, a, b: (
        ((x - a + math.sqrt(6) * b) / (6 * b**2)) * ((x >= a - math.sqrt(6) * b) & (x < a))
        + ((a + math.sqrt(6) * b - x) / (6 * b**2)) * ((x >= a) & (x < a + math.sqrt(6) * b))
    ),
    Normal(): lambda x, a, b: torch.exp(-((x - a) ** 2) / (2 * b**2)) / (math.sqrt(2 * math.pi) * b),
    # the paper's β of the logistic is its scale; its standard deviation is β·π/√3
    Logistic(): lambda x, a, b: torch.exp(-(x - a) / b) / (b * (1 + torch.exp(-(x - a) / b)) ** 2),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=str)
def test_densities_are_those_of_section_4(noise):
    x, alpha, beta = torch.linspace(-4, 4, 2000, dtype=torch.float64), 0.25, 0.7
    std = beta * math.pi / math.sqrt(3) if noise == Logistic() else beta
    found = noise.pdf((x - alpha) / std) / std
    torch.testing.assert_close(found, DENSITIES[noise](x, alpha, beta), rtol=1e-12, atol=1e-15)  # float64


@pytest.mark.parametrize("noise", [Normal(), Logistic()])
@pytest.mark.parametrize("compact", [Uniform(), Triangular()])
def test_equivalent_noises_have_95_percent_in_the_support_of_the_compact_one(noise, compact):
    support = compact.std_of(0.5) * (math.sqrt(3) if compact == Uniform() else math.sqrt(6))
    half = torch.tensor(support / noise.std_of(0.5), dtype=torch.float64)
    assert float(noise.cdf(half) - noise.cdf(-half)) == pytest.approx(0.95, abs=1e-12)


@pytest.mark.parametrize(("d_alpha", "d_beta"), [(1, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("is_mean_static", [True, False])
@pytest.mark.parametrize("is_variance_static", [True, False])
def test_equations_20_and_21_iteration_by_iteration(d_alpha, d_beta, is_mean_static, is_variance_static):
    total, start, end, c_alpha, c_beta = 40, 8, 24, -0.5, 0.5 / math.sqrt(3)
    rules = ["static" if is_static else "dynamic" for is_static in (is_mean_static, is_variance_static)]
    schedule = Schedule(mean=rules[0], variance=rules[1], mean_power=d_alpha, std_power=d_beta)
    for t in range(total + 1):
        alpha, beta = schedule.noise_at(t / total, AnnealingRange(0, start / total, end / total), 1)
        decay = max(0, min((end - t) / (end - start), 1))
        assert alpha == pytest.approx(0.0 if is_mean_static else c_alpha * decay**d_alpha, abs=1e-12)
        assert beta == pytest.approx(c_beta if is_variance_static else c_beta * decay**d_beta, abs=1e-12)


def test_decay_intervals_are_ordered_as_section_4_says():
    def times(interval):
        ranges = [Schedule(interval=interval).annealing_range(depth, 8) for depth in range(8)]
        return [each.start for each in ranges], [each.end for each in ranges]

    start, end = times("same_start")
    assert len(set(start)) == 1
    assert end == sorted(set(end))
    start, end = times("same_end")
    assert len(set(end)) == 1
    assert start == sorted(set(start), reverse=True)
    start, end = times("partition")
    assert end[:-1] == pytest.approx(start[1:])
    start, end = times("overlapped")
    assert (len(set(start)), len(set(end))) == (1, 1)


def test_the_design_shrinks_from_384_to_264_as_section_4_counts():
    everything = all_schedules()
    static = [each for each in everything if each.mean.value == each.variance.value == "static"]
    wide = [each for each in everything if each.mean.value == "dynamic" and each.variance.value == "static"]
    assert (len(everything), len(static), len(wide)) == (384, 96, 96)

    def of_expectation(schedules):
        return [each for each in schedules if each.strategy is Strategy.EXPECTATION]

    kept = {(each.noise, each.strategy) for each in static}
    assert (len(kept), len(of_expectation(wide))) == (12, 32)
    assert len({noise for noise, strategy in kept if strategy is Strategy.EXPECTATION}) == 4
    assert 384 - (96 - 12) - 32 - 4 == len(reduced_schedules()) == 264


def test_appendix_b_has_8_static_and_24_dynamic_configurations():
    found = reduced_schedules(SPEECH_COMMANDS_RULES)
    static = {(each.noise, each.strategy) for each in found if each.is_static}
    dynamic = {(each.interval, each.power, each.strategy) for each in found if not each.is_static}
    assert (len(static), len(dynamic), len(found)) == (4 * 2, 4 * 2 * 3, 32)
    assert {each.noise for each in found if not each.is_static} == {Uniform()}
    assert {each.mean.value for each in found} == {"static"}


# Section 2.3: Theorem 2 on a random network of Heavisides. Parameters are whole numbers, so arguments meet thresholds.

L = 4
WIDTHS = (8, 16, 16, 16, 16)
TIMES = [step / 128 for step in range(129)]
BACKWARDS = {depth: LayerSchedule((L - 1 - depth) / L, (L - depth) / L) for depth in range(L)}


def network(generator):
    """m_ℓ = (W_ℓ, b_ℓ), ℓ = 1 … L."""
    for fan_in, fan_out in pairwise(WIDTHS):
        weight = torch.randint(-1, 2, (fan_out, fan_in), generator=generator).float()
        yield weight, torch.randint(-2, 3, (fan_out,), generator=generator).float()


def schedule(noise, *, is_reversed=False):
    """A mean that outweighs the width. d_β near d_α keeps errors above float32's rounding for long.

    Half-widths of two steps let noise reach whole numbers from their neighbours.
    """
    backwards = {"depth_overrides": BACKWARDS, "allows_disorder": True} if is_reversed else {}
    return Schedule(noise, mean="dynamic", stop=1.0, half_width=2.0, std_power=1.25, **backwards)


def errors(plan, x0, layers):
    """For each time, the largest ‖x_λ,ℓ − x_ℓ‖∞ of each layer map."""
    found = []
    for time in TIMES:
        exact, noisy, row = x0, x0, []
        for depth, (weight, bias) in enumerate(layers):
            mean, std = plan.noise_at(time, plan.annealing_range(depth, L), L)
            exact = ((exact @ weight.T + bias) >= 0).float()
            noisy = sigma(noisy @ weight.T + bias, plan.noise, mean, std)
            row.append(float((noisy - exact).abs().max()))
        found.append(row)
    return found


@pytest.fixture
def whole():
    """A network and inputs of whole numbers: every argument is one, and many are 0."""
    generator = torch.Generator().manual_seed(2)
    layers = list(network(generator))
    return layers, torch.randint(0, 2, (256, WIDTHS[0]), generator=generator).float()


@pytest.mark.parametrize("noise", NOISES.values(), ids=str)
def test_theorem_2_under_partition_the_heaviside_network_converges_in_step(noise, whole):
    layers, x0 = whole
    found = errors(schedule(noise), x0, layers)
    for depth in range(L):
        begin, end = depth * 32, (depth + 1) * 32  # of 128
        assert found[begin][depth] > 1e-3
        before = [found[time][depth] for time in range(begin, end)]
        assert before[-1] < 2e-4  # λ = 1/32; slowest is the logistic: 1 − F(−α/β) = 1/(1 + exp(log(39)·32^¼))
        assert all(later <= earlier + 1e-6 for earlier, later in pairwise(before))
        assert all(found[time][depth] == 0.0 for time in range(end, 129))


@pytest.mark.parametrize("noise", [Normal(), Logistic()])
def test_theorem_2_in_the_reverse_order_errors_stay_a_whole_level_for_every_positive_lambda(noise, whole):
    layers, x0 = whole
    found = errors(schedule(noise, is_reversed=True), x0, layers)
    own = [found[time][0] for time in range(96, 128)]  # the first layer map is the last that is annealed
    seen = [time for time, error in zip(range(96, 128), own, strict=True) if error > 2.0**-20]
    assert own[len(seen) - 1] < 1e-3  # the error of the input does vanish,
    assert {found[time][1] for time in seen} == {1.0}  # that of its reader is a whole level
    assert {found[time][3] for time in seen} == {1.0}


@pytest.mark.parametrize("noise", NOISES.values(), ids=str)
def test_theorem_2_only_in_order_is_a_layer_map_exact_once_its_own_noise_is_gone(noise):
    """Real inputs, so that some lie close to a threshold: compact noise has an error too, for some of them."""
    generator = torch.Generator().manual_seed(3)
    layers, x0 = list(network(generator)), torch.randn(4096, WIDTHS[0], generator=generator)
    ordered = errors(schedule(noise), x0, layers)
    backwards = errors(schedule(noise, is_reversed=True), x0, layers)
    assert all(ordered[time][depth] == 0.0 for depth in range(L) for time in range((depth + 1) * 32, 129))
    assert {backwards[time][3] for time in range(32, 126)} == {1.0}  # its own noise was gone at 32
    assert backwards[128][3] == 0.0

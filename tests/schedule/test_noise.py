"""The noise families: distribution functions, densities, draws and widths."""

import copy
import math
import pickle

import pytest
import torch

from ana_fx.schedule.noise import NOISES, Logistic, Noise, NoiseType, Normal, Triangular, Uniform, noise_called

FAMILIES = list(NOISES.values())
COMPACT = {Uniform(): math.sqrt(3.0), Triangular(): math.sqrt(6.0)}
UNBOUNDED = [Normal(), Logistic()]
EPS = 2.0**-52  # of float64

Z = torch.linspace(-30.0, 30.0, 600_001, dtype=torch.float64)  # beyond 30 there is less than 1e-23 of any mass
DZ = 1e-4


def reference_cdf(family: Noise, z: float) -> float:
    """Textbook distribution functions with standard deviation 1."""
    if family == Uniform():
        return min(max((z + math.sqrt(3)) / (2 * math.sqrt(3)), 0.0), 1.0)
    if family == Triangular():
        tail = max(math.sqrt(6) - abs(z), 0.0) ** 2 / 12
        return tail if z < 0 else 1 - tail
    if family == Normal():
        return 0.5 * math.erfc(-z / math.sqrt(2))
    return 1 / (1 + math.exp(-z * math.pi / math.sqrt(3)))


@pytest.mark.parametrize("family", FAMILIES)
def test_cdf_is_the_textbook_s(family):
    z = torch.linspace(-8.0, 8.0, 1001, dtype=torch.float64)
    expected = torch.tensor([reference_cdf(family, point) for point in z.tolist()], dtype=torch.float64)
    # The argument is rounded a few times: errors of some ulps of 8, times the density, which is below 1.
    torch.testing.assert_close(family.cdf(z), expected, rtol=0, atol=8 * 8 * EPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_cdf_rises_from_zero_to_one(family, dtype):
    cdf = family.cdf(torch.linspace(-100.0, 100.0, 20_001, dtype=dtype))
    assert bool((cdf.diff() >= 0).all())
    assert float(cdf[0]) < 1e-38
    assert float(cdf[-1]) == 1.0
    assert float(family.cdf(torch.zeros((), dtype=dtype))) == 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_pdf_is_the_derivative_of_the_cdf(family):
    h = 1e-4
    z = torch.linspace(-6.0, 6.0, 2003, dtype=torch.float64)
    for kink in (-COMPACT.get(family, 0.0), 0.0, COMPACT.get(family, 0.0)):
        z = z[(z - kink).abs() > h]
    difference = (family.cdf(z + h) - family.cdf(z - h)) / (2 * h)
    # Central differences err by h²/6 times the third derivative, below 1 here, and by the rounding of cdf over h.
    torch.testing.assert_close(family.pdf(z), difference, rtol=0, atol=h * h / 6 + 8 * EPS / h)


@pytest.mark.parametrize("family", FAMILIES)
def test_pdf_is_even_and_not_negative(family):
    pdf = family.pdf(Z)
    assert bool((pdf >= 0).all())
    torch.testing.assert_close(pdf, pdf.flip(0), rtol=0, atol=1e3 * EPS)  # the grid is even to 60 roundings of 30


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_has_mass_one_mean_zero_and_variance_one(family):
    pdf = family.pdf(Z)
    # The sum misses at most half a cell at either jump of the uniform density, where z² p is 3 / (2 √3) < 1.
    for power, moment in enumerate((1.0, 0.0, 1.0)):
        assert float((Z**power * pdf).sum() * DZ) == pytest.approx(moment, abs=DZ)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_follow_the_cdf(family):
    count = 100_000
    draws = family.sample_like(torch.empty(count)).double().sort().values
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    cdf = family.cdf(draws)
    statistic = torch.maximum((cdf - steps[:-1]).abs(), (cdf - steps[1:]).abs()).max()
    # Dvoretzky, Kiefer, Wolfowitz: P(statistic > ε) <= 2 exp(−2 n ε²), here 1e-9.
    assert float(statistic) < math.sqrt(math.log(2e9) / (2 * count))


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_are_independent_finite_and_shaped_as_asked(family):
    x = torch.empty(2, 50_000)
    draws = family.sample_like(x)
    assert draws.shape == x.shape
    assert draws.dtype == x.dtype
    assert bool(torch.isfinite(draws).all())
    # The correlation of n independent pairs has standard deviation n^-½; six of them.
    assert abs(float(torch.corrcoef(draws)[0, 1])) < 6 * x.shape[1] ** -0.5


@pytest.mark.parametrize("family", COMPACT)
def test_compact_noise_never_leaves_its_support(family):
    draws = family.sample_like(torch.empty(100_000))
    assert float(draws.abs().max()) <= COMPACT[family] * (1 + 2.0**-22)  # two float32 roundings
    assert family.std_of(0.5) == pytest.approx(0.5 / COMPACT[family], rel=4 * EPS)


def test_half_a_step_of_normal_noise_is_the_closed_form_of_the_paper():
    erfinv = float(torch.erfinv(torch.tensor(0.95, dtype=torch.float64)))
    expected = 0.5 * math.sqrt(2) / (2 * erfinv)
    # torch computes erfinv to some ulps; the constant of the source has all its digits.
    assert Normal().std_of(0.5) == pytest.approx(expected, rel=32 * EPS)


def test_half_a_step_of_logistic_noise_is_the_closed_form_of_the_paper():
    scale = 1 / (2 * math.log(1.95 / 0.05))
    std = scale * math.pi / math.sqrt(3)
    assert Logistic().std_of(0.5) == pytest.approx(std, rel=8 * EPS)


@pytest.mark.parametrize("family", UNBOUNDED)
def test_the_half_width_of_unbounded_noise_holds_95_percent(family):
    z = torch.tensor(0.5 / family.std_of(0.5), dtype=torch.float64)
    assert float(family.cdf(z) - family.cdf(-z)) == pytest.approx(0.95, abs=16 * EPS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("half_width", [0.125, 0.5, 2.0])
def test_width_and_reach_grow_with_the_half_width(family, half_width):
    assert family.std_of(half_width) == pytest.approx(2 * half_width * family.std_of(0.5), rel=4 * EPS)
    assert family.reach_of(half_width) >= half_width * (1 - 4 * EPS)


@pytest.mark.parametrize("family", FAMILIES)
def test_beyond_its_reach_noise_is_invisible_in_float32(family):
    reach = family.reach_of(0.5) / family.std_of(0.5)
    z = torch.tensor([-reach, reach], dtype=torch.float64)
    below, above = family.cdf(z).tolist()
    assert below < 2.0**-24  # half the distance from 1 to the next float32
    assert 1 - above < 2.0**-24


def test_only_the_compact_families_say_so():
    assert [noise for noise in FAMILIES if noise.is_compact] == list(COMPACT)


def test_families_are_values():
    assert Uniform() == NOISES["uniform"] == copy.deepcopy(Uniform()) == pickle.loads(pickle.dumps(Uniform()))
    assert len({Uniform(), Uniform(), Triangular(), Normal(), Logistic()}) == 4
    assert Uniform() != Triangular()


@pytest.mark.parametrize("noise", NoiseType)
def test_the_paper_s_names_lead_to_the_families(noise):
    assert noise_called(noise) is noise_called(noise.value) is noise.noise is NOISES[noise.value]
    assert noise.noise.name == noise.value


def test_what_moved_from_the_names_to_the_families_goes_on_working_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"write NoiseType\.NORMAL\.noise\.std_of"):
        assert NoiseType.NORMAL.std_of(0.5) == Normal().std_of(0.5)
    with pytest.warns(DeprecationWarning, match=r"write Noise\.name"):
        assert Normal().value == "normal"
    with pytest.raises(AttributeError, match="no attribute 'width'"):
        _ = NoiseType.NORMAL.width


def test_a_family_that_lacks_something_is_refused_by_python():
    class Half(Noise):
        name = "half"

    with pytest.raises(TypeError, match=r"abstract.*cdf.*half_width.*pdf.*reach.*sample_like"):
        Half()

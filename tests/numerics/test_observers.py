"""Observers against brute force over plain values, against known quantiles, and against each other."""

from collections.abc import Callable
from itertools import product
from math import erf, sqrt

import numpy as np
import pytest

from compressor.numerics.affine import asymmetric_grid
from compressor.numerics.observers import (
    Doubles,
    Histogram,
    Range,
    entropy_range,
    mse_range,
    percentile_range,
    squared_error,
)

Observer = Callable[[Histogram], Range]

EVERY: tuple[Observer, ...] = (percentile_range, mse_range, entropy_range)
HALF_NORMAL_9999 = 3.890592
"""Where 99.99 % of a standard normal distribution lie: between minus and plus this."""


def _histogram(values: Doubles, bins: int = 2048) -> Histogram:
    edges = np.linspace(min(values.min(), 0), max(values.max(), 0), bins + 1)
    return Histogram(np.histogram(values[values != 0], edges)[0].astype(float), edges)


def _values(name: str, count: int = 200_000) -> Doubles:
    rng = np.random.default_rng(3)
    drawn: dict[str, Callable[[], Doubles]] = {
        "normal": lambda: rng.standard_normal(count),
        "relu": lambda: np.maximum(rng.standard_normal(count), 0),
        "laplace": lambda: rng.laplace(1, 2, count),
        "heavy": lambda: rng.standard_t(3, count),
        "skewed": lambda: rng.gamma(0.5, size=count) - 0.1,
        "negative": lambda: -rng.gamma(2, size=count),
        "uniform": lambda: rng.uniform(-1, 2, count),
        "outlier": lambda: np.append(rng.uniform(-1, 1, count), 10.0),
    }
    return drawn[name]()


SHAPES = ("normal", "relu", "laplace", "heavy", "skewed", "negative", "uniform", "outlier")


def _error(histogram: Histogram, found: Range, bits: int = 8) -> float:
    return float(squared_error(histogram, np.array([found.low]), np.array([found.high]), bits)[0])


def _spread_evenly(histogram: Histogram, each: int) -> tuple[Doubles, Doubles]:
    """Values that fill every bin evenly, and the weight of each."""
    inside = (np.arange(each) + 0.5) / each
    values = histogram.edges[:-1, None] + histogram.width * inside
    return values.ravel(), np.repeat(histogram.counts / each, each)


@pytest.mark.parametrize("ends", [(-2, 3), (-1, 1.5), (-0.3, 2.9), (-2.5, 4), (0, 3), (-2, 0), (-0.001, 0.4)])
def test_the_expected_error_is_that_of_quantizing_values_spread_over_the_bins(ends: tuple[float, float]) -> None:
    histogram = Histogram(np.random.default_rng(0).uniform(0, 9, 40), np.linspace(-2, 3, 41))
    values, weights = _spread_evenly(histogram, 4000)
    grid = asymmetric_grid(*ends)
    real = values.astype(np.float32)
    expected = np.average(np.square(grid.dequantize(grid.quantize(real)) - real, dtype=float), weights=weights)
    assert _error(histogram, Range(*ends)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_expected_error_holds_for_any_number_of_bits(bits: int) -> None:
    histogram = Histogram(np.random.default_rng(1).uniform(0, 9, 30), np.linspace(-1, 2, 31))
    values, weights = _spread_evenly(histogram, 1000)
    step = (1.5 + 0.8) / (2**bits - 1)
    grid = (np.arange(2**bits) - np.rint(0.8 / step)) * step
    expected = np.average(np.square(values[:, None] - grid).min(axis=1), weights=weights)
    assert _error(histogram, Range(-0.8, 1.5), bits) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("name", SHAPES)
def test_no_range_of_a_fine_grid_has_a_smaller_error_than_that_of_mse(name: str, bits: int) -> None:
    histogram = _histogram(_values(name, 20_000), 300)
    shares = np.arange(1, 101) / 100
    ends = product(*(shares * end if end else [0.0] for end in histogram.edges[[0, -1]]))
    lows, highs = np.array(list(ends)).T
    least = squared_error(histogram, lows, highs, bits).min()
    assert _error(histogram, mse_range(histogram, bits), bits) <= 1.01 * least


@pytest.mark.parametrize("name", SHAPES)
def test_no_other_observer_has_a_smaller_error_than_mse(name: str) -> None:
    histogram = _histogram(_values(name))
    everything = Range(float(histogram.edges[0]), float(histogram.edges[-1]))
    others = everything, percentile_range(histogram), entropy_range(histogram)
    assert _error(histogram, mse_range(histogram)) <= min(_error(histogram, other) for other in others)


def test_fewer_bits_clamp_more() -> None:
    histogram = _histogram(_values("normal"))
    highs = [mse_range(histogram, bits).high for bits in (8, 6, 4, 2)]
    assert highs == sorted(highs, reverse=True)
    assert highs[-1] < highs[0] / 2


@pytest.mark.parametrize(("bits", "step", "error"), [(4, 0.3352, 0.01154), (5, 0.1881, 0.003490)])
def test_the_best_grid_for_a_normal_distribution_is_that_of_the_literature(
    bits: int, step: float, error: float
) -> None:
    """Max 1960, "Quantizing for minimum distortion", table 2: evenly spaced outputs (0 need not be among them)."""
    edges = np.linspace(-6, 6, 4001)
    below = np.array([(1 + erf(edge / sqrt(2))) / 2 for edge in edges])
    histogram = Histogram(np.diff(below), edges)
    found = mse_range(histogram, bits)
    assert (found.high - found.low) / (2**bits - 1) == pytest.approx(step, rel=0.03)
    assert _error(histogram, found, bits) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_the_percentile_range_holds_its_share_of_the_values(name: str, percentile: float) -> None:
    values = _values(name)
    values = values[values != 0]
    histogram = _histogram(values)
    low, high = percentile_range(histogram, percentile)
    inside = np.mean((values >= low) & (values <= high))
    bins_at_the_ends = max(np.mean(np.abs(values - end) <= histogram.width) for end in (low, high))
    assert abs(inside - percentile / 100) <= 2 * bins_at_the_ends


@pytest.mark.parametrize(("name", "low"), [("normal", -HALF_NORMAL_9999), ("relu", 0.0)])
def test_the_percentile_range_of_a_normal_distribution_is_known_and_zeros_do_not_count(name: str, low: float) -> None:
    found = percentile_range(_histogram(_values(name, 4_000_000), 20_000))
    assert found == pytest.approx((low, HALF_NORMAL_9999), abs=0.1)


@pytest.mark.parametrize("name", SHAPES)
def test_the_hundredth_percentile_covers_everything(name: str) -> None:
    values = _values(name, 1000)
    low, high = percentile_range(_histogram(values), 100)
    assert low <= values.min()
    assert high >= values.max()


@pytest.mark.parametrize("edges", [(-1, 2), (0, 1), (-3, 0)])
@pytest.mark.parametrize("bins", [100, 1024, 3000])
def test_nothing_is_gained_by_cutting_into_a_uniform_distribution(edges: tuple[float, float], bins: int) -> None:
    uniform = Histogram(np.full(bins, 7.0), np.linspace(*edges, bins + 1))
    assert entropy_range(uniform) == edges


def _plain_divergence(counts: Doubles, first: int, last: int, levels: int) -> float:
    """The definition once more, bin by bin."""
    p = [counts[i] for i in range(first, last)]
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    total, inside = sum(counts), sum(counts[first:last])
    divergence = 0.0
    for level in range(levels):
        part = range(level * len(p) // levels, (level + 1) * len(p) // levels)
        occurring = [i for i in part if p[i]]
        mass = sum(counts[first + i] for i in part)
        for i in occurring:
            q = max(mass / len(occurring) / inside, 1e-9)
            divergence += p[i] / total * np.log(p[i] / total / q)
    return divergence


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "skewed", "outlier"])
def test_no_other_range_has_much_less_divergence_than_that_of_entropy(name: str) -> None:
    bits, bins = 3, 48
    histogram = _histogram(_values(name, 5000), bins)
    zero = int(np.searchsorted(histogram.edges, 0.0))
    ranges = [
        (first, last)
        for first, last in product(range(zero + 1), range(zero, bins + 1))
        if last - first >= 2**bits and histogram.counts[first:last].any() and not (zero == 0 and first)
    ]
    least = min(_plain_divergence(histogram.counts, *ends, 2**bits) for ends in ranges)
    found = entropy_range(histogram, bits)
    first = int(np.floor((found.low - histogram.edges[0]) / histogram.width))
    last = min(int(np.ceil((found.high - histogram.edges[0]) / histogram.width)), bins)
    assert _plain_divergence(histogram.counts, first, last, 2**bits) <= 1.1 * least + 1e-6


@pytest.mark.parametrize("observer", [percentile_range, entropy_range])
def test_a_single_far_value_is_given_up(observer: Observer) -> None:
    found = observer(_histogram(_values("outlier")))
    assert found.low == pytest.approx(-1, abs=0.1)
    assert found.high == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("observer", EVERY)
@pytest.mark.parametrize("name", SHAPES)
def test_ranges_lie_inside_and_one_sided_ones_begin_at_zero(observer: Observer, name: str) -> None:
    histogram = _histogram(_values(name))
    first, last = histogram.edges[[0, -1]]
    found = observer(histogram)
    assert first <= found.low <= 0 <= found.high <= last
    assert found.low == 0 or first < 0
    assert found.high == 0 or last > 0


@pytest.mark.parametrize("observer", EVERY)
@pytest.mark.parametrize("factor", [2.0**-40, 1e-3, 2.0**40])
def test_ranges_scale_with_the_values_and_do_not_depend_on_the_unit_of_counts(
    observer: Observer, factor: float
) -> None:
    histogram = _histogram(_values("skewed"))
    expected = np.array(observer(histogram)) * factor
    scaled = Histogram(histogram.counts * 1000, histogram.edges * factor)
    np.testing.assert_allclose(observer(scaled), expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("observer", [percentile_range, mse_range])
@pytest.mark.parametrize("name", SHAPES)
def test_the_mirrored_distribution_has_the_mirrored_range(observer: Observer, name: str) -> None:
    histogram = _histogram(_values(name))
    mirrored = Histogram(histogram.counts[::-1], -histogram.edges[::-1])
    low, high = observer(histogram)
    np.testing.assert_allclose(observer(mirrored), (-high, -low), atol=0.03 * (high - low))


@pytest.mark.parametrize("observer", EVERY)
def test_where_nothing_was_counted_everything_is_kept(observer: Observer) -> None:
    assert observer(Histogram(np.zeros(4), np.linspace(-1, 3, 5))) == (-1, 3)


@pytest.mark.parametrize("observer", EVERY)
@pytest.mark.parametrize("value", [5.0, -3.0])
def test_a_single_value_is_reached(observer: Observer, value: float) -> None:
    bins = 512
    counts = np.zeros(bins)
    counts[-1 if value > 0 else 0] = 100
    found = observer(Histogram(counts, np.linspace(min(value, 0), max(value, 0), bins + 1)))
    assert max(-found.low, found.high) == pytest.approx(abs(value), rel=2 / bins)

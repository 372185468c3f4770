"""A folded histogram is the histogram of everything, whatever the order and the size of what came."""

import numpy as np
import pytest

from compressor.calibration.histograms import HALF, FoldedHistogram
from compressor.numerics.observers import Histogram
from tests.models import Array, array, floats


def _fold(*parts: Array) -> Histogram:
    folded = FoldedHistogram()
    for part in parts:
        folded.update(part, 1)
    everything = np.concatenate([part.ravel() for part in parts])
    return folded.between(float(everything.min()), float(everything.max()))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 7.0, 1e30])
def test_it_counts_what_numpy_counts(scale: float, rng: np.random.Generator) -> None:
    parts = [array(scale * floats(rng, count) * size) for count, size in ((100, 0.01), (1000, 1), (500, 20))]
    found = _fold(*parts)
    assert np.array_equal(found.counts, np.histogram(np.concatenate(parts).astype(float), found.edges)[0])
    assert found.counts.sum() == 1600


def test_the_order_makes_no_difference(rng: np.random.Generator) -> None:
    parts = [floats(rng, 50) * 10.0**k for k in range(-3, 4)]
    expected = _fold(*parts)
    for order in (parts[::-1], [parts[i] for i in rng.permutation(len(parts))]):
        found = _fold(*order)
        assert np.array_equal(found.counts, expected.counts)
        assert np.array_equal(found.edges, expected.edges)


@pytest.mark.parametrize("largest", [1.0, 1.01, 1.99, 2.0, 6.0, 100.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_there_are_enough_bins_from_zero_to_the_larger_end(largest: float, sign: int) -> None:
    found = _fold(array([sign * largest, -sign * largest / 3]))
    larger = np.count_nonzero(found.edges * sign > 0)
    assert HALF / 2 <= larger <= HALF
    assert np.allclose(np.diff(found.edges), found.width)
    assert 0 in found.edges


def test_zeros_are_left_out_and_small_values_on_either_side_are_not() -> None:
    found = _fold(array([0, -0.0, 1e-6, -1e-6, 1, 0]))
    zero = int(np.searchsorted(found.edges, 0))
    assert found.counts.sum() == 3
    assert found.counts[zero - 1] == found.counts[zero] == found.counts[-1] == 1


def test_what_lies_on_the_outer_edge_is_counted() -> None:
    found = _fold(array([4, 4, 4, 1, -2]))
    assert found.counts.sum() == 5
    assert found.counts[-1] == 3
    assert found.counts[0] == 1


def test_zeros_that_come_first_do_not_coarsen_what_follows(rng: np.random.Generator) -> None:
    small = floats(rng, 1000) / 1e4
    assert np.array_equal(_fold(np.zeros(5, np.float32), small).edges, _fold(small).edges)


def test_the_ends_may_lie_beyond_what_was_counted() -> None:
    folded = FoldedHistogram()
    folded.update(array([1, 2]), 10)
    found = folded.between(-30.0, 50.0)
    assert found.counts.sum() == 20
    assert found.edges[0] <= -30 <= found.edges[1]
    assert found.edges[-2] <= 50 <= found.edges[-1]


def test_every_entry_counts_as_often_as_it_stands_for() -> None:
    folded = FoldedHistogram()
    for weight, entries in ((2, [1, 1]), (3, [1]), (3, [5]), (0.5, [5, 1, 1]), (2, [5])):
        folded.update(array(entries), weight)
    found = folded.between(0.0, 5.0)
    assert {edge: count for edge, count in zip(found.edges, found.counts, strict=False) if count} == {1: 8, 5: 5.5}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_type_up_to_its_limits_is_counted(dtype: type[np.floating]) -> None:
    limits = np.finfo(dtype)
    values = np.array([limits.smallest_subnormal, -limits.tiny, 1, limits.max if dtype != np.float64 else 1e38], dtype)
    assert _fold(values).counts.sum() == 4


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_nothing_but_zeros_is_an_empty_histogram(values: list[float]) -> None:
    folded = FoldedHistogram()
    folded.update(array(values), 1)
    found = folded.between(0.0, 0.0)
    assert found.counts.tolist() == [0]
    assert found.edges[0] == 0

"""The interval of a median against the binomial it rests on, and against simulation."""

from itertools import product
from math import comb

import numpy as np
import pytest

from compressor.numerics.order_statistics import median_interval


def _coverage(n: int, k: int) -> float:
    """Chance that the median lies between the k-th smallest and the k-th largest of n samples."""
    return sum(comb(n, below) for below in range(k, n - k + 1)) / 2**n


@pytest.mark.parametrize("n", [11, 12, 25, 60, 101, 301])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_it_is_the_narrowest_symmetric_interval_that_covers(n: int, confidence: float) -> None:
    low, high = median_interval(np.arange(1.0, n + 1), confidence)
    k = int(low)
    assert high == n + 1 - k
    assert _coverage(n, k) >= confidence
    assert _coverage(n, k + 1) < confidence


def test_the_binomial_counts_what_enumeration_finds() -> None:
    n, values = 9, np.arange(1.0, 10)
    low, _ = median_interval(values, 0.9)
    hits = sum(low <= sum(signs) <= n - low for signs in product((0, 1), repeat=n))
    assert hits / 2**n == _coverage(n, int(low)) >= 0.9


def test_few_samples_give_their_whole_range() -> None:
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)
    assert median_interval(np.array([5.0])) == (5.0, 5.0)


def test_the_order_of_the_samples_does_not_matter(rng: np.random.Generator) -> None:
    values = rng.standard_normal(40)
    assert median_interval(values) == median_interval(np.sort(values))


@pytest.mark.parametrize("n", [11, 40])
def test_it_misses_the_median_no_more_often_than_promised(n: int, rng: np.random.Generator) -> None:
    trials = 2000
    intervals = [median_interval(rng.exponential(size=n)) for _ in range(trials)]
    hits = sum(low <= np.log(2) <= high for low, high in intervals)
    spread = np.sqrt(0.95 * 0.05 / trials)
    assert hits / trials >= 0.95 - 4 * spread

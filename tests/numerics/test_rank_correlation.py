"""Ranks and their correlation, against counting."""

import numpy as np
import pytest

from compressor.numerics.rank_correlation import ranks, spearman

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_rank_is_how_many_are_smaller_and_half_of_those_that_are_equal(levels: int) -> None:
    values = RNG.integers(0, levels, 40).astype(np.float64)
    counted = [(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values]
    np.testing.assert_allclose(ranks(values), counted)


def test_without_ties_it_is_spearmans_own_formula() -> None:
    a, b = RNG.permutation(30).astype(np.float64), RNG.permutation(30).astype(np.float64)
    n, squares = 30, float(np.square(a - b).sum())
    assert spearman(a, b) == pytest.approx(1 - 6 * squares / (n * (n**2 - 1)))


def test_with_ties_it_is_the_correlation_of_the_ranks() -> None:
    a, b = RNG.integers(0, 6, 50).astype(np.float64), RNG.integers(0, 4, 50).astype(np.float64)
    assert spearman(a, b) == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_only_the_order_matters() -> None:
    a, b = RNG.standard_normal(20), RNG.standard_normal(20)
    assert spearman(a, b) == pytest.approx(spearman(np.exp(a), 3 * b - 7))
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)


@pytest.mark.parametrize("b", [[1.0, 1.0, 1.0], [1.0, np.nan, 2.0]])
def test_what_has_no_order_has_no_correlation(b: list[float]) -> None:
    assert np.isnan(spearman(np.array([1.0, 2.0, 3.0]), np.array(b)))
    assert np.isnan(spearman(np.array([]), np.array([])))

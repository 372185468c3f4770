"""Laws of what is kept by magnitude."""

from collections.abc import Callable

import numpy as np
import pytest

from compressor.numerics.sparsity import (
    keep_blocks,
    keep_largest,
    keep_n_of_m,
    kept_of,
    magnitude_threshold,
    read_n_of_m,
)
from tests.models import Floats, array, floats

SHARES = [0.0, 0.1, 0.25, 0.5, 1 / 3, 0.77, 0.99, 1.0]


@pytest.mark.parametrize("sparsity", SHARES)
@pytest.mark.parametrize("shape", [(10,), (7, 13), (3, 4, 5)])
def test_the_rounded_share_is_dropped(sparsity: float, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    mask = keep_largest(np.abs(floats(rng, *shape)), sparsity)
    assert mask.shape == shape
    assert (~mask).sum() == round(sparsity * mask.size)


@pytest.mark.parametrize("sparsity", SHARES)
def test_nothing_dropped_is_larger_than_anything_kept(sparsity: float, rng: np.random.Generator) -> None:
    scores = np.abs(floats(rng, 40))
    mask = keep_largest(scores, sparsity)
    assert scores[~mask].max(initial=0) <= scores[mask].min(initial=np.inf)


@pytest.mark.parametrize("sparsity", SHARES)
def test_ties_are_dropped_from_the_front_and_counts_stay_exact(sparsity: float) -> None:
    mask = keep_largest(np.ones(12, np.float32), sparsity)
    dropped = round(sparsity * 12)
    assert mask.tolist() == [False] * dropped + [True] * (12 - dropped)


def _normal(rng: np.random.Generator) -> list[Floats]:
    return [floats(rng, 50), floats(rng, 7, 11), floats(rng, 2, 3, 4)]


def _one(rng: np.random.Generator) -> list[Floats]:
    return [floats(rng, 333)]


def _ties(rng: np.random.Generator) -> list[Floats]:
    return [rng.integers(-3, 4, (20, 5)).astype(np.float32), rng.integers(-3, 4, 31).astype(np.float32)]


def _zeros(rng: np.random.Generator) -> list[Floats]:
    return [np.zeros(60, np.float32), floats(rng, 40), -np.zeros(20, np.float32)]


def _all_magnitudes(rng: np.random.Generator) -> list[Floats]:
    exponents = np.float32(10) ** rng.integers(-40, 38, 200).astype(np.float32)
    return [floats(rng, 200) * exponents]


def _close_together(rng: np.random.Generator) -> list[Floats]:
    return [np.float32(1) + np.arange(300, dtype=np.float32)[rng.permutation(300)] * np.float32(2.0**-23)]


@pytest.mark.parametrize("sparsity", SHARES[:-1])
@pytest.mark.parametrize("make", [_normal, _one, _ties, _zeros, _all_magnitudes, _close_together])
def test_the_threshold_is_the_entry_that_sorting_finds(
    make: Callable[[np.random.Generator], list[Floats]], sparsity: float, rng: np.random.Generator
) -> None:
    arrays = make(rng)
    ordered = np.sort(np.abs(np.concatenate([a.ravel() for a in arrays])))
    rank = round(sparsity * len(ordered))
    expected = float(ordered[rank]) if rank else 0.0
    assert magnitude_threshold(lambda: iter(arrays), sparsity) == expected


def test_without_sparsity_everything_is_kept_and_with_full_sparsity_nothing() -> None:
    def arrays() -> list[Floats]:
        return [array([1, -2]), array([0.5])]

    assert magnitude_threshold(arrays, 0.0) == 0.0
    assert magnitude_threshold(arrays, 1.0) == float("inf")


def test_arrays_that_are_no_float32_are_ranked_by_value() -> None:
    half = np.array([0.5, -4.0, 2.0, 1.0], np.float16)
    assert magnitude_threshold(lambda: [half], 0.5) == 2.0  # type: ignore[list-item]


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8)])
def test_the_n_largest_of_every_m_neighbours_are_kept(n: int, m: int, rng: np.random.Generator) -> None:
    scores = np.abs(floats(rng, 5, 8))
    mask = keep_n_of_m(scores, n, m)
    for group, kept in zip(scores.reshape(-1, m), mask.reshape(-1, m), strict=True):
        assert set(group[kept]) == set(sorted(group)[m - n :])


def test_blocks_go_as_a_whole_by_what_they_hold() -> None:
    scores = array([[9, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 0], [2, 2, 0, 0]])
    kept = keep_blocks(scores, 0.5, 2, 2)
    assert kept.tolist() == [[True, True, False, False]] * 2 + [[True, True, False, False]] * 2


def test_blocks_that_are_cut_short_count_by_their_mean() -> None:
    scores = array([[1, 1, 5], [1, 1, 5]])
    assert keep_blocks(scores, 0.5, 2, 2).tolist() == [[False, False, True]] * 2


def test_a_pattern_is_read_as_kept_and_group() -> None:
    pattern = read_n_of_m("2:4")
    assert (pattern.n, pattern.m) == (2, 4)
    assert pattern.refusal(10) == "10 inputs are not a multiple of 4"
    assert pattern.refusal(12) is None


@pytest.mark.parametrize("text", ["", "2", "2:2", "4:2", "0:4", "a:b", "2:4:8", "-1:4", "2,4"])
def test_a_pattern_that_makes_no_sense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='"2:4"'):
        read_n_of_m(text)


def _rounded(weights: Floats, bits: int, axis: int | None) -> Floats:
    """On a symmetric grid, one for all or one per row."""
    scale = np.abs(weights).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.round(weights / scale) * scale).astype(np.float32)


@pytest.mark.parametrize("axis", [None, 1], ids=["one grid", "a grid per row"])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_zeros_of_rounded_weights_are_none_of_pruning(rng: np.random.Generator, bits: int, axis: int | None) -> None:
    weights = rng.standard_t(4 if bits == 8 else 100, (32, 144)).astype(np.float32)  # tails, or 8 bits leave few zeros
    rounded = _rounded(weights, bits, axis)
    assert (rounded == 0).mean() > 0.01
    assert kept_of(rounded) is None
    pruned = np.where(rng.random(weights.shape) < 0.6, 0, weights).astype(np.float32)
    kept = kept_of(_rounded(pruned, bits, axis))
    assert kept is not None
    assert not kept[pruned == 0].any()


@pytest.mark.parametrize("shape", [(32, 144), (32, 9), (4, 6, 36)])
def test_zeros_among_floats_are_of_pruning(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    weights = floats(rng, *shape)
    assert kept_of(weights) is None
    weights[rng.random(shape) < 0.03] = 0
    weights[:2] = 0
    np.testing.assert_array_equal(kept_of(weights), weights != 0)

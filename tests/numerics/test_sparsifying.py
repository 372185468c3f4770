"""Laws of setting single weights to zero where the output misses them least."""

from itertools import combinations

import numpy as np
import pytest

from compressor.numerics.affine import Doubles
from compressor.numerics.rounding import output_error
from compressor.numerics.sparsifying import activation_aware, second_order
from compressor.numerics.sparsity import Blocks, NOfM, Unstructured
from tests.models import Floats, array, floats

PATTERNS = [Unstructured(0.5), Unstructured(0.75), NOfM(2, 4), NOfM(1, 4), Blocks(0.5, 2, 2), Blocks(0.5, 1, 4)]


def _moments(rng: np.random.Generator, inputs: int, groups: int = 1) -> Doubles:
    mixed = floats(rng, groups, 300, inputs) @ floats(rng, groups, inputs, inputs)
    return np.asarray(mixed.swapaxes(1, 2) @ mixed / 300, np.float64)


def _best_of_row(row: Floats, moments: Doubles, kept: int) -> float:
    """The least error of a row's output with so many inputs, over all choices of them."""
    errors = []
    for chosen in combinations(range(len(row)), kept):
        index = np.ix_(chosen, chosen)
        solved = np.zeros(len(row))
        solved[list(chosen)] = np.linalg.solve(moments[index], moments[list(chosen)] @ row)
        errors.append(float((solved - row) @ moments @ (solved - row)))
    return min(errors)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_as_many_weights_are_zero_as_asked_for(pattern: object, rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 2, 6, 8), _moments(rng, 8, 2)
    assert isinstance(pattern, Unstructured | NOfM | Blocks)
    wanted = 1 - pattern.n / pattern.m if isinstance(pattern, NOfM) else pattern.sparsity
    for prune in (second_order, activation_aware):
        assert np.count_nonzero(prune(weights, moments, pattern) == 0) == wanted * weights.size


@pytest.mark.parametrize("n", [1, 2, 3])
def test_of_every_m_neighbours_n_are_kept(n: int, rng: np.random.Generator) -> None:
    found = second_order(floats(rng, 1, 5, 12), _moments(rng, 12), NOfM(n, 4))
    assert (np.count_nonzero(found.reshape(-1, 4), axis=1) == n).all()


def test_what_is_kept_makes_up_for_what_is_not(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 8, 16), _moments(rng, 16)
    found = second_order(weights, moments, Unstructured(0.5))
    masked = np.where(found != 0, weights, 0)
    assert output_error(weights, found, moments) < 0.7 * output_error(weights, masked, moments)


def test_given_its_zeros_every_row_is_that_of_least_squares(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 4, 8), _moments(rng, 8)
    found = second_order(weights, moments, Unstructured(0.5))
    damped = moments[0] + 0.01 * np.trace(moments[0]) / 8 * np.eye(8)
    for row, kept in zip(weights[0], found[0], strict=True):
        chosen = np.flatnonzero(kept)
        best = np.linalg.solve(damped[np.ix_(chosen, chosen)], damped[chosen] @ row)
        np.testing.assert_allclose(kept[chosen], best, rtol=0.05, atol=0.05)


def test_two_of_four_is_near_the_best_choice_there_is(rng: np.random.Generator) -> None:
    moments = np.asarray(_moments(rng, 4) + 0.2 * np.eye(4), np.float64)
    weights = floats(rng, 1, 32, 4)
    best = sum(_best_of_row(row, moments[0], 2) for row in weights[0])
    off = (second_order(weights, moments, NOfM(2, 4)) - weights)[0].astype(np.float64)
    reached = float(np.einsum("ri,ij,rj->", off, moments[0], off))
    assert best <= reached * (1 + 1e-6)
    assert reached <= 3 * best


def test_uncorrelated_inputs_of_one_size_go_by_magnitude_and_nothing_moves(rng: np.random.Generator) -> None:
    weights = floats(rng, 1, 4, 8)
    found = second_order(weights, np.eye(8)[None], Unstructured(0.5))
    smallest = np.abs(weights) < np.median(np.abs(weights))
    assert np.array_equal(found == 0, smallest)
    np.testing.assert_allclose(found[~smallest], weights[~smallest], rtol=1e-5)


def test_inputs_that_are_always_zero_go_first(rng: np.random.Generator) -> None:
    moments = _moments(rng, 8)
    moments[:, 3] = moments[:, :, 3] = 0
    weights = floats(rng, 1, 5, 8)
    weights[..., 3] = 100
    for prune in (second_order, activation_aware):
        assert not prune(weights, moments, Unstructured(0.25))[..., 3].any()


def test_activation_aware_weighs_by_the_size_of_inputs_row_by_row() -> None:
    moments = np.diag([1.0, 16.0, 1.0, 1.0])[None]
    weights = array([[[2, 1, 3, 0.5], [40, 1, 30, 20]]])
    assert activation_aware(weights, moments, Unstructured(0.5)).tolist() == [[[0, 1, 3, 0], [40, 0, 30, 0]]]


def test_more_inputs_than_are_chosen_at_once(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 3, 300), _moments(rng, 300)
    found = second_order(weights, moments, Unstructured(0.5))
    assert np.count_nonzero(found) == 450
    assert output_error(weights, found, moments) < output_error(weights, np.where(found != 0, weights, 0), moments)

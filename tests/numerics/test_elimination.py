"""Laws of doing without inputs, against least squares by brute force."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from compressor.numerics.affine import Doubles
from compressor.numerics.elimination import DAMPING, Reader, eliminate
from tests.models import Floats, floats


def _moments(rng: np.random.Generator, inputs: int, groups: int = 1) -> Doubles:
    mixed = floats(rng, groups, 200, inputs) @ floats(rng, groups, inputs, inputs)
    return np.asarray(mixed.swapaxes(1, 2) @ mixed / 200, np.float64)


def _damped(moments: Doubles) -> Doubles:
    mean = np.einsum("gii->g", moments) / moments.shape[1]
    return np.asarray(moments + DAMPING * mean[:, None, None] * np.eye(moments.shape[1]), np.float64)


def _least_error(weights: Floats, moments: Doubles, gone: list[int]) -> tuple[float, Doubles]:
    """The least that the output errs by, and the weights that do, without some inputs: solved row by row."""
    kept = [i for i in range(weights.shape[2]) if i not in gone]
    found = np.zeros(weights.shape)
    for g, h in enumerate(_damped(moments)):
        found[g][:, kept] = np.linalg.solve(h[np.ix_(kept, kept)], h[kept] @ weights[g].T).T
    off = found - weights
    error = float(sum(np.trace(o @ h @ o.T) for o, h in zip(off, _damped(moments), strict=True)))
    power = float(sum(np.trace(w @ h @ w.T) for w, h in zip(weights, _damped(moments), strict=True)))
    return error / power, found


def _units(*sizes: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    starts = np.cumsum([0, *sizes])
    return [np.arange(a, b) for a, b in pairwise(starts.tolist())]


@pytest.mark.parametrize(("sizes", "groups"), [((1,) * 6, 1), ((2, 2, 2), 1), ((3, 1, 2), 1), ((2, 2), 3)])
def test_the_cost_of_a_unit_is_the_least_error_without_it(
    sizes: tuple[int, ...], groups: int, rng: np.random.Generator
) -> None:
    weights, moments = floats(rng, groups, 4, sum(sizes)), _moments(rng, sum(sizes), groups)
    units = _units(*sizes)
    costs = Reader(weights, moments, units).costs(range(len(sizes)))
    for unit, cost in zip(units, costs, strict=True):
        assert cost == pytest.approx(_least_error(weights, moments, unit.tolist())[0], rel=1e-6)


def test_after_several_steps_weights_and_error_are_those_of_least_squares(rng: np.random.Generator) -> None:
    weights, moments, units = floats(rng, 1, 5, 8), _moments(rng, 8), _units(2, 2, 2, 2)
    reader = Reader(weights, moments, units)
    found = eliminate([reader], 4, 2)
    gone = [int(i) for unit in found.order for i in units[unit]]
    error, best = _least_error(weights, moments, gone)
    assert found.errors[-1] == pytest.approx(error, rel=1e-6)
    np.testing.assert_allclose(reader.weights, best, atol=1e-5)
    assert not reader.matrix()[:, gone].any()


def test_the_first_unit_to_go_is_the_cheapest_of_all(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 4, 6), _moments(rng, 6)
    found = eliminate([Reader(weights, moments, _units(*(1,) * 6))], 6, 1)
    errors = [_least_error(weights, moments, [i])[0] for i in range(6)]
    assert found.order == (int(np.argmin(errors)),)


def test_greedy_is_not_far_from_the_best_choice(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 4, 8), _moments(rng, 8)
    found = eliminate([Reader(weights, moments, _units(*(1,) * 8))], 8, 4)
    best = min(_least_error(weights, moments, list(gone))[0] for gone in combinations(range(8), 4))
    assert best <= found.errors[-1] + 1e-9
    assert found.errors[-1] <= 2 * best


def test_an_input_that_repeats_another_costs_next_to_nothing(rng: np.random.Generator) -> None:
    x = floats(rng, 500, 5)
    x[:, 4] = 2 * x[:, 1]
    moments = np.asarray(x.T @ x / 500, np.float64)[None]
    found = eliminate([Reader(floats(rng, 1, 3, 5), moments, _units(*(1,) * 5))], 5, 1)
    assert found.order[0] in (1, 4)
    assert found.errors[-1] < 0.02


def test_a_unit_costs_the_sum_over_all_that_read_it(rng: np.random.Generator) -> None:
    readers = [Reader(floats(rng, 1, 3, 4), _moments(rng, 4), _units(*(1,) * 4)) for _ in range(3)]
    expected = sum((reader.costs(range(4)) for reader in readers), start=np.zeros(4))
    found = eliminate(readers, 4, 1, np.array([0.0, 0.0, 0.0, 0.5]))
    assert found.order[0] == int(np.argmin(expected + np.array([0, 0, 0, 0.5])))


def test_going_on_is_the_same_as_going_at_once(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 4, 9), _moments(rng, 9)
    whole = eliminate([Reader(weights, moments, _units(*(1,) * 9))], 9, 6)
    reader = Reader(weights, moments, _units(*(1,) * 9))
    half = eliminate([reader], 9, 3)
    rest = eliminate([reader], 9, 3, None, half)
    assert rest.order == whole.order
    np.testing.assert_allclose(rest.errors, whole.errors, rtol=1e-9)


def test_without_readers_the_scores_decide() -> None:
    found = eliminate([], 4, 3, np.array([3.0, 1.0, 2.0, 4.0]))
    assert found.order == (1, 2, 0)
    assert found.errors.tolist() == [0, 1, 3, 6]


def test_few_rows_make_the_moments_count_less(rng: np.random.Generator) -> None:
    x = floats(rng, 4, 8)
    moments = np.asarray(x.T @ x / 4, np.float64)[None]
    trusted, doubted = (Reader(floats(rng, 1, 3, 8), moments, _units(*(1,) * 8), rows) for rows in (float("inf"), 4))
    assert eliminate([trusted], 8, 3).errors[-1] < eliminate([doubted], 8, 3).errors[-1]

"""Rounding against every code there is, against each group alone, and against the outputs themselves."""

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pytest

from compressor.numerics import rounding
from compressor.numerics.grids import Asymmetric, Covering, Grid, Steps, Symmetric, TwoLevel
from compressor.numerics.levels import LEVELS, SIGNED, Bits, Coded, Levels
from compressor.numerics.rounding import nearest, output_error, second_order
from compressor.numerics.second_order import DAMPING, Doubles
from tests.models import Floats, array, floats


@dataclass(frozen=True)
class Fixed:
    """A grid of given steps, so that only the codes are left to be chosen."""

    levels: Levels
    block: int | None
    step: float = 1.0

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """The same step for every row."""
        rows = columns.shape[:-1]
        return Steps(np.full(rows, self.step, np.float32), np.zeros(rows, np.float32))


def _correlated(rng: np.random.Generator, groups: int, inputs: int, rank: int | None = None) -> Doubles:
    """E[xxᵀ] of inputs of which some move together and some are much larger, as activations are."""
    mixed = rng.standard_normal((groups, 4 * inputs, rank or inputs)) @ rng.standard_normal(
        (groups, rank or inputs, inputs)
    )
    rows = (mixed + 0.3 * rng.standard_normal(mixed.shape)) * rng.gamma(2, size=(groups, 1, inputs))
    moments: Doubles = rows.swapaxes(1, 2) @ rows / rows.shape[1]
    return moments


def _noise(weights: Floats, coded: Coded, moments: Doubles) -> float:
    return output_error(weights, coded.dequantize().reshape(weights.shape), moments)


def _damped(moments: Doubles) -> Doubles:
    """The metric that rounding really minimizes in."""
    mean = np.einsum("gii->g", moments) / moments.shape[1]
    damped: Doubles = moments + DAMPING * mean[:, None, None] * np.eye(moments.shape[1])
    return damped


def _two_level(weights: Floats, bits: Bits, block: int) -> TwoLevel:
    return TwoLevel.covering(weights, LEVELS[bits], block, np.ones((len(weights), weights.shape[2]), np.float32))


def _grids(weights: Floats) -> dict[str, Grid]:
    """One of every kind there is."""
    return {
        "8 covering": Covering(LEVELS[8]),
        **{f"{bits} rows": Symmetric(LEVELS[bits]) for bits in (4, 3, 2, "ternary", "binary")},
        **{f"{bits} two-level": _two_level(weights, bits, 8) for bits in (4, 3, 2, "ternary", "binary")},
        **{f"{bits} blocks": Symmetric(SIGNED[bits], 8) for bits in (8, 4, 2)},
        **{f"{bits} asymmetric": Asymmetric(SIGNED[bits], 8) for bits in (8, 4, 2)},
        "asymmetric rows": Asymmetric(SIGNED[4]),
    }


KINDS = tuple(_grids(np.ones((1, 1, 8), np.float32)))


def test_output_error_is_the_share_of_noise_in_what_the_layer_makes(rng: np.random.Generator) -> None:
    x, weights, rounded = floats(rng, 2, 500, 6), floats(rng, 2, 3, 6), floats(rng, 2, 3, 6)
    moments = x.swapaxes(1, 2).astype(np.float64) @ x / 500
    expected, found = x @ weights.swapaxes(1, 2), x @ rounded.swapaxes(1, 2)
    noise = np.square(found - expected).sum() / np.square(expected).sum()
    assert output_error(weights, rounded, moments) == pytest.approx(noise, rel=1e-5)
    assert output_error(weights, weights, moments) == 0
    assert output_error(0 * weights, rounded, moments) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_in_range_and_no_other_code_is_nearer(kind: str, rng: np.random.Generator) -> None:
    weights = floats(rng, 2, 5, 24)
    coded = nearest(weights, _grids(weights)[kind])
    levels, matrix = coded.levels, weights.reshape(10, 24)
    assert coded.codes.min() >= levels.low
    assert coded.codes.max() <= levels.high
    steps, zeros = coded.per_weight()
    every = levels.of(np.arange(levels.low, levels.high + 1).astype(np.int8)).astype(np.float32)
    best = np.abs((every - zeros[..., None]) * steps[..., None] - matrix[..., None]).min(axis=2)
    assert (np.abs(coded.dequantize() - matrix) <= best + 1e-6 * steps).all()


def test_every_block_gets_the_step_of_a_layer_of_its_own(rng: np.random.Generator) -> None:
    weights, seen = floats(rng, 1, 5, 24), array(rng.gamma(1, size=(1, 24)))
    coded = nearest(weights, Asymmetric(SIGNED[4], 8), seen)
    assert coded.zero_points is not None
    for block in range(3):
        part = slice(8 * block, 8 * block + 8)
        alone = nearest(weights[..., part], Asymmetric(SIGNED[4]), seen[:, part])
        assert alone.zero_points is not None
        assert np.array_equal(coded.codes[:, part], alone.codes)
        assert np.array_equal(coded.scale[:, block], alone.scale)
        assert np.array_equal(coded.zero_points[:, block], alone.zero_points)


def test_the_step_is_fitted_to_the_inputs_that_matter(rng: np.random.Generator) -> None:
    weights = np.concatenate([floats(rng, 1, 20, 12), 5 * floats(rng, 1, 20, 12)], axis=2)
    first = np.repeat(array([1, 1e-6]), 12)[None]
    errors = [
        np.square(nearest(weights, Symmetric(LEVELS[3]), seen).dequantize() - weights[0])[:, :12].sum()
        for seen in (first, None)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_second_order_errs_less_at_the_output_than_rounding_to_nearest(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, moments = floats(rng, 1, 8, 32), _correlated(rng, 1, 32, 8)
    grid = _grids(weights)[kind]
    importance = array(np.einsum("gii->gi", moments))
    plain = _noise(weights, nearest(weights, grid, importance), moments)
    assert _noise(weights, second_order(weights, moments, grid), moments) < plain


@pytest.mark.parametrize("kind", KINDS)
def test_second_order_codes_are_in_range(kind: str, rng: np.random.Generator) -> None:
    weights = floats(rng, 2, 5, 24)
    coded = second_order(weights, _correlated(rng, 2, 24, 3), _grids(weights)[kind])
    assert coded.codes.shape == (10, 24)
    assert coded.codes.min() >= coded.levels.low
    assert coded.codes.max() <= coded.levels.high
    assert np.isfinite(coded.dequantize()).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "rows" not in kind and "covering" not in kind])
def test_second_order_is_nearest_where_inputs_are_uncorrelated(kind: str, rng: np.random.Generator) -> None:
    weights, seen = floats(rng, 1, 6, 24), rng.gamma(2, size=24)
    moments = np.diag(seen)[None]
    importance = array(np.einsum("gii->gi", _damped(moments)))
    grid = _grids(weights)[kind]
    expected, found = nearest(weights, grid, importance), second_order(weights, moments, grid)
    assert np.array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.dequantize(), expected.dequantize())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "rows" in kind or "covering" in kind])
def test_one_step_per_row_is_then_refitted_and_every_code_is_nearest_on_it(kind: str, rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 6, 24), np.diag(rng.gamma(2, size=24))[None]
    grid = _grids(weights)[kind]
    coded = second_order(weights, moments, grid)
    steps, zeros = coded.per_weight()
    assert np.array_equal(coded.codes, coded.levels.nearest(weights[0] / steps + zeros))
    assert _noise(weights, coded, moments) <= _noise(weights, nearest(weights, grid), moments)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("inputs", [4, 5, 6])
def test_second_order_regains_most_of_what_nearest_loses_to_the_best_of_all_codes(inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels, rows = LEVELS[2], 40
    grid = Fixed(levels, inputs, 0.5)
    weights, moments = floats(rng, 1, rows, inputs), _correlated(rng, 1, inputs, 2)
    every = np.array(list(product(range(levels.low, levels.high + 1), repeat=inputs)), np.int8)
    differences = weights[0][:, None] - (0.5 * levels.of(every))[None]
    errors = np.einsum("rci,ij,rcj->rc", differences, _damped(moments)[0], differences, optimize=True)
    best = errors.min(axis=1)
    digits = 4 ** np.arange(inputs)[::-1]
    taken, plain = (
        errors[np.arange(rows), (coded.codes.astype(int) - levels.low) @ digits]
        for coded in (second_order(weights, moments, grid), nearest(weights, grid))
    )
    assert (taken - best).sum() < 0.2 * (plain - best).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_further_sweeps_never_make_it_worse(
    kind: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    weights, moments = floats(rng, 2, 6, 24), _correlated(rng, 2, 24, 6)
    errors = []
    for sweeps in range(5):
        monkeypatch.setattr(rounding, "SWEEPS", sweeps)
        errors.append(_noise(weights, second_order(weights, moments, _grids(weights)[kind]), _damped(moments)))
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("kind", ["8 covering", "3 rows", "2 two-level", "4 blocks", "4 asymmetric"])
def test_the_codes_do_not_depend_on_how_many_inputs_are_updated_at_once(
    kind: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    weights, moments = floats(rng, 1, 6, 40), _correlated(rng, 1, 40, 8)
    grid = _grids(weights)[kind]
    whole = second_order(weights, moments, grid)
    monkeypatch.setattr(rounding, "_AT_ONCE", 16)
    parts = second_order(weights, moments, grid)
    assert np.array_equal(whole.codes, parts.codes)
    np.testing.assert_allclose(whole.scale, parts.scale, rtol=1e-5)


@pytest.mark.parametrize("kind", ["8 covering", "3 rows", "2 two-level", "4 blocks", "4 asymmetric"])
def test_groups_are_rounded_as_if_each_were_alone(kind: str, rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 3, 5, 16), _correlated(rng, 3, 16, 4)
    together = second_order(weights, moments, _grids(weights)[kind])
    for group in range(3):
        one = slice(group, group + 1)
        alone = second_order(weights[one], moments[one], _grids(weights[one])[kind])
        rows = slice(5 * group, 5 * group + 5)
        assert np.array_equal(together.codes[rows], alone.codes)
        np.testing.assert_allclose(together.dequantize()[rows], alone.dequantize(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["8 covering", "3 rows", "2 two-level", "4 blocks", "4 asymmetric"])
def test_rows_do_not_know_of_each_other(kind: str, rng: np.random.Generator) -> None:
    weights, moments, order = floats(rng, 1, 7, 16), _correlated(rng, 1, 16, 4), rng.permutation(7)
    before = second_order(weights, moments, _grids(weights)[kind])
    after = second_order(weights[:, order], moments, _grids(weights[:, order])[kind])
    assert np.array_equal(after.codes, before.codes[order])
    np.testing.assert_allclose(after.scale, before.scale[order], rtol=1e-6)


@pytest.mark.parametrize("kind", ["8 covering", "3 rows", "2 two-level", "4 blocks", "4 asymmetric"])
def test_four_times_the_weights_have_four_times_the_steps(kind: str, rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 7, 16), _correlated(rng, 1, 16, 4)
    before = second_order(weights, moments, _grids(weights)[kind])
    after = second_order(4 * weights, moments, _grids(4 * weights)[kind])
    assert np.array_equal(after.codes, before.codes)
    np.testing.assert_allclose(after.scale, 4 * before.scale, rtol=1e-6)


@pytest.mark.parametrize("kind", ["8 covering", "3 rows", "4 blocks", "4 asymmetric"])
def test_louder_inputs_change_nothing(kind: str, rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 7, 16), _correlated(rng, 1, 16, 4)
    grid = _grids(weights)[kind]
    before, after = second_order(weights, moments, grid), second_order(weights, 1024 * moments, grid)
    assert np.array_equal(after.codes, before.codes)


def test_inputs_that_are_always_zero_are_rounded_to_nearest_and_do_no_harm(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 6, 16), _correlated(rng, 1, 16, 4)
    dead = np.array([0, 5, 15])
    moments[:, dead], moments[:, :, dead] = 0, 0
    grid = Fixed(LEVELS[4], 16, 0.3)
    coded = second_order(weights, moments, grid)
    assert np.array_equal(coded.codes[:, dead], nearest(weights, grid).codes[:, dead])
    changed = weights.copy()
    changed[..., dead] *= -7
    live = np.delete(np.arange(16), dead)
    assert np.array_equal(second_order(changed, moments, grid).codes[:, live], coded.codes[:, live])


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_is_fed_nothing_is_rounded_all_the_same(kind: str, rng: np.random.Generator) -> None:
    weights = floats(rng, 1, 6, 24)
    coded = second_order(weights, np.zeros((1, 24, 24)), _grids(weights)[kind])
    assert np.isfinite(coded.dequantize()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_zero_stay_finite(kind: str, rng: np.random.Generator) -> None:
    weights = np.zeros((1, 4, 16), np.float32)
    coded = second_order(weights, _correlated(rng, 1, 16), _grids(weights)[kind])
    assert np.isfinite(coded.dequantize()).all()
    assert (coded.scale > 0).all()


def test_fewer_samples_than_inputs_are_enough(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 32))
    weights, moments = floats(rng, 1, 8, 32), (x.T @ x / 5)[None]
    coded = second_order(weights, moments, Symmetric(LEVELS[3]))
    assert _noise(weights, coded, moments) < 0.3 * _noise(weights, nearest(weights, Symmetric(LEVELS[3])), moments)


def test_what_comes_in_is_not_touched(rng: np.random.Generator) -> None:
    weights, moments = floats(rng, 1, 8, 16), _correlated(rng, 1, 16)
    before = weights.copy(), moments.copy()
    second_order(weights, moments, Symmetric(LEVELS[3]))
    assert np.array_equal(before[0], weights)
    assert np.array_equal(before[1], moments)


@pytest.mark.parametrize("kind", ["8 covering", "4 rows", "ternary rows"])
def test_weights_that_were_pruned_stay_zero_and_the_others_still_make_up_for_each_other(
    kind: str, rng: np.random.Generator
) -> None:
    weights, moments = floats(rng, 2, 6, 24), _correlated(rng, 2, 24, 3)
    weights[rng.random(weights.shape) < 0.5] = 0
    grid = _grids(weights)[kind]
    coded = second_order(weights, moments, grid)
    found = coded.dequantize().reshape(weights.shape)
    assert (found[weights == 0] == 0).all()
    assert _noise(weights, coded, moments) < _noise(weights, nearest(weights, grid), moments)

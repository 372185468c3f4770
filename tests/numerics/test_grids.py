"""Steps against all steps of a fine grid, and weights that lie on a grid come back as they were."""

from collections.abc import Callable

import numpy as np
import pytest

from compressor.numerics.grids import Asymmetric, Covering, Grid, Symmetric, TwoLevel
from compressor.numerics.levels import LEVELS, REDUCED, SIGNED, Bits, Levels
from tests.models import Floats, array, floats

LOW: tuple[Bits, ...] = (4, 3, 2, "ternary", "binary")
FINE = np.linspace(0.02, 1.3, 400, dtype=np.float32)
"""Shares of the full range, many more and wider than a grid tries."""

RESOLUTION = 1.05
"""What the least error of a few dozen shares may be above that of 400, over some rows."""


def _error(real: Floats, levels: Levels, step: Floats, zero: Floats, importance: Floats) -> Floats:
    """Σ importance · (rounded - real)² per row, (rows, inputs) -> (rows,), each weight at the best of all codes."""
    values = levels.of(np.arange(levels.low, levels.high + 1).astype(np.int8)).astype(np.float32)
    rounded = (values - zero[:, None]) * step[:, None]
    squares = np.square(np.abs(rounded[:, None] - real[..., None]).min(axis=2))
    return array((importance * squares).sum(axis=1))


def _fitted(grid: Grid, real: Floats, importance: Floats) -> Floats:
    steps = grid.fit(real, importance)
    return _error(real, grid.levels, steps.step, steps.zero, importance)


DRAWN: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: floats(rng, 12, 64),
    "heavy": lambda rng: array(rng.standard_t(3, (12, 64))),
    "uniform": lambda rng: array(rng.uniform(-1, 1, (12, 64))),
    "one outlier": lambda rng: floats(rng, 12, 64) * np.append(np.ones(63, np.float32), np.float32(20)),
    "few": lambda rng: floats(rng, 60, 16),
    "positive": lambda rng: np.abs(floats(rng, 12, 64)),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("bits", LOW)
def test_a_symmetric_step_is_as_good_as_the_best_of_a_fine_grid(
    bits: Bits, drawn: str, weighted: bool, rng: np.random.Generator
) -> None:
    levels, real = LEVELS[bits], DRAWN[drawn](rng)
    importance = array(rng.gamma(2, size=real.shape[1])) if weighted else np.ones(real.shape[1], np.float32)
    found = _fitted(Symmetric(levels), real, importance)
    largest = np.abs(real).max(axis=1) / levels.largest
    tried = [_error(real, levels, share * largest, np.zeros_like(largest), importance) for share in FINE]
    assert found.sum() <= RESOLUTION * np.min(tried, axis=0).sum()


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_an_asymmetric_step_is_as_good_as_the_best_of_a_fine_grid_over_the_range(
    bits: Bits, drawn: str, rng: np.random.Generator
) -> None:
    levels, real = SIGNED[bits], DRAWN[drawn](rng)
    importance = np.ones(real.shape[1], np.float32)
    found = _fitted(Asymmetric(levels), real, importance)
    low, high = np.minimum(real.min(axis=1), 0), np.maximum(real.max(axis=1), 0)
    tried = []
    for share in FINE[FINE <= 1]:
        step = share * (high - low) / (levels.high - levels.low)
        zero = np.clip(np.rint(levels.low - share * low / step), levels.low, levels.high)
        tried.append(_error(real, levels, step, zero, importance))
    assert found.sum() <= RESOLUTION * np.min(tried, axis=0).sum()


@pytest.mark.parametrize("bits", LOW)
def test_weights_on_a_symmetric_grid_come_back(bits: Bits, rng: np.random.Generator) -> None:
    levels = LEVELS[bits]
    codes = rng.integers(levels.low + (bits == 4), levels.high, (5, 32), endpoint=True).astype(np.int8)
    codes[:, 0] = levels.high
    real = levels.of(codes) * array(rng.uniform(0.01, 3, (5, 1)))
    steps = Symmetric(levels).fit(real, np.ones(32, np.float32)).wide()
    assert np.array_equal(steps.nearest(real, levels), codes)
    np.testing.assert_allclose(steps.dequantize(codes, levels), real, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_on_an_asymmetric_grid_come_back(bits: Bits, rng: np.random.Generator) -> None:
    levels = SIGNED[bits]
    codes = rng.integers(levels.low, levels.high, (5, 32), endpoint=True).astype(np.int8)
    codes[:, :2] = levels.low, levels.high
    zeros = rng.integers(levels.low, levels.high, (5, 1), endpoint=True)
    real = array((codes - zeros) * rng.uniform(0.01, 3, (5, 1)))
    steps = Asymmetric(levels).fit(real, np.ones(32, np.float32))
    assert np.array_equal(steps.zero[:, None], zeros)
    assert np.array_equal(steps.wide().nearest(real, levels), codes)


def test_binary_weights_become_their_sign_times_their_mean_magnitude(rng: np.random.Generator) -> None:
    real = floats(rng, 4, 50)
    steps = Symmetric(LEVELS["binary"]).fit(real, np.ones(50, np.float32))
    np.testing.assert_allclose(steps.step, np.abs(real).mean(axis=1), rtol=1e-6)


def test_the_step_of_ternary_weights_is_the_mean_magnitude_of_those_that_are_kept(rng: np.random.Generator) -> None:
    real = floats(rng, 1, 500)
    (step,) = Symmetric(LEVELS["ternary"]).fit(real, np.ones(500, np.float32)).step
    kept = np.abs(real) > step / 2
    assert step == pytest.approx(np.abs(real[kept]).mean(), rel=0.01)
    assert step / 2 == pytest.approx(0.6120, rel=0.05)  # Li et al. 2016: the best threshold of normal weights


@pytest.mark.parametrize("levels", [LEVELS[8], REDUCED], ids=["8", "reduced"])
def test_a_covering_step_clamps_nothing_and_wastes_nothing(levels: Levels, rng: np.random.Generator) -> None:
    real = floats(rng, 6, 40)
    steps = Covering(levels).fit(real, np.ones(40, np.float32))
    codes = steps.wide().nearest(real, levels)
    assert np.array_equal(np.abs(codes.astype(int)).max(axis=1), [levels.high] * 6)
    assert (np.abs(steps.wide().dequantize(codes, levels) - real) <= 0.50001 * steps.step[:, None]).all()


def test_rows_that_share_a_step_share_the_largest(rng: np.random.Generator) -> None:
    real, seen = floats(rng, 6, 40), np.ones(40, np.float32)
    alone, shared = Covering(LEVELS[8]).fit(real, seen), Covering(LEVELS[8], shared=True).fit(real, seen)
    assert np.array_equal(shared.step, np.full(6, alone.step.max()))


@pytest.mark.parametrize("grid", [Covering(LEVELS[8], None, 0.5), Symmetric(LEVELS[3], None, 0.5)], ids=str)
def test_no_step_is_below_the_floor(grid: Grid, rng: np.random.Generator) -> None:
    real = floats(rng, 6, 40) * array([1e-3, 1e-2, 0.1, 1, 10, 1000])[:, None]
    assert grid.fit(real, np.ones(40, np.float32)).step.min() == 0.5


EVERY: dict[str, Grid] = {
    "covering": Covering(LEVELS[8]),
    **{f"symmetric {bits}": Symmetric(LEVELS[bits]) for bits in LOW},
    **{f"asymmetric {bits}": Asymmetric(SIGNED[bits]) for bits in (8, 4, 2)},
}


@pytest.mark.parametrize("grid", EVERY)
def test_rows_of_zeros_have_a_step_and_stay_zero_where_there_is_a_zero(grid: str) -> None:
    steps = EVERY[grid].fit(np.zeros((2, 8), np.float32), np.ones(8, np.float32)).wide()
    levels = EVERY[grid].levels
    assert (steps.step > 0).all()
    if not levels.odd:
        assert not steps.dequantize(steps.nearest(np.zeros((2, 8), np.float32), levels), levels).any()


@pytest.mark.parametrize("grid", EVERY)
def test_rows_are_fitted_one_by_one(grid: str, rng: np.random.Generator) -> None:
    real, seen = floats(rng, 2, 5, 12) * array(rng.gamma(1, size=(2, 5, 1))), array(rng.gamma(1, size=(2, 12)))
    together = EVERY[grid].fit(real, seen)
    for group, row in np.ndindex(2, 5):
        alone = EVERY[grid].fit(real[group, row][None], seen[group])
        assert (alone.step[0], alone.zero[0]) == (together.step[group, row], together.zero[group, row])


@pytest.mark.parametrize("grid", EVERY)
def test_twice_the_weights_have_twice_the_steps(grid: str, rng: np.random.Generator) -> None:
    real, seen = floats(rng, 5, 12), np.ones(12, np.float32)
    once, twice = EVERY[grid].fit(real, seen), EVERY[grid].fit(2 * real, seen)
    assert np.array_equal(twice.step, 2 * once.step)
    assert np.array_equal(twice.zero, once.zero)


def _blocks(real: Floats, block: int) -> Floats:
    """(rows, blocks, block)."""
    return real.reshape(len(real), -1, block)


@pytest.mark.parametrize("bits", LOW)
def test_weights_on_a_two_level_grid_come_back(bits: Bits, rng: np.random.Generator) -> None:
    levels, rows, block = LEVELS[bits], 6, 8
    codes = rng.integers(levels.low + (bits == 4), levels.high, (rows, 4, block), endpoint=True).astype(np.int8)
    codes[..., 0] = levels.high
    multipliers = rng.integers(1, 15, (rows, 4, 1), endpoint=True)
    multipliers[:, 2] = 15
    real = array(levels.of(codes) * multipliers * rng.uniform(0.01, 3, (rows, 1, 1))).reshape(rows, -1)
    seen = np.ones(4 * block, np.float32)
    grid = TwoLevel.covering(real, levels, block, seen)
    for index in range(4):
        part = slice(index * block, (index + 1) * block)
        steps = grid.fit(real[:, part], seen[part])
        np.testing.assert_allclose(steps.step, grid.scale * multipliers[:, index, 0], rtol=1e-5)
        assert np.array_equal(steps.wide().nearest(real[:, part], levels), codes[:, index])


@pytest.mark.parametrize("bits", LOW)
def test_a_two_level_step_is_the_best_of_all_multipliers(bits: Bits, rng: np.random.Generator) -> None:
    levels, real = LEVELS[bits], floats(rng, 5, 24) * array(rng.gamma(1, size=(5, 1)))
    seen = array(rng.gamma(1, size=24))
    grid = TwoLevel.covering(real, levels, 8, seen)
    found = grid.fit(real[:, :8], seen[:8])
    none = np.zeros(5, np.float32)
    errors = np.stack([_error(real[:, :8], levels, m * grid.scale, none, seen[:8]) for m in range(16)])
    chosen = np.rint(found.step / grid.scale).astype(int)
    assert (errors[chosen, np.arange(5)] <= errors.min(axis=0) * (1 + 1e-5)).all()


@pytest.mark.parametrize(("ceiling", "largest"), [(127, 15), (64, 8)])
def test_multipliers_end_where_the_product_with_a_level_would_leave_its_bounds(
    ceiling: int, largest: int, rng: np.random.Generator
) -> None:
    grid = TwoLevel.covering(floats(rng, 3, 32), LEVELS[4], 8, np.ones(32, np.float32), ceiling)
    assert grid.largest == largest
    assert grid.largest * LEVELS[4].magnitude <= ceiling

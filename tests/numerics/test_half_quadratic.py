"""Half-quadratic steps fit most weights closely, and never worse than where they started."""

import numpy as np
import pytest

from compressor.numerics.grids import Asymmetric, Covering, Grid, Steps, Symmetric
from compressor.numerics.half_quadratic import HalfQuadratic
from compressor.numerics.levels import SIGNED, Bits
from compressor.numerics.rounding import nearest
from tests.models import Floats, array, floats

P = 0.7
STARTS: dict[str, Grid] = {
    **{f"symmetric {bits}": Symmetric(SIGNED[bits], 32) for bits in (8, 4, 2)},
    **{f"asymmetric {bits}": Asymmetric(SIGNED[bits], 32) for bits in (8, 4, 2)},
}
ONES = np.ones(32, np.float32)


def _norm(grid: Grid, steps: Steps, real: Floats) -> Floats:
    """Σ|e|^p per row."""
    wide = steps.wide()
    rest = wide.dequantize(wide.nearest(real, grid.levels), grid.levels) - real
    return array((np.abs(rest.astype(float)) ** P).sum(axis=-1))


def _outlying(rng: np.random.Generator, rows: int) -> Floats:
    real = floats(rng, rows, 32)
    real[np.arange(rows), rng.integers(0, 32, rows)] *= 6
    return real


@pytest.mark.parametrize("start", STARTS)
def test_the_norm_of_the_error_is_never_above_that_of_the_start(start: str, rng: np.random.Generator) -> None:
    real, grid = _outlying(rng, 50), STARTS[start]
    before, after = (_norm(grid, g.fit(real, ONES), real) for g in (grid, HalfQuadratic(grid)))
    assert (after <= before * (1 + 1e-6)).all()


@pytest.mark.parametrize("start", STARTS)
def test_the_norm_of_the_error_falls(start: str, rng: np.random.Generator) -> None:
    real, grid = _outlying(rng, 50), STARTS[start]
    before, after = (_norm(grid, g.fit(real, ONES), real).sum() for g in (grid, HalfQuadratic(grid)))
    assert after < 0.99 * before


@pytest.mark.parametrize("start", STARTS)
def test_weights_on_the_grid_stay_there(start: str, rng: np.random.Generator) -> None:
    grid = STARTS[start]
    levels = grid.levels
    codes = rng.integers(levels.low + 1, levels.high, (5, 32), endpoint=True).astype(np.int8)
    codes[:, :2] = (levels.high, levels.high) if "asym" not in start else (levels.low, levels.high)
    zeros = rng.integers(levels.low, levels.high, (5, 1)) if "asym" in start else 0
    real = array((codes - zeros) * rng.uniform(0.1, 2, (5, 1)))
    steps = HalfQuadratic(grid).fit(real, ONES).wide()
    np.testing.assert_allclose(steps.dequantize(steps.nearest(real, levels), levels), real, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", STARTS)
def test_zero_points_are_codes_and_stay_where_there_are_none(start: str, rng: np.random.Generator) -> None:
    grid = STARTS[start]
    zero = HalfQuadratic(grid).fit(_outlying(rng, 50), ONES).zero
    assert np.array_equal(zero, np.clip(np.rint(zero), grid.levels.low, grid.levels.high))
    assert zero.any() == ("asym" in start)


@pytest.mark.parametrize("start", STARTS)
def test_rows_of_zeros_stay_finite(start: str) -> None:
    steps = HalfQuadratic(STARTS[start]).fit(np.zeros((3, 32), np.float32), ONES)
    assert (steps.step > 0).all()
    assert np.isfinite(steps.zero).all()


@pytest.mark.parametrize("start", STARTS)
def test_rows_are_fitted_one_by_one(start: str, rng: np.random.Generator) -> None:
    real, grid = _outlying(rng, 6), HalfQuadratic(STARTS[start])
    together = grid.fit(real, ONES)
    for row in range(6):
        alone = grid.fit(real[row : row + 1], ONES)
        np.testing.assert_allclose(alone.step[0], together.step[row], rtol=1e-6)
        assert alone.zero[0] == together.zero[row]


@pytest.mark.parametrize("bits", [4, 2])
def test_it_is_a_grid_like_any_other_to_rounding(bits: Bits, rng: np.random.Generator) -> None:
    weights = floats(rng, 1, 6, 96)
    grid = HalfQuadratic(Asymmetric(SIGNED[bits], 32))
    coded = nearest(weights, grid)
    assert (grid.block, grid.levels) == (32, SIGNED[bits])
    assert coded.scale.shape == (6, 3)
    assert coded.codes.min() >= SIGNED[bits].low
    assert coded.codes.max() <= SIGNED[bits].high


def test_a_covering_start_moves_its_step(rng: np.random.Generator) -> None:
    real, grid = _outlying(rng, 20), Covering(SIGNED[4])
    before, after = grid.fit(real, ONES), HalfQuadratic(grid).fit(real, ONES)
    assert (after.step != before.step).any()
    assert not after.zero.any()

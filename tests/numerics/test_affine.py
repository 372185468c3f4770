"""Laws of integer grids."""

import numpy as np
import pytest

from compressor.numerics.affine import (
    INT32_LIMIT,
    Grid,
    PerChannel,
    PerTensor,
    asymmetric_grid,
    least_weight_scale,
    quantize_bias,
    symmetric_grid,
)
from tests.models import array, floats

HALF = 0.5 * (1 + 1e-4)  # 255 steps in float32 cost 255 · 2⁻²³ of a step twice over


def test_symmetric_rounding_is_off_by_at_most_half_a_step(rng: np.random.Generator) -> None:
    real = floats(rng, 7, 33)
    grid = symmetric_grid(real, PerChannel(0))
    error = np.abs(grid.dequantize(grid.quantize(real)) - real)
    assert (error <= HALF * np.abs(real).max(axis=1, keepdims=True) / 127).all()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (-4.0, 0.0), (-1e-4, 1e5), (-1e-30, 1e-30)])
def test_asymmetric_rounding_inside_the_range_is_off_by_at_most_one_step(low: float, high: float) -> None:
    real = np.linspace(low, high, 1001, dtype=np.float32)
    grid = asymmetric_grid(low, high)
    error = np.abs(grid.dequantize(grid.quantize(real)) - real)
    step = (high - low) / 255
    assert error.max() <= 2 * HALF * step  # at an end half a step may be lost to the rounded zero point
    assert np.median(error) <= HALF * step


def test_fewer_bits_are_fewer_levels_from_zero_on() -> None:
    grid = asymmetric_grid(-1.0, 2.0, 4)
    codes = grid.quantize(np.linspace(-5, 5, 1001, dtype=np.float32))
    assert np.array_equal(np.unique(codes), np.arange(16))
    assert (grid.scale, grid.zero_point) == (pytest.approx(3 / 15), 5)


def test_asymmetric_rounding_between_the_ends_of_the_grid_is_off_by_at_most_half_a_step() -> None:
    grid = asymmetric_grid(-1.3, 2.9)
    ends = (np.array([0, 255]) - float(grid.zero_point)) * float(grid.scale)
    real = np.linspace(*ends, 4001, dtype=np.float32)
    assert np.abs(grid.dequantize(grid.quantize(real)) - real).max() <= HALF * float(grid.scale)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (2.0, 6.0), (-4.0, -1.0), (-0.001, 7.3), (0.0, 0.0)])
def test_an_asymmetric_grid_holds_zero_exactly(low: float, high: float) -> None:
    grid = asymmetric_grid(low, high)
    assert grid.quantize(array([0.0])).item() == grid.zero_point
    assert grid.dequantize(grid.quantize(array([0.0]))).item() == 0.0


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1e-45, 1e-45), (-1e-42, 0.0)])
def test_a_range_of_one_point_gets_scale_one(low: float, high: float) -> None:
    assert asymmetric_grid(low, high).scale == 1


@pytest.mark.parametrize("point", [5.0, -5.0, 1e-20])
def test_a_range_of_one_point_away_from_zero_keeps_that_point(point: float) -> None:
    grid = asymmetric_grid(point, point)
    assert grid.dequantize(grid.quantize(array([point]))).item() == pytest.approx(point, rel=1e-6)


def test_a_channel_of_zeros_stays_zero_beside_another() -> None:
    real = array([[0, 0, 0], [1, -2, 0.5]])
    grid = symmetric_grid(real, PerChannel(0))
    assert np.isfinite(grid.scale).all()
    assert (grid.scale > 0).all()
    assert not grid.dequantize(grid.quantize(real))[0].any()


def test_a_symmetric_grid_never_uses_minus_128(rng: np.random.Generator) -> None:
    grid = symmetric_grid(floats(rng, 4, 50), PerChannel(0))
    assert grid.quantize(1000 * floats(rng, 4, 50)).min() == -127


def test_a_symmetric_grid_mirrors(rng: np.random.Generator) -> None:
    real = floats(rng, 4, 50)
    grid = symmetric_grid(real, PerTensor())
    assert np.array_equal(grid.quantize(-real), -grid.quantize(real))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_grid_of_a_channel_is_the_grid_of_that_channel_alone(axis: int, rng: np.random.Generator) -> None:
    real = floats(rng, 3, 4, 5)
    whole = symmetric_grid(real, PerChannel(axis))
    quantized = whole.quantize(real)
    for channel in range(real.shape[axis]):
        alone = symmetric_grid(real.take(channel, axis), PerTensor())
        assert whole.scale[channel] == alone.scale
        assert np.array_equal(quantized.take(channel, axis), alone.quantize(real.take(channel, axis)))


def test_halves_go_to_the_even_neighbour() -> None:
    grid = Grid(np.float32(1) * np.ones(()), np.zeros((), np.int8), -127, 127, PerTensor())
    assert grid.quantize(array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, -2, 0, 0, 2, 2]


def test_what_lies_outside_goes_to_the_nearest_end() -> None:
    grid = asymmetric_grid(-1.0, 1.0)
    assert grid.quantize(array([-1e9, 1e9])).tolist() == [0, 255]


def test_quantizing_the_grid_again_changes_nothing(rng: np.random.Generator) -> None:
    grid = symmetric_grid(floats(rng, 5, 9), PerChannel(0))
    integers = rng.integers(-127, 128, (5, 9)).astype(np.int8)
    assert np.array_equal(grid.quantize(grid.dequantize(integers)), integers)


def test_a_bias_is_off_by_at_most_half_a_step(rng: np.random.Generator) -> None:
    bias, scale = floats(rng, 100), np.abs(floats(rng, 100)) * 1e-4 + np.float32(1e-5)
    error = np.abs(quantize_bias(bias, scale).astype(np.float64) * scale - bias)
    assert (error <= HALF * scale).all()


def test_a_bias_too_large_for_its_scale_stops_at_the_ends_of_int32() -> None:
    quantized = quantize_bias(array([1e9, -1e9]), array([1e-9, 1e-9]))
    assert quantized.tolist() == [INT32_LIMIT, -INT32_LIMIT]


@pytest.mark.parametrize("seed", range(20))
def test_a_bias_fits_into_int32_however_small_the_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = np.float32(10.0) ** rng.integers(-30, 3, (16, 1)).astype(np.float32)
    matrix, bias = floats(rng, 16, 8) * size, floats(rng, 16) * np.float32(10.0 ** rng.integers(-3, 4))
    x_scale = float(10.0 ** rng.integers(-5, 2))
    grid = symmetric_grid(matrix, PerChannel(0), least_weight_scale(bias, x_scale))
    scale = np.float32(x_scale) * grid.scale
    exact = bias.astype(np.float64) / scale
    assert np.abs(exact).max() <= INT32_LIMIT / 2 * (1 + 1e-5)
    assert np.abs(quantize_bias(bias, scale) - exact).max() <= 0.5

"""Outliers between activations and weights: the paper's formula, and a search that does not believe its samples."""

import numpy as np
import pytest

from compressor.numerics.smoothing import Choice, Extent, Product, search
from tests.models import Floats, floats


def _product(rows: Floats, matrix: Floats) -> Product:
    return Product(rows, matrix, rows @ matrix.T)


def _extent(rows: Floats) -> Extent:
    return Extent(rows.min(axis=0), rows.max(axis=0))


def _with_outlier(rng: np.random.Generator, rows: int = 400, channels: int = 16) -> Floats:
    """One channel is thirty times as large as the others."""
    x = floats(rng, rows, channels)
    x[:, 3] *= 30
    return x


def _halves(rows: Floats) -> tuple[Extent, Extent]:
    return _extent(rows[::2]), _extent(rows[1::2])


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.8, 1.0])
def test_without_a_floor_the_scale_is_that_of_the_paper_up_to_a_constant(
    rng: np.random.Generator, strength: float
) -> None:
    x, w = np.exp(floats(rng, 12)), np.exp(floats(rng, 12))
    ratio = Choice(strength, 0.0).scale(x, w) / (x**strength / w ** (1 - strength))
    assert ratio == pytest.approx(ratio[0], rel=1e-5)


def test_a_sleeping_channel_is_not_taken_for_smaller_than_the_floor() -> None:
    x, w = np.array([10, 1, 0], np.float32), np.ones(3, np.float32)
    scale = Choice(1.0, 0.5).scale(x, w)
    assert scale / scale[0] == pytest.approx([1, 0.5, 0.5], rel=1e-5)


def test_dead_activations_and_dead_weights_give_finite_scales() -> None:
    zero, one = np.zeros(4, np.float32), np.ones(4, np.float32)
    for x, w in ((zero, one), (one, zero), (zero, zero), (np.eye(4, dtype=np.float32)[0], one)):
        scale = Choice(0.8, 0.0).scale(x, w)
        assert np.isfinite(scale).all()
        assert (scale > 0).all()


def test_the_error_is_that_of_integers_multiplied_out(rng: np.random.Generator) -> None:
    rows, matrix, scale = floats(rng, 50, 8), floats(rng, 5, 8), np.exp(floats(rng, 8))
    low, high = float((rows / scale).min()), float((rows / scale).max())
    step = (high - low) / 255
    zero = np.rint(-low / step)
    x = (np.clip(np.rint(rows / scale / step) + zero, 0, 255) - zero) * step
    widths = np.abs(matrix * scale).max(axis=1, keepdims=True) / 127
    w = np.rint(matrix * scale / widths) * widths
    noise, signal = np.square(x @ w.T - rows @ matrix.T).sum(axis=1), np.square(rows @ matrix.T).sum(axis=1)
    found = _product(rows, matrix).error(scale, _extent(rows))
    assert found == pytest.approx((noise / signal).mean(), rel=0.02)


def test_rows_of_zeros_have_no_error(rng: np.random.Generator) -> None:
    rows, matrix = np.zeros((3, 4), np.float32), floats(rng, 5, 4)
    assert _product(rows, matrix).error(np.ones(4, np.float32), _extent(rows)) == 0


def test_an_outlier_is_moved_into_the_weights(rng: np.random.Generator) -> None:
    rows, matrix = _with_outlier(rng), floats(rng, 24, 16)
    found = search(_product(rows[:200], matrix), _halves(rows))
    assert found.after < found.before / 4
    assert found.scale.argmax() == 3
    assert (rows / found.scale) @ (matrix * found.scale).T == pytest.approx(rows @ matrix.T, rel=1e-3, abs=1e-3)


def test_the_search_finds_what_trying_everything_finds(rng: np.random.Generator) -> None:
    rows, matrix = _with_outlier(rng), floats(rng, 24, 16)
    layers, halves = _product(rows[:200], matrix), _halves(rows)
    weights = np.abs(matrix).max(axis=0)

    def held_out(choice: Choice) -> float:
        pairs = (halves, halves[::-1])
        return sum(layers.error(choice.scale(one.magnitude, weights), other) for one, other in pairs) / 2

    grid = [Choice(a, f) for a in np.linspace(0, 1, 11).tolist() for f in (0.0, 0.06, 0.12, 0.25, 0.5)]
    assert search(layers, halves).after <= 1.2 * min(map(held_out, grid))


def test_a_channel_that_only_one_half_has_seen_awake_is_not_blown_up(rng: np.random.Generator) -> None:
    rows, matrix = _with_outlier(rng), floats(rng, 24, 16)
    rows[:, 7] = 0
    asleep, awake = _extent(rows), _extent(rows)
    awake.high[7] = 1.0
    found = search(_product(rows, matrix), (asleep, awake))
    others = np.delete(found.scale, [3, 7])
    assert found.choice.floor > 0
    assert found.scale[7] > others.min() / 4

"""Laws of fitting a layer to what it ought to make."""

import numpy as np
import pytest

from compressor.numerics.regression import Regression, fitted
from tests.models import Floats, floats


def _folded(x: Floats, y: Floats, parts: int = 1) -> Regression:
    found = Regression(len(x), x.shape[2], y.shape[2])
    for rows in np.array_split(np.arange(x.shape[1]), parts):
        found.update(x[:, rows], y[:, rows])
    return found


def _nothing(x: Floats, y: Floats) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return np.zeros((len(x), y.shape[2], x.shape[2])), np.zeros((len(x), y.shape[2]))


@pytest.mark.parametrize("groups", [1, 3])
def test_what_is_linear_is_found_with_its_bias(groups: int, rng: np.random.Generator) -> None:
    x, weights, bias = floats(rng, groups, 400, 5), floats(rng, groups, 2, 5), floats(rng, groups, 2)
    y = (x @ weights.swapaxes(1, 2) + bias[:, None]).astype(np.float32)
    found, shift = _folded(x, y).solve(*_nothing(x, y), 1e-9)
    np.testing.assert_allclose(found, weights, atol=1e-4)
    np.testing.assert_allclose(shift, bias, atol=1e-4)


def test_the_error_is_that_of_the_outputs(rng: np.random.Generator) -> None:
    x, y = floats(rng, 1, 50, 4), floats(rng, 1, 50, 3)
    weights, bias = floats(rng, 1, 3, 4), floats(rng, 1, 3)
    made = x @ weights.swapaxes(1, 2) + bias[:, None]
    expected = np.square(made - y).sum() / np.square(y).sum()
    assert _folded(x, y).error(weights.astype(float), bias.astype(float)) == pytest.approx(float(expected), rel=1e-4)


def test_batches_and_sums_are_the_same_as_all_at_once(rng: np.random.Generator) -> None:
    x, y = floats(rng, 1, 60, 4), floats(rng, 1, 60, 2)
    expected = _folded(x, y).solve(*_nothing(x, y), 0.01)
    for found in (_folded(x, y, 7), _folded(x[:, :20], y[:, :20]) + _folded(x[:, 20:], y[:, 20:])):
        for a, b in zip(found.solve(*_nothing(x, y), 0.01), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_where_samples_say_nothing_the_weights_stay(rng: np.random.Generator) -> None:
    x, y, start = floats(rng, 1, 50, 3), floats(rng, 1, 50, 2), floats(rng, 1, 2, 3).astype(float)
    x[:, :, 1] = 0
    found, _ = _folded(x, y).solve(start, np.zeros((1, 2)), 0.01)
    np.testing.assert_allclose(found[:, :, 1], start[:, :, 1], atol=1e-9)


@pytest.mark.parametrize("biased", [True, False])
def test_weights_that_are_not_free_stay_and_the_others_are_those_of_a_fit_without_them(
    biased: bool, rng: np.random.Generator
) -> None:
    x, y, start = floats(rng, 2, 200, 12), floats(rng, 2, 200, 5), floats(rng, 2, 5, 12).astype(float)
    x[..., 1:] += x[..., :-1] / 2
    free = rng.random(start.shape) < 0.6
    free[0, 0] = False
    regression = Regression(2, 12, 5, biased)
    regression.update(x, y)
    found, shift = regression.solve(start, np.zeros((2, 5)), 1e-9, free)
    assert np.array_equal(found[~free], start[~free])
    for group, row in np.ndindex(2, 5):
        inputs = np.c_[x[group][:, free[group, row]], np.ones((200, int(biased)))]
        rest = y[group, :, row] - x[group][:, ~free[group, row]] @ start[group, row][~free[group, row]]
        expected = np.linalg.lstsq(inputs, rest, rcond=None)[0]
        here = np.r_[found[group, row][free[group, row]], shift[group, row : row + 1][: int(biased)]]
        np.testing.assert_allclose(here, expected, atol=1e-4)


def test_noise_is_not_learned_from_few_samples(rng: np.random.Generator) -> None:
    x, y = floats(rng, 1, 40, 30), floats(rng, 1, 40, 2)
    seen, unseen = (_folded(x[:, part], y[:, part]) for part in (slice(0, 30), slice(30, 40)))
    nothing = _nothing(x, y)
    found = fitted(seen, unseen, *nothing)
    error = 1.0 if found is None else unseen.error(*found)
    assert error <= unseen.error(*nothing)
    assert found is None or np.abs(found[0]).max() < np.abs(seen.solve(*nothing, 0.01)[0]).max()


def test_what_serves_unseen_samples_is_taken(rng: np.random.Generator) -> None:
    x, weights = floats(rng, 1, 200, 5), floats(rng, 1, 2, 5)
    y = (x @ weights.swapaxes(1, 2)).astype(np.float32)
    found = fitted(_folded(x[:, :150], y[:, :150]), _folded(x[:, 150:], y[:, 150:]), *_nothing(x, y))
    assert found is not None
    np.testing.assert_allclose(found[0], weights, atol=0.05)


def test_without_a_bias_none_is_found_and_the_weights_are_those_of_least_squares(rng: np.random.Generator) -> None:
    x, y = floats(rng, 1, 200, 4) + 1, floats(rng, 1, 200, 2) + 3
    plain = Regression(1, 4, 2, biased=False)
    plain.update(x, y)
    found, shift = plain.solve(*_nothing(x, y), 1e-9)
    np.testing.assert_allclose(found[0].T, np.linalg.lstsq(x[0], y[0], rcond=None)[0], atol=1e-4)
    assert not shift.any()


def test_the_spread_is_that_of_what_weights_make(rng: np.random.Generator) -> None:
    x, weights = floats(rng, 2, 300, 4) + np.float32(3), floats(rng, 2, 3, 4).astype(float)
    made = x @ weights.swapaxes(1, 2)
    mean, variance = _folded(x, floats(rng, 2, 300, 3), 4).spread(weights)
    np.testing.assert_allclose(mean, made.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(variance, made.var(axis=1), rtol=1e-4)

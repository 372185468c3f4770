"""Losses against their definitions, written out in NumPy."""

import numpy as np
import pytest

from tests.models import floats

torch = pytest.importorskip("torch")

from compressor.training import losses  # noqa: E402

RNG = np.random.default_rng(8)
STUDENT, TEACHER = floats(RNG, 6, 5), floats(RNG, 6, 5)
S, T = torch.from_numpy(STUDENT), torch.from_numpy(TEACHER)


def _softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_that_of_softened_scores_times_the_square_of_the_temperature(temperature: float) -> None:
    p, q = _softmax(TEACHER / temperature), _softmax(STUDENT / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1)
    np.testing.assert_allclose(losses.kl(S, T, temperature), expected, rtol=1e-5)


def test_mse_is_beside_the_power_and_cosine_ignores_length() -> None:
    expected = np.square(STUDENT - TEACHER).mean(axis=1) / 2.0
    np.testing.assert_allclose(losses.mse(S, T, 2.0), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.cosine(3 * T, T), np.zeros(6), atol=1e-6)


def test_relational_sees_neither_scale_nor_place_but_shape() -> None:
    assert float(losses.relational(5 * T + 2, T)[0]) == pytest.approx(0, abs=1e-6)
    assert float(losses.relational(S, T)[0]) > 1e-3
    assert float(losses.relational(S[:1], T[:1])[0]) == 0


def test_samples_without_a_class_do_not_count() -> None:
    found = losses.cross_entropy(S, torch.tensor([0, 1, -1, 2, 3, 4]))
    assert float(found[2]) == 0
    assert float(found[0]) == pytest.approx(-np.log(_softmax(STUDENT)[0, 0]), rel=1e-5)

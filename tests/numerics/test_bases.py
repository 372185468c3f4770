"""The basis in which the last vectors are missed least, against singular values."""

import numpy as np
import pytest

from compressor.numerics.bases import least_missed_last
from tests.models import floats


def _moments(rng: np.random.Generator, size: int) -> np.ndarray:
    x = rng.normal(size=(200, size)) @ rng.normal(size=(size, size))
    return x.T @ x / len(x)


def test_the_coordinates_are_uncorrelated_and_of_power_one(rng: np.random.Generator) -> None:
    moments = _moments(rng, 6)
    found = least_missed_last([floats(rng, 9, 6).astype(np.float64)], [moments])
    assert found is not None
    basis, inverse = found
    np.testing.assert_allclose(basis @ inverse, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(inverse @ moments @ inverse.T, np.eye(6), atol=1e-3)


@pytest.mark.parametrize("kept", [1, 3, 5])
def test_what_the_first_vectors_miss_is_what_the_last_singular_values_hold(rng: np.random.Generator, kept: int) -> None:
    moments, weights = _moments(rng, 6), rng.normal(size=(9, 6))
    found = least_missed_last([weights], [moments])
    assert found is not None
    basis, inverse = found
    missed = weights @ basis[:, kept:] @ inverse[kept:]
    error = float(np.trace(missed @ moments @ missed.T))
    values = np.linalg.svd(weights @ np.linalg.cholesky(moments), compute_uv=False)
    assert error == pytest.approx(float(np.square(values[kept:]).sum()), rel=1e-3)


def test_a_layer_counts_beside_the_power_of_its_output(rng: np.random.Generator) -> None:
    loud, quiet = np.zeros((3, 4)), np.zeros((3, 4))
    loud[:, :3], quiet[:, 3] = 1000 * rng.normal(size=(3, 3)) * [1.0, 0.5, 0.01], 1.0
    found = least_missed_last([loud, quiet], [np.eye(4)] * 2)
    assert found is not None
    last = found[0][:, -1]
    assert abs(last[3]) < 0.01  # what the quiet layer reads is not the last to matter


def test_without_power_there_is_nothing_to_go_by() -> None:
    assert least_missed_last([np.ones((2, 3))], [np.zeros((3, 3))]) is None
    assert least_missed_last([np.zeros((2, 3))], [np.eye(3)]) is None

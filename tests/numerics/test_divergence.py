"""Measures of distance against torch and plain sums."""

import math

import numpy as np
import pytest
import torch

from compressor.numerics.divergence import cosine, kl_divergence, log_softmax, relative_error, sqnr
from tests.models import array


def test_relative_error_is_a_ratio_of_euclidean_lengths() -> None:
    assert relative_error(array([[3, 0], [0, 4]]), array([[3, 0], [0, 3]])) == pytest.approx(1 / 5)


def test_relative_error_has_an_answer_for_zero_arrays() -> None:
    zero = np.zeros((2, 2), np.float32)
    assert relative_error(zero, zero) == 0
    assert relative_error(zero, zero + 1) == math.inf


def test_twenty_decibels_are_a_hundredfold_in_power() -> None:
    assert sqnr(500.0, 5.0) == pytest.approx(20)
    assert sqnr(1.0, 0.0) == math.inf
    assert sqnr(0.0, 1.0) == -math.inf


def test_cosine_is_that_of_torch(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((6, 9)), rng.standard_normal((6, 9))
    expected = torch.nn.functional.cosine_similarity(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(cosine(a, b), expected, rtol=1e-12)


def test_cosine_of_zero_rows_is_one_when_both_are_zero_and_zero_when_one_is() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert cosine(zero, zero).item() == 1
    assert cosine(zero, one).item() == 0


@pytest.mark.parametrize("size", [1.0, 50.0, 2000.0])
def test_kl_is_that_of_torch_also_for_large_logits(size: float, rng: np.random.Generator) -> None:
    p, q = size * rng.standard_normal((6, 9)), size * rng.standard_normal((6, 9))
    logs = [torch.log_softmax(torch.from_numpy(a), 1) for a in (q, p)]
    expected = torch.nn.functional.kl_div(logs[0], logs[1], reduction="none", log_target=True).sum(1).numpy()
    np.testing.assert_allclose(kl_divergence(p, q), expected, rtol=1e-9, atol=1e-12)


def test_kl_of_a_distribution_from_itself_is_zero_whatever_is_added_to_the_logits(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((4, 5))
    np.testing.assert_allclose(kl_divergence(logits, logits + 7), 0, atol=1e-12)


def test_log_softmax_sums_to_one(rng: np.random.Generator) -> None:
    np.testing.assert_allclose(np.exp(log_softmax(1000 * rng.standard_normal((3, 7)))).sum(axis=1), 1, rtol=1e-12)

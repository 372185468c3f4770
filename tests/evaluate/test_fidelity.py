"""Agreement of two models, folded over batches of any size, against NumPy over all samples at once."""

import math

import numpy as np
import pytest
import torch

from compressor.evaluate.fidelity import OutputComparison
from compressor.report import OutputFidelity
from tests.models import Array, floats

RNG = np.random.default_rng(9)
LOGITS = floats(RNG, 11, 5)
NOISY = LOGITS + floats(RNG, 11, 5) / 2


def _folded(reference: Array, result: Array, sizes: tuple[int, ...]) -> OutputFidelity:
    comparison, start = OutputComparison("y"), 0
    for size in sizes:
        comparison.update(reference[start : start + size], result[start : start + size], size)
        start += size
    return comparison.result()


@pytest.mark.parametrize("sizes", [(11,), (4, 4, 3), (1, 10), (1,) * 11])
def test_figures_do_not_depend_on_how_samples_fall_into_batches(sizes: tuple[int, ...]) -> None:
    found = _folded(LOGITS, NOISY, sizes)
    a, b = (torch.from_numpy(v.astype(np.float64)) for v in (LOGITS, NOISY))
    logs = torch.log_softmax(a, 1), torch.log_softmax(b, 1)
    noise = np.square(LOGITS.astype(np.float64) - NOISY).sum()
    assert found.agreement == pytest.approx((LOGITS.argmax(1) == NOISY.argmax(1)).mean())
    assert found.cosine == pytest.approx(torch.nn.functional.cosine_similarity(a, b).mean().item())
    assert found.sqnr_db == pytest.approx(10 * math.log10(np.square(LOGITS.astype(np.float64)).sum() / noise))
    assert found.kl == pytest.approx((logs[0].exp() * (logs[0] - logs[1])).sum(1).mean().item())
    assert found.finite


def test_the_same_output_agrees_in_everything() -> None:
    found = _folded(LOGITS, LOGITS, (11,))
    assert (found.agreement, found.sqnr_db, found.kl) == (1, math.inf, 0)
    assert found.cosine == pytest.approx(1, abs=1e-12)


def test_what_fills_up_a_batch_does_not_count() -> None:
    filled, wrong = np.vstack([LOGITS, LOGITS]), np.vstack([NOISY, -LOGITS])
    comparison = OutputComparison("y")
    comparison.update(filled, wrong, 11)
    assert comparison.result() == _folded(LOGITS, NOISY, (11,))


def test_pictures_and_numbers_have_no_class_to_agree_on() -> None:
    for shape in ((4, 3, 2, 2), (4, 1), (4,)):
        found = _folded(floats(RNG, *shape), floats(RNG, *shape), (4,))
        assert (found.agreement, found.kl) == (None, None)
        assert found.cosine is not None


def test_integers_are_compared_entry_by_entry() -> None:
    reference, result = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[1, 2], [3, 0], [5, 6]])
    found = _folded(reference, result, (2, 1))
    assert found.agreement == pytest.approx(5 / 6)
    assert (found.cosine, found.sqnr_db, found.kl) == (None, None, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_where_the_reference_is_gets_flagged(bad: float) -> None:
    broken = NOISY.copy()
    broken[9, 1] = bad
    assert not _folded(LOGITS, broken, (4, 4, 3)).finite
    assert _folded(LOGITS, NOISY, (4, 4, 3)).finite


def test_what_is_infinite_in_both_is_no_fault() -> None:
    masked = LOGITS.copy()
    masked[:, 0] = -np.inf
    found = _folded(masked, masked, (11,))
    assert found.finite
    assert (found.agreement, found.sqnr_db) == (1, math.inf)


def test_an_output_without_samples_is_compared_as_a_whole() -> None:
    comparison = OutputComparison("state")
    comparison.update(np.float32([[3, 4]]), np.float32([[3, 3]]), 8)
    found = comparison.result()
    assert found.sqnr_db == pytest.approx(10 * math.log10(25))
    assert found.cosine == pytest.approx(21 / (5 * math.sqrt(18)))

"""Rank correlation of cosines with scores, wherever the stream of sentences is cut."""

import numpy as np
import pytest

from compressor.evaluate.metrics import METRICS
from tests.models import Array, floats

RNG = np.random.default_rng(5)
PAIRS = 15
EMBEDDINGS = floats(RNG, 2 * PAIRS, 6)
SCORES = RNG.integers(0, 6, PAIRS).astype(np.float64)
LABELS = np.stack([np.full(PAIRS, np.nan), SCORES], axis=1).ravel()


def _counted(values: Array) -> Array:
    """Ranks by counting: a fraction stands for ties."""
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def _expected(embeddings: Array, scores: Array) -> float:
    first, second = embeddings[0::2].astype(np.float64), embeddings[1::2].astype(np.float64)
    cosines = np.array([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(first, second, strict=True)])
    return float(np.corrcoef(_counted(cosines), _counted(scores))[0, 1])


def _over(embeddings: Array, labels: Array, size: int) -> float:
    metric = METRICS["spearman_cosine"]()
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        metric.update({"y": embeddings[part]}, {"": labels[part]}, len(labels[part]))
    return metric.result()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 30])
def test_it_is_the_rank_correlation_wherever_batches_end(size: int) -> None:
    assert _over(EMBEDDINGS, LABELS, size) == pytest.approx(_expected(EMBEDDINGS, SCORES))


def test_lengths_of_embeddings_do_not_matter() -> None:
    scaled = EMBEDDINGS * np.exp2(RNG.integers(-3, 3, (2 * PAIRS, 1))).astype(np.float32)
    assert _over(scaled, LABELS, 4) == pytest.approx(_expected(EMBEDDINGS, SCORES))


def test_halves_of_pairs_do_not_count() -> None:
    cut = slice(1, -1)
    expected = _expected(EMBEDDINGS[2:-2], SCORES[1:-1])
    assert _over(EMBEDDINGS[cut], LABELS[cut], 3) == pytest.approx(expected)


def test_what_fills_up_a_batch_is_no_member_of_a_pair() -> None:
    metric = METRICS["spearman_cosine"]()
    for start in range(0, 2 * PAIRS, 3):
        filled = np.concatenate([EMBEDDINGS[start : start + 3], EMBEDDINGS[:2]])
        metric.update({"y": filled}, {"": LABELS[start : start + 3]}, 3)
    assert metric.result() == pytest.approx(_expected(EMBEDDINGS, SCORES))


def test_a_broken_model_has_no_correlation() -> None:
    assert np.isnan(_over(np.full_like(EMBEDDINGS, np.nan), LABELS, 4))
    assert np.isnan(_over(np.zeros_like(EMBEDDINGS), LABELS, 4))
    assert np.isnan(METRICS["spearman_cosine"]().result())

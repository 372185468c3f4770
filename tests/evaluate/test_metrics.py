"""Accuracy against labels, over uneven batches."""

import numpy as np
import pytest

from compressor.data import MetricName
from compressor.errors import DataError
from compressor.evaluate.metrics import METRICS
from tests.models import Array, floats

RNG = np.random.default_rng(3)
SCORES, CLASSES = floats(RNG, 13, 9), RNG.integers(0, 9, 13)
VALUES, TRUTH = floats(RNG, 13, 2), floats(RNG, 13, 2)


def _over(metric: MetricName, outputs: Array, labels: Array, sizes: tuple[int, ...] = (5, 7, 1)) -> float:
    folded, start = METRICS[metric](), 0
    for size in sizes:
        part = slice(start, start + size)
        folded.update({"y": outputs[part]}, {"": labels[part]}, size)
        start += size
    return folded.result()


@pytest.mark.parametrize(("metric", "k"), [("top1", 1), ("top5", 5)])
def test_top_k_is_the_share_of_classes_that_rank_among_the_first_k(metric: MetricName, k: int) -> None:
    ranks = [(scores > scores[wanted]).sum() for scores, wanted in zip(SCORES, CLASSES, strict=True)]
    assert _over(metric, SCORES, CLASSES) == pytest.approx(np.mean([rank < k for rank in ranks]))


def test_with_fewer_classes_than_k_all_are_among_the_first() -> None:
    assert _over("top5", SCORES[:, :3], CLASSES % 3) == 1


def _f1(found: Array, wanted: Array, positive: int) -> float:
    """From precision and recall."""
    right = ((found == positive) & (wanted == positive)).sum()
    precision, recall = right / max((found == positive).sum(), 1), right / max((wanted == positive).sum(), 1)
    return float(2 * precision * recall / (precision + recall)) if right else 0.0


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_f1_is_of_the_positive_class_of_two_and_else_the_mean_over_those_that_occur(classes: int) -> None:
    scores, wanted = SCORES[:, :classes], CLASSES % min(classes, 4)
    found = scores.argmax(axis=1)
    occurring = [1] if classes == 2 else sorted({*found.tolist(), *wanted.tolist()})
    expected = np.mean([_f1(found, wanted, positive) for positive in occurring])
    assert _over("f1", scores, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(("wanted", "found", "expected"), [(0, 0, 0.0), (1, 1, 1.0), (0, 1, 0.0), (1, 0, 0.0)])
def test_f1_of_two_classes_that_never_change(wanted: int, found: int, expected: float) -> None:
    scores = np.eye(2, dtype=np.float32)[np.full(13, found)]
    assert _over("f1", scores, np.full(13, wanted)) == expected


def test_errors_are_means_over_all_entries() -> None:
    assert _over("mse", VALUES, TRUTH) == pytest.approx(np.square(VALUES - TRUTH).mean(), rel=1e-6)
    assert _over("mae", VALUES, TRUTH) == pytest.approx(np.abs(VALUES - TRUTH).mean(), rel=1e-6)


def test_labels_of_one_axis_less_are_the_same_entries() -> None:
    assert _over("mse", VALUES[:, :1], TRUTH[:, 0]) == pytest.approx(
        np.square(VALUES[:, 0] - TRUTH[:, 0]).mean(), rel=1e-6
    )


@pytest.mark.parametrize(
    ("metric", "outputs", "labels"), [("top1", SCORES, CLASSES), ("f1", SCORES, CLASSES), ("mse", VALUES, TRUTH)]
)
def test_what_fills_up_a_batch_does_not_count(metric: MetricName, outputs: Array, labels: Array) -> None:
    folded = METRICS[metric]()
    folded.update({"y": np.concatenate([outputs, -outputs])}, {"": labels}, len(labels))
    assert folded.result() == pytest.approx(_over(metric, outputs, labels))


def test_labels_with_a_name_belong_to_that_output() -> None:
    folded = METRICS["top1"]()
    folded.update({"other": -SCORES, "y": SCORES}, {"y": SCORES.argmax(1)}, 13)
    assert folded.result() == 1


@pytest.mark.parametrize(
    ("metric", "labels", "reason"),
    [
        ("top1", {"z": CLASSES}, "labels name z, which is no output of the model; it has y"),
        ("top1", {"": TRUTH}, r"output y has shape \[13, 9\] and its labels \[13, 2\]"),
        (
            "f1",
            {"": CLASSES.astype(np.float32)},
            "labels of output y are float32; top1, top5 and f1 want class numbers",
        ),
        ("f1", {"": CLASSES + 8}, "is no class; there are 9, numbered from 0"),
        ("spearman_cosine", {"": CLASSES}, r"output y is float32\[13, 9\] and its labels int64\[13\]; spearman_cosine"),
        ("spearman_cosine", {"": TRUTH}, r"and its labels float32\[13, 2\]"),
        ("perplexity", {"": CLASSES}, r"output y has shape \[13, 9\] and its labels \[13\]; perplexity wants logits"),
        ("mse", {"": TRUTH}, r"output y has shape \[13, 9\], its labels \[13, 2\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(metric: MetricName, labels: dict[str, Array], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        METRICS[metric]().update({"y": SCORES}, labels, 13)


def test_a_single_class_says_nothing() -> None:
    with pytest.raises(DataError, match="of two classes or more"):
        METRICS["f1"]().update({"y": SCORES[:, :1]}, {"": CLASSES * 0}, 13)


def test_errors_and_perplexity_are_better_when_lower() -> None:
    assert {name: metric.higher_is_better for name, metric in METRICS.items()} == {
        "top1": True,
        "top5": True,
        "f1": True,
        "mse": False,
        "mae": False,
        "spearman_cosine": True,
        "perplexity": False,
    }

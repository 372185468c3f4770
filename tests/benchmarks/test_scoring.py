"""Every model is scored on the same data, with the reference as the first of them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scoring import CosineWithReference, scores
from benchmarks.tasks import Entry
from tests.benchmarks import tiny
from tests.models import array, floats, graph, write


def test_cosine_is_the_mean_over_samples_of_all_batches() -> None:
    metric = CosineWithReference()
    wanted = array([[1, 0], [0, 1], [1, 1]])
    found = array([[2, 0], [1, 1], [-1, -1]])
    for rows in (slice(0, 1), slice(1, 3)):
        metric.update({"y": found[rows]}, {"y": wanted[rows]}, len(wanted[rows]))
    assert metric.result() == pytest.approx((1 + 0.5**0.5 - 1) / 3)


def test_cosine_leaves_out_what_fills_up_a_batch() -> None:
    metric = CosineWithReference()
    metric.update({"y": array([[1, 0], [5, 5]])}, {"y": array([[1, 0], [-1, 1]])}, 1)
    assert metric.result() == pytest.approx(1)


def test_cosine_of_nothing_is_no_number() -> None:
    assert np.isnan(CosineWithReference().result())


def _scaled(folder: Path, factor: float, shift: float = 0.0) -> Path:
    """y = factor · x + shift."""
    body = "s = Mul(x, f)  y = Add(s, c)"
    proto = graph("float[N,4] x => float[N,4] y", body, f=array([factor]), c=array([shift] * 3 + [0]))
    return write(proto, folder / f"scaled_{factor}_{shift}.onnx")


def test_a_model_agrees_with_itself_and_less_with_others(tmp_path: Path, rng: np.random.Generator) -> None:
    data = tmp_path / "x.npy"
    np.save(data, floats(rng, 20, 4))
    files = [_scaled(tmp_path, 1), _scaled(tmp_path, 3), _scaled(tmp_path, -1), _scaled(tmp_path, 1, 0.5)]
    same, larger, opposite, shifted = scores({"source": "arrays", "path": str(data)}, files, threads=1)
    assert (same, larger, opposite) == pytest.approx((1, 1, -1))
    assert 0 < shifted < 1


def test_a_metric_needs_its_labels_and_counts_all_samples(tmp_path: Path) -> None:
    task = tiny.classes(tmp_path)
    entry: Entry = tiny.places(tmp_path).entry(task.evaluation)
    model = tmp_path / "assets" / "model.onnx"
    assert scores(entry, [model, model], threads=1) == [1, 1]

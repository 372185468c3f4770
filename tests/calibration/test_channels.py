"""Channels folded over batches: the extremes of two halves, and rows from everywhere."""

from pathlib import Path

import numpy as np
import pytest

from compressor.calibration.channels import ROWS, ChannelStatistic, collect_channels
from compressor.data import ArraysSource, Dataset
from compressor.errors import PassError
from compressor.progress import Silent
from tests.models import Floats, floats, graph, load

X = floats(np.random.default_rng(2), 11, 6, 4)
MODEL = graph("float[N,6,4] x => float[N,6,4] y", "h = Relu(x) y = Neg(h)")


def _data(folder: Path, batch: int, x: Floats = X) -> Dataset:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch})
    return source.open(load(MODEL, folder), "data", 0)


def _collected(folder: Path, batch: int, *tensors: str) -> dict[str, ChannelStatistic]:
    return collect_channels(load(MODEL, folder), tensors, _data(folder, batch), folder, Silent(), 1)


@pytest.mark.parametrize("batch", [1, 2, 3, 11])
def test_the_halves_are_every_other_sample_however_they_fall_into_batches(tmp_path: Path, batch: int) -> None:
    relu = np.maximum(X, 0)
    for name, values in (("h", relu), ("y", -relu)):
        found = _collected(tmp_path, batch, "h", "y")[name].halves
        for half, extent in enumerate(found):
            part = values[half::2].reshape(-1, 4)
            assert np.array_equal(extent.low, part.min(axis=0))
            assert np.array_equal(extent.high, part.max(axis=0))


@pytest.mark.parametrize("batch", [1, 4, 11])
def test_about_as_many_rows_are_kept_as_were_asked_for(tmp_path: Path, batch: int) -> None:
    rows = _collected(tmp_path, batch, "h")["h"].rows
    assert rows.shape == (ROWS, 4)
    known = {row.tobytes() for row in np.maximum(X, 0).reshape(-1, 4)}
    assert {row.tobytes() for row in rows} <= known


def test_rows_come_evenly_from_all_places_of_a_sample() -> None:
    statistic, places = ChannelStatistic(), np.arange(16, dtype=np.float32)
    for _ in range(4):
        statistic.update(np.tile(places, (32, 1))[..., None], 64)
    counts = np.bincount(statistic.rows[:, 0].astype(int), minlength=16)
    assert counts.min() >= 8
    assert counts.max() <= 32


def test_with_a_single_sample_both_halves_are_that_sample() -> None:
    statistic = ChannelStatistic()
    statistic.update(X[:1], 3)
    first, second = statistic.halves
    assert np.array_equal(first.low, X[0].min(axis=0))
    assert np.array_equal(second.high, X[0].max(axis=0))


def test_more_batches_than_rows_keep_no_more_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.calibration.channels.ROWS", 5)
    assert len(_collected(tmp_path, 1, "h")["h"].rows) == 5


def test_empty_batches_say_nothing() -> None:
    statistic = ChannelStatistic()
    statistic.update(X[:0], 3)
    assert len(statistic.rows) == 0


def test_a_tensor_that_overflows_is_named(tmp_path: Path) -> None:
    model = load(graph("float[N,6,4] x => float[N,6,4] y", "h = Reciprocal(x) y = Neg(h)"), tmp_path)
    data = _data(tmp_path, 2, np.zeros((4, 6, 4), np.float32))
    with pytest.raises(PassError, match="h: is NaN or infinite"):
        collect_channels(model, ["h"], data, tmp_path, Silent(), 1)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    _collected(tmp_path, 3, "h")
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", "model.onnx"}

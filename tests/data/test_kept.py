"""Datasets over datasets give the same samples: kept ones, and every n-th batch."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import ArraysSource, Dataset, KeptDataset, held_out
from tests.models import floats, graph, load


def _data(folder: Path, samples: int, batch: int) -> Dataset:
    rng = np.random.default_rng(0)
    model = load(graph("float[N,3] x => float[N,3] y", "y = Relu(x)"), folder)
    np.savez(folder / "x.npz", x=floats(rng, samples, 3), label=np.arange(samples))
    source = ArraysSource(path=folder / "x.npz", inputs={"x": "x"}, labels="label", metric="top1", batch=batch)
    return source.open(model, "data", 0)


def _labels(data: Dataset) -> list[list[int]]:
    return [batch.labels[""].tolist() for batch in data.batches()]


@pytest.mark.parametrize(("samples", "batch"), [(1, 4), (4, 4), (10, 4), (12, 4)])
def test_kept_samples_are_the_samples_each_time(tmp_path: Path, samples: int, batch: int) -> None:
    data = _data(tmp_path, samples, batch)
    kept = KeptDataset(data, tmp_path)
    expected = [(b.feeds["x"].tolist(), b.labels[""].tolist(), b.samples) for b in data.batches()]
    for _ in range(4):
        assert [(b.feeds["x"].tolist(), b.labels[""].tolist(), b.samples) for b in kept.batches()] == expected
    assert len(kept) == samples
    assert kept.first().feeds["x"].tolist() == expected[0][0]


def test_they_are_read_from_disk_from_the_fourth_time_on(tmp_path: Path) -> None:
    kept = KeptDataset(_data(tmp_path, 10, 4), tmp_path)
    list(kept.batches())
    list(kept.batches())
    assert not list(tmp_path.glob("samples-*"))
    list(kept.batches())
    assert len(list(tmp_path.glob("samples-*"))) == 3
    (tmp_path / "x.npz").unlink()
    assert sum(batch.samples for batch in kept.batches()) == 10


def test_looking_at_some_batches_only_keeps_nothing_wrong(tmp_path: Path) -> None:
    data = _data(tmp_path, 10, 4)
    kept = KeptDataset(data, tmp_path)
    list(kept.batches())
    list(kept.batches())
    next(iter(kept.batches()))
    assert _labels(kept) == _labels(data)
    assert _labels(kept) == _labels(data)


@pytest.mark.parametrize(("samples", "batch"), [(2, 4), (3, 1), (16, 4), (18, 4), (33, 4)])
def test_no_sample_is_on_both_sides_and_none_is_lost(tmp_path: Path, samples: int, batch: int) -> None:
    learn, judge = held_out(_data(tmp_path, samples, batch))
    both = [sum(_labels(part), []) for part in (learn, judge)]  # noqa: RUF017
    assert sorted(both[0] + both[1]) == list(range(samples))
    assert [len(learn), len(judge)] == [len(part) for part in both]
    assert len(judge) >= 1
    assert len(learn) > len(judge) or samples == 2


def test_a_single_sample_is_on_both_sides(tmp_path: Path) -> None:
    learn, judge = held_out(_data(tmp_path, 1, 4))
    assert _labels(learn) == _labels(judge) == [[0]]


def test_held_out_batches_are_spread_over_the_whole(tmp_path: Path) -> None:
    _, judge = held_out(_data(tmp_path, 33, 4))
    assert _labels(judge) == [[12, 13, 14, 15], [28, 29, 30, 31]]

"""Ranges are the extremes of what really flows, however it is cut into batches."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration import Range, collect_ranges
from compressor.data import ArraysSource, Dataset
from compressor.errors import DataError, PassError
from compressor.graph.model import Model
from compressor.progress import Silent
from tests.models import Floats, array, cnn, floats, graph, load, run


def _data(x: Floats, model: Model, folder: Path, batch: int) -> Dataset:
    np.savez(folder / "data.npz", x=x)
    return ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch}).open(model, "data", 0)


def _collect(model: Model, tensors: tuple[str, ...], data: Dataset, folder: Path) -> dict[str, Range]:
    return collect_ranges(model, tensors, data, folder, Silent(), 1)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_ranges_are_the_extremes_over_all_batches(batch: int, tmp_path: Path, rng: np.random.Generator) -> None:
    proto, x = cnn(rng), floats(rng, 7, 3, 8, 8)
    model = load(proto, tmp_path)
    found = _collect(model, ("x", "a", "r", "y"), _data(x, model, tmp_path, batch), tmp_path)
    for name in ("a", "r"):
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    for name, values in {"x": x, **run(proto, {"x": x})}.items():
        np.testing.assert_allclose((found[name].low, found[name].high), (values.min(), values.max()), rtol=1e-5)


def test_the_model_is_not_changed_and_nothing_is_left_in_the_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(cnn(rng), tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = model.node_counts(), model.outputs()
    _collect(model, ("r",), _data(floats(rng, 2, 3, 8, 8), model, tmp_path, 1), scratch)
    assert (model.node_counts(), model.outputs()) == before
    assert not list(scratch.iterdir())


def test_a_tensor_that_overflows_is_named_with_its_sample(tmp_path: Path) -> None:
    model = load(graph("float[N,2] x => float[N,2] y", "e = Exp(x)  y = Neg(e)"), tmp_path)
    data = _data(array([[0, 1], [2, 3], [4, 500]]), model, tmp_path, 1)
    with pytest.raises(PassError, match=r"^e: is NaN or infinite on sample 2;"):
        _collect(model, ("x", "e"), data, tmp_path)


def test_no_samples_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(cnn(rng), tmp_path)
    nothing, _ = _data(floats(rng, 2, 3, 8, 8), model, tmp_path, 1).split(0)
    with pytest.raises(DataError, match="no samples to calibrate with"):
        _collect(model, ("r",), nothing, tmp_path)


def _folded(lows: Floats, highs: Floats, batch: int) -> Range:
    found = Range()
    for start in range(0, len(lows), batch):
        part = slice(start, start + batch)
        found.update(float(lows[part].min()), float(highs[part].max()), len(lows[part]))
    return found


@pytest.mark.parametrize("count", [1, 15, 16, 100])
def test_min_max_covers_everything(count: int, rng: np.random.Generator) -> None:
    lows, highs = -np.abs(floats(rng, count)), np.abs(floats(rng, count))
    assert _folded(lows, highs, 1).ends("min_max") == (lows.min(), highs.max())


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_the_mean_of_extremes_is_over_groups_of_sixteen_whatever_the_batch(
    batch: int, groups: int, rng: np.random.Generator
) -> None:
    lows, highs = -np.abs(floats(rng, 16 * groups)), np.abs(floats(rng, 16 * groups))
    expected = lows.reshape(groups, 16).min(axis=1).mean(), highs.reshape(groups, 16).max(axis=1).mean()
    np.testing.assert_allclose(_folded(lows, highs, batch).ends("mean_min_max"), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 8, 15])
def test_fewer_than_sixteen_samples_are_one_group(count: int, rng: np.random.Generator) -> None:
    lows, highs = -np.abs(floats(rng, count)), np.abs(floats(rng, count))
    assert _folded(lows, highs, 1).ends("mean_min_max") == (lows.min(), highs.max())


def test_one_outlier_moves_the_mean_by_its_share_only() -> None:
    highs = np.ones(64, np.float32)
    highs[20] = 101
    assert _folded(-highs, highs, 1).ends("mean_min_max") == (-26, 26)

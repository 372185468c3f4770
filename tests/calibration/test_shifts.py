"""Two models side by side: what their layers make, compared channel by channel."""

from pathlib import Path

import numpy as np
import pytest

from compressor.calibration.shifts import collect_shifts
from compressor.data import ArraysSource, Dataset
from compressor.graph.twins import Twins
from compressor.progress import Silent
from tests.models import Array, array, floats, graph, load

RNG = np.random.default_rng(12)
X = floats(RNG, 10, 3, 6, 6)
KERNEL, SHIFT = floats(RNG, 4, 3, 3, 3), array([0.5, 0, -1, 2])
SIGNATURE = "float[N,3,6,6] x => float[N,4] y"
BODY = "[layer] c = Conv(x, w, b) p = GlobalAveragePool(c) y = Flatten(p)"
BEFORE = graph(SIGNATURE, BODY, w=KERNEL, b=floats(RNG, 4))
AFTER = graph(SIGNATURE, BODY.replace("c", "d", 1).replace("(c)", "(d)"), w=KERNEL, b=floats(RNG, 4))
LAYERS = [Twins("layer", "Conv", "c", "d", -3, 4), Twins("flat", "Gemm", "y", "y", -1, 4)]


def _data(folder: Path, batch: int, **inputs: Array) -> Dataset:
    np.savez(folder / "data.npz", allow_pickle=False, **(inputs or {"x": X}))
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch})
    return source.open(load(BEFORE, folder), "data", 0)


@pytest.mark.parametrize("batch", [1, 4, 10])
def test_the_shift_is_that_of_all_samples(tmp_path: Path, batch: int) -> None:
    models = load(BEFORE, tmp_path), load(AFTER, tmp_path)
    biases = [next(iter(i for i in p.graph.initializer if i.name == "b")) for p in (BEFORE, AFTER)]
    expected = np.subtract(*(np.frombuffer(b.raw_data, np.float32) for b in biases))
    found = collect_shifts(models, LAYERS, _data(tmp_path, batch), tmp_path, Silent(), 1)
    for moments in found:
        assert moments.shift() == pytest.approx(expected, abs=1e-5)
        assert moments.correlation() == pytest.approx(1, abs=1e-4)


def test_tensors_of_another_shape_are_not_compared(tmp_path: Path) -> None:
    wider = graph("float[N,3,6,6] x => float[N,4,8,8] d", "d = Conv<pads=[2,2,2,2]>(x, w)", w=KERNEL)
    models = load(BEFORE, tmp_path), load(wider, tmp_path)
    (found,) = collect_shifts(models, LAYERS[:1], _data(tmp_path, 5), tmp_path, Silent(), 1)
    assert found.correlation() == 0


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    models = load(BEFORE, tmp_path), load(AFTER, tmp_path)
    collect_shifts(models, LAYERS, _data(tmp_path, 5), tmp_path, Silent(), 1)
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", "model.onnx"}

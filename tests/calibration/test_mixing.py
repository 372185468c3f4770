"""Mixed channels: what is of low rank can go though every channel matters, and what stays wide is what it was."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource
from compressor.graph.model import Model
from compressor.passes import Context, PruneChannels
from compressor.progress import Silent
from compressor.report import Change
from tests.cli.calling import call, write_recipe
from tests.models import Floats, floats, graph, load, outputs, write

RNG = np.random.default_rng(12)
X = floats(RNG, 512, 10)
BODY = """[a] a = MatMul(x, wa) ra = Relu(a) [narrow] n = MatMul(ra, wn) m = Add(n, bn)
[b] b = MatMul(m, wb) rb = Relu(b) [out] y = MatMul(rb, wo)"""


def _thin(rows: int, columns: int, rank: int) -> Floats:
    """Dense, of low rank."""
    return (floats(RNG, rows, rank) @ floats(RNG, rank, columns) / rank**0.5 / rows**0.5).astype(np.float32)


def _network(reading: Floats, **arrays: Floats) -> onnx.ModelProto:
    given = {"wa": floats(RNG, 10, 24), "wn": floats(RNG, 24, 16) / 5, "bn": floats(RNG, 16), "wb": reading}
    given |= {"wo": floats(RNG, 24, 5), **arrays}
    return graph("float[N,10] x => float[N,5] y", BODY, **given)


def _pruned(proto: onnx.ModelProto, folder: Path, **fields: object) -> tuple[Model, float, list[Change]]:
    model = load(proto, folder)
    np.savez(folder / "data.npz", allow_pickle=False, x=X)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 32}).open(model, "data", 0)
    settings = {"sparsity": 0.5, "round_to": 1, "targets": "narrow", **fields}
    exact = outputs(model, {"x": X}, folder)["y"]
    step = PruneChannels.model_validate(settings)
    found = list(step.apply(model, Context(model.copy(), data, 0, folder, Silent(), 1)))
    y = outputs(model, {"x": X}, folder)["y"]
    error = float(np.square(y - exact).sum() / np.square(exact).sum())
    return model, error, [change for change in found if isinstance(change, Change)]


def test_channels_of_low_rank_go_though_every_one_is_read(tmp_path: Path) -> None:
    proto = _network(_thin(16, 24, 7))
    _, mixed, changes = _pruned(proto, tmp_path)
    _, apart, others = _pruned(proto, tmp_path, mix=False)
    assert mixed < 1e-3 < 0.1 * apart
    assert [change.widths for change in changes] == [change.widths for change in others] == [(16, 8)]
    assert "mixed first" in changes[0].detail
    assert "mixed" not in others[0].detail
    assert changes[0].mixed
    assert not others[0].mixed


def test_groups_that_stay_wide_keep_their_weights(tmp_path: Path) -> None:
    second = floats(RNG, 24, 16)
    second[0] = 0  # nothing reads the first unit, so that this one goes
    proto = _network(floats(RNG, 16, 24), wn=second)
    before = load(proto, tmp_path)
    model, _, changes = _pruned(proto, tmp_path, targets=["a", "narrow"], sparsity=0.02, repair=False)
    assert [change.weight for change in changes] == ["a"]
    kept = {weight.name: weight.matrix() for weight in model.weights()}
    read = {weight.name: weight.matrix() for weight in before.weights()}
    np.testing.assert_array_equal(kept["b"], read["b"])


def test_single_weights_that_were_pruned_are_not_mixed(tmp_path: Path) -> None:
    reading = _thin(16, 24, 7)
    reading[RNG.random(reading.shape) < 0.5] = 0
    _, _, changes = _pruned(_network(reading), tmp_path)
    assert "mixed" not in changes[0].detail


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_other_importances(importance: str, tmp_path: Path) -> None:
    if importance == "taylor":
        pytest.importorskip("torch")
    _, error, changes = _pruned(_network(_thin(16, 24, 7)), tmp_path, importance=importance)
    assert ("mixed first" in changes[0].detail) == (importance == "taylor")
    assert error < 1e-2 or importance == "magnitude"


def test_the_report_says_which_groups_are_mixed(tmp_path: Path) -> None:
    write(_network(_thin(16, 24, 7)), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=X)
    step = {"type": "prune_channels", "sparsity": 0.5, "targets": "narrow", "round_to": 1}
    data = {"calibration": {"source": "arrays", "path": "data.npz"}}
    write_recipe(tmp_path, passes=[step], data=data)
    done = call(tmp_path, "run", "recipe.yaml")
    assert done.code == 0
    assert "16 → 8 mixed" in done.out

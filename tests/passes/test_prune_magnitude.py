"""prune_magnitude: exactly the smallest weights become zero, and the report counts them right."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli import tiny
from tests.cli.calling import Values, refused, write_recipe
from tests.models import floats, graph, write
from tests.passes.findings import entries, passed

WEIGHTS = {"first": "w1", "second": "w2"}


def _pair(folder: Path) -> tuple[dict[str, tiny.Array], dict[str, tiny.Array]]:
    """Weights before and after by layer."""
    before, after = (tiny.arrays_of(folder / name) for name in ("model.onnx", "out.onnx"))
    return {n: before[w] for n, w in WEIGHTS.items()}, {n: after[w] for n, w in WEIGHTS.items()}


def _run(folder: Path, **fields: object) -> Values:
    tiny.mlp(folder / "model.onnx")
    return passed(folder, {"type": "prune_magnitude", **fields}, verify={"cosine": -1})


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_every_layer_gets_exactly_the_sparsity_asked_for(tmp_path: Path, sparsity: float) -> None:
    _run(tmp_path, sparsity=sparsity)
    for array in _pair(tmp_path)[1].values():
        assert np.count_nonzero(array == 0) == sparsity * array.size


def test_half_of_the_weights_go_when_nothing_is_said(tmp_path: Path) -> None:
    _run(tmp_path)
    assert all(np.count_nonzero(array) == array.size / 2 for array in _pair(tmp_path)[1].values())


def test_globally_the_sparsity_holds_over_all_layers_together(tmp_path: Path) -> None:
    _run(tmp_path, sparsity=0.5, scope="global")
    before, after = (np.concatenate([a.ravel() for a in arrays.values()]) for arrays in _pair(tmp_path))
    assert np.count_nonzero(after == 0) == 0.5 * before.size
    assert np.abs(before[after == 0]).max() < np.abs(before[after != 0]).min()


def test_a_threshold_cuts_what_is_smaller(tmp_path: Path) -> None:
    _run(tmp_path, threshold=0.5)
    before, after = _pair(tmp_path)
    for name, array in before.items():
        assert np.array_equal(after[name], np.where(np.abs(array) < 0.5, 0, array))


def test_kept_weights_keep_every_bit_and_are_the_largest(tmp_path: Path) -> None:
    _run(tmp_path, sparsity=0.5)
    before, after = _pair(tmp_path)
    for name, array in before.items():
        kept = after[name] != 0
        assert np.array_equal(array[kept], after[name][kept])
        assert np.abs(array[~kept]).max() < np.abs(array[kept]).min()


def test_the_report_counts_zeros_and_errors_as_they_are_in_the_file(tmp_path: Path) -> None:
    report = _run(tmp_path, sparsity=0.75)
    before, after = _pair(tmp_path)
    for name, change in entries(report, "changes").items():
        assert change["zeros"] == np.mean(after[name] == 0)
        expected = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        assert change["relative_error"] == pytest.approx(expected, rel=1e-5)
    assert isinstance(result := report["result"], dict)
    assert result["zeros"] == sum(np.count_nonzero(a == 0) for a in after.values())


def test_zeros_save_nothing_in_the_file_but_do_when_it_is_deflated(tmp_path: Path) -> None:
    report = _run(tmp_path, sparsity=0.75)
    reference, result = report["reference"], report["result"]
    assert isinstance(reference, dict)
    assert isinstance(result, dict)
    assert result["parameters"] == reference["parameters"]
    change = entries(report, "changes")["first"]
    assert change["bytes_before"] == change["bytes_after"] == 16 * 8 * 4


def test_a_layer_below_whose_threshold_there_is_nothing_is_skipped(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    arrays = tiny.arrays_of(tmp_path / "model.onnx")
    least = {name: float(np.abs(arrays[weight]).min()) for name, weight in WEIGHTS.items()}
    threshold = sum(least.values()) / 2
    report = passed(tmp_path, {"type": "prune_magnitude", "threshold": threshold}, verify={"cosine": -1})
    assert set(entries(report, "changes")) == {n for n, value in least.items() if value < threshold}
    assert set(entries(report, "skips")) == {n for n, value in least.items() if value >= threshold}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sparsity": 0.5, "threshold": 0.5}, "sparsity or threshold, not both"),
        ({"threshold": 0.5, "scope": "global"}, "scope"),
        ({"sparsity": 0}, "greater than 0"),
        ({"sparsity": 1}, "less than 1"),
        ({"threshold": -1}, "greater than 0"),
        ({"scope": "galaxy"}, "'layer' or 'global'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, fields: Values, says: str) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[{"type": "prune_magnitude", **fields}])
    refused(tmp_path, 2, "check", recipe, says=("passes.0", says))


def test_of_weights_at_the_common_magnitude_as_many_go_as_are_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: np.rint(2 * floats(rng, 16, 16)) / 2 for name in ("w1", "w2")}
    body = "[one] a = MatMul(x, w1)  [two] y = MatMul(a, w2)"
    write(graph("float[N,16] x => float[N,16] y", body, **arrays), tmp_path / "model.onnx")
    step = {"type": "prune_magnitude", "sparsity": 0.5, "scope": "global"}
    passed(tmp_path, step, verify={"cosine": -1})
    after = tiny.arrays_of(tmp_path / "out.onnx")
    assert sum(np.count_nonzero(after[name] == 0) for name in arrays) == 256

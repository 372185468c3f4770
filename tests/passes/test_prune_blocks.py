"""prune_blocks: the blocks that are missed least go, as many as asked for, and the rest is repaired."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli import tiny
from tests.cli.calling import Values, refused, write_recipe
from tests.models import floats, graph, write
from tests.passes.findings import entries, passed, reasons

LOOSE = {"cosine": -1}
DATA = {"calibration": {"source": "arrays", "path": "x.npz", "inputs": {"x": "x"}, "samples": 96}}
SIZES = {"small": 0.02, "large": 1.0, "middle": 0.3}


def _network(folder: Path) -> None:
    """Three blocks that add much or little to what goes by."""
    rng = np.random.default_rng(0)
    body = """[small] a = MatMul(x, w1)  s = Add(x, a)  [large] b = MatMul(s, w2)  t = Add(s, b)
    [middle] c = MatMul(t, w3)  u = Add(t, c)  [head] y = MatMul(u, w4)"""
    sizes = enumerate(SIZES.values(), 1)
    arrays = {f"w{i}": floats(rng, 6, 6) * np.float32(size / 2) for i, size in sizes} | {"w4": floats(rng, 6, 3)}
    write(graph("float[N,6] x => float[N,3] y", body, **arrays), folder / "model.onnx")
    np.savez(folder / "x.npz", x=floats(rng, 128, 6))


def _run(folder: Path, **fields: object) -> Values:
    _network(folder)
    (folder / "out.onnx").unlink(missing_ok=True)
    return passed(folder, {"type": "prune_blocks", **fields}, data=DATA, verify=LOOSE)


@pytest.mark.parametrize(("count", "gone"), [(1, {"small"}), (2, {"small", "middle"})])
def test_the_blocks_that_are_missed_least_go(tmp_path: Path, count: int, gone: set[str]) -> None:
    report = _run(tmp_path, blocks=count, repair=False)
    assert set(entries(report, "changes")) == gone
    assert set(reasons(report)) == set(SIZES) - gone


def test_of_two_that_stand_in_for_each_other_one_stays(tmp_path: Path) -> None:
    """Either doubles what is cut off at 2 anyway; alone, neither is missed, and both together are most of all."""
    body = """[one] a = MatMul(x, double)  s = Add(x, a)  [two] b = MatMul(s, double2)  t = Add(s, b)
    [other] c = MatMul(t, little)  u = Add(t, c)  y = Clip(u, least, most)"""
    double, little = np.diag(np.float32([1, 0])), np.diag(np.float32([0, 0.05]))
    arrays = {"double": double, "double2": double.copy(), "little": little}
    limits = {"least": np.float32(0), "most": np.float32(2)}
    write(graph("float[N,2] x => float[N,2] y", body, **arrays, **limits), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).uniform(1, 1.5, (128, 2)).astype(np.float32))
    step = {"type": "prune_blocks", "blocks": 2, "repair": False}
    gone = entries(passed(tmp_path, step, data=DATA, verify=LOOSE), "changes")
    assert len(gone) == 2
    assert "other" in gone


def test_as_many_go_as_the_drift_allows(tmp_path: Path) -> None:
    assert set(entries(_run(tmp_path, drift=0.01, repair=False), "changes")) == {"small"}


def test_repair_brings_the_outputs_back(tmp_path: Path) -> None:
    found = [_run(tmp_path, blocks=2, repair=repair)["fidelity"]["outputs"][0]["sqnr_db"] for repair in (True, False)]  # type: ignore[index, call-overload]
    assert found[0] > found[1] + 20  # what is left of a chain of linear layers is linear


def test_ignored_blocks_stay(tmp_path: Path) -> None:
    assert set(entries(_run(tmp_path, blocks=1, repair=False, ignore=["small"]), "changes")) == {"middle"}


def test_a_model_without_blocks_is_refused(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    recipe = write_recipe(
        tmp_path, passes=[{"type": "prune_blocks", "blocks": 1}], data={"calibration": {"source": "random"}}
    )
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "prune_blocks"))


@pytest.mark.parametrize("fields", [{}, {"blocks": 1, "drift": 0.1}, {"blocks": 0}], ids=str)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, fields: Values) -> None:
    recipe = write_recipe(tmp_path, passes=[{"type": "prune_blocks", **fields}], data=DATA)
    refused(tmp_path, 2, "check", recipe, says=("passes.0", "blocks"))


def test_fewer_blocks_than_asked_for_are_said(tmp_path: Path) -> None:
    report = _run(tmp_path, blocks=5, repair=False)
    assert set(entries(report, "changes")) == set(SIZES)
    assert "prune_blocks: 3 of 5 blocks are removed: no others are left" in report["notes"]

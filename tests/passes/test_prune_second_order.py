"""prune_second_order: zeros where they are asked for, outputs nearer than by magnitude, and reasons for the rest."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli import tiny
from tests.cli.calling import Values, refused, write_recipe
from tests.models import floats, graph, write
from tests.passes.findings import entries, passed, reasons

LOOSE = {"cosine": -1}
DATA = {"calibration": {"source": "arrays", "path": "x.npz", "inputs": {"x": "x"}, "samples": 96}}


def _network(folder: Path) -> None:
    """Two layers that read correlated inputs."""
    rng = np.random.default_rng(0)
    body = "[one] a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  [two] y = Gemm<transB=1>(r, w2, b2)"
    arrays = {"w1": floats(rng, 16, 12), "b1": floats(rng, 16), "w2": floats(rng, 4, 16), "b2": floats(rng, 4)}
    write(graph("float[N,12] x => float[N,4] y", body, **arrays), folder / "model.onnx")
    np.savez(folder / "x.npz", x=floats(rng, 128, 6) @ floats(rng, 6, 12))


def _run(folder: Path, **fields: object) -> Values:
    _network(folder)
    return passed(folder, {"type": "prune_second_order", **fields}, data=DATA, verify=LOOSE)


def _sqnr(report: Values) -> float:
    return float(report["fidelity"]["outputs"][0]["sqnr_db"])  # type: ignore[index, call-overload]


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_every_layer_gets_the_sparsity_asked_for(tmp_path: Path, sparsity: float) -> None:
    report = _run(tmp_path, sparsity=sparsity)
    arrays = tiny.arrays_of(tmp_path / "out.onnx")
    for name in ("w1", "w2"):
        assert np.count_nonzero(arrays[name] == 0) == sparsity * arrays[name].size
    assert all("output error" in str(entry["detail"]) for entry in entries(report, "changes").values())


def test_two_of_every_four_inputs_are_kept(tmp_path: Path) -> None:
    _run(tmp_path, pattern="2:4")
    for name in ("w1", "w2"):
        groups = tiny.arrays_of(tmp_path / "out.onnx")[name].reshape(-1, 4)
        assert (np.count_nonzero(groups, axis=1) == 2).all()


def test_outputs_stay_nearer_than_with_magnitudes(tmp_path: Path) -> None:
    second = _sqnr(_run(tmp_path, sparsity=0.5))
    (tmp_path / "out.onnx").unlink()
    step: Values = {"type": "prune_magnitude", "sparsity": 0.5}
    assert second > _sqnr(passed(tmp_path, step, data=DATA, verify=LOOSE)) + 3


def test_activation_aware_moves_no_weight_that_it_keeps(tmp_path: Path) -> None:
    _run(tmp_path, sparsity=0.5, importance="activation_aware")
    before, after = (tiny.arrays_of(tmp_path / name)["w1"] for name in ("model.onnx", "out.onnx"))
    assert np.array_equal(after[after != 0], before[after != 0])


def test_layers_whose_inputs_cannot_be_seen_are_named(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    step: Values = {"type": "prune_second_order"}
    report = passed(tmp_path, step, data={"calibration": {"source": "random"}}, verify=LOOSE)
    assert "prune_magnitude" in " ".join(reasons(report).values())
    found = entries(report, "changes") | entries(report, "skips")
    assert {name: entry["layer"] for name, entry in found.items()} == tiny.MIXED


def test_a_layer_whose_inputs_do_not_divide_is_left_with_the_numbers(tmp_path: Path) -> None:
    assert reasons(_run(tmp_path, pattern="2:8")) == {"one": "12 inputs are not a multiple of 8"}


def test_without_data_it_is_refused_by_check(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, passes=[{"type": "prune_second_order"}])
    refused(tmp_path, 2, "check", recipe, says=("passes.0", "data.calibration"))


@pytest.mark.parametrize("step", ["prune_second_order", "prune_magnitude"])
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"pattern": "2:4", "sparsity": 0.5}, "leave sparsity and block out"),
        ({"pattern": "4:2"}, '"2:4"'),
        ({"pattern": "half"}, '"half" is no pattern'),
        ({"block": [1, 1]}, "[rows, columns]"),
        ({"block": [0, 4]}, "[rows, columns]"),
    ],
    ids=str,
)
def test_patterns_that_make_no_sense_are_refused(tmp_path: Path, step: str, fields: Values, says: str) -> None:
    recipe = write_recipe(tmp_path, passes=[{"type": step, **fields}], data=DATA)
    refused(tmp_path, 2, "check", recipe, says=("passes.0", says))


@pytest.mark.parametrize("second", ["prune_magnitude", "prune_second_order"])
def test_what_was_zero_stays_zero_when_more_goes_later(tmp_path: Path, second: str) -> None:
    _network(tmp_path)
    first: Values = {"type": "prune_magnitude", "sparsity": 0.25}
    passed(tmp_path, first, data=DATA, verify=LOOSE)
    early = {name: tiny.arrays_of(tmp_path / "out.onnx")[name] == 0 for name in ("w1", "w2")}
    (tmp_path / "out.onnx").unlink()
    passed(tmp_path, first, {"type": "simplify"}, {"type": second, "sparsity": 0.5}, data=DATA, verify=LOOSE)
    for name, zero in early.items():
        late = tiny.arrays_of(tmp_path / "out.onnx")[name] == 0
        assert np.count_nonzero(late) == 0.5 * late.size
        assert second == "prune_second_order" or late[zero].all()


def test_blocks_go_as_a_whole(tmp_path: Path) -> None:
    _network(tmp_path)
    passed(tmp_path, {"type": "prune_magnitude", "sparsity": 0.5, "block": [4, 2]}, data=DATA, verify=LOOSE)
    zero = tiny.arrays_of(tmp_path / "out.onnx")["w1"] == 0
    blocks = zero.reshape(4, 4, 6, 2).swapaxes(1, 2).reshape(24, 8)
    assert sorted(blocks.sum(axis=1).tolist()) == [0] * 12 + [8] * 12


@pytest.mark.parametrize("kind", ["prune_magnitude", "prune_second_order"])
def test_blocks_begin_at_multiples_of_their_size_however_long_the_rows_are(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    proto = graph("float[N,192] x => float[N,8] y", "[one] y = MatMul(x, w1)", w1=floats(rng, 192, 8))
    write(proto, tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=floats(rng, 256, 192))
    passed(tmp_path, {"type": kind, "sparsity": 0.5, "block": [1, 48]}, data=DATA, verify=LOOSE)
    zeros = (tiny.arrays_of(tmp_path / "out.onnx")["w1"] == 0).T.reshape(8, 4, 48).sum(axis=2)
    assert set(zeros.ravel().tolist()) == {0, 48}

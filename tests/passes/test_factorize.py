"""factorize: what pays is written, what does not stays to the byte, budgets are kept, data makes it better."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import ArraysSource
from compressor.graph.model import Model
from compressor.graph.reading import initializers
from compressor.passes import Context, Factorize
from compressor.progress import Silent
from compressor.report import Change, Finding, Skip
from compressor.runtime.macs import count_macs
from tests.cli import tiny
from tests.cli.calling import Values, call, refused, write_recipe
from tests.models import Array, Floats, floats, graph, load, outputs
from tests.passes.findings import entries, passed, reasons

RNG = np.random.default_rng(8)


def _thin(rows: int, columns: int, rank: int, noise: float = 0.05) -> Floats:
    """A matrix near one of low rank."""
    made = floats(RNG, rows, rank) @ floats(RNG, rank, columns) / rank**0.5 + noise * floats(RNG, rows, columns)
    return (made / columns**0.5).astype(np.float32)


def _network(folder: Path) -> Model:
    """Two layers of low rank, one of full rank, and a small head."""
    body = """[one] a = Gemm<transB=1>(x, w1, b1) r = Relu(a) [two] b = MatMul(r, w2) s = Relu(b)
    [full] c = MatMul(s, w3) t = Relu(c) [head] y = Gemm<transB=1>(t, w4)"""
    arrays = {"w1": _thin(64, 48, 6), "b1": floats(RNG, 64) / 5, "w2": _thin(64, 64, 8), "w4": floats(RNG, 5, 64) / 8}
    full = (np.linalg.qr(floats(RNG, 64, 64))[0]).astype(np.float32)
    return load(graph("float[N,48] x => float[N,5] y", body, **arrays, w3=full), folder)


X = floats(RNG, 512, 48)


def _context(model: Model, folder: Path, x: Array = X) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 32}).open(model, "data", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1)


def _factorized(folder: Path, **fields: object) -> tuple[Model, Context, list[Finding]]:
    model = _network(folder)
    context = _context(model, folder)
    step = Factorize.model_validate({"type": "factorize", **fields})
    return model, context, [found for found in step.apply(model, context) if isinstance(found, Change | Skip)]


def _error(model: Model, context: Context, folder: Path) -> float:
    x = floats(np.random.default_rng(9), 256, 48)
    exact, found = (outputs(m, {"x": x}, folder)["y"] for m in (context.reference, model))
    return float(np.square(found - exact).sum() / np.square(exact - exact.mean(0)).sum())


def test_layers_of_low_rank_become_two_and_the_others_stay(tmp_path: Path) -> None:
    model, context, found = _factorized(tmp_path, energy=0.97, whiten=False)
    changed = {finding.weight for finding in found if isinstance(finding, Change)}
    assert changed == {"one", "two"}
    assert _error(model, context, tmp_path) < 0.05


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_the_multiply_accumulates_asked_for_are_left(share: float, tmp_path: Path) -> None:
    model, context, _ = _factorized(tmp_path, macs=share)
    before, after = (sum(count_macs(m, context.feeds(), tmp_path).values()) for m in (context.reference, model))
    assert 0.8 * share * before < after <= share * before


def test_the_parameters_asked_for_are_left(tmp_path: Path) -> None:
    model, context, _ = _factorized(tmp_path, parameters=0.7)
    before, after = (sum(weight.size for weight in m.weights()) for m in (context.reference, model))
    assert 0.5 * before < after <= 0.7 * before


def test_the_drift_allowed_is_not_passed(tmp_path: Path) -> None:
    model, context, found = _factorized(tmp_path, drift=0.01, repair=False)
    assert any(isinstance(finding, Change) for finding in found)
    assert context.judge.drift(model) < 0.02


@pytest.mark.parametrize("fields", [{"rank": 6}, {"ratio": 0.4}], ids=str)
def test_every_layer_keeps_what_it_is_told_to(fields: dict[str, float], tmp_path: Path) -> None:
    model, context, _ = _factorized(tmp_path, **fields)
    sizes = {weight.name: weight.shape for weight in model.weights()}
    assert "rank" not in fields or sizes["one_first"] == (48, 6)
    kept = sum(weight.size for weight in model.weights() if weight.name in ("one", "one_first"))
    assert "ratio" not in fields or kept <= 0.4 * 64 * 48
    assert context.reference.ir is not model.ir


def test_data_that_hardly_varies_in_most_directions_makes_it_better(tmp_path: Path) -> None:
    x = (floats(RNG, 512, 6) @ floats(RNG, 6, 48) + 0.1 * floats(RNG, 512, 48)).astype(np.float32)
    errors = {}
    for whiten in (True, False):
        weight = floats(np.random.default_rng(1), 48, 32)
        model = load(graph("float[N,48] x => float[N,32] y", "[one] y = MatMul(x, w)", w=weight), tmp_path)
        context = _context(model, tmp_path, x)
        list(Factorize(rank=6, whiten=whiten, repair=False).apply(model, context))
        exact, found = (outputs(m, {"x": x}, tmp_path)["y"] for m in (context.reference, model))
        errors[whiten] = np.square(found - exact).sum() / np.square(exact).sum()
    assert errors[True] < 0.1 * errors[False]


def test_fitting_the_last_factors_serves_samples_that_were_not_seen(tmp_path: Path) -> None:
    found = {}
    for repair in (True, False):
        model, context, _ = _factorized(tmp_path, rank=4, repair=repair)
        found[repair] = _error(model, context, tmp_path)
    assert found[True] < found[False]


def test_where_nothing_pays_the_arrays_stay_as_they_are(tmp_path: Path) -> None:
    model, context, found = _factorized(tmp_path, energy=0.999999)
    assert not any(isinstance(finding, Change) for finding in found)
    before, after = (
        {value.name: value.const_value.tobytes() for value in initializers(m.ir) if value.const_value}
        for m in (context.reference, model)
    )
    assert after == before


def test_a_run_reports_what_became_of_every_layer(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=tiny.normal(64, 3, 8, 8, seed=5))
    data: Values = {"calibration": {"source": "arrays", "path": "data.npz"}}
    step: Values = {"type": "factorize", "energy": 0.5, "round_to": 1}
    report = passed(tmp_path, step, data=data, verify={"cosine": -1})
    told = {**reasons(report), **{name: entry["detail"] for name, entry in entries(report, "changes").items()}}
    assert told.keys() == {"stem", "body", "head"}
    assert all("rank" in str(said) for said in told.values())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give one of macs, parameters"),
        ({"macs": 0.5, "rank": 3}, "give one of macs, parameters"),
        ({"macs": 1.5}, "macs"),
        ({"energy": 0.9, "method": "cp2"}, "method"),
    ],
    ids=["nothing", "two", "too much", "method"],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(fields: Values, said: str, tmp_path: Path) -> None:
    _network(tmp_path)
    recipe = write_recipe(tmp_path, passes=[{"type": "factorize", **fields}])
    assert len(refused(tmp_path, 2, "run", recipe, says=(said,))) == 1


def test_inspect_shows_what_a_low_rank_would_keep(tmp_path: Path) -> None:
    _network(tmp_path)
    found = call(tmp_path, "inspect", "model.onnx", "--spectrum", "--json", "-").record()["spectrum"]
    assert isinstance(found, list)
    shown = {entry["name"]: entry for entry in found}
    assert shown["full"]["kept"] == pytest.approx([0.25, 0.5, 0.75], abs=1e-3)
    assert shown["one"]["kept"][0] > 0.9
    assert shown["one"]["even"] == 64 * 48 // (64 + 48)
    assert "pays below" in call(tmp_path, "inspect", "model.onnx", "--spectrum").out


def test_a_table_saves_no_multiply_accumulates(tmp_path: Path) -> None:
    body = "[table] e = Gather(t, x) [one] a = MatMul(e, w1) r = Relu(a) [two] y = MatMul(r, w2)"
    arrays = {"t": _thin(200, 48, 6, 0), "w1": _thin(48, 64, 6), "w2": _thin(64, 48, 6)}
    model = load(graph("int64[N,T] x => float[N,T,48] y", body, **arrays), tmp_path)
    context = _context(model, tmp_path, RNG.integers(0, 200, (256, 5)))
    found = list(Factorize(macs=0.6).apply(model, context))
    before, after = (sum(count_macs(m, context.feeds(), tmp_path).values()) for m in (context.reference, model))
    assert 0.4 * before < after <= 0.6 * before
    assert "table" in {finding.weight for finding in found if isinstance(finding, Skip)}

"""factorize on weights that several layers read, on groups, tables, scaled products, and on very little data."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import ArraysSource
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.numerics.low_rank import whitening
from compressor.passes import Context, Factorize
from compressor.progress import Silent
from compressor.report import Change, Finding, Skip
from compressor.runtime.macs import count_macs
from tests.models import Array, Floats, floats, graph, load, outputs

RNG = np.random.default_rng(3)


def _thin(rows: int, columns: int, rank: int, noise: float = 0.03) -> Floats:
    made = floats(RNG, rows, rank) @ floats(RNG, rank, columns) / rank**0.5 + noise * floats(RNG, rows, columns)
    return (made / rows**0.5).astype(np.float32)


def _context(model: Model, folder: Path, **arrays: Array) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, **arrays)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 16}).open(model, "data", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1)


def _found(model: Model, context: Context, **fields: object) -> list[Finding]:
    step = Factorize.model_validate({"type": "factorize", **fields})
    return [found for found in step.apply(model, context) if isinstance(found, Change | Skip)]


def _macs(model: Model, context: Context) -> int:
    return sum(count_macs(model, context.feeds(), context.scratch).values())


def _lost(model: Model, context: Context, x: Array) -> float:
    exact, found = (outputs(m, {"x": x}, context.scratch)["y"] for m in (context.reference, model))
    return float(np.square(found - exact).sum() / np.square(exact).sum())


@pytest.mark.parametrize("seed", range(3))
def test_fewer_samples_than_inputs_are_no_licence(tmp_path: Path, seed: int) -> None:
    """What 32 samples do not show counts for a little: no error is below zero, none is taken for nothing."""
    rng = np.random.default_rng(seed)
    model = load(graph("float[N,256] x => float[N,256] y", "[one] y = MatMul(x, w)", w=floats(rng, 256, 256)), tmp_path)
    (change,) = _found(model, _context(model, tmp_path, x=floats(rng, 32, 256)), ratio=0.6, repair=False)
    assert isinstance(change, Change)
    assert isinstance(change.relative_error, float)
    assert change.relative_error >= 0
    assert "rank 7" in change.detail  # the largest within the ratio is 76, and looked at are every few


def test_directions_that_float32_sums_miss_do_not_end_it() -> None:
    rows = floats(RNG, 64, 4) * 1000
    twins = np.concatenate([rows, rows * np.float32(1.0001), floats(RNG, 64, 56)], 1)
    moments = (twins.T @ twins).astype(np.float64)[None]
    moments[0, :4, 4:8] *= 1.001  # as an error of the sums
    moments[0, 4:8, :4] *= 1.001
    root = whitening(moments)
    assert np.isfinite(root).all()


def test_tables_and_what_follows_them_are_repaired_together(tmp_path: Path) -> None:
    body = " ".join(f"[t{i}] e{i} = Gather(w{i}, x{i})" for i in range(4))
    body += " a = Add(e0, e1) b = Add(e2, e3) c = Add(a, b) [head] y = MatMul(c, v)"
    signature = ", ".join(f"int64[N] x{i}" for i in range(4)) + " => float[N,4] y"
    arrays = {f"w{i}": _thin(40, 24, 5) for i in range(4)} | {"v": floats(RNG, 24, 4)}
    model = load(graph(signature, body, **arrays), tmp_path)
    context = _context(model, tmp_path, **{f"x{i}": RNG.integers(0, 40, 64) for i in range(4)})
    assert sum(isinstance(found, Change) for found in _found(model, context, rank=6, ignore=["head"])) == 4
    model.save(tmp_path / "out.onnx")


def test_a_table_of_matrices_stays(tmp_path: Path) -> None:
    proto = graph("int64[N] x => float[N,6,8] y", "[one] y = Gather(w, x)", w=floats(RNG, 40, 6, 8))
    model = load(proto, tmp_path)
    (skip,) = _found(model, _context(model, tmp_path, x=RNG.integers(0, 40, 32)), energy=0.9)
    assert isinstance(skip, Skip)
    assert "has 3 axes" in skip.reason


def test_a_scaled_product_is_not_repaired_by_what_is_not_scaled(tmp_path: Path) -> None:
    body, weight, x = "[one] y = Gemm<alpha=4.0>(x, w)", floats(RNG, 48, 64), floats(RNG, 256, 48)
    errors = []
    for repair in (False, True):
        model = load(graph("float[N,48] x => float[N,64] y", body, w=weight), tmp_path)
        context = _context(model, tmp_path, x=x)
        _found(model, context, rank=6, whiten=False, repair=repair)
        errors.append(_lost(model, context, x))
    assert errors[1] <= errors[0] * 1.001


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_a_weight_that_three_layers_read_counts_three_times(tmp_path: Path, share: float) -> None:
    body = "[a] p = MatMul(x, w) q = Relu(p) [b] r = MatMul(q, w) s = Relu(r) [c] y = MatMul(s, w)"
    model = load(graph("float[N,48] x => float[N,48] y", body, w=_thin(48, 48, 8, 0.1)), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 128, 48))
    _found(model, context, macs=share)
    left = _macs(model, context) / _macs(context.reference, context)
    assert 0.75 * share < left <= share


def test_layers_of_different_groups_do_not_share_factors(tmp_path: Path) -> None:
    body = """[a] p = Conv<group=1>(x, w) [b] q = Conv<group=2>(z, w) y = Add(p, q)"""
    signature = "float[N,16,4,4] x, float[N,32,4,4] z => float[N,32,4,4] y"
    model = load(graph(signature, body, w=floats(RNG, 32, 16, 1, 1)), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 32, 16, 4, 4), z=floats(RNG, 32, 32, 4, 4))
    (skip,) = _found(model, context, energy=0.5)
    assert isinstance(skip, Skip)


def test_a_rank_is_that_of_all_groups_together(tmp_path: Path) -> None:
    proto = graph(
        "float[N,64,6,6] x => float[N,64,4,4] y", "[one] y = Conv<group=4>(x, w)", w=floats(RNG, 64, 16, 3, 3)
    )
    model = load(proto, tmp_path)
    (change,) = _found(model, _context(model, tmp_path, x=floats(RNG, 32, 64, 6, 6)), rank=8)
    assert isinstance(change, Change)
    assert "rank 8" in change.detail


def test_what_is_not_finite_stays(tmp_path: Path) -> None:
    table = floats(RNG, 40, 16)
    table[3, 3] = -np.inf
    model = load(graph("int64[N] x => float[N,16] y", "[one] y = Gather(w, x)", w=table), tmp_path)
    (skip,) = _found(model, _context(model, tmp_path, x=RNG.integers(4, 40, 32)), energy=0.9)
    assert isinstance(skip, Skip)
    assert "not finite" in skip.reason


def test_parameters_are_those_of_all_that_is_selected(tmp_path: Path) -> None:
    """The left one cannot be factorized, so that the right one has to give what both are to lose."""
    body = "[right] p = MatMul(x, w) q = Transpose<perm=[1,0]>(p) [left] r = MatMul(v, q) y = Transpose<perm=[1,0]>(r)"
    arrays = {"w": _thin(48, 48, 6), "v": floats(RNG, 48, 48)}
    model = load(graph("float[N,48] x => float[N,48] y", body, **arrays), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 128, 48))
    _found(model, context, parameters=0.7)
    before, after = (sum(weight.size for weight in m.weights()) for m in (context.reference, model))
    assert after <= 0.7 * before
    with pytest.raises(PassError, match=r"parameters: 0.30 is not reached: at the lowest ranks 0.\d\d is left"):
        _found(context.reference.copy(), context, parameters=0.3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rank": 40}, "rank 40 saves nothing; up to 27 would"),
        ({"rank": 4, "round_to": 64}, None),
        ({"ratio": 0.5, "round_to": 64}, "no multiple of round_to saves anything; ranks up to 27 would"),
    ],
    ids=str,
)
def test_a_rank_that_saves_nothing_says_which_would(tmp_path: Path, fields: dict[str, float], says: str | None) -> None:
    model = load(graph("float[N,48] x => float[N,64] y", "[one] y = MatMul(x, w)", w=_thin(48, 64, 4)), tmp_path)
    (found,) = _found(model, _context(model, tmp_path, x=floats(RNG, 64, 48)), **fields)
    assert isinstance(found, Skip) == (says is not None)
    assert not isinstance(found, Skip) or found.reason == says


def test_a_form_that_a_kernel_does_not_have_is_named(tmp_path: Path) -> None:
    proto = graph("float[N,64,4,4] x => float[N,64,4,4] y", "[one] y = Conv(x, w)", w=floats(RNG, 64, 64, 1, 1))
    model = load(proto, tmp_path)
    (skip,) = _found(model, _context(model, tmp_path, x=floats(RNG, 32, 64, 4, 4)), method="cp", rank=70)
    assert isinstance(skip, Skip)
    assert "has no form cp" in skip.reason

"""smooth: outliers of activations moved into the weights that read them, where that lowers the error."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource
from compressor.errors import PassError
from compressor.graph.kernels import count_kernels
from compressor.graph.model import Model
from compressor.passes import Context, QuantizeDynamic, Smooth
from compressor.progress import Silent
from compressor.report import Change, Finding, Skip
from compressor.runtime.ort import Session
from tests.cli import tiny
from tests.models import Array, decibels, floats, graph, load, outputs, run
from tests.passes.findings import entries, passed

RNG = np.random.default_rng(4)
X = floats(RNG, 40, 6, 16)
OUTLIERS = np.ones(16, np.float32)
OUTLIERS[[3, 11]] = 100
SIGNATURE = "float[N,6,16] x => float[N,6,8] y"
QKV = {name: floats(RNG, 16, 8) for name in ("q", "k", "v")}
THREE = "[a] s = MatMul(h, q) [b] t = MatMul(h, k) [c] u = MatMul(h, v) st = Mul(s, t) y = Add(st, u)"


def _normalized(readers: str = THREE) -> onnx.ModelProto:
    """LayerNormalization with two outlier channels, read by `readers`."""
    body = f"[norm] h = LayerNormalization<axis=-1>(x, gain, shift) {readers}"
    return graph(SIGNATURE, body, gain=OUTLIERS, shift=floats(RNG, 16), **QKV)


def _behind(activation: str) -> onnx.ModelProto:
    """An activation with outliers, which nothing in front of it can take up."""
    return graph(SIGNATURE, f"o = Mul(x, gain) h = {activation} {THREE}", gain=OUTLIERS, **QKV)


def _context(model: Model, folder: Path) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=X)
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 8})
    return Context(model.copy(), source.open(model, "data", 0), 0, folder, Silent(), 1)


def _apply(model: Model, folder: Path, **settings: object) -> dict[str, Finding]:
    step = Smooth.model_validate({"type": "smooth", **settings})
    return {finding.weight: finding for finding in step.apply(model, _context(model, folder))}


def _unseen() -> dict[str, Array]:
    return {"x": floats(np.random.default_rng(99), 20, 6, 16)}


def _same(proto: onnx.ModelProto, model: Model, folder: Path) -> None:
    found = outputs(model, _unseen(), folder)["y"]
    assert decibels(run(proto, _unseen())["y"], found) > 90


def _quantized(proto: onnx.ModelProto, folder: Path, smooth: bool) -> float:
    """Signal-to-noise ratio on unseen data of int8 ranged at run time."""
    model = load(proto, folder)
    if smooth:
        _apply(model, folder)
    list(QuantizeDynamic().apply(model, _context(model, folder)))
    return decibels(run(proto, _unseen())["y"], outputs(model, _unseen(), folder)["y"])


PLACES = {
    "a normalization": (_normalized(), "norm", 0),
    "a multiplication": (_behind("Gelu(o)"), None, 1),
}


@pytest.mark.parametrize("case", PLACES)
def test_int8_loses_far_less_and_float_nothing(tmp_path: Path, case: str) -> None:
    proto, maker, extra = PLACES[case]
    model = load(proto, tmp_path)
    nodes = model.node_counts().total()
    findings = _apply(model, tmp_path)
    place = f"divided in {maker}" if maker else "multiplied in front"
    assert all(isinstance(f, Change) and place in f.detail for f in findings.values())
    assert model.node_counts().total() == nodes + extra
    _same(proto, model, tmp_path)
    assert _quantized(proto, tmp_path, smooth=True) > _quantized(proto, tmp_path, smooth=False) + 6


def test_readers_of_one_tensor_share_one_scale(tmp_path: Path) -> None:
    model = load(_normalized(), tmp_path)
    before = {w.name: w.matrix().copy() for w in model.weights()}
    _apply(model, tmp_path)
    ratios = [w.matrix() / before[w.name] for w in model.weights()]
    for ratio in ratios:
        assert ratio == pytest.approx(np.broadcast_to(ratios[0][:1], ratio.shape), rel=1e-5)


def test_a_linear_layer_in_front_takes_up_the_division(tmp_path: Path) -> None:
    wide = floats(RNG, 16, 16) * OUTLIERS
    body = "[first] a = MatMul(x, w) c = Add(a, b) h = Relu(c) [last] y = MatMul(h, v)"
    proto = graph(SIGNATURE, body, w=wide, b=floats(RNG, 16), v=QKV["v"])
    model = load(proto, tmp_path)
    last = _apply(model, tmp_path)["last"]
    assert isinstance(last, Change)
    assert "divided in first" in last.detail
    assert model.node_counts()["Mul"] == 0
    _same(proto, model, tmp_path)


def test_a_tensor_with_another_reader_is_multiplied_in_front(tmp_path: Path) -> None:
    proto = _normalized("[a] s = MatMul(h, q) t = ReduceMean<keepdims=1>(h, last) y = Add(s, t)")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "last"))
    model = load(proto, tmp_path)
    finding = _apply(model, tmp_path)["a"]
    assert isinstance(finding, Change)
    assert "multiplied in front" in finding.detail
    _same(proto, model, tmp_path)


def test_without_explicit_such_layers_are_left_alone_with_the_reason(tmp_path: Path) -> None:
    findings = _apply(load(_behind("Gelu(o)"), tmp_path), tmp_path, explicit=False)
    assert all(isinstance(f, Skip) and "Gelu" in f.reason and "explicit" in f.reason for f in findings.values())


@pytest.mark.parametrize("body", [f"h = LayerNormalization<axis=-1>(x, gain) {THREE}", f"h = Gelu(x) {THREE}"])
def test_where_there_are_no_outliers_nothing_changes(tmp_path: Path, body: str) -> None:
    model = load(graph(SIGNATURE, body, gain=np.ones(16, np.float32), **QKV), tmp_path)
    before = {w.name: w.matrix().copy() for w in model.weights()}
    findings = _apply(model, tmp_path)
    assert all(isinstance(f, Skip) and "error" in f.reason for f in findings.values())
    assert all(np.array_equal(before[w.name], w.matrix()) for w in model.weights())


def test_an_extra_multiplication_does_not_keep_layers_from_int8(tmp_path: Path) -> None:
    model = load(_behind("Gelu(o)"), tmp_path)
    _apply(model, tmp_path)
    list(QuantizeDynamic().apply(model, _context(model, tmp_path)))
    model.save(tmp_path / "int8.onnx")
    Session(tmp_path / "int8.onnx", optimized=tmp_path / "optimized.onnx")
    assert [str(kernels) for kernels in count_kernels(tmp_path / "optimized.onnx")] == ["3 of 3 MatMul in int8"]


def test_only_the_selected_weights_are_smoothed(tmp_path: Path) -> None:
    proto = _normalized()
    model = load(proto, tmp_path)
    before = {w.name: w.matrix().copy() for w in model.weights()}
    findings = _apply(model, tmp_path, targets=["a", "b"])
    assert findings.keys() == {"a", "b"}
    (left_alone,) = (w for w in model.weights() if w.name == "c")
    assert np.array_equal(left_alone.matrix(), before["c"])
    _same(proto, model, tmp_path)


def test_every_weight_is_accounted_for_once(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "smooth"}, data={"calibration": {"source": "random"}}, verify={"cosine": -1})
    changes, skips = entries(report, "changes"), entries(report, "skips")
    assert not changes.keys() & skips.keys()
    assert {name: entry["layer"] for name, entry in (changes | skips).items()} == tiny.MIXED
    assert changes.keys() <= {"gemm"}


def test_without_sample_data_it_says_what_is_missing(tmp_path: Path) -> None:
    model = load(_normalized(), tmp_path)
    context = Context(model.copy(), None, 0, tmp_path, Silent(), 1)
    with pytest.raises(PassError, match=r"smooth: needs data\.calibration"):
        list(Smooth().apply(model, context))

"""Layers with nothing between them are one, where that is cheaper."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.merging import merge_layers
from compressor.graph.simplify import simplify
from tests.models import Array, floats, graph, load, outputs

RNG = np.random.default_rng(3)
ROWS = "float[N,6] x => float[N,C] y"
IMAGE = "float[2,6,7,8] x => float[N,C,H,W] y"
ARRAYS: dict[str, Array] = {
    "wide": floats(RNG, 6, 20),
    "back": floats(RNG, 20, 5),
    "backT": floats(RNG, 5, 20),
    "thin": floats(RNG, 6, 2),
    "out": floats(RNG, 2, 5),
    "b20": floats(RNG, 20),
    "b5": floats(RNG, 5),
    "k": floats(RNG, 20, 6, 3, 3),
    "one": floats(RNG, 5, 20, 1, 1),
    "wide3": floats(RNG, 5, 20, 3, 3),
    "groups": floats(RNG, 20, 3, 1, 1),
}
MERGED = {
    "products": (ROWS, "h = MatMul(x, wide) [last] y = MatMul(h, back)"),
    "with both biases": (ROWS, "h = Gemm(x, wide, b20) [last] y = Gemm<transB=1>(h, backT, b5)"),
    "bias in front": (ROWS, "h = Gemm(x, wide, b20) [last] y = MatMul(h, back)"),
    "bias behind": (ROWS, "h = MatMul(x, wide) [last] y = Gemm<transB=1>(h, backT, b5)"),
    "three": (ROWS, "h = MatMul(x, thin) g = MatMul(h, out) i = MatMul(g, s) [last] y = MatMul(i, t)"),
    "convolutions": (IMAGE, "h = Conv<pads=[1,1,1,1], strides=[2,1]>(x, k, b20) [last] y = Conv(h, one, b5)"),
    "a convolution without bias": (IMAGE, 'h = Conv<auto_pad="SAME_UPPER">(x, k) [last] y = Conv(h, one)'),
}
APART = {
    "thin": (ROWS, "h = MatMul(x, thin) y = MatMul(h, out)"),
    "something between": (ROWS, "h = MatMul(x, wide) r = Relu(h) y = MatMul(r, back)"),
    "read twice": (ROWS, "h = MatMul(x, wide) a = MatMul(h, back) b = ReduceSum(h) y = Add(a, b)"),
    "scaled": (ROWS, "h = MatMul(x, wide) y = Gemm<alpha=0.5, transB=1>(h, backT, b5)"),
    "a wide kernel behind": (IMAGE, "h = Conv(x, groupless) y = Conv<pads=[1,1,1,1]>(h, wide3)"),
    "in groups": (IMAGE, "h = Conv<group=2>(x, groups) y = Conv(h, one)"),
    "an output between": ("float[N,6] x => float[N,C] y, float[N,20] h", "h = MatMul(x, wide) y = MatMul(h, back)"),
}


def _arrays(body: str) -> dict[str, Array]:
    more = {"s": floats(RNG, 5, 5), "t": floats(RNG, 5, 5), "groupless": floats(RNG, 20, 6, 1, 1)}
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: array for name, array in (ARRAYS | more).items() if name in words}


def _feeds(signature: str) -> dict[str, Array]:
    return {"x": floats(RNG, 2, 6, 7, 8) if signature == IMAGE else floats(RNG, 4, 6)}


@pytest.mark.parametrize("name", MERGED)
def test_what_is_merged_computes_the_same_in_fewer_layers(name: str, tmp_path: Path) -> None:
    signature, body = MERGED[name]
    model = load(graph(signature, body, **_arrays(body)), tmp_path)
    feeds = _feeds(signature)
    expected = outputs(model, feeds, tmp_path)["y"]
    before = sum(weight.size for weight in model.weights())
    assert list(merge_layers(model.ir))
    np.testing.assert_allclose(outputs(model, feeds, tmp_path)["y"], expected, rtol=1e-3, atol=1e-3)
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)
    assert sum(weight.size for weight in model.weights()) < before
    assert "last" in {weight.name for weight in model.weights()}


@pytest.mark.parametrize("name", APART)
def test_what_is_not_cheaper_or_not_alone_stays(name: str, tmp_path: Path) -> None:
    signature, body = APART[name]
    model = load(graph(signature, body, **_arrays(body)), tmp_path)
    assert list(merge_layers(model.ir)) == []


def test_simplify_merges(tmp_path: Path) -> None:
    signature, body = MERGED["products"]
    model = load(graph(signature, body, **_arrays(body)), tmp_path)
    assert ("last", "MatMul") in [(found.layer, found.neighbour) for found in simplify(model)]


def test_double_precision_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.standard_normal((6, 20)), "b": rng.standard_normal((20, 5))}
    proto = graph("double[N,6] x => double[N,5] y", "[one] p = MatMul(x, a) [two] y = MatMul(p, b)", **arrays)
    model = load(proto, tmp_path)
    assert not list(merge_layers(model.ir))

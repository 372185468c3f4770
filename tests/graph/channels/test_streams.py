"""What linear layers alone make and read may be mixed: the outputs stay as they are; nothing else is found."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.channels import Channels, Stream, prepare
from compressor.graph.model import Model
from compressor.runtime.shapes import observe_shapes
from tests.graph.channels.graphs import CASES
from tests.models import Array, floats, graph, load, outputs


def _streams(model: Model, feeds: dict[str, Array], folder: Path) -> dict[str, Stream]:
    prepare(model, observe_shapes(model, feeds, folder))
    return Channels.of(model, observe_shapes(model, feeds, folder)).streams()


def _mix_all(streams: dict[str, Stream]) -> None:
    rng = np.random.default_rng(3)
    for stream in streams.values():
        basis = np.eye(stream.width) + 0.5 * rng.normal(size=(stream.width, stream.width)) / stream.width**0.5
        stream.mix(basis, np.linalg.inv(basis))


def _same(model: Model, before: Model, feeds: dict[str, Array], folder: Path) -> bool:
    found, expected = (outputs(m, feeds, folder) for m in (model, before))
    return all(np.allclose(found[name], expected[name], rtol=1e-3, atol=1e-4) for name in expected)


@pytest.mark.parametrize("name", CASES)
def test_mixing_any_stream_leaves_the_outputs_as_they_are(name: str, tmp_path: Path) -> None:
    case = CASES[name](np.random.default_rng(0))
    model = load(case.proto, tmp_path)
    streams = _streams(model, case.feeds, tmp_path)
    before = model.copy()
    _mix_all(streams)
    assert _same(model, before, case.feeds, tmp_path)


X = {"x": floats(np.random.default_rng(1), 2, 3, 6, 6)}


def _blocks(middle: str = "j = Add(p, q)", **arrays: Array) -> onnx.ModelProto:
    """Two blocks as of MobileNetV2: narrow and linear, wide and not, narrow and linear; and their sum."""
    rng = np.random.default_rng(2)
    body = f"""[stem] s = Conv<pads=[1,1,1,1]>(x, w0) r0 = Relu(s) [down] p = Conv(r0, w1, b1)
    [up] u = Conv(p, w2) r1 = Relu(u) [deep] d = Conv<pads=[1,1,1,1], group=12>(r1, w3) r2 = Relu(d)
    [back] q = Conv(r2, w4, b4) {middle} [head] h = Conv<pads=[1,1,1,1]>(j, w5) r3 = Relu(h)
    g = GlobalAveragePool(r3) f = Flatten(g) [out] y = Gemm<transB=1>(f, w6)"""
    own = {"w0": floats(rng, 8, 3, 3, 3), "w1": floats(rng, 6, 8, 1, 1), "b1": floats(rng, 6)}
    own |= {"w2": floats(rng, 12, 6, 1, 1), "w3": floats(rng, 12, 1, 3, 3), "w4": floats(rng, 6, 12, 1, 1)}
    own |= {"b4": floats(rng, 6), "w5": floats(rng, 7, 6, 3, 3), "w6": floats(rng, 4, 7)}
    return graph("float[N,3,6,6] x => float[N,4] y", body, **own, **arrays)


@pytest.mark.parametrize(
    ("middle", "arrays"),
    [
        ("j = Add(p, q)", {}),
        ("j = Sub(q, p)", {}),
        ("k = Add(p, q) j = AveragePool<kernel_shape=[2,2]>(k)", {}),
        ("k = Add(p, q) j = Add(k, c)", {"c": floats(np.random.default_rng(4), 1, 6, 1, 1)}),
    ],
    ids=["sum", "difference", "mean", "another bias"],
)
def test_a_sum_of_linear_layers_is_a_stream(middle: str, arrays: dict[str, Array], tmp_path: Path) -> None:
    model = load(_blocks(middle, **arrays), tmp_path)
    streams = _streams(model, X, tmp_path)
    assert list(streams) == ["down"]
    assert {along.value.name for along, _ in streams["down"].read} == {"w2", "w5"}
    before = model.copy()
    _mix_all(streams)
    assert _same(model, before, X, tmp_path)
    assert not np.allclose(list(model.weights())[1].matrix(), list(before.weights())[1].matrix())


@pytest.mark.parametrize(
    ("middle", "arrays"),
    [
        ("k = Add(p, q) j = Relu(k)", {}),
        ("k = Mul(q, c) j = Add(p, k)", {"c": floats(np.random.default_rng(4), 1, 6, 1, 1)}),
        ("k = Add(p, q) j = Add(k, c)", {"c": np.float32(2)}),
        ("k = Add(p, q) j = MaxPool<kernel_shape=[2,2]>(k)", {}),
        ("k = Add(p, q) j = Conv<group=6>(k, c)", {"c": floats(np.random.default_rng(4), 6, 1, 1, 1)}),
    ],
    ids=["activation", "scale", "offset", "maximum", "depthwise"],
)
def test_what_else_touches_the_channels_keeps_them_apart(middle: str, arrays: dict[str, Array], tmp_path: Path) -> None:
    assert not _streams(load(_blocks(middle, **arrays), tmp_path), X, tmp_path)

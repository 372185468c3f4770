"""Channels between their maker and their readers: rescaled on both sides, ONNX Runtime computes the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.chains import Channels, Maker, read_together, reading_refusal
from compressor.graph.edit import settle
from compressor.graph.model import Model
from tests.models import Array, Floats, array, floats, graph, load, outputs, run

RNG = np.random.default_rng(5)
W44, W48, W84 = floats(RNG, 4, 4), floats(RNG, 4, 8), floats(RNG, 8, 4)
B8, G8 = floats(RNG, 8), 1 + np.abs(floats(RNG, 8))
SCALES: Floats = np.exp2(np.arange(8, dtype=np.float32) - 3)

FLAT = "float[N,5,4] x => float[N,5,4] y"
IMAGE = "float[N,3,8,8] x => float[N,M,H,W] y"


def _flat(body: str, **arrays: Array) -> onnx.ModelProto:
    """`body` makes h, (N, 5, 8), with w (4, 8), and the product [last] reads it."""
    return graph(FLAT, f"{body} [last] y = MatMul(h, v)", w=W48, v=W84, **arrays)


def _image(between: str, last: str = "Conv(h, v)", **arrays: Array) -> onnx.ModelProto:
    """A convolution makes a, (N, 8, 8, 8), of which `between` makes h, and [last] reads that."""
    weights = {"w": floats(RNG, 8, 3, 3, 3), "b": B8, "v": floats(RNG, 4, 8, 3, 3)} | arrays
    return graph(IMAGE, f"[first] a = Conv<pads=[1,1,1,1]>(x, w, b) {between} [last] y = {last}", **weights)


MADE: dict[str, tuple[onnx.ModelProto, str]] = {
    "product": (_flat("[first] h = MatMul(x, w)"), "first"),
    "product and bias": (_flat("[first] a = MatMul(x, w) h = Add(b, a)", b=B8), "first"),
    "product less bias": (_flat("[first] a = MatMul(x, w) h = Sub(a, b)", b=B8), "first"),
    "bias less product": (_flat("[first] a = MatMul(x, w) h = Sub(b, a)", b=B8), "first"),
    "product, scaled": (_flat("[first] a = MatMul(x, w) h = Mul(a, s)", s=array(0.5)), "first"),
    "product, divided": (_flat("[first] a = MatMul(x, w) h = Div(a, s)", s=array([3])), "first"),
    "product, relu": (_flat("[first] a = MatMul(x, w) h = Relu(a)"), "first"),
    "gate": (_flat("[first] a = MatMul(x, w) s = MatMul(x, u) g = Sigmoid(s) h = Mul(g, a)", u=-W48), "first"),
    "normalization": (
        _flat("e = MatMul(x, w) [norm] h = LayerNormalization<axis=-1>(e, g, b)", g=G8, b=B8),
        "norm",
    ),
    "normalization, no bias": (_flat("e = MatMul(x, w) [norm] h = LayerNormalization<axis=-1>(e, g)", g=G8), "norm"),
    "affine": (_flat("e = MatMul(x, w) t = Tanh(e) [scaled] m = Mul(t, g) h = Add(m, b)", g=G8, b=B8), "scaled"),
    "only looked at": (
        graph(
            "float[N,5,4] x => float[N,5,4] y, int64[3] z",
            "[first] h = MatMul(x, w) z = Shape(h) [last] y = MatMul(h, v)",
            w=W48,
            v=W84,
        ),
        "first",
    ),
    "Gemm": (
        graph(
            "float[N,4] x => float[N,4] y",
            "[first] a = Gemm<transB=1>(x, w, b) h = LeakyRelu(a) [last] y = Gemm(h, v)",
            w=W48.T.copy(),
            b=B8[None],
            v=W84,
        ),
        "first",
    ),
    "Conv": (_image("h = Relu(a)"), "first"),
    "Conv, per channel": (
        _image("c = Add(a, t) h = PRelu(c, s)", t=B8.reshape(8, 1, 1), s=B8.reshape(1, 8, 1, 1)),
        "first",
    ),
    "Conv, clipped from 0": (_image("h = Clip(a, zero)", zero=array(0)), "first"),
    "Conv, pooled": (_image("p = MaxPool<kernel_shape=[2,2]>(a) h = AveragePool<kernel_shape=[2,2]>(p)"), "first"),
    "Conv, depthwise": (_image("h = Relu(a)", "Conv<group=8>(h, v)", v=floats(RNG, 16, 1, 3, 3)), "first"),
    "Conv, grouped": (_image("h = Relu(a)", "Conv<group=2>(h, v)", v=floats(RNG, 6, 4, 3, 3)), "first"),
    "Conv, transposed": (
        _image("h = Relu(a)", "ConvTranspose<group=2>(h, v)", v=floats(RNG, 8, 3, 3, 3)),
        "first",
    ),
}


def _channels(model: Model, *names: str) -> Channels:
    """What these layers read."""
    weights = [weight for weight in model.weights() if weight.name in names]
    assert all(reading_refusal(weight) is None for weight in weights)
    (found,) = read_together(weights)
    return found


def _feeds(proto: onnx.ModelProto) -> dict[str, Array]:
    shape = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return {"x": floats(np.random.default_rng(1), *shape)}


def _same(proto: onnx.ModelProto, model: Model, folder: Path) -> None:
    """Scales are powers of two: what is left is the order of additions."""
    expected, found = run(proto, _feeds(proto)), outputs(model, _feeds(proto), folder)
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("case", MADE)
def test_what_is_divided_where_it_is_made_can_be_multiplied_where_it_is_read(tmp_path: Path, case: str) -> None:
    proto, name = MADE[case]
    model = load(proto, tmp_path)
    channels = _channels(model, "last")
    maker = channels.maker()
    assert isinstance(maker, Maker), maker
    assert (maker.name, channels.count, channels.tensor) == (name, 8, "h")
    maker.divide(SCALES)
    settle(model.ir)
    assert not np.allclose(outputs(model, _feeds(proto), tmp_path)["y"], run(proto, _feeds(proto))["y"], rtol=0.1)
    _channels(model, "last").multiply(SCALES)
    _same(proto, model, tmp_path)


def test_a_transposed_convolution_can_make_channels(tmp_path: Path) -> None:
    arrays = {"w": floats(RNG, 4, 4, 3, 3), "b": B8, "v": floats(RNG, 2, 8, 1, 1)}
    body = "[first] h = ConvTranspose<group=2>(x, w, b) [last] y = Conv(h, v)"
    proto = graph("float[N,4,5,5] x => float[N,2,7,7] y", body, **arrays)
    model = load(proto, tmp_path)
    maker = _channels(model, "last").maker()
    assert isinstance(maker, Maker), maker
    maker.divide(SCALES)
    _channels(model, "last").multiply(SCALES)
    _same(proto, model, tmp_path)


UNMADE: dict[str, tuple[onnx.ModelProto, str]] = {
    "an input": (graph(FLAT, "[last] y = MatMul(x, v)", v=W44), "input of the model"),
    "read by another": (_flat("h = MatMul(x, w) z = Relu(h) q = Identity(z)"), "also read by Relu"),
    "an output": (
        graph("float[N,4] x => float[N,4] y, float[N,8] h", "h = MatMul(x, w) [last] y = MatMul(h, v)", w=W48, v=W84),
        "output of the model",
    ),
    "Sigmoid": (_flat("a = MatMul(x, w) h = Sigmoid(a)"), "Sigmoid"),
    "Clip to 6": (_flat("a = MatMul(x, w) h = Clip(a, z, s)", z=array(0), s=array(6)), "cuts off"),
    "a sum": (_flat("a = MatMul(x, w) c = Sigmoid(a) d = Tanh(a) h = Add(c, d)"), "Add of two tensors"),
    "a number is added": (_flat("a = MatMul(x, w) h = Add(a, s)", s=array(2)), "not one number per channel"),
    "a slope that is computed": (_flat("a = MatMul(x, w) s = Neg(b) h = PRelu(a, s)", b=B8), "PRelu"),
    "shared weights": (
        graph(
            "float[N,8] x => float[N,8] y",
            "a = MatMul(x, w) h = MatMul(a, w) [last] y = MatMul(h, v)",
            w=floats(RNG, 8, 8),
            v=floats(RNG, 8, 8),
        ),
        "shared",
    ),
    "weights that are computed": (_flat("u = Neg(w) [first] h = MatMul(x, u)"), "no float constant"),
    "along another axis": (
        graph(
            "float[N,3,8] x => float[N,6,4] y",
            "h = Conv<pads=[1,1]>(x, w) [last] y = MatMul(h, v)",
            w=floats(RNG, 6, 3, 3),
            v=W84,
        ),
        "another axis",
    ),
    "pooled along the channels": (
        graph(
            "float[N,3,16] x => float[N,3,4] y",
            "a = Relu(x) h = MaxPool<kernel_shape=[2], strides=[2]>(a) [last] y = MatMul(h, v)",
            v=W84,
        ),
        "MaxPool",
    ),
    "normalized over two axes": (
        graph(
            "float[N,5,8] x => float[N,5,4] y",
            "r = Tanh(x) h = LayerNormalization<axis=1>(r, g) [last] y = MatMul(h, v)",
            g=floats(RNG, 5, 8),
            v=W84,
        ),
        "not one constant per channel",
    ),
}


@pytest.mark.parametrize("case", UNMADE)
def test_what_nobody_can_divide_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    proto, says = UNMADE[case]
    maker = _channels(load(proto, tmp_path), "last").maker()
    assert isinstance(maker, str)
    assert says in maker


UNREAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "left factor": (
        graph("float[4,N] x => float[8,N] y", "[last] y = MatMul(w, x)", w=W84),
        "left factor",
    ),
    "constant input": (graph("float[N,4] x => float[8] y", "[last] y = MatMul(c, w)", c=B8[:4], w=W48), "constant"),
    "batch of matrices": (
        graph("float[2,5,4] x => float[2,5,8] y", "[last] y = MatMul(x, w)", w=floats(RNG, 2, 4, 8)),
        "batch of matrices",
    ),
    "transposed input": (graph("float[4,N] x => float[N,8] y", "[last] y = Gemm<transA=1>(x, w)", w=W48), "transA"),
    "lookup": (graph("int64[N] x => float[N,4] y", "[last] y = Gather(w, x)", w=W84), "Gather"),
    "double": (
        graph("double[N,4] x => double[N,8] y", "[last] y = MatMul(x, w)", w=W48.astype(np.float64)),
        "float64",
    ),
    "tied": (
        graph("float[N,4] x => float[N,4] y", "[last] a = MatMul(x, w) t = Transpose(w) y = MatMul(a, t)", w=W44),
        "more than layers",
    ),
    "an output too": (
        graph("float[N,4] x => float[N,4] y, float[4,4] w", "[last] y = MatMul(x, w)", w=W44),
        "more than layers",
    ),
    "not finite": (
        graph("float[N,4] x => float[N,4] y", "[last] y = MatMul(x, w)", w=np.full((4, 4), np.inf, np.float32)),
        "not finite",
    ),
    "two inputs": (
        graph("float[N,4] x => float[N,4] y", "[last] a = MatMul(x, w) y = MatMul(a, w)", w=W44),
        "other inputs",
    ),
}


@pytest.mark.parametrize("case", UNREAD)
def test_layers_that_cannot_multiply_are_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    proto, says = UNREAD[case]
    (weight,) = (w for w in load(proto, tmp_path).weights() if w.name == "last")
    assert says in (reading_refusal(weight) or "")


SHARED_INPUT = graph(
    "float[N,4] x => float[N,4] y, float[N,4] z, float[N,8] t",
    "h = MatMul(x, w) t = Tanh(h) [one] y = MatMul(h, v) [two] z = Gemm<transB=1>(h, u)",
    w=W48,
    v=W84,
    u=W48,
)


def test_readers_of_one_tensor_come_together(tmp_path: Path) -> None:
    channels = _channels(load(SHARED_INPUT, tmp_path), "one", "two")
    assert [weight.name for weight in channels.readers] == ["one", "two"]
    assert np.array_equal(channels.magnitudes(), np.maximum(np.abs(W84).max(axis=1), np.abs(W48).max(axis=0)))


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_a_division_in_front_of_some_readers_leaves_the_others_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    model = load(SHARED_INPUT, tmp_path)
    channels = _channels(model, *names)
    channels.divide_in_front(SCALES)
    channels.multiply(SCALES)
    settle(model.ir)
    assert model.node_counts()["Mul"] == 1
    _same(SHARED_INPUT, model, tmp_path)


def test_a_division_in_front_works_on_inputs_of_the_model_and_on_images(tmp_path: Path) -> None:
    proto = graph("float[N,8,5,5] x => float[N,4,3,3] y", "[last] y = Conv(x, v)", v=floats(RNG, 4, 8, 3, 3))
    model = load(proto, tmp_path)
    _channels(model, "last").divide_in_front(SCALES)
    _channels(model, "last").multiply(SCALES)
    settle(model.ir)
    _same(proto, model, tmp_path)


def test_a_constant_that_others_read_is_not_changed_for_them(tmp_path: Path) -> None:
    proto = graph(
        "float[N,8] x => float[N,4] y, float[N,8] z",
        """h = LayerNormalization<axis=-1>(x, g, b) z = LayerNormalization<axis=-1>(x, g, b)
        [last] y = MatMul(h, v)""",
        g=G8,
        b=B8,
        v=W84,
    )
    model = load(proto, tmp_path)
    maker = _channels(model, "last").maker()
    assert isinstance(maker, Maker), maker
    maker.divide(SCALES)
    _channels(model, "last").multiply(SCALES)
    _same(proto, model, tmp_path)

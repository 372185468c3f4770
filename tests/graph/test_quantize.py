"""What is written in integers stays close to float, and ONNX Runtime runs it in integer kernels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import RandomSource
from compressor.graph.edit import settle
from compressor.graph.kernels import count_kernels
from compressor.graph.model import Model
from compressor.graph.packing import store_in_place, store_product
from compressor.graph.quantize import insert_dynamic_convolution, insert_dynamic_product, insert_embedding
from compressor.graph.verify import check_file, check_signature
from compressor.numerics.schemes import Scheme, encode
from compressor.passes.base import Context
from compressor.passes.quantize_dynamic import QuantizeDynamic
from compressor.passes.quantize_static import ActivationSettings, QuantizeStatic
from compressor.progress import Silent
from compressor.runtime.ort import Session
from tests.models import Array, Floats, array, cnn, decibels, floats, graph, load, mlp, outputs, run

RNG = np.random.default_rng(8)
SAMPLES = 8
CONSTANTS: dict[str, Array] = {
    "w3": floats(RNG, 16, 3, 3, 3) / 5,
    "w": floats(RNG, 16, 16, 3, 3) / 12,
    "v": floats(RNG, 16, 16, 1, 1) / 4,
    "deep": floats(RNG, 16, 1, 3, 3) / 3,
    "b": floats(RNG, 16) / 4,
    "b2": floats(RNG, 16) / 4,
    "g": floats(RNG, 4, 16) / 4,
    "gb": floats(RNG, 4),
    "gflat": floats(RNG, 5, 256) / 16,
    "m": floats(RNG, 8, 8) / 3,
    "shape": np.array([0, -1]),
    "heads": np.array([0, 8, 2, 16]),
    "low": array(0.0),
    "six": array(6.0),
    "minus": array(-1.0),
    "plus": array(1.0),
    "starts": np.array([2]),
    "ends": np.array([12]),
    "axes": np.array([1]),
    "pick": np.array([3, 0, 3]),
}
PICTURE = "float[2,3,4,4] x => float[n,c,h,w] y"
FIRST = "[l1] a = Conv<pads=[1,1,1,1]>(x, w3, b)  "
LAST = "[l2] y = Conv<pads=[1,1,1,1]>(r, w, b2)"

STATIC = {
    "conv relu conv": (PICTURE, FIRST + "r = Relu(a)  " + LAST),
    "conv relu6 conv": (PICTURE, FIRST + "r = Clip(a, low, six)  " + LAST),
    "conv hard tanh conv": (PICTURE, FIRST + "r = Clip(a, minus, plus)  " + LAST),
    "conv conv": (PICTURE, FIRST.replace("a =", "r =") + LAST),
    "conv without bias": (PICTURE, "[l1] r = Conv<pads=[1,1,1,1]>(x, w3)  " + LAST),
    "residual": (PICTURE, FIRST + "r0 = Relu(a)  [l3] c = Conv(r0, v, b2)  s = Add(c, r0)  r = Relu(s)  " + LAST),
    "residual read twice": (
        PICTURE,
        FIRST
        + "r0 = Relu(a)  [l3] c = Conv(r0, v, b2)  r = Add(c, r0)  [l2] d = Conv<pads=[1,1,1,1]>(r, w)  y = Add(d, r)",
    ),
    "concat": (
        "float[2,3,4,4] x => float[n,c,h,w] y",
        FIRST
        + "[l3] c = Conv(a, v)  r0 = Relu(c)  k = Concat<axis=1>(a, r0)  r = Slice(k, starts2, ends2, axes)  "
        + LAST,
    ),
    "max pool": (PICTURE, FIRST + "q = Relu(a)  r = MaxPool<kernel_shape=[2,2], strides=[2,2]>(q)  " + LAST),
    "average pool": (PICTURE, FIRST + "q = Relu(a)  r = AveragePool<kernel_shape=[2,2]>(q)  " + LAST),
    "transpose": (PICTURE, FIRST + "t = Transpose<perm=[0,1,3,2]>(a)  r = Relu(t)  " + LAST),
    "reshape": (PICTURE, FIRST + "t = Reshape(a, heads)  r = Reshape(t, back)  " + LAST),
    "slice": (PICTURE, FIRST + "s = Slice(a, starts, ends, axes)  [l2] y = Conv(s, thin)"),
    "gather": (PICTURE, FIRST + "r = Gather<axis=3>(a, pick)  " + LAST),
    "flatten gemm": (
        "float[2,3,4,4] x => float[2,5] y",
        FIRST + "r = Relu(a)  f = Flatten(r)  [l2] y = Gemm<transB=1>(f, gflat)",
    ),
    "reshape gemm": (
        "float[2,3,4,4] x => float[2,5] y",
        FIRST + "f = Reshape(a, shape)  [l2] y = Gemm<transB=1>(f, gflat)",
    ),
    "depthwise": (PICTURE, FIRST + "q = Relu(a)  [l3] r = Conv<group=16, pads=[1,1,1,1]>(q, deep, b)  " + LAST),
    "strided": (PICTURE, FIRST + "q = Relu(a)  [l2] y = Conv<strides=[2,2]>(q, w, b2)"),
    "layer is an output": (PICTURE + ", float[n,c,h,w] a", FIRST + "r = Relu(a)  " + LAST),
    "activation is an output": (PICTURE + ", float[n,c,h,w] r", FIRST + "r = Relu(a)  " + LAST),
    "hard swish between": (PICTURE, FIRST + "r = HardSwish(a)  " + LAST),
    "sigmoid gate": (
        PICTURE,
        FIRST + "p = GlobalAveragePool(a)  [l3] c = Conv(p, v)  q = Sigmoid(c)  r = Mul(a, q)  " + LAST,
    ),
    "leaky relu": (PICTURE, FIRST + "r = LeakyRelu<alpha=0.1>(a)  " + LAST),
    "two readers of the input": (PICTURE, FIRST + "[l2] c = Conv<pads=[1,1,1,1]>(x, w3b)  y = Add(a, c)"),
    "weights shared": (PICTURE, FIRST + "[l2] c = Conv<pads=[1,1,1,1]>(a, w)  [l3] y = Conv<pads=[1,1,1,1]>(c, w, b2)"),
    "gemm relu gemm": (
        "float[2,16] x => float[2,4] y",
        "[l1] a = Gemm(x, gm, b)  r = Relu(a)  [l2] y = Gemm<transB=1>(r, g, gb)",
    ),
    "matmul": ("float[2,6,8] x => float[2,6,8] y", "[l1] a = MatMul(x, m)  r = Relu(a)  [l2] y = MatMul(r, m2)"),
    "matmul add": ("float[2,6,8] x => float[2,6,8] y", "[l1] h = MatMul(x, m)  a = Add(h, m1)  [l2] y = MatMul(a, m2)"),
    "names that are taken": (
        PICTURE,
        """x_scale = Neg(x)  x_quantized = Relu(x_scale)  [l1] a = Conv<pads=[1,1,1,1]>(x, w3)
        n = Conv<pads=[1,1,1,1]>(x_quantized, w3b)  y = Add(a, n)""",
    ),
    "input is moved": (PICTURE, "t = Transpose<perm=[0,1,3,2]>(x)  [l1] r = Conv<pads=[1,1,1,1]>(t, w3)  " + LAST),
    "upsample": (PICTURE, FIRST + 'r = Resize<mode="nearest">(a, , sizes)  ' + LAST),
    "pad": (PICTURE, FIRST + "r = Pad(a, pads)  " + LAST),
    "split": (PICTURE, FIRST + "p, q = Split<axis=1, num_outputs=2>(a)  r = Concat<axis=1>(q, p)  " + LAST),
    "mean": (
        "float[2,3,4,4] x => float[2,4] y",
        FIRST + "p = ReduceMean<keepdims=0>(a, hw)  [l2] y = Gemm<transB=1>(p, g)",
    ),
}
ISLANDS_CLOSED = {
    "swish": (PICTURE, FIRST + "q = Sigmoid(a)  r = Mul(a, q)  " + LAST),
    "split": STATIC["split"],
    "far from the layer": (
        PICTURE,
        FIRST
        + """q = Sigmoid(a)  u = Mul(a, q)  p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(u)
        k = Concat<axis=1>(u, p)  r = Slice(k, starts2, ends2, axes)  """
        + LAST,
    ),
    "residual": STATIC["residual"],
}
"""Between two convolutions: what must leave no arithmetic in float at all."""

CONSTANTS |= {
    "starts2": np.array([8]),
    "ends2": np.array([24]),
    "back": np.array([0, 16, 4, 4]),
    "thin": floats(RNG, 8, 10, 1, 1) / 3,
    "w3b": floats(RNG, 16, 3, 3, 3) / 5,
    "gm": floats(RNG, 16, 16) / 4,
    "m1": floats(RNG, 8),
    "m2": floats(RNG, 8, 8) / 3,
    "sizes": array([1, 1, 2, 2]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "hw": np.array([2, 3]),
}


def _graph(signature: str, body: str) -> onnx.ModelProto:
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return graph(signature, body, **{name: values for name, values in CONSTANTS.items() if name in words})


def _context(model: Model, folder: Path) -> Context:
    data = RandomSource(samples=SAMPLES).open(model, "test", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1)


def _seen(model: Model) -> list[dict[str, Array]]:
    """The very samples that the ranges came from."""
    return [dict(batch.feeds) for batch in RandomSource(samples=SAMPLES).open(model, "test", 0).batches()]


@pytest.mark.parametrize("case", STATIC)
def test_a_statically_quantized_model_is_valid_close_and_runs_in_integers(case: str, tmp_path: Path) -> None:
    proto = _graph(*STATIC[case])
    model = load(proto, tmp_path)
    reference = model.copy()
    changes = list(
        QuantizeStatic(activations=ActivationSettings(observer="min_max")).apply(model, _context(model, tmp_path))
    )
    assert len(changes) == len(list(reference.weights()))
    found = [outputs(model, feeds, tmp_path) for feeds in _seen(reference)]
    check_file(tmp_path / "written.onnx")
    check_signature(reference, Model.load(tmp_path / "written.onnx"))
    for name in found[0]:
        expected = np.concatenate([run(proto, feeds)[name] for feeds in _seen(reference)])
        assert decibels(expected, np.concatenate([f[name] for f in found])) > 25
    Session(tmp_path / "written.onnx", optimized=tmp_path / "optimized.onnx")
    for family in count_kernels(tmp_path / "optimized.onnx"):
        assert family.integer == family.total, str(family)


FLOAT_ARITHMETIC = {"Conv", "Sigmoid", "Mul", "Add", "Concat", "Split", "Relu", "AveragePool"}


@pytest.mark.parametrize("case", ISLANDS_CLOSED)
def test_integers_flow_through_everything_between_two_layers(case: str, tmp_path: Path) -> None:
    model = load(_graph(*ISLANDS_CLOSED[case]), tmp_path)
    list(QuantizeStatic(activations=ActivationSettings(observer="min_max")).apply(model, _context(model, tmp_path)))
    model.save(tmp_path / "written.onnx")
    Session(tmp_path / "written.onnx", optimized=tmp_path / "optimized.onnx")
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    floating = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    assert not [n.op_type for n in nodes if n.op_type in FLOAT_ARITHMETIC and floating & set(n.input)]


def test_a_bias_that_dwarfs_its_weights_survives(tmp_path: Path) -> None:
    """A channel of weights of 1e-12 has a scale at which a bias of 1 is 1e14 steps: more than int32."""
    weight = floats(RNG, 4, 8)
    weight[2] *= 1e-12
    proto = graph("float[2,8] x => float[2,4] y", "y = Gemm<transB=1>(x, w, b)", w=weight, b=np.ones(4, np.float32))
    model = load(proto, tmp_path)
    list(QuantizeStatic(activations=ActivationSettings(observer="min_max")).apply(model, _context(model, tmp_path)))
    feeds = _seen(Model.load(tmp_path / "model.onnx"))[0]
    np.testing.assert_allclose(outputs(model, feeds, tmp_path)["y"][:, 2], 1, rtol=1e-5)


def test_sharing_a_grid_gives_both_ends_of_a_move_the_same_scale(tmp_path: Path) -> None:
    model = load(_graph(*STATIC["transpose"]), tmp_path)
    list(QuantizeStatic(activations=ActivationSettings(observer="min_max")).apply(model, _context(model, tmp_path)))
    model.save(tmp_path / "written.onnx")
    nodes = {node.output[0]: node for node in onnx.load(tmp_path / "written.onnx").graph.node}
    assert nodes["a_quantized"].input[1:] == nodes["t_quantized"].input[1:]


def _emulated(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Dynamic quantization written out: x in uint8 over its own range, weight rows in int8, exact integers."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    x_scale = np.float32((high - low) / 255)
    zero = np.round(-low / x_scale)
    quantized = np.clip(np.round(x / x_scale) + zero, 0, 255)
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    rows = np.round(weight / scale[:, None])
    return array((quantized - zero) @ rows.T * (x_scale * scale) + bias)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("biased", [True, False])
def test_a_dynamic_gemm_is_integers_ranged_at_run_time(transposed: int, biased: bool, tmp_path: Path) -> None:
    weight, bias = floats(RNG, 5, 12), floats(RNG, 5) * biased
    body = f"y = Gemm<transB={transposed}>(x, w{', b' if biased else ''})"
    arrays: dict[str, Array] = {"w": weight if transposed else np.ascontiguousarray(weight.T)}
    proto = graph("float[3,12] x => float[3,5] y", body, **arrays, **({"b": bias} if biased else {}))
    model = load(proto, tmp_path)
    _insert_dynamic(model)
    x = floats(RNG, 3, 12)
    np.testing.assert_allclose(outputs(model, {"x": x}, tmp_path)["y"], _emulated(x, weight, bias), atol=1e-4)
    check_file(tmp_path / "written.onnx")


def _insert_dynamic(model: Model) -> None:
    for weight in list(model.weights()):
        insert_dynamic_product(weight, store_product(model.ir, weight, encode(weight.matrix(), Scheme(8))))
    settle(model.ir)


def test_a_dynamic_matmul_is_integers_ranged_at_run_time(tmp_path: Path) -> None:
    weight, x = floats(RNG, 12, 5), floats(RNG, 2, 3, 12) + np.float32(3)
    model = load(graph("float[2,3,12] x => float[2,3,5] y", "y = MatMul(x, w)", w=weight), tmp_path)
    _insert_dynamic(model)
    expected = _emulated(x, np.ascontiguousarray(weight.T), np.zeros(5, np.float32))
    np.testing.assert_allclose(outputs(model, {"x": x}, tmp_path)["y"], expected, atol=1e-4)


def test_layers_that_read_one_tensor_share_its_quantization_and_shared_weights_are_stored_once(tmp_path: Path) -> None:
    body = "[q] a = MatMul(x, w)  [k] b = MatMul(x, w)  [v] c = MatMul(x, v)  s = Add(a, b)  y = Add(s, c)"
    proto = graph("float[2,8] x => float[2,8] y", body, w=floats(RNG, 8, 8), v=floats(RNG, 8, 8))
    model = load(proto, tmp_path)
    _insert_dynamic(model)
    assert model.node_counts()["DynamicQuantizeLinear"] == 1
    assert model.nbytes() <= 2 * (64 + 8 * 4 + 8)
    feeds = {"x": floats(RNG, 2, 8)}
    assert decibels(run(proto, feeds)["y"], outputs(model, feeds, tmp_path)["y"]) > 30


def test_products_inside_a_branch_and_outside_it_may_read_the_same_tensor(tmp_path: Path) -> None:
    proto = graph(
        "float[2,8] x, bool c => float[2,8] y",
        """[out] h = MatMul(x, w)
        i = If(c) <then_branch = t () => (float[2,8] a) { [then] a = MatMul(x, v) },
                   else_branch = e () => (float[2,8] b) { [else] b = MatMul(x, u) }>
        y = Add(h, i)""",
        **{name: floats(RNG, 8, 8) for name in "wvu"},
    )
    model = load(proto, tmp_path)
    list(QuantizeDynamic().apply(model, _context(model, tmp_path)))
    for flag in (True, False):
        feeds = {"x": floats(RNG, 2, 8), "c": np.array(flag)}
        assert decibels(run(proto, feeds)["y"], outputs(model, feeds, tmp_path)["y"]) > 30
    check_file(tmp_path / "written.onnx")


def test_new_names_keep_clear_of_those_that_are_there(tmp_path: Path) -> None:
    body = "x_ranged_scale = Neg(x)  [l] h_scale = MatMul(x, h)  y = Add(h_scale, x_ranged_scale)"
    proto = graph("float[2,8] x => float[2,8] y", body, h=floats(RNG, 8, 8))
    model = load(proto, tmp_path)
    _insert_dynamic(model)
    feeds = {"x": floats(RNG, 2, 8)}
    assert decibels(run(proto, feeds)["y"], outputs(model, feeds, tmp_path)["y"]) > 30


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 3)])
def test_an_int8_embedding_looks_up_exactly_the_rows_of_the_rounded_table(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    table, dims = floats(RNG, *shape), ",".join(map(str, shape[1:]))
    model = load(graph(f"int64[2,2] x => float[2,2,{dims}] y", "y = Gather(w, x)", w=table), tmp_path)
    (weight,) = model.weights()
    rows = table.reshape(6, -1)
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    integers = np.round(rows / scale)
    insert_embedding(weight, store_in_place(model.ir, weight, encode(weight.matrix(), Scheme(8))))
    x = np.array([[5, 0], [2, 2]])
    found = outputs(model, {"x": x}, tmp_path)["y"]
    np.testing.assert_allclose(found, (integers * scale).reshape(shape)[x], rtol=1e-6)


@pytest.mark.parametrize("attributes", ["", "<group=2>", "<strides=[2,2], pads=[1,1,1,1]>", "<dilations=[2,2]>"])
def test_a_dynamic_convolution_keeps_its_attributes_and_is_close(attributes: str, tmp_path: Path) -> None:
    kernel = floats(RNG, 6, 2 if "group" in attributes else 4, 3, 3)
    body = f"y = Conv{attributes}(x, w, b)"
    proto = graph("float[1,4,8,8] x => float[n,c,h,w] y", body, w=kernel, b=floats(RNG, 6))
    model = load(proto, tmp_path)
    (weight,) = model.weights()
    insert_dynamic_convolution(weight, store_in_place(model.ir, weight, encode(weight.matrix(), Scheme(8))))
    feeds = {"x": floats(RNG, 1, 4, 8, 8)}
    assert decibels(run(proto, feeds)["y"], outputs(model, feeds, tmp_path)["y"]) > 30


@pytest.mark.parametrize("quantize", [QuantizeStatic(), QuantizeDynamic()])
@pytest.mark.parametrize("make", [mlp, cnn])
def test_names_of_layers_and_outputs_survive(
    quantize: QuantizeStatic | QuantizeDynamic, make: Callable[[np.random.Generator], onnx.ModelProto], tmp_path: Path
) -> None:
    model = load(make(RNG), tmp_path)
    names, outputs_before = {w.name for w in model.weights()}, model.outputs()
    list(quantize.apply(model, _context(model, tmp_path)))
    assert names <= {node.name for node in model.ir.graph}
    assert model.outputs() == outputs_before

"""Folding loses nothing: the same function in fewer nodes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compressor.graph.fold import Folded
from compressor.graph.model import Model
from compressor.graph.simplify import simplify
from tests.models import Array, array, cnn, decibels, floats, graph, load, mlp, outputs, run

RNG = np.random.default_rng(5)
CONSTANTS: dict[str, Array] = {
    "w": floats(RNG, 4, 3, 3, 3),
    "k": floats(RNG, 4, 3, 1, 1),
    "dw": floats(RNG, 3, 1, 3, 3),
    "t": floats(RNG, 3, 4, 2, 2),
    "tg": floats(RNG, 4, 2, 2, 2),
    "g": floats(RNG, 4, 3),
    "gp": floats(RNG, 3, 4),
    "b": floats(RNG, 4),
    "b3": floats(RNG, 3),
    "scale": floats(RNG, 4),
    "shift": floats(RNG, 4),
    "mean": floats(RNG, 4),
    "var": np.abs(floats(RNG, 4)),
    "scale3": floats(RNG, 3),
    "shift3": floats(RNG, 3),
    "mean3": floats(RNG, 3),
    "var3": np.abs(floats(RNG, 3)),
    "c": floats(RNG, 4, 1, 1),
    "c4": floats(RNG, 1, 4, 1, 1),
    "d": np.abs(floats(RNG, 4, 1, 1)) + 1,
    "one": array(1.5),
    "row": floats(RNG, 4),
    "map": floats(RNG, 1, 4, 5, 5),
    "along": floats(RNG, 5),
    "other": floats(RNG, 4, 3, 3, 3),
    "two": floats(RNG, 2),
    "sparse": array([0, 1, 2, 3]).reshape(4, 1, 1),
}
PICTURE = "float[2,3,7,7] x => float[n,c,h,w] y"
CONV = "[layer] h = Conv(x, w, b)  "
NORM = "y = BatchNormalization<epsilon=0.01>(h, scale, shift, mean, var)"
NORM_FIRST = "h = BatchNormalization(x, scale3, shift3, mean3, var3)  "

FOLDS = {
    "conv norm": (PICTURE, CONV + NORM),
    "conv without bias norm": (PICTURE, "[layer] h = Conv(x, w)  " + NORM),
    "padded conv norm": (PICTURE, "[layer] h = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)  " + NORM),
    "conv mul": (PICTURE, CONV + "y = Mul(h, c)"),
    "mul conv swapped": (PICTURE, CONV + "y = Mul(c, h)"),
    "conv mul scalar": (PICTURE, CONV + "y = Mul(h, one)"),
    "conv add": (PICTURE, CONV + "y = Add(h, c4)"),
    "conv without bias add": (PICTURE, "[layer] h = Conv(x, w)  y = Add(c, h)"),
    "conv sub": (PICTURE, CONV + "y = Sub(h, c)"),
    "sub conv": (PICTURE, CONV + "y = Sub(c, h)"),
    "conv div": (PICTURE, CONV + "y = Div(h, d)"),
    "conv mul add norm": (PICTURE, CONV + "m = Mul(h, c)  a = Add(m, c4)  " + NORM.replace("(h", "(a")),
    "depthwise norm": (
        PICTURE,
        "[layer] h = Conv<group=3>(x, dw, b3)  y = BatchNormalization(h, scale3, shift3, mean3, var3)",
    ),
    "transpose norm": (PICTURE, "[layer] h = ConvTranspose(x, t, b)  " + NORM),
    "grouped transpose norm": (
        "float[2,4,7,7] x => float[n,c,h,w] y",
        "[layer] h = ConvTranspose<group=2>(x, tg)  " + NORM,
    ),
    "gemm norm": ("float[2,3] x => float[2,4] y", "[layer] h = Gemm<transB=1>(x, g, b)  " + NORM),
    "plain gemm norm": ("float[2,3] x => float[2,4] y", "[layer] h = Gemm(x, gp, b)  " + NORM),
    "gemm mul": ("float[2,3] x => float[2,4] y", "[layer] h = Gemm<transB=1>(x, g, b)  y = Mul(h, row)"),
    "norm conv": (PICTURE, NORM_FIRST + "[layer] y = Conv(h, w, b)"),
    "norm conv without bias": (PICTURE, NORM_FIRST + "[layer] y = Conv(h, w)"),
    "norm conv valid": (PICTURE, NORM_FIRST + '[layer] y = Conv<auto_pad="VALID">(h, w)'),
}


def _model(signature: str, body: str, folder: Path) -> tuple[onnx.ModelProto, Model]:
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    arrays = {name: values for name, values in CONSTANTS.items() if name in words}
    proto = graph(signature, body, **arrays)
    return proto, load(proto, folder)


def _simplified(model: Model) -> list[Folded]:
    return list(simplify(model))


def _assert_same(proto: onnx.ModelProto, model: Model, folder: Path) -> None:
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": floats(np.random.default_rng(6), *shape)}
    expected, found = run(proto, feeds), outputs(model, feeds, folder)
    assert list(expected) == list(found)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())


@pytest.mark.parametrize("case", FOLDS)
def test_an_affine_map_beside_a_layer_goes_into_it(case: str, tmp_path: Path) -> None:
    proto, model = _model(*FOLDS[case], tmp_path)
    folded = _simplified(model)
    assert [node.name for node in model.ir.graph] == ["layer"]
    assert {f.layer for f in folded} <= {"layer"}
    _assert_same(proto, model, tmp_path)


KEPT = {
    "padded conv behind norm": ("BatchNormalization", PICTURE, NORM_FIRST + "y = Conv<pads=[1,1,1,1]>(h, w, b)"),
    "same conv behind norm": ("BatchNormalization", PICTURE, NORM_FIRST + 'y = Conv<auto_pad="SAME_UPPER">(h, w, b)'),
    "norm read twice": (
        "BatchNormalization",
        PICTURE,
        NORM_FIRST + "p = Conv(h, w)  q = Conv(h, other)  y = Sub(p, q)",
    ),
    "shared weights": ("Mul", PICTURE, "h = Conv(x, w)  m = Mul(h, c)  v = Conv(x, w)  y = Concat<axis=1>(m, v)"),
    "output is read twice": ("Mul", PICTURE, CONV + "m = Mul(h, c)  y = Add(m, h)"),
    "output is a graph output": ("Mul", PICTURE + ", float[n,c,h,w] h", CONV + "y = Mul(h, c)"),
    "a number for every position": ("Add", PICTURE, CONV + "y = Add(h, map)"),
    "a number for every column": ("Mul", PICTURE, CONV + "y = Mul(h, along)"),
    "division by the layer": ("Div", PICTURE, CONV + "y = Div(c, h)"),
    "division by zero": ("Div", PICTURE, CONV + "y = Div(h, sparse)"),
    "scaled gemm": ("Mul", "float[2,3] x => float[2,4] y", "h = Gemm<transB=1, alpha=0.5>(x, g)  y = Mul(h, row)"),
    "weights on the left": ("Add", "float[3,2] x => float[4,2] y", "h = Gemm(g, x)  y = Add(h, two)"),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_cannot_be_folded_stays_and_still_computes_the_same(case: str, tmp_path: Path) -> None:
    operator, signature, body = KEPT[case]
    signature = signature.replace("[n,c,h,w] y", "[2,c,h,w] y")
    proto, model = _model(signature, body, tmp_path)
    _simplified(model)
    assert model.node_counts()[operator] == 1
    if case != "division by zero":
        _assert_same(proto, model, tmp_path)


def test_a_bias_shared_by_two_layers_is_not_changed_for_the_other(tmp_path: Path) -> None:
    body = CONV + "m = Mul(h, c)  k2 = Conv(x, k2w, b)  s = ReduceMean<keepdims=1>(k2)  y = Add(m, s)"
    proto = graph(PICTURE, body, **{n: CONSTANTS[n] for n in ("w", "b", "c")}, k2w=-CONSTANTS["w"])
    model = load(proto, tmp_path)
    _simplified(model)
    assert model.node_counts()["Mul"] == 0
    _assert_same(proto, model, tmp_path)


def test_a_layer_in_a_branch_does_not_swallow_what_lies_outside(tmp_path: Path) -> None:
    proto = graph(
        "float[1,3,7,7] x, bool q => float[1,4,5,5] y",
        """h = Conv(x, w, b)
        y = If(q) <then_branch = t () => (float[1,4,5,5] a) { a = Mul(h, c) },
                   else_branch = e () => (float[1,4,5,5] d) { d = Abs(z) }>""",
        **{name: CONSTANTS[name] for name in ("w", "b", "c")},
        z=floats(RNG, 1, 4, 5, 5),
    )
    model = load(proto, tmp_path)
    _simplified(model)
    for flag in (True, False):
        feeds = {"x": floats(RNG, 1, 3, 7, 7), "q": np.array(flag)}
        np.testing.assert_allclose(outputs(model, feeds, tmp_path)["y"], run(proto, feeds)["y"], rtol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "i = Identity(x)  [layer] y = MatMul(i, a)",
        "[layer] h = MatMul(x, a)  y = Identity(h)",
        "[layer] h = MatMul(x, a)  y = Dropout(h)",
        "d = Dropout(x, ratio)  i = Identity(d)  [layer] y = MatMul(i, a)",
        "[layer] h = MatMul(x, a)  i = Identity(h)  y = Dropout(i, ratio, training)",
    ],
)
def test_identity_and_dropout_vanish_and_outputs_keep_their_names(body: str, tmp_path: Path) -> None:
    arrays: dict[str, Array] = {"a": floats(RNG, 4, 4), "ratio": array(0.5), "training": np.array(False)}
    proto = graph("float[2,4] x => float[2,4] y", body, **arrays)
    model = load(proto, tmp_path)
    _simplified(model)
    assert [node.name for node in model.ir.graph] == ["layer"]
    _assert_same(proto, model, tmp_path)


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("float[2,4] x => float[2,4] y", "y = Identity(x)"),
        ("float[2,4] x => float[2,4] y, float[2,4] z", "y = Relu(x)  z = Identity(y)"),
        ("float[2,4] x => float[2,4] y, float[2,4] z", "h = Relu(x)  y = Identity(h)  z = Identity(h)"),
    ],
)
def test_an_output_that_is_a_copy_is_still_there(signature: str, body: str, tmp_path: Path) -> None:
    proto = graph(signature, body)
    model = load(proto, tmp_path)
    _simplified(model)
    _assert_same(proto, model, tmp_path)


def test_dropout_that_trains_stays(tmp_path: Path) -> None:
    body = "y = Dropout(x, ratio, training)"
    model = load(
        graph("float[2,4] x => float[2,4] y", body, ratio=array(0.5), training=np.array(True)),
        tmp_path,
    )
    _simplified(model)
    assert model.node_counts()["Dropout"] == 1


@pytest.mark.parametrize("make", [mlp, cnn])
def test_names_of_layers_and_dimensions_survive_and_the_result_is_the_same(
    make: Callable[[np.random.Generator], onnx.ModelProto], tmp_path: Path
) -> None:
    proto = make(RNG)
    model = load(proto, tmp_path)
    layers, signature = [w.name for w in model.weights()], (model.inputs(), model.outputs())
    _simplified(model)
    assert [w.name for w in model.weights()] == layers
    assert (model.inputs(), model.outputs()) == signature
    shape = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": floats(RNG, *shape)}
    assert decibels(run(proto, feeds)["y"], outputs(model, feeds, tmp_path)["y"]) > 100


def test_arrays_that_are_equal_are_stored_once(tmp_path: Path) -> None:
    same = floats(RNG, 4, 4)
    body = "h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b)"
    proto = graph("float[2,4] x => float[2,4] y", body, a=same, b=same.copy())
    model = load(proto, tmp_path)
    _simplified(model)
    assert model.nbytes() == same.nbytes
    _assert_same(proto, model, tmp_path)


def test_what_is_constant_is_computed_beforehand(tmp_path: Path) -> None:
    body = "t = Transpose<perm=[1,0]>(a)  s = Mul(t, two)  y = MatMul(x, s)"
    proto = graph("float[2,4] x => float[2,4] y", body, a=floats(RNG, 4, 4), two=array(2))
    model = load(proto, tmp_path)
    _simplified(model)
    assert model.node_counts() == {"MatMul": 1}
    _assert_same(proto, model, tmp_path)


GATES = """a = Slice(w, zero, n)  b = Slice(w, n, end)  c = Concat<axis=0>(b, a)  d = Unsqueeze(c, zero)
    [rnn] y = LSTM<hidden_size=300>(x, d, r)"""


def _gates() -> dict[str, Array]:
    """An array of gates, larger than what onnxscript folds, and what puts it in another order."""
    arrays: dict[str, Array] = {"w": floats(RNG, 1200, 300), "r": floats(RNG, 1, 1200, 300)}
    return arrays | {"zero": np.array([0]), "n": np.array([250]), "end": np.array([1200])}


def test_gates_that_an_exporter_put_together_become_one_weight_however_large(tmp_path: Path) -> None:
    proto = graph("float[2,1,300] x => float[2,1,1,300] y", GATES, **_gates())
    model = load(proto, tmp_path)
    before = model.nbytes()
    list(simplify(model))
    assert [(node.op_type, node.name) for node in model.ir.graph] == [("LSTM", "rnn")]
    assert model.nbytes() < before
    assert [w.shape for w in model.weights()] == [(1, 1200, 300), (1, 1200, 300)]
    x = {"x": floats(RNG, 2, 1, 300)}
    assert np.array_equal(outputs(model, x, tmp_path)["y"], run(proto, x)["y"])


def test_a_large_array_that_is_read_elsewhere_too_is_not_stored_twice(tmp_path: Path) -> None:
    body = f"{GATES}  z = MatMul(v, w)"
    proto = graph("float[2,1,300] x, float[1,1200] v => float[2,1,1,300] y, float[1,300] z", body, **_gates())
    model = load(proto, tmp_path)
    before = model.nbytes()
    list(simplify(model))
    assert model.nbytes() <= before


def test_what_is_stored_in_fewer_bits_stays_so(tmp_path: Path) -> None:
    body = "w = Cast<to=1>(half)  y = MatMul(x, w)"
    model = load(graph("float[2,9] x => float[2,9] y", body, half=floats(RNG, 9, 9).astype(np.float16)), tmp_path)
    list(simplify(model))
    assert [node.op_type for node in model.ir.graph] == ["Cast", "MatMul"]
    assert [value.dtype for value in model.ir.graph.initializers.values()] == [ir.DataType.FLOAT16]


def test_names_of_open_dimensions_of_outputs_stay_whatever_is_inferred(tmp_path: Path) -> None:
    body = "p = Log(x)  m = Multinomial<dtype=7, sample_size=1>(p)  y = Concat<axis=1>(m)"
    model = load(graph("float[batch,4] x => int64[batch,1] y", body), tmp_path)
    before = model.outputs()
    list(simplify(model))
    assert model.outputs() == before

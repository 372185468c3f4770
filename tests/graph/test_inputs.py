"""Rows times the weight matrix are what ONNX Runtime makes of the layer."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.weights import Weight
from tests.models import Array, Floats, floats, graph, load, run

RNG = np.random.default_rng(3)
PICTURE = "float[2,6,9,8] x => float[n,c,h,w] y"
WIDE, DEEP, LINE, BOX = (floats(RNG, *shape) for shape in ((4, 6, 3, 2), (6, 1, 3, 3), (4, 6, 4), (4, 6, 2, 3, 2)))
HALVES, NEXT = floats(RNG, 4, 3, 3, 3), floats(RNG, 5, 6)

CASES: dict[str, tuple[str, str, Floats]] = {
    "plain": (PICTURE, "[l] y = Conv(x, w)", WIDE),
    "strides": (PICTURE, "[l] y = Conv<strides=[2,3]>(x, w)", WIDE),
    "pads": (PICTURE, "[l] y = Conv<pads=[1,0,2,1]>(x, w)", WIDE),
    "dilations": (PICTURE, "[l] y = Conv<dilations=[2,3]>(x, w)", WIDE),
    "everything": (PICTURE, "[l] y = Conv<strides=[2,1], pads=[0,2,1,1], dilations=[1,2]>(x, w)", WIDE),
    "groups": (PICTURE, "[l] y = Conv<group=2, pads=[1,1,1,1]>(x, w)", HALVES),
    "depthwise": (PICTURE, "[l] y = Conv<group=6, strides=[2,2]>(x, w)", DEEP),
    "same upper": (PICTURE, '[l] y = Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w)', WIDE),
    "same lower": (PICTURE, '[l] y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(x, w)', WIDE),
    "same of groups": (PICTURE, '[l] y = Conv<group=2, auto_pad="SAME_LOWER">(x, w)', HALVES),
    "valid": (PICTURE, '[l] y = Conv<auto_pad="VALID", strides=[1,2]>(x, w)', WIDE),
    "not set": (PICTURE, '[l] y = Conv<auto_pad="NOTSET", pads=[1,1,0,0]>(x, w)', WIDE),
    "line": ("float[2,6,11] x => float[n,c,t] y", "[l] y = Conv<strides=[2], pads=[3,0], dilations=[2]>(x, w)", LINE),
    "volume": (
        "float[2,6,4,5,6] x => float[n,c,d,h,w] y",
        "[l] y = Conv<strides=[1,2,1], pads=[0,1,1,1,0,0]>(x, w)",
        BOX,
    ),
    "product": ("float[3,6] x => float[n,m] y", "[l] y = MatMul(x, w)", NEXT.T.copy()),
    "product of rows of rows": ("float[2,3,4,6] x => float[n,a,b,m] y", "[l] y = MatMul(x, w)", NEXT.T.copy()),
    "gemm": ("float[3,6] x => float[n,m] y", "[l] y = Gemm(x, w)", NEXT.T.copy()),
    "gemm transposed": ("float[3,6] x => float[n,m] y", "[l] y = Gemm<transB=1>(x, w)", NEXT),
}


def _proto(case: str) -> onnx.ModelProto:
    signature, body, weight = CASES[case]
    return graph(signature, body, w=weight)


def _fed(proto: onnx.ModelProto) -> Floats:
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return floats(np.random.default_rng(4), *shape)


def _only(proto: onnx.ModelProto, folder: Path) -> tuple[Weight, LayerInput]:
    (weight,) = load(proto, folder).weights()
    key = layer_input(weight.uses[0])
    assert key is not None
    return weight, key


@pytest.mark.parametrize("case", CASES)
def test_rows_times_the_matrix_are_the_outputs(case: str, tmp_path: Path) -> None:
    proto = _proto(case)
    x = _fed(proto)
    weight, key = _only(proto, tmp_path)
    matrix = weight.matrix()
    rows = key.rows(x, 10**6)
    assert rows.shape[0] == key.groups
    assert rows.shape[2] == matrix.shape[1]
    made = np.einsum("gni,goi->ngo", rows, matrix.reshape(key.groups, -1, matrix.shape[1])).reshape(-1, len(matrix))
    expected = run(proto, {"x": x})["y"]
    if weight.layer == "Conv":
        expected = np.moveaxis(expected, 1, -1)
    np.testing.assert_allclose(made, expected.reshape(made.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["everything", "groups", "same upper", "line", "product of rows of rows"])
@pytest.mark.parametrize("limit", [1, 5, 20])
def test_fewer_rows_are_some_of_all_rows_and_evenly_spread(case: str, limit: int, tmp_path: Path) -> None:
    proto = _proto(case)
    x = _fed(proto)
    _, key = _only(proto, tmp_path)
    every, few = key.rows(x, 10**6), key.rows(x, limit)
    count = few.shape[1]
    assert any(np.array_equal(few, every[:, ::stride]) for stride in range(1, every.shape[1] + 1))
    assert min(limit, every.shape[1]) / 2 <= count <= 2 * limit


def test_rows_kept_from_a_picture_do_not_lie_in_the_same_columns() -> None:
    key = LayerInput("x", 1, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)))
    columns = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 1, 32, 32))
    assert len(np.unique(key.rows(columns, 64))) == 32


NONE: dict[str, tuple[str, str, dict[str, Array]]] = {
    "left": ("float[4,4] x => float[4,4] y", "y = MatMul(w, x)", {"w": floats(RNG, 4, 4)}),
    "transposed input": ("float[4,4] x => float[4,4] y", "y = Gemm<transA=1>(x, w)", {"w": floats(RNG, 4, 4)}),
    "embedding": ("int64[4] x => float[4,4] y", "y = Gather(w, x)", {"w": floats(RNG, 4, 4)}),
    "transposed convolution": (
        "float[1,4,4,4] x => float[n,c,h,w] y",
        "y = ConvTranspose(x, w)",
        {"w": floats(RNG, 4, 4, 2, 2)},
    ),
    "recurrent": (
        "float[2,1,4] x => float[2,1,1,1] y",
        "y = GRU<hidden_size=1>(x, w, r)",
        {"w": floats(RNG, 1, 3, 4), "r": floats(RNG, 1, 3, 1)},
    ),
}


@pytest.mark.parametrize("case", NONE)
def test_other_layers_have_no_rows(case: str, tmp_path: Path) -> None:
    signature, body, arrays = NONE[case]
    for weight in load(graph(signature, body, **arrays), tmp_path).weights():
        assert layer_input(weight.uses[0]) is None


def test_layers_that_see_the_same_rows_have_equal_inputs(tmp_path: Path) -> None:
    body = """a = Conv<pads=[1,1,1,1]>(x, v)  b = Conv<pads=[1,1,1,1], strides=[1,1]>(x, w)
    c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, u)  y = Add(a, b)"""
    arrays = {name: floats(RNG, 6, 6, 3, 3) for name in "uvw"}
    proto = graph("float[1,6,5,5] x => float[1,6,5,5] y, float[n,o,h,w0] c", body, **arrays)
    first, second, third = (layer_input(weight.uses[0]) for weight in load(proto, tmp_path).weights())
    assert first == second != third
    assert len({first, second, third}) == 2

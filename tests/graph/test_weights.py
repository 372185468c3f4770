"""A weight is a matrix, (outputs, inputs): multiplying by it is what the layer does."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.model import Model
from compressor.graph.weights import Weight
from tests.models import Floats, array, floats, graph, load, run

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def _weight(model: Model) -> Weight:
    (weight,) = model.weights()
    return weight


@pytest.mark.parametrize(("groups", "channels"), [(1, 4), (2, 4), (4, 4), (3, 9)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
def test_a_row_of_conv_times_the_patch_of_its_group_is_an_output(
    groups: int, channels: int, kernel: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    outputs, (height, width) = 2 * groups, kernel
    proto = graph(
        f"float[1,{channels},{height},{width}] x => float[1,{outputs},1,1] y",
        f"y = Conv<group={groups}>(x, w)",
        w=floats(rng, outputs, channels // groups, *kernel),
    )
    x = floats(rng, 1, channels, *kernel)
    matrix = _weight(load(proto, tmp_path)).matrix()
    patches = np.repeat(x.reshape(groups, -1), outputs // groups, axis=0)
    np.testing.assert_allclose((matrix * patches).sum(axis=1), run(proto, {"x": x})["y"].ravel(), **TOLERANCE)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_conv_transpose_spreads_each_input_over_its_kernel(
    groups: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    inputs, outputs = 2 * groups, 4 * groups
    proto = graph(
        f"float[1,{inputs},1,1] x => float[1,{outputs},2,3] y",
        f"y = ConvTranspose<group={groups}>(x, w)",
        w=floats(rng, inputs, outputs // groups, 2, 3),
    )
    x = floats(rng, 1, inputs, 1, 1)
    matrix = _weight(load(proto, tmp_path)).matrix().reshape(outputs, 2, 2, 3)
    of_group = np.repeat(x.reshape(groups, 2), outputs // groups, axis=0)
    expected = run(proto, {"x": x})["y"][0]
    np.testing.assert_allclose(np.einsum("oihw,oi->ohw", matrix, of_group), expected, **TOLERANCE)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_on_the_right_is_x_times_the_transpose(transposed: int, tmp_path: Path, rng: np.random.Generator) -> None:
    weight = floats(rng, 5, 3) if transposed else floats(rng, 3, 5)
    proto = graph("float[2,3] x => float[2,5] y", f"y = Gemm<transB={transposed}>(x, w)", w=weight)
    x = floats(rng, 2, 3)
    matrix = _weight(load(proto, tmp_path)).matrix()
    assert matrix.shape == (5, 3)
    np.testing.assert_allclose(x @ matrix.T, run(proto, {"x": x})["y"], **TOLERANCE)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_on_the_left_is_the_matrix_times_x(transposed: int, tmp_path: Path, rng: np.random.Generator) -> None:
    weight = floats(rng, 3, 5) if transposed else floats(rng, 5, 3)
    proto = graph("float[3,2] x => float[5,2] y", f"y = Gemm<transA={transposed}>(w, x)", w=weight)
    x = floats(rng, 3, 2)
    matrix = _weight(load(proto, tmp_path)).matrix()
    assert matrix.shape == (5, 3)
    np.testing.assert_allclose(matrix @ x, run(proto, {"x": x})["y"], **TOLERANCE)


def test_matmul_on_the_right_is_x_times_the_transpose(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = graph("float[2,7,3] x => float[2,7,5] y", "y = MatMul(x, w)", w=floats(rng, 3, 5))
    x = floats(rng, 2, 7, 3)
    matrix = _weight(load(proto, tmp_path)).matrix()
    np.testing.assert_allclose(x @ matrix.T, run(proto, {"x": x})["y"], **TOLERANCE)


def test_matmul_on_the_left_is_the_matrix_times_x(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = graph("float[3,2] x => float[5,2] y", "y = MatMul(w, x)", w=floats(rng, 5, 3))
    x = floats(rng, 3, 2)
    np.testing.assert_allclose(_weight(load(proto, tmp_path)).matrix() @ x, run(proto, {"x": x})["y"], **TOLERANCE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_matrices_is_their_outputs_one_after_another(
    side: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    shape, body = ((4, 5, 3), "y = MatMul(w, x)") if side == "left" else ((4, 3, 5), "y = MatMul(x, w)")
    x = floats(rng, 4, 3, 2) if side == "left" else floats(rng, 4, 2, 3)
    dims = ",".join(map(str, x.shape))
    proto = graph(f"float[{dims}] x => float[a,b,c] y", body, w=floats(rng, *shape))
    matrix = _weight(load(proto, tmp_path)).matrix().reshape(4, 5, 3)
    expected = run(proto, {"x": x})["y"]
    found = matrix @ x if side == "left" else np.einsum("boi,bri->bro", matrix, x)
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_a_row_of_an_embedding_is_what_is_looked_up(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = graph("int64[4] x => float[4,2,3] y", "y = Gather(w, x)", w=floats(rng, 6, 2, 3))
    x = np.array([5, 0, 0, 3])
    matrix = _weight(load(proto, tmp_path)).matrix()
    np.testing.assert_array_equal(matrix[x], run(proto, {"x": x})["y"].reshape(4, 6))


def _sigmoid(x: Floats) -> Floats:
    return array(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("directions", [1, 2])
def test_a_step_of_lstm_is_its_two_matrices_times_input_and_state(
    directions: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    kind = ("forward", "bidirectional")[directions - 1]
    proto = graph(
        f"float[1,1,3] x, float[{directions},1,2] h => float[1,{directions},1,2] y",
        f'y = LSTM<hidden_size=2, direction="{kind}">(x, w, r, , , h)',
        w=floats(rng, directions, 8, 3),
        r=floats(rng, directions, 8, 2),
    )
    x, state = floats(rng, 1, 1, 3), floats(rng, directions, 1, 2)
    w, r = (weight.matrix().reshape(directions, 8, -1) for weight in load(proto, tmp_path).weights())
    i, o, _, c = np.split(w @ x.ravel() + np.einsum("dgh,dh->dg", r, state[:, 0]), 4, axis=1)
    expected = run(proto, {"x": x, "h": state})["y"].reshape(directions, 2)
    np.testing.assert_allclose(_sigmoid(o) * np.tanh(_sigmoid(i) * np.tanh(c)), expected, **TOLERANCE)


LAYERS = {
    "Conv": ("float[1,4,5,5] x => float[n,c,h,w] y", "y = Conv<group=2>(x, w)", (6, 2, 3, 3)),
    "ConvTranspose": ("float[1,4,5,5] x => float[n,c,h,w] y", "y = ConvTranspose<group=2>(x, w)", (4, 3, 2, 2)),
    "Gemm": ("float[2,4] x => float[2,6] y", "y = Gemm<transB=1>(x, w)", (6, 4)),
    "Gemm plain": ("float[2,4] x => float[2,6] y", "y = Gemm(x, w)", (4, 6)),
    "Gemm left": ("float[2,4] x => float[6,4] y", "y = Gemm<transA=1>(w, x)", (2, 6)),
    "MatMul": ("float[2,4] x => float[2,6] y", "y = MatMul(x, w)", (4, 6)),
    "MatMul batch": ("float[3,2,4] x => float[3,2,6] y", "y = MatMul(x, w)", (3, 4, 6)),
    "Gather": ("int64[2] x => float[2,3] y", "y = Gather(w, x)", (5, 3)),
    "GRU": ("float[2,1,3] x => float[2,1,1,2] y", "y = GRU<hidden_size=2>(x, w, r)", (1, 6, 3)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", LAYERS)
def test_storing_what_was_read_changes_no_byte(
    kind: str, dtype: type[np.floating], tmp_path: Path, rng: np.random.Generator
) -> None:
    signature, body, shape = LAYERS[kind]
    if dtype is np.float16:
        signature = signature.replace("float[", "float16[")
    original = floats(rng, *shape).astype(dtype)
    model = load(graph(signature, body, w=original, r=floats(rng, 1, 6, 2).astype(dtype)), tmp_path)
    weight = next(model.weights())
    weight.store(weight.matrix())
    assert weight.value.const_value is not None
    stored = weight.value.const_value.numpy()
    assert stored.dtype == dtype
    assert stored.tobytes() == original.tobytes()


@pytest.mark.parametrize("kind", LAYERS)
def test_the_matrix_is_read_only_and_storing_leaves_the_array_itself_alone(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    signature, body, shape = LAYERS[kind]
    weight = next(load(graph(signature, body, w=floats(rng, *shape), r=floats(rng, 1, 6, 2)), tmp_path).weights())
    matrix = weight.matrix()
    before = matrix.copy()
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 7
    weight.store(np.zeros_like(matrix))
    assert np.array_equal(matrix, before)
    assert not weight.matrix().any()


def test_float64_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    weight = _weight(load(graph("float[2,3] x => float[2,4] y", "y = MatMul(x, w)", w=floats(rng, 3, 4)), tmp_path))
    with pytest.raises(TypeError, match="float64 was stored"):
        weight.store(weight.matrix().astype(np.float64))


def test_subnormals_are_flushed_when_stored(tmp_path: Path) -> None:
    proto = graph("float[1,2] x => float[1,2] y", "y = MatMul(x, w)", w=np.ones((2, 2), np.float32))
    weight = _weight(load(proto, tmp_path))
    weight.store(array([[1e-40, 1e-37], [0, 1]]))
    assert weight.matrix().tolist() == array([[0, 1e-37], [0, 1]]).tolist()


def test_a_shared_weight_comes_once_with_all_its_uses(tmp_path: Path, rng: np.random.Generator) -> None:
    body = "[a] h = MatMul(x, w)  [b] r = MatMul(h, w)  [c] y = MatMul(r, v)"
    model = load(graph("float[2,4] x => float[2,4] y", body, w=floats(rng, 4, 4), v=floats(rng, 4, 4)), tmp_path)
    assert [w.names for w in model.weights()] == [("a", "a", "b", "w"), ("c", "c", "v")]


def test_a_weight_read_only_inside_a_branch_is_found_and_marked(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = graph(
        "float[2,4] x, bool c => float[2,4] y",
        """y = If(c) <then_branch = t () => (float[2,4] a) { [inner] a = MatMul(x, w) },
                     else_branch = e () => (float[2,4] b) { b = Relu(x) }>""",
        w=floats(rng, 4, 4),
    )
    weight = _weight(load(proto, tmp_path))
    assert (weight.name, weight.in_subgraph) == ("inner", True)


@pytest.mark.parametrize(
    ("signature", "body", "constant"),
    [
        ("float[2,4] x => float[2,4] y", "y = Add(x, w)", np.ones((2, 4), np.float32)),
        ("float[2,4] x => float[2] y", "y = MatMul(x, w)", np.ones(4, np.float32)),
        ("int32[2,4] x => int32[2,4] y", "y = MatMul(x, w)", np.ones((4, 4), np.int32)),
        ("int64[2] x => int64[2,4] y", "y = Gather(w, x)", np.ones((3, 4), np.int64)),
        ("float[1,2,4] x => float[1,2,4] y", "y = Add(x, w)", np.ones((1, 1, 4), np.float32)),
    ],
)
def test_what_multiplies_nothing_or_is_no_float_matrix_is_no_weight(
    signature: str, body: str, constant: Floats, tmp_path: Path
) -> None:
    assert not list(load(graph(signature, body, w=constant), tmp_path).weights())

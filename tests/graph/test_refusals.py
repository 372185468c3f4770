"""Layers that cannot be quantized say why, and the others can."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.refusals import already_quantized, dynamic_refusal, set_aside, static_refusal
from tests.models import Array, floats, graph, load

RNG = np.random.default_rng(0)
SQUARE = floats(RNG, 4, 4)
FLAT = "float[4,4] x => float[4,4] y"
HALF = "float16[4,4] x => float16[4,4] y"

NEITHER: dict[str, tuple[str, str, dict[str, Array], str]] = {
    "half": (HALF, "y = MatMul(x, w)", {"w": SQUARE.astype(np.float16)}, "float16"),
    "shared by two kinds": (
        "float[4,4] x, int64[4] i => float[4,4] y",
        "g = Gather(w, i)  h = MatMul(x, w)  y = Add(g, h)",
        {"w": SQUARE},
        "shared by Gather and MatMul",
    ),
    "left": (FLAT, "y = MatMul(w, x)", {"w": SQUARE}, "left factor"),
    "batch": ("float[2,4,4] x => float[2,4,4] y", "y = MatMul(x, w)", {"w": floats(RNG, 2, 4, 4)}, "batch of matrices"),
    "transposed": (FLAT, "y = Gemm<transA=1>(x, w)", {"w": SQUARE}, "transA"),
    "alpha": (FLAT, "y = Gemm<alpha=0.5>(x, w)", {"w": SQUARE}, "alpha"),
    "beta": (FLAT, "y = Gemm<beta=0.5>(x, w, b)", {"w": SQUARE, "b": floats(RNG, 4)}, "beta"),
    "computed bias": (FLAT, "b = Relu(x)  y = Gemm(x, w, b)", {"w": SQUARE}, "bias is computed"),
    "matrix bias": (FLAT, "y = Gemm(x, w, b)", {"w": SQUARE, "b": SQUARE + 1}, "bias differs from row to row"),
    "bias per row": (FLAT, "y = Gemm(x, w, b)", {"w": SQUARE, "b": SQUARE[:2, :1]}, "bias differs from row to row"),
    "tied and transposed": (
        FLAT,
        "h = Gemm(x, w)  y = Gemm<transB=1>(h, w)",
        {"w": SQUARE},
        "read them transposed to each other",
    ),
    "constant input": (FLAT, "h = Gemm(v, w)  y = Add(x, h)", {"w": SQUARE, "v": SQUARE + 1}, "input is a constant"),
    "not finite": (FLAT, "y = MatMul(x, w)", {"w": np.where(np.eye(4) > 0, np.nan, SQUARE)}, "not finite"),
    "recurrent": (
        "float[2,1,4] x => float[2,1,1,1] y",
        "y = GRU<hidden_size=1>(x, w, r)",
        {"w": floats(RNG, 1, 3, 4), "r": floats(RNG, 1, 3, 1)},
        "no other recurrent layer",
    ),
    "transposed convolution": (
        "float[1,4,4,4] x => float[1,4,4,4] y",
        "y = ConvTranspose(x, w)",
        {"w": floats(RNG, 4, 4, 1, 1)},
        "no int8 kernel",
    ),
}


@pytest.mark.parametrize("case", NEITHER)
def test_what_can_be_quantized_neither_way_says_why_both_times(case: str, tmp_path: Path) -> None:
    signature, body, arrays, reason = NEITHER[case]
    weights = {w.value.name: w for w in load(graph(signature, body, **arrays), tmp_path).weights()}
    for refusal in (static_refusal(weights["w"]), dynamic_refusal(weights["w"])):
        assert refusal is not None
        assert reason in refusal


EITHER: dict[str, tuple[str, dict[str, Array]]] = {
    "matmul": ("y = MatMul(x, w)", {"w": SQUARE}),
    "gemm": ("y = Gemm<transB=1>(x, w, b)", {"w": SQUARE, "b": floats(RNG, 4)}),
    "gemm with a row as bias": ("y = Gemm(x, w, b)", {"w": SQUARE, "b": floats(RNG, 1, 4)}),
    "gemm with a number as bias": ("y = Gemm(x, w, b)", {"w": SQUARE, "b": floats(RNG, 1)}),
    "shared": ("h = MatMul(x, w)  y = MatMul(h, w)", {"w": SQUARE}),
}


@pytest.mark.parametrize("case", EITHER)
def test_what_can_be_quantized_is_not_refused(case: str, tmp_path: Path) -> None:
    body, arrays = EITHER[case]
    (weight,) = load(graph(FLAT, body, **arrays), tmp_path).weights()
    assert static_refusal(weight) is None
    assert dynamic_refusal(weight) is None


@pytest.mark.parametrize(
    ("shape", "bias", "refused"),
    [
        ("N,4 => 1,N,4", (1, 1, 4), True),
        ("N,4 => N,4", (1, 4), False),
        ("N,4 => N,4", (), False),
        ("2,N,4 => 2,N,4", (1, 1, 4), False),
        ("2,N,4 => 2,N,4", (2, 1, 1), False),
    ],
)
def test_a_product_that_an_add_gives_more_axes_is_not_made_one_of_integers(
    shape: str, bias: tuple[int, ...], refused: bool, tmp_path: Path
) -> None:
    before, after = shape.split(" => ")
    proto = graph(
        f"float[{before}] x => float[{after}] y",
        "h = MatMul(x, w)  y = Add(h, b)",
        w=SQUARE,
        b=floats(RNG, *bias) if bias else np.float32(1),
    )
    (weight,) = load(proto, tmp_path).weights()
    assert ("another shape" in (dynamic_refusal(weight) or "")) == refused


def test_an_add_that_makes_several_outputs_of_one_is_one_such_too(tmp_path: Path) -> None:
    body, arrays = "h = MatMul(x, w)  y = Add(h, b)", {"w": floats(RNG, 4, 1), "b": floats(RNG, 4)}
    (weight,) = load(graph(FLAT, body, **arrays), tmp_path).weights()
    assert "another shape" in (dynamic_refusal(weight) or "")


def test_an_lstm_is_for_dynamic_only(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {"w": floats(RNG, 1, 4, 4), "r": floats(RNG, 1, 4, 1)}
    proto = graph("float[2,1,4] x => float[2,1,1,1] y", "y = LSTM<hidden_size=1>(x, w, r)", **arrays)
    weights = list(load(proto, tmp_path).weights())
    assert all("quantize_dynamic" in str(static_refusal(weight)) for weight in weights)
    assert [dynamic_refusal(weight) for weight in weights] == [None, None]


def test_an_embedding_is_for_dynamic_only_and_along_the_first_axis_only(tmp_path: Path) -> None:
    signature = "int64[4] x => float[4,4] y"
    first, second = (
        next(load(graph(signature, f"y = Gather<axis={axis}>(w, x)", w=SQUARE), tmp_path).weights()) for axis in (0, 1)
    )
    assert "quantize_dynamic" in str(static_refusal(first))
    assert dynamic_refusal(first) is None
    assert "another axis" in str(dynamic_refusal(second))


def test_inside_a_branch_ranges_cannot_be_observed(tmp_path: Path) -> None:
    body = """y = If(c) <then_branch = t () => (float[4,4] a) { a = MatMul(x, w) },
                         else_branch = e () => (float[4,4] b) { b = Relu(x) }>"""
    (weight,) = load(graph("float[4,4] x, bool c => float[4,4] y", body, w=SQUARE), tmp_path).weights()
    assert "branch" in str(static_refusal(weight))


COMPOSED: dict[str, tuple[str, dict[str, Array], str]] = {
    "transposed": ("t = Transpose(w)  [layer] y = MatMul(x, t)", {"w": SQUARE}, "put simplify before"),
    "half": ("t = Cast<to=1>(w)  [layer] y = MatMul(x, t)", {"w": SQUARE.astype(np.float16)}, "float16 already; cast"),
    "codes": (
        "l = Cast<to=6>(q)  v = Gather(book, l)  [layer] y = MatMul(x, v)",
        {"q": np.ones((4, 4), np.uint8), "book": floats(RNG, 4)},
        "quantized already",
    ),
    "gates": (
        "a, b = Split<num_outputs=2>(w)  c = Concat<axis=0>(b, a)  [layer] y = Gemm<transB=1>(x, c)",
        {"w": SQUARE},
        "put simplify before",
    ),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_weights_that_are_put_together_at_load_say_what_they_are(case: str, tmp_path: Path) -> None:
    body, arrays, reason = COMPOSED[case]
    model = load(graph(FLAT, body, **arrays), tmp_path)
    ((name, layer, found),) = set_aside(model)
    assert (name, layer) == ("layer", "Gemm" if case == "gates" else "MatMul")
    assert reason in found


def test_a_weight_that_is_computed_from_the_input_is_none(tmp_path: Path) -> None:
    body = "n = Neg(x)  s = Shape(x)  r = Reshape(n, s)  y = MatMul(x, r)"
    assert not list(set_aside(load(graph(FLAT, body), tmp_path)))


def test_layers_that_are_integers_already_are_found(tmp_path: Path) -> None:
    body = """d = DequantizeLinear(q, s)  [fixed] h = MatMul(x, d)  [float] f = MatMul(h, w)
    r, rs, rz = DynamicQuantizeLinear(f)  [ranged] i = MatMulInteger(r, q, rz)  y = Cast<to=1>(i)"""
    arrays: dict[str, Array] = {"q": np.ones((4, 4), np.int8), "s": np.ones((), np.float32), "w": SQUARE}
    model = load(graph(FLAT, body, **arrays), tmp_path)
    assert sorted(already_quantized(model)) == [("fixed", "MatMul"), ("ranged", "MatMulInteger")]
    assert {reason for _, _, reason in set_aside(model)} == {"quantized already"}
    assert [w.name for w in model.weights()] == ["float"]

"""Arrays in 16 bits are the nearest there are and cost no time; a widened model is the float32 one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compressor.graph.cast import LEAST_ENTRIES, PRECISION, Narrow, constants, narrowed, store_narrow, widen
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.select import Selectors
from compressor.graph.verify import check_file, check_signature
from compressor.runtime.ort import Session
from tests.models import Array, Floats, floats, graph, load, outputs, run

RNG = np.random.default_rng(0)
NARROW: tuple[Narrow, ...] = ("float16", "bfloat16")


def _round(array: Floats, dtype: Narrow) -> Floats:
    """To nearest, ties to even, by the bits: bfloat16 is the upper half of float32."""
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    bits = array.view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    return (upper << np.uint64(16)).astype(np.uint32).view(np.float32)


def _store(model: Model, dtype: Narrow, *targets: str) -> list[str]:
    found = list(constants(model, Selectors(targets)))
    for constant in found:
        store_narrow(constant.value, narrowed(constant.array().astype(np.float32), dtype))
    settle(model.ir)
    return [constant.name for constant in found]


def _executed(path: Path) -> list[str]:
    """Operators of all graphs, as ONNX Runtime runs them."""
    Session(path, optimized=path.with_suffix(".optimized"))
    graphs, found = [onnx.load(path.with_suffix(".optimized")).graph], []
    while graphs:
        for node in graphs.pop().node:
            found.append(node.op_type)
            graphs += [attribute.g for attribute in node.attribute if attribute.g.node]
    return found


IF = (
    "y = If(c) <then_branch = t () => (float[2,8] a) { a = MatMul(x, w) }, else_branch = e () => (float[2,8] b) BRANCH>"
)
MODELS: dict[str, tuple[str, str, dict[str, Array]]] = {
    "product": ("float[2,8] x => float[2,8] y", "y = MatMul(x, w)", {"w": floats(RNG, 8, 8)}),
    "convolution": ("float[1,4,9,9] x => float[n,c,h,w] y", "y = Conv(x, w)", {"w": floats(RNG, 8, 4, 3, 3)}),
    "normalized": (
        "float[1,4,9,9] x => float[n,c,h,w] y",
        "h = Conv(x, w)  y = BatchNormalization(h, g, b, m, v)",
        {"w": floats(RNG, 80, 4, 3, 3), **{name: np.abs(floats(RNG, 80)) for name in "gbmv"}},
    ),
    "recurrent": (
        "float[5,1,8] x => float[5,1,1,4] y",
        "y = LSTM<hidden_size=4>(x, w, r)",
        {"w": floats(RNG, 1, 16, 8), "r": floats(RNG, 1, 16, 4)},
    ),
    "two branches": (
        "float[2,8] x, bool c => float[2,8] y",
        IF.replace("BRANCH", "{ b = Gemm(x, w) }"),
        {"w": floats(RNG, 8, 8)},
    ),
    "shared": ("float[2,8] x => float[2,8] y", "h = MatMul(x, w)  y = MatMul(h, w)", {"w": floats(RNG, 8, 8)}),
}


def _feeds(proto: onnx.ModelProto) -> dict[str, Array]:
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    return {name: floats(RNG, *shape) if name == "x" else np.array(True) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("case", MODELS)
def test_the_result_is_the_model_with_rounded_arrays_at_no_cost(case: str, dtype: Narrow, tmp_path: Path) -> None:
    signature, body, arrays = MODELS[case]
    rounded = {name: _round(array, dtype) for name, array in arrays.items()}
    expected = graph(signature, body, **rounded)
    model = load(graph(signature, body, **arrays), tmp_path)
    assert _store(model, dtype)
    feeds = _feeds(expected)
    assert np.array_equal(outputs(model, feeds, tmp_path)["y"], run(expected, feeds)["y"])
    check_file(tmp_path / "written.onnx")
    assert "Cast" not in _executed(tmp_path / "written.onnx")
    entries = sum(array.size for array in arrays.values())
    assert model.nbytes() == 2 * entries
    assert model.parameters() == entries


def test_each_array_is_stored_once_and_its_float_form_keeps_the_name(tmp_path: Path) -> None:
    signature, body, arrays = MODELS["two branches"]
    model = load(graph(signature, body, **arrays), tmp_path)
    _store(model, "float16")
    (cast,) = (node for node in model.ir.graph if node.op_type == "Cast")
    assert cast.outputs[0].name == "w"
    assert len(cast.outputs[0].uses()) == 2
    assert list(model.ir.graph.initializers) == ["w_float16"]


@pytest.mark.parametrize("dtype", NARROW)
def test_the_bounds_of_a_type_are_those_of_its_numbers(dtype: Narrow) -> None:
    bounds = PRECISION[dtype]
    inside = np.array([bounds.largest, bounds.smallest, -bounds.largest], np.float32)
    assert np.array_equal(narrowed(inside, dtype).astype(np.float32), inside)
    assert np.isinf(narrowed(np.array([bounds.largest * (1 + bounds.rounding)], np.float32), dtype)).all()
    spread = (2.0 ** RNG.uniform(np.log2(bounds.smallest), np.log2(bounds.largest) - 1, 9999)).astype(np.float32)
    error = np.abs(narrowed(spread, dtype).astype(np.float32) - spread) / spread
    assert bounds.rounding * 0.9 < error.max() <= bounds.rounding


def test_large_arrays_of_the_selected_layers_are_found_beside_their_weights(tmp_path: Path) -> None:
    body = """[a] h = Gemm(x, w, long)  [b] i = Gemm(h, v, short)  [p] j = Add(i, positions)
    q = QuantizeLinear(j, scales, zeros)  y = DequantizeLinear(q, scales, zeros)"""
    arrays: dict[str, Array] = {
        "w": floats(RNG, 8, LEAST_ENTRIES),
        "long": floats(RNG, LEAST_ENTRIES),
        "v": floats(RNG, LEAST_ENTRIES, 2),
        "short": floats(RNG, 2),
        "positions": floats(RNG, 99, 2),
        "scales": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.uint8),
    }
    model = load(graph("float[99,8] x => float[99,2] y", body, **arrays), tmp_path)
    assert [c.name for c in constants(model, Selectors())] == ["a", "b", "long", "positions"]
    assert [c.name for c in constants(model, Selectors(("Gemm",), ("b",)))] == ["a", "long"]
    assert [c.name for c in constants(model, Selectors(("positions",)))] == ["positions"]


def test_scales_and_what_other_domains_read_stay(tmp_path: Path) -> None:
    body = """d = DequantizeLinear<axis=1>(q, scales)  h = MatMul(x, d)
    y = com.microsoft.BiasGelu(h, bias)"""
    arrays = {"q": np.ones((8, 128), np.int8), "scales": np.ones(128, np.float32), "bias": floats(RNG, 128)}
    proto = graph("float[2,8] x => float[2,128] y", body, domains=("com.microsoft",), **arrays)
    assert not list(constants(load(proto, tmp_path), Selectors()))


def test_an_array_that_the_model_gives_out_stays(tmp_path: Path) -> None:
    proto = graph("float[2,8] x => float[2,8] y, float[8,8] w", "y = MatMul(x, w)", w=floats(RNG, 8, 8))
    assert not list(constants(load(proto, tmp_path), Selectors()))


BODIES = {
    "layers": "h = Gemm(x, w, b)  r = Relu(h)  y = MatMul(r, w)",
    "casts": """i = Cast<to=7>(x)  f = Cast<to=TYPE>(i)  h = Add(f, b)
        g = Cast<to=1>(h)  k = Cast<to=TYPE>(g)  y = Mul(k, x)""",
    "made inside": """s = Shape(x)  o = ConstantOfShape<value=NAME[1] {2}>(s)
        e = EyeLike<dtype=TYPE>(o)  y = MatMul(x, e)""",
    "in a branch": """z = ReduceSum<keepdims=0>(x)  n = CastLike(z, x)  c = Cast<to=9>(n)
        y = If(c) <then_branch = t () => (NAME[4,4] p) { p = MatMul(x, w) },
                   else_branch = e () => (NAME[4,4] q) { q = Neg(x) }>""",
    "in a loop": """k = Constant<value_int=3>()  t = Cast<to=9>(k)
        y = Loop(k, t, x) <body = l (int64 i, bool go, NAME[4,4] a) => (bool goes, NAME[4,4] n)
            { goes = Identity(go)  n = MatMul(a, w) }>""",
    "normalized": "y = LayerNormalization<stash_type=1>(x, b, b)",
}
TYPES = {"float16": (10, np.float16, 2e-2), "double": (11, np.float64, 1e-5)}


def _typed(body: str, name: str, **arrays: Floats) -> onnx.ModelProto:
    number = {"float": 1, "float16": 10, "double": 11}[name]
    text = body.replace("TYPE", str(number)).replace("NAME", name)
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[name]
    converted = {key: array.astype(dtype) for key, array in arrays.items()}
    return graph(f"{name}[4,4] x => {name}[4,4] y", text, **converted)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("case", BODIES)
def test_a_widened_model_computes_as_the_float32_one_and_keeps_its_signature(
    case: str, kind: str, tmp_path: Path
) -> None:
    _, dtype, tolerance = TYPES[kind]
    arrays = {
        name: floats(RNG, *shape).astype(dtype).astype(np.float32) for name, shape in (("w", (4, 4)), ("b", (4,)))
    }
    model = load(_typed(BODIES[case], kind, **arrays), tmp_path)
    reference, x = model.copy(), floats(RNG, 4, 4).astype(dtype)
    widen(model)
    found = outputs(model, {"x": x}, tmp_path)["y"]
    check_file(tmp_path / "written.onnx")
    check_signature(reference, model)
    wanted = run(_typed(BODIES[case], "float", **arrays), {"x": x.astype(np.float32)})["y"]
    assert found.dtype == dtype
    assert np.allclose(found, wanted, rtol=tolerance, atol=tolerance)
    types = {i.data_type for i in onnx.load(tmp_path / "written.onnx").graph.initializer}
    assert not types & {10, 11, 16}


def test_only_the_border_of_a_widened_model_is_cast(tmp_path: Path) -> None:
    model = load(_typed(BODIES["layers"], "float16", w=floats(RNG, 4, 4), b=floats(RNG, 4)), tmp_path)
    before = widen(model)
    assert [node.op_type for node in model.ir.graph] == ["Cast", "Gemm", "Relu", "MatMul", "Cast"]
    assert {value.name: nbytes for value, nbytes in before.items()} == {"w": 32, "b": 8}


def test_widening_undoes_storing(tmp_path: Path) -> None:
    model = load(graph("float[2,8] x => float[2,8] y", "y = MatMul(x, w)", w=floats(RNG, 8, 8)), tmp_path)
    _store(model, "bfloat16")
    widen(model)
    assert [node.op_type for node in model.ir.graph] == ["MatMul"]
    assert [weight.dtype for weight in model.weights()] == ["float32"]


def test_what_goes_straight_through_keeps_its_type(tmp_path: Path) -> None:
    signature = "float16[4] x, float16[4] z => float16[4] y, float16[4] x, float16[4] k"
    proto = graph(signature, "y = Add(x, z)", k=np.ones(4, np.float16))
    model = load(proto, tmp_path)
    reference = model.copy()
    widen(model)
    feeds = {"x": np.arange(4, dtype=np.float16), "z": np.ones(4, np.float16)}
    found = outputs(model, feeds, tmp_path)
    check_signature(reference, model)
    assert all(np.array_equal(found[name], expected) for name, expected in run(proto, feeds).items())


def test_numbers_beyond_float32_become_its_largest(tmp_path: Path) -> None:
    mask = np.array([0, -1.7e308, np.inf, 1e-320])
    model = load(graph("double[4] x => double[4] y", "y = Mul(x, mask)", mask=mask), tmp_path)
    widen(model)
    model.save(tmp_path / "out.onnx")
    (stored,) = onnx.load(tmp_path / "out.onnx").graph.initializer
    assert numpy_helper.to_array(stored).tolist() == [0, np.finfo(np.float32).min, np.inf, 0]

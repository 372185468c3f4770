"""A model has as many parameters in codes as it had in float, however these are stored and wherever it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import RandomSource
from compressor.graph.composed import composed
from compressor.graph.edit import settle
from compressor.graph.learned import learned
from compressor.graph.model import Model
from compressor.graph.refusals import already_quantized, set_aside
from compressor.graph.simplify import simplify
from compressor.graph.storage import insert_storage
from compressor.numerics.levels import Bits
from compressor.numerics.schemes import Scheme, encode
from compressor.passes.base import Context, Pass
from compressor.passes.quantize_dynamic import QuantizeDynamic
from compressor.passes.quantize_static import QuantizeStatic, WeightSettings
from compressor.passes.quantize_weights import QuantizeWeights
from compressor.progress import Silent
from tests.models import array, floats, graph, load

RNG = np.random.default_rng(2)


def _products() -> onnx.ModelProto:
    body = "[first] h = Gemm<transB=1>(x, w1, b1)  r = Relu(h)  [second] y = MatMul(r, w2)"
    arrays = {"w1": floats(RNG, 24, 40), "b1": floats(RNG, 24), "w2": floats(RNG, 24, 16)}
    return graph("float[N,40] x => float[N,16] y", body, **arrays)


def _convolutions() -> onnx.ModelProto:
    body = "[first] h = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(h)  [second] y = Conv(r, w2)"
    arrays = {"w1": floats(RNG, 12, 8, 3, 3), "b1": floats(RNG, 12), "w2": floats(RNG, 6, 12, 2, 2)}
    return graph("float[N,8,6,6] x => float[N,6,5,5] y", body, **arrays)


def _others() -> onnx.ModelProto:
    body = """[up] y = ConvTranspose<group=2>(x, w)  [e] z = Gather(t, i)  s = Transpose<perm=[0,2,1]>(z)
    [gru] g = GRU<hidden_size=16>(z, a, b)  [batch] m = MatMul(s, u)"""
    signature = "float[N,8,4,4] x, int64[5,3] i => float[N,16,5,5] y, float[5,1,3,16] g, float[5,64,20] m"
    arrays = {"w": floats(RNG, 8, 8, 2, 2), "t": floats(RNG, 30, 64), "u": floats(RNG, 5, 3, 20)}
    return graph(signature, body, **arrays, a=floats(RNG, 1, 48, 64), b=floats(RNG, 1, 48, 16))


BITS: tuple[Bits, ...] = (8, 4, 3, 2, "ternary", "binary")
FORMS: dict[str, tuple[Callable[[], onnx.ModelProto], Pass]] = {
    **{f"int8 products {bits}": (_products, QuantizeWeights(bits=bits, block=8)) for bits in BITS},
    **{f"packed products {bits}": (_products, QuantizeWeights(bits=bits, compute="float")) for bits in (8, 4, 2)},
    "packed by zero point": (_products, QuantizeWeights(bits=4, compute="float", symmetric=False)),
    **{f"standard {b}": (_products, QuantizeWeights(bits=b, compute="float", format="standard")) for b in (8, 4)},
    **{f"static {b}": (_convolutions, QuantizeStatic(weights=WeightSettings(bits=b))) for b in BITS},
    "static in blocks": (_convolutions, QuantizeStatic(weights=WeightSettings(bits=3, granularity="per_block"))),
    "static products": (_products, QuantizeStatic(weights=WeightSettings(bits=2))),
    **{f"stored {bits}": (_convolutions, QuantizeWeights(bits=bits, block=8)) for bits in BITS},
    **{f"others {bits}": (_others, QuantizeWeights(bits=bits, block=8)) for bits in BITS},
    "dynamic": (_products, QuantizeDynamic()),
    "dynamic convolutions": (_convolutions, QuantizeDynamic(convolutions=True)),
}  # fmt: skip


def _quantized(form: str, folder: Path) -> tuple[Model, Model]:
    """Before and after."""
    proto, step = FORMS[form]
    model = load(proto(), folder)
    before = model.copy()
    data = RandomSource(samples=4).open(model, "data", 0)
    list(step.apply(model, Context(before, data, 0, folder, Silent(), 1)))
    return before, model


@pytest.mark.parametrize("form", FORMS)
def test_parameters_stay_as_many_wherever_the_model_goes(form: str, tmp_path: Path) -> None:
    before, model = _quantized(form, tmp_path)
    assert model.parameters() == before.parameters()
    model.save(tmp_path / "q.onnx")
    read, loaded = Model.read(tmp_path / "q.onnx"), Model.load(tmp_path / "q.onnx")
    assert read.parameters() == loaded.parameters() == before.parameters()
    list(simplify(loaded))
    assert loaded.parameters() == before.parameters()


@pytest.mark.parametrize("form", FORMS)
def test_every_layer_says_that_it_is_quantized_already(form: str, tmp_path: Path) -> None:
    before, model = _quantized(form, tmp_path)
    model.save(tmp_path / "q.onnx")
    again = Model.load(tmp_path / "q.onnx")
    layers = {use.node.name for weight in before.weights() for use in weight.uses}
    assert len(list(already_quantized(again))) == len(layers)
    assert {reason for _, _, reason in set_aside(again)} == {"quantized already"}
    assert not list(again.weights())


@pytest.mark.parametrize("form", ["int8 products 2", "static 3", "stored ternary", "others 2", "static in blocks"])
def test_what_is_packed_stays_packed_when_it_is_read_and_simplified(form: str, tmp_path: Path) -> None:
    _, model = _quantized(form, tmp_path)
    size = model.save(tmp_path / "q.onnx")
    again = Model.load(tmp_path / "q.onnx")
    assert again.save(tmp_path / "again.onnx") == size
    list(simplify(again))
    assert again.nbytes() <= model.nbytes()


def test_functions_of_others_are_inlined(tmp_path: Path) -> None:
    proto = graph("float[2] x => float[2] y", "y = Neg(x)")
    function = onnx.parser.parse_function(
        '<domain: "mine", opset_import: ["" : 21]> Twice (a) => (b) { b = Add(a, a) }'
    )
    proto.functions.append(function)
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    proto.graph.node[0].CopyFrom(onnx.helper.make_node("Twice", ["x"], ["y"], domain="mine"))
    model = load(proto, tmp_path)
    assert model.node_counts() == {"Add": 1}
    assert not model.ir.functions


@pytest.mark.parametrize(("bits", "found"), [(8, 9), (4, 9), (2, 0), ("ternary", 0)])
def test_zeros_are_counted_where_a_code_is_a_number_of_its_own(bits: Bits, found: int, tmp_path: Path) -> None:
    weight = floats(RNG, 16, 16) + np.float32(9)
    weight[:3, :3] = 0
    model = load(graph("float[N,16] x => float[N,16] y", "y = MatMul(x, w)", w=weight), tmp_path)
    assert model.zeros() == 9
    (only,) = model.weights()
    insert_storage(model.ir, only, encode(only.matrix(), Scheme(bits)))
    settle(model.ir)
    assert (model.parameters(), model.zeros()) == (256, found)


def test_a_shared_weight_is_counted_once(tmp_path: Path) -> None:
    body = "[a] h = MatMul(x, w)  [b] y = MatMul(h, w)"
    model = load(graph("float[N,32] x => float[N,32] y", body, w=floats(RNG, 32, 32)), tmp_path)
    data = RandomSource(samples=4).open(model, "data", 0)
    list(QuantizeStatic(scheme="w4a8").apply(model, Context(model.copy(), data, 0, tmp_path, Silent(), 1)))
    assert model.node_counts()["DequantizeLinear"] > 2
    assert model.parameters() == 32 * 32


def test_shapes_indices_scales_and_multipliers_are_not_learned(tmp_path: Path) -> None:
    body = "s = Reshape(x, shape)  g = Gather(s, picked)  [l] y = MatMul(g, w)"
    arrays = {"shape": np.array([4, 8]), "picked": np.array([0, 2]), "w": floats(RNG, 8, 32)}
    model = load(graph("float[2,16] x => float[2,32] y", body, **arrays), tmp_path)
    list(QuantizeWeights(bits=2, block=4).apply(model, Context(model.copy(), None, 0, tmp_path, Silent(), 1)))
    (only,) = learned(model.ir)
    assert (only.value.name, only.entries, only.packed, only.zeros) == ("w_packed", 8 * 32, True, 0)


def test_what_is_composed_knows_what_it_is_made_of(tmp_path: Path) -> None:
    body = "t = Transpose(w)  s = Add(t, c)  d = Cast<to=1>(q)  m = Mul(d, c)  p = Add(x, m)  y = MatMul(p, s)"
    arrays = {"w": floats(RNG, 4, 4), "c": array([1.0]), "q": np.ones((4, 4), np.int8)}
    model = load(graph("float[4,4] x => float[4,4] y", body, **arrays), tmp_path)
    made = {value.name: what for value, what in composed(model.ir).items()}
    assert made.keys() == {"t", "s", "d", "m"}
    assert (made["s"].source.name, made["s"].size, made["s"].of_codes) == ("w", 16, False)
    assert (made["m"].source.name, made["m"].size, made["m"].of_codes) == ("q", 16, True)
    assert {value.name for value in made["m"].arrays} == {"q", "c"}

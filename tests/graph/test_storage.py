"""Stored in few bits, a layer computes what it would with the real weights the codes stand for, in float."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.packing import has_blocks
from compressor.graph.storage import insert_storage
from compressor.graph.weights import Weight
from compressor.numerics.levels import Bits, Coded
from compressor.numerics.schemes import Scheme, encode
from compressor.runtime.ort import Session
from tests.models import Array, floats, graph, load, outputs

RNG = np.random.default_rng(5)
PICTURE = "float[2,6,7,7] x => float[n,c,h,v] y"
SERIES = "float[5,2,8] x => float[t,d,n,h] y"


def _drawn(*shape: int) -> Array:
    """Channels of very different size."""
    return floats(RNG, *shape) * RNG.gamma(1, size=(shape[0], *[1] * (len(shape) - 1))).astype(np.float32)


LAYERS: dict[str, tuple[str, str, dict[str, Array]]] = {
    "convolution": (PICTURE, "y = Conv<pads=[1,1,1,1]>(x, w, b)", {"w": _drawn(8, 6, 3, 3), "b": floats(RNG, 8)}),
    "grouped": (PICTURE, "y = Conv<group=3, strides=[2,2]>(x, w)", {"w": _drawn(6, 2, 3, 3)}),
    "depthwise": (PICTURE, "y = Conv<group=6>(x, w)", {"w": _drawn(6, 1, 3, 3)}),
    "line": ("float[2,6,9] x => float[n,c,t] y", "y = Conv<dilations=[2]>(x, w)", {"w": _drawn(8, 6, 4)}),
    "transposed convolution": (PICTURE, "y = ConvTranspose<strides=[2,2]>(x, w)", {"w": _drawn(6, 4, 2, 2)}),
    "transposed in groups": (PICTURE, "y = ConvTranspose<group=2>(x, w)", {"w": _drawn(6, 5, 3, 3)}),
    "transposed depthwise": (PICTURE, "y = ConvTranspose<group=6>(x, w)", {"w": _drawn(6, 1, 3, 3)}),
    "gru": (
        SERIES,
        "y = GRU<hidden_size=8>(x, w, r, b)",
        {"w": _drawn(1, 24, 8), "r": _drawn(1, 24, 8), "b": floats(RNG, 1, 48)},
    ),
    "gru both ways": (
        SERIES,
        'y = GRU<hidden_size=4, direction="bidirectional">(x, w, r)',
        {"w": floats(RNG, 2, 12, 8), "r": floats(RNG, 2, 12, 4)},
    ),
    "rnn": (SERIES, "y = RNN<hidden_size=8>(x, w, r)", {"w": _drawn(1, 8, 8), "r": _drawn(1, 8, 8)}),
    "lstm": (SERIES, "y = LSTM<hidden_size=8>(x, w, r)", {"w": _drawn(1, 32, 8), "r": _drawn(1, 32, 8)}),
    "batch of matrices": ("float[3,4,8] x => float[n,r,o] y", "y = MatMul(x, w)", {"w": _drawn(3, 8, 5)}),
    "left factor": ("float[8,4] x => float[o,c] y", "y = MatMul(w, x)", {"w": _drawn(6, 8)}),
    "gemm of a transposed input": (
        "float[8,4] x => float[r,o] y",
        "y = Gemm<transA=1>(x, w)",
        {"w": floats(RNG, 8, 6)},
    ),
    "gemm by half": ("float[4,8] x => float[r,o] y", "y = Gemm<alpha=0.5, transB=1>(x, w)", {"w": _drawn(6, 8)}),
}


def _store(model: Model, weight: Weight, bits: Bits) -> Coded:
    granularity = "per_block" if bits != 8 and has_blocks(weight) else "per_channel"
    coded = encode(weight.matrix(), Scheme(bits, granularity, 4))
    insert_storage(model.ir, weight, coded)
    return coded


def _pair(proto: onnx.ModelProto, bits: Bits, folder: Path) -> tuple[Model, Model]:
    """The model with dequantized weights in float, and the model with their codes."""
    model = load(proto, folder)
    rounded = model.copy()
    twins = {weight.value.name: weight for weight in rounded.weights()}
    for weight in list(model.weights()):
        twin = twins[weight.value.name]
        coded = _store(model, weight, bits)
        twin.store(coded.dequantize())
    settle(model.ir)
    return rounded, model


def _executed(model: Model, folder: Path) -> list[str]:
    model.save(folder / "m.onnx")
    Session(folder / "m.onnx", optimized=folder / "optimized.onnx")
    return sorted(Model.read(folder / "optimized.onnx").node_counts().elements())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("bits", [8, 4, 3, 2, "ternary", "binary"])
def test_what_runs_is_the_float_layer_with_dequantized_weights(bits: Bits, layer: str, tmp_path: Path) -> None:
    signature, body, arrays = LAYERS[layer]
    proto = graph(signature, body, **arrays)
    rounded, stored = _pair(proto, bits, tmp_path)
    x = floats(RNG, *(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim))
    expected, found = (outputs(model, {"x": x}, tmp_path)["y"] for model in (rounded, stored))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)
    assert _executed(stored, tmp_path) == _executed(rounded, tmp_path)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "transposed in groups"])
def test_scales_are_stored_once_per_output_and_not_per_weight(layer: str, tmp_path: Path) -> None:
    signature, body, arrays = LAYERS[layer]
    model = load(graph(signature, body, **arrays), tmp_path)
    for weight in list(model.weights()):
        matrix, name = weight.matrix(), weight.value.name
        _store(model, weight, 8)
        scale = model.ir.graph.initializers[f"{name}_scale"]
        assert scale.shape is not None
        assert np.prod(scale.shape.numpy()) == len(matrix)
        assert name not in model.ir.graph.initializers
        assert f"{name}_zero_point" not in model.ir.graph.initializers


def test_all_layers_that_share_a_weight_read_the_codes(tmp_path: Path) -> None:
    body = "a = MatMul(x, w)  b = MatMul(a, w)  y = Add(a, b)"
    proto = graph("float[2,3,8] x => float[2,3,8] y", body, w=floats(RNG, 2, 8, 8) / 4)
    rounded, stored = _pair(proto, 4, tmp_path)
    feeds = {"x": floats(RNG, 2, 3, 8)}
    expected, found = (outputs(model, feeds, tmp_path)["y"] for model in (rounded, stored))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert stored.node_counts()["Mul"] == 1


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_a_weight_of_a_branch_is_stored_where_it_is(inside: bool, tmp_path: Path) -> None:
    body = """y = If(c) <then_branch = t () => (float[2,3,8] a) { a = MatMul(x, w) },
                         else_branch = e () => (float[2,3,8] b) { b = Relu(x) }>"""
    proto = graph("float[2,3,8] x, bool c => float[2,3,8] y", body, w=floats(RNG, 2, 8, 8))
    if inside:
        (branch,) = (a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
        branch.initializer.append(proto.graph.initializer.pop())
    rounded, stored = _pair(proto, 2, tmp_path)
    for flag in (True, False):
        feeds = {"x": floats(RNG, 2, 3, 8), "c": np.array(flag)}
        expected, found = (outputs(model, feeds, tmp_path)["y"] for model in (rounded, stored))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_types_and_shapes_are_known_to_whoever_reads_on(tmp_path: Path) -> None:
    model = load(graph(PICTURE, "y = Conv(x, w)", w=floats(RNG, 8, 6, 3, 3)), tmp_path)
    (weight,) = model.weights()
    (node,) = {use.node for use in weight.uses}
    _store(model, weight, 2)
    read = node.inputs[1]
    assert read is not None
    assert (read.dtype, read.shape) == (ir.DataType.FLOAT, ir.Shape([8, 6, 3, 3]))

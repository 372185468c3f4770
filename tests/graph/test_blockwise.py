"""Block-wise operators compute what the float layer does with the real weights the codes stand for.

At its accuracy level MatMulNBits rounds every block of its input to 255 steps; inputs that are whole
numbers, with 127 the largest of each block, come out of that as they were, so that outputs must agree.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

from compressor.graph.blockwise import insert_block_dequantization, insert_block_embedding, insert_block_product
from compressor.graph.edit import settle
from compressor.graph.kernels import count_kernels
from compressor.graph.model import Model
from compressor.numerics.levels import Coded
from compressor.numerics.schemes import Rounding, Scheme, encode
from compressor.runtime.ort import Session
from tests.models import Array, Floats, decibels, floats, graph, load, outputs

Form = Literal["matmul_nbits", "standard"]
Width = Literal[8, 4, 2]

RNG = np.random.default_rng(6)


def _whole(*shape: int, block: int) -> Floats:
    """Whole numbers up to 127, which comes in every block of the last axis."""
    x = RNG.integers(-127, 128, shape).astype(np.float32)
    x[..., ::block] = 127
    return x


def _product(kind: str, inputs: int, outputs: int) -> onnx.ModelProto:
    weight = floats(RNG, outputs, inputs) + np.float32(0.3)
    arrays: dict[str, Array] = {
        "w": weight if kind == "gemm transposed" else weight.T.copy(),
        "b": floats(RNG, outputs),
    }
    bodies = {
        "gemm": "[l] y = Gemm(x, w, b)",
        "gemm transposed": "[l] y = Gemm<transB=1>(x, w, b)",
        "gemm without bias": "[l] y = Gemm(x, w)",
        "product": "[l] y = MatMul(x, w)",
        "product of rows of rows": "[l] y = MatMul(x, w)",
    }
    if "b)" not in bodies[kind]:
        del arrays["b"]
    shape = f"2,3,{inputs}" if "rows" in kind else f"5,{inputs}"
    made = f"2,3,{outputs}" if "rows" in kind else f"5,{outputs}"
    return graph(f"float[{shape}] x => float[{made}] y", bodies[kind], **arrays)


def _quantize(model: Model, form: Form, bits: Width, block: int, symmetric: bool) -> tuple[Model, Coded]:
    """The model with dequantized weights in float, the other one being edited; and the codes."""
    rounded = model.copy()
    (weight,), (twin,) = model.weights(), rounded.weights()
    matrix = weight.matrix()
    coded = encode(matrix, Scheme(bits, "per_block", block, "float", symmetric))
    twin.store(np.ascontiguousarray(coded.dequantize()[:, : matrix.shape[1]]))
    (insert_block_product if form == "matmul_nbits" else insert_block_dequantization)(weight, coded)
    settle(model.ir)
    return rounded, coded


KINDS = ("gemm", "gemm transposed", "gemm without bias", "product", "product of rows of rows")
FORMS: dict[str, tuple[Form, Width, int, bool]] = {
    **{f"nbits {bits}": ("matmul_nbits", bits, 32, True) for bits in (8, 4, 2)},
    **{f"nbits {bits} asymmetric": ("matmul_nbits", bits, 32, False) for bits in (8, 4, 2)},
    "nbits 4 by 16": ("matmul_nbits", 4, 16, False),
    "nbits 2 by 64": ("matmul_nbits", 2, 64, False),
    **{f"standard {bits}": ("standard", bits, 32, True) for bits in (8, 4)},
    **{f"standard {bits} asymmetric": ("standard", bits, 32, False) for bits in (8, 4)},
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "made"), [(64, 8), (96, 7), (40, 5), (20, 3)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_products_are_those_of_the_dequantized_weights(form: str, inputs: int, made: int, tmp_path: Path) -> None:
    _, _, block, _ = FORMS[form]
    model = load(_product("gemm", inputs, made), tmp_path)
    rounded, _ = _quantize(model, *FORMS[form])
    feeds = {"x": _whole(5, inputs, block=block)}
    expected, found = (outputs(m, feeds, tmp_path)["y"] for m in (rounded, model))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["nbits 4", "nbits 2 asymmetric", "standard 4"])
def test_every_kind_of_product_is_taken(form: str, kind: str, tmp_path: Path) -> None:
    model = load(_product(kind, 96, 7), tmp_path)
    rounded, _ = _quantize(model, *FORMS[form])
    feeds = {"x": _whole(*([2, 3] if "rows" in kind else [5]), 96, block=32)}
    expected, found = (outputs(m, feeds, tmp_path)["y"] for m in (rounded, model))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    onnx.checker.check_model(str(tmp_path / "written.onnx"))


@pytest.mark.parametrize("form", FORMS)
def test_real_inputs_are_rounded_to_int8_and_no_worse(form: str, tmp_path: Path) -> None:
    model = load(_product("product", 128, 16), tmp_path)
    rounded, _ = _quantize(model, *FORMS[form])
    feeds = {"x": floats(RNG, 5, 128)}
    expected, found = (outputs(m, feeds, tmp_path)["y"] for m in (rounded, model))
    assert decibels(expected, found) > 35


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_multiplies_packed_blocks(kind: str, form: str, tmp_path: Path) -> None:
    model = load(_product(kind, 64, 8), tmp_path)
    _quantize(model, *FORMS[form])
    model.save(tmp_path / "blocks.onnx")
    Session(tmp_path / "blocks.onnx", optimized=tmp_path / "optimized.onnx")
    assert [str(k) for k in count_kernels(tmp_path / "optimized.onnx")] == ["1 of 1 MatMul in int8"]
    assert set(Model.read(tmp_path / "optimized.onnx").node_counts()) == {"MatMulNBits"}


def test_the_layer_keeps_its_name_and_what_it_makes_too(tmp_path: Path) -> None:
    body = "[first] h = Gemm(x, w, b)  [second] y = Neg(h)"
    proto = graph("float[5,64] x => float[5,8] y", body, w=floats(RNG, 64, 8), b=floats(RNG, 8))
    for form in ("nbits 4", "standard 4"):
        model = load(proto, tmp_path)
        _quantize(model, *FORMS[form])
        named = {node.name: node.outputs[0].name for node in model.ir.graph}
        assert named["first"] == "h"


def test_layers_that_share_a_weight_share_its_codes(tmp_path: Path) -> None:
    proto = graph("float[5,64] x => float[5,64] y", "h = MatMul(x, w)  y = MatMul(h, w)", w=floats(RNG, 64, 64) / 8)
    for form in ("nbits 4", "standard 4"):
        model = load(proto, tmp_path)
        rounded, coded = _quantize(model, *FORMS[form])
        assert model.nbytes() == coded.nbytes
        feeds = {"x": _whole(5, 64, block=32)}
        expected, found = (outputs(m, feeds, tmp_path)["y"] for m in (rounded, model))
        assert decibels(expected, found) > 35


def test_without_the_middle_as_zero_point_none_is_stored(tmp_path: Path) -> None:
    sizes = []
    for symmetric in (True, False):
        model = load(_product("product", 96, 8), tmp_path)
        _, coded = _quantize(model, "matmul_nbits", 4, 32, symmetric)
        sizes.append(model.nbytes())
        assert (coded.zero_points is None) == symmetric
    assert sizes[1] - sizes[0] == 8 * 2  # three zero points of four bits per row


@pytest.mark.parametrize("rounding", ["nearest", "half_quadratic", "second_order"])
def test_any_rounding_is_written_the_same_way(rounding: Rounding, tmp_path: Path) -> None:
    model = load(_product("product", 64, 8), tmp_path)
    (weight,) = model.weights()
    x = _whole(40, 64, block=32)
    moments = (x.T.astype(float) @ x / 40)[None]
    coded = encode(weight.matrix(), Scheme(4, "per_block", 32, "float", False, rounding), moments)
    expected = x[:5] @ coded.dequantize().T
    insert_block_product(weight, coded)
    settle(model.ir)
    found = outputs(model, {"x": x[:5]}, tmp_path)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize(("width", "block"), [(64, 16), (64, 32), (96, 64), (40, 16), (20, 128), (36, 32), (128, 128)])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rows_are_looked_up_as_they_are_dequantized(
    bits: Width, width: int, block: int, symmetric: bool, tmp_path: Path
) -> None:
    proto = graph(f"int64[N,3] i => float[N,3,{width}] y", "[e] y = Gather(t, i)", t=floats(RNG, 11, width) + 1)
    model = load(proto, tmp_path)
    (weight,) = model.weights()
    coded = encode(weight.matrix(), Scheme(bits, "per_block", block, "float", symmetric))
    insert_block_embedding(weight, coded)
    settle(model.ir)
    ids = np.array([[0, 10, 5], [-1, 3, 3]])
    found = outputs(model, {"i": ids}, tmp_path)["y"]
    assert found.shape == (2, 3, width)
    np.testing.assert_allclose(found, coded.dequantize()[:, :width][ids], rtol=1e-6, atol=1e-7)


def test_what_reads_the_rows_reads_them_under_the_same_name(tmp_path: Path) -> None:
    proto = graph(
        "int64[N] i => float[N,20] y",
        "[e] h = Gather(t, i)  y = MatMul(h, w)",
        t=floats(RNG, 5, 20),
        w=floats(RNG, 20, 20),
    )
    model = load(proto, tmp_path)
    table, _ = model.weights()
    insert_block_embedding(table, encode(table.matrix(), Scheme(4, "per_block", 16, "float")))
    settle(model.ir)
    assert [node.outputs[0].name for node in model.ir.graph] == ["h", "y"]
    assert outputs(model, {"i": np.array([1, 2])}, tmp_path)["y"].shape == (2, 20)

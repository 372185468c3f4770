"""ONNX Runtime unpacks the very integers that were packed, and leaves nothing of it to be executed."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes import common

from compressor.graph.edit import constant, new_node, settle
from compressor.graph.model import Model
from compressor.graph.packing import DOMAIN, has_blocks, store_in_place, store_integers, store_product
from compressor.graph.weights import Layout
from compressor.numerics.levels import LEVELS, Bits, Coded
from compressor.runtime.ort import Session
from tests.models import Floats, floats, graph, load

EVERY: tuple[Bits, ...] = (8, 4, 3, 2, "ternary", "binary")
FUNCTIONS = {3: {"Unpack3"}, 2: {"Unpack2"}, "ternary": {"UnpackTernary"}, "binary": {"UnpackBinary"}}


def _coded(bits: Bits, rows: int, inputs: int, blocks: int | None = None) -> Coded:
    """Codes of which every one occurs, if there is room."""
    rng, levels = np.random.default_rng(rows * inputs), LEVELS[bits]
    codes = np.resize(rng.permutation(np.arange(levels.low, levels.high + 1)), rows * inputs)
    codes = rng.permutation(codes).reshape(rows, inputs).astype(np.int8)
    scale = rng.uniform(0.1, 1, rows).astype(np.float32)
    multipliers = None if blocks is None else rng.integers(1, 15, (rows, blocks), endpoint=True).astype(np.uint8)
    return Coded(codes, levels, scale, multipliers)


def _empty(folder: Path) -> Model:
    """Something to put arrays into."""
    return load(graph("float[1] x => float[1] y", "y = Neg(x)"), folder)


def _reading(model: Model, stored: ir.Value, folder: Path) -> Path:
    """The file of a model that multiplies `stored` by its input and does nothing else."""
    inner, real = model.ir.graph, ir.TensorType(ir.DataType.FLOAT)
    one = ir.Value(name="one", type=real, shape=ir.Shape([1]))
    cast = new_node("Cast", [stored], "as_float", ir.DataType.FLOAT, {"to": int(ir.DataType.FLOAT)})
    product = new_node("Mul", [one, cast.outputs[0]], "found", ir.DataType.FLOAT)
    product.outputs[0].shape = stored.shape
    inner.extend([cast, product])
    inner.inputs[:], inner.outputs[:] = [one], [product.outputs[0]]
    common.RemoveUnusedNodesPass()(model.ir)
    settle(model.ir)
    model.save(folder / "packed.onnx")
    onnx.checker.check_model(str(folder / "packed.onnx"), full_check=True)
    return folder / "packed.onnx"


def _read(path: Path, optimized: bool) -> Floats:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"one": np.ones(1, np.float32)})
    return np.asarray(found)


def _left(path: Path) -> set[str]:
    """Types of the nodes that ONNX Runtime executes."""
    Session(path, optimized=path.with_suffix(".optimized"))
    return set(Model.read(path.with_suffix(".optimized")).node_counts())


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 8), (8, 32), (1, 41)], ids=str)
@pytest.mark.parametrize("bits", EVERY)
def test_what_was_packed_is_read(bits: Bits, shape: tuple[int, int], tmp_path: Path) -> None:
    coded, model = _coded(bits, *shape), _empty(tmp_path)
    stored = store_integers(model.ir, model.ir.graph, "w", coded, Layout(shape, (0, 1), 1), shape)
    path = _reading(model, stored, tmp_path)
    for optimized in (True, False):
        assert np.array_equal(_read(path, optimized), coded.integers())
    assert _left(path) == {"Mul"}
    assert {name for _, name, _ in Model.read(path).ir.functions} == FUNCTIONS.get(bits, set())


@pytest.mark.parametrize("transposed", [False, True], ids=["straight", "transposed"])
@pytest.mark.parametrize(("rows", "blocks", "block"), [(1, 1, 4), (3, 5, 4), (7, 2, 9)])
@pytest.mark.parametrize("bits", EVERY[1:])
def test_two_level_integers_are_read_in_both_layouts(
    bits: Bits, rows: int, blocks: int, block: int, transposed: bool, tmp_path: Path
) -> None:
    coded, model = _coded(bits, rows, blocks * block, blocks), _empty(tmp_path)
    shape, order = (coded.codes.shape[::-1], (1, 0)) if transposed else (coded.codes.shape, (0, 1))
    path = _reading(
        model, store_integers(model.ir, model.ir.graph, "w", coded, Layout(shape, order, 1), shape), tmp_path
    )
    expected = coded.integers().T if transposed else coded.integers()
    for optimized in (True, False):
        assert np.array_equal(_read(path, optimized), expected)
    assert _left(path) == {"Mul"}


RNG = np.random.default_rng(0)
PICTURE = "float[1,6,5,5] x => float[n,c,h,w0] y"
LAYERS: dict[str, tuple[str, str, Floats, bool]] = {
    "convolution": (PICTURE, "y = Conv(x, w)", floats(RNG, 5, 6, 3, 3), True),
    "grouped": (PICTURE, "y = Conv<group=2>(x, w)", floats(RNG, 6, 3, 3, 3), True),
    "transposed convolution": (PICTURE, "y = ConvTranspose<group=2>(x, w)", floats(RNG, 6, 4, 2, 2), False),
    "product": ("float[3,24] x => float[n,m] y", "y = MatMul(x, w)", floats(RNG, 24, 5), True),
    "batch of products": ("float[2,3,8] x => float[n,m,o] y", "y = MatMul(x, w)", floats(RNG, 2, 8, 5), False),
    "gemm": ("float[3,24] x => float[n,m] y", "y = Gemm(x, w)", floats(RNG, 24, 5), True),
    "gemm transposed": ("float[3,24] x => float[n,m] y", "y = Gemm<transB=1>(x, w)", floats(RNG, 5, 24), True),
}
"""Signature, body, weight, and whether its blocks lie together."""


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("bits", EVERY)
def test_in_place_the_array_has_the_layout_of_the_layer(bits: Bits, layer: str, tmp_path: Path) -> None:
    signature, body, array, straight = LAYERS[layer]
    blocks = 3 if straight and bits != 8 else None
    model = load(graph(signature, body, w=array), tmp_path)
    (weight,) = model.weights()
    coded = _coded(bits, *weight.matrix().shape, blocks)
    stored = store_in_place(model.ir, weight, coded)
    weight.store(coded.integers().astype(np.float32))
    expected = constant(weight.value)
    assert (has_blocks(weight), stored.per_channel) == (straight, True)
    assert np.array_equal(_read(_reading(model, stored.integers, tmp_path), True), expected)


def test_a_product_is_stored_as_right_factor(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(graph("float[3,6] x => float[3,5] y", "y = Gemm<transB=1>(x, w)", w=floats(rng, 5, 6)), tmp_path)
    (weight,) = model.weights()
    coded = _coded(8, 5, 6)
    stored = store_product(model.ir, weight, coded)
    assert np.array_equal(np.asarray(constant(stored.integers)), coded.codes.T)
    assert np.array_equal(np.asarray(constant(stored.scale)), coded.scale)


@pytest.mark.parametrize("bits", EVERY)
def test_nodes_are_in_order_at_once_so_that_the_model_can_be_copied(bits: Bits, tmp_path: Path) -> None:
    coded, model = _coded(bits, 3, 8, None if bits == 8 else 2), _empty(tmp_path)
    store_integers(model.ir, model.ir.graph, "w", coded, Layout((3, 8), (0, 1), 1), (3, 8))
    assert model.copy().node_counts() == model.node_counts()


def test_a_function_is_defined_once_however_many_weights_it_unpacks(tmp_path: Path) -> None:
    model = _empty(tmp_path)
    for name in ("a", "b"):
        store_integers(model.ir, model.ir.graph, name, _coded(2, 3, 8), Layout((3, 8), (0, 1), 1), (3, 8))
    assert list(model.ir.functions) == [(DOMAIN, "Unpack2", "")]
    assert sum(node.domain == DOMAIN for node in model.ir.graph) == 2


@pytest.mark.parametrize(("bits", "stored"), [(8, 8), (4, 4), (3, 3), (2, 2), ("ternary", 1.6), ("binary", 1)])
def test_the_file_has_no_more_than_the_bits_of_the_codes(bits: Bits, stored: float, tmp_path: Path) -> None:
    coded, model, shape = _coded(bits, 64, 320), _empty(tmp_path), (64, 320)
    integers = store_integers(model.ir, model.ir.graph, "w", coded, Layout(shape, (0, 1), 1), shape)
    path = _reading(model, integers, tmp_path)
    described = 16  # the shape
    assert model.nbytes() - 64 * 320 * stored / 8 in (0, described)
    assert path.stat().st_size < model.nbytes() + 2000

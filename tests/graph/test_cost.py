"""Multiply-accumulates, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.cost import costed_layers
from compressor.runtime.macs import count_macs
from tests.models import Array, cnn, floats, graph, load, mlp

RNG = np.random.default_rng(0)

CASES: dict[str, tuple[str, str, tuple[int, ...], dict[str, tuple[int, ...]], int]] = {
    "conv": ("float[N,3,8,8] x => float y", "y = Conv(x, w)", (2, 3, 8, 8), {"w": (4, 3, 3, 3)}, 2 * 4 * 36 * 27),
    "padded": (
        "float[N,3,8,8] x => float y",
        "y = Conv<pads=[1,1,1,1]>(x, w)",
        (1, 3, 8, 8),
        {"w": (4, 3, 3, 3)},
        64 * 108,
    ),
    "strided": (
        "float[N,3,9,9] x => float y",
        "y = Conv<strides=[2,2]>(x, w)",
        (1, 3, 9, 9),
        {"w": (4, 3, 3, 3)},
        16 * 108,
    ),
    "grouped": (
        "float[N,4,8,8] x => float y",
        "y = Conv<group=2>(x, w)",
        (1, 4, 8, 8),
        {"w": (6, 2, 3, 3)},
        36 * 6 * 18,
    ),
    "depthwise": ("float[N,4,8,8] x => float y", "y = Conv<group=4>(x, w)", (1, 4, 8, 8), {"w": (4, 1, 3, 3)}, 36 * 36),
    "one-dimensional": ("float[N,4,10] x => float y", "y = Conv(x, w)", (1, 4, 10), {"w": (6, 4, 3)}, 8 * 72),
    "einsum": (
        "float[N,6,8] x => float y",
        'y = Einsum<equation="abc,dce->abde">(x, w)',
        (2, 6, 8),
        {"w": (3, 8, 5)},
        1440,
    ),
    "einsum of two products": (
        "float[N,6] x => float y",
        'y = Einsum<equation="ab,bc,bd->acd">(x, w, v)',
        (2, 6),
        {"w": (6, 8), "v": (6, 5)},
        0,
    ),
    "transposed": (
        "float[N,4,5,5] x => float y",
        "y = ConvTranspose<strides=[2,2]>(x, w)",
        (1, 4, 5, 5),
        {"w": (4, 3, 2, 2)},
        25 * 48,
    ),
    "grouped transposed": (
        "float[N,4,5,5] x => float y",
        "y = ConvTranspose<group=2>(x, w)",
        (1, 4, 5, 5),
        {"w": (4, 3, 2, 2)},
        25 * 4 * 12,
    ),
    "gemm": ("float[N,6] x => float y", "y = Gemm<transB=1>(x, w)", (5, 6), {"w": (7, 6)}, 5 * 6 * 7),
    "gemm turned": ("float[6,N] x => float y", "y = Gemm<transA=1>(x, w)", (6, 5), {"w": (6, 7)}, 5 * 6 * 7),
    "matmul": ("float[N,4,6] x => float y", "y = MatMul(x, w)", (2, 4, 6), {"w": (6, 7)}, 2 * 4 * 6 * 7),
    "matmul left": ("float[6,N] x => float y", "y = MatMul(w, x)", (6, 5), {"w": (7, 6)}, 5 * 6 * 7),
    "matmul of two activations": (
        "float[N,4,6] x => float y",
        "t = Transpose<perm=[0,2,1]>(x)  y = MatMul(x, t)",
        (2, 4, 6),
        {},
        2 * 4 * 4 * 6,
    ),
    "lstm": (
        "float[9,N,3] x => float y",
        "y = LSTM<hidden_size=5>(x, w, r)",
        (9, 2, 3),
        {"w": (1, 20, 3), "r": (1, 20, 5)},
        18 * 20 * 8,
    ),
    "bidirectional gru": (
        "float[9,N,3] x => float y",
        'y = GRU<hidden_size=5, direction="bidirectional">(x, w, r)',
        (9, 2, 3),
        {"w": (2, 15, 3), "r": (2, 15, 5)},
        2 * 18 * 15 * 8,
    ),
    "recurrent, last state only": (
        "float[9,N,3] x => float y",
        ", y = LSTM<hidden_size=5>(x, w, r)",
        (9, 2, 3),
        {"w": (1, 20, 3), "r": (1, 20, 5)},
        18 * 20 * 8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_multiply_accumulates_are_those_of_the_loops_written_out(case: str, tmp_path: Path) -> None:
    signature, body, shape, weights, expected = CASES[case]
    arrays: dict[str, Array] = {name: floats(RNG, *size) for name, size in weights.items()}
    model = load(
        graph(signature, "[layer] " + body if "t = " not in body else body.replace("y =", "[layer] y ="), **arrays),
        tmp_path,
    )
    assert count_macs(model, {"x": floats(RNG, *shape)}, tmp_path) == {"layer": expected}


def test_every_layer_is_counted_on_its_own_and_the_model_is_not_changed(tmp_path: Path) -> None:
    model = load(cnn(RNG), tmp_path)
    before = model.node_counts()
    assert count_macs(model, {"x": floats(RNG, 2, 3, 8, 8)}, tmp_path) == {
        "conv1": 2 * 64 * 8 * 27,
        "conv2": 2 * 64 * 8 * 72,
        "head": 2 * 8 * 3,
    }
    assert model.node_counts() == before


def test_layers_without_a_name_are_all_counted(tmp_path: Path) -> None:
    """As `compact` leaves products of two activations."""
    model = load(graph("float[N,4,4] x => float[N,4,4] y", "a = MatMul(x, x)  y = MatMul(a, x)"), tmp_path)
    for node in model.ir.graph:
        node.name = ""
    assert count_macs(model, {"x": floats(RNG, 3, 4, 4)}, tmp_path) == {"": 2 * 3 * 4 * 16}


def test_a_model_without_products_costs_nothing(tmp_path: Path) -> None:
    model = load(graph("float[2] x => float[2] y", "y = Relu(x)"), tmp_path)
    assert count_macs(model, {"x": floats(RNG, 2)}, tmp_path) == {}


def test_costed_layers_are_named_with_what_they_read_and_write(tmp_path: Path) -> None:
    layers = costed_layers(load(mlp(RNG), tmp_path))
    assert [(layer.name, layer.layer, layer.tensors) for layer in layers] == [
        ("first", "Gemm", ("x", "w1", "h")),
        ("second", "Gemm", ("r", "w2", "y")),
    ]

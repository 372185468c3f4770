"""Which arrays training changes: told by who reads them."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.trainable import integer_biases, retie, roles, untie
from tests.models import Array, array, graph, load, outputs

RNG = np.random.default_rng(4)


def _floats(*shape: int) -> Array:
    return RNG.standard_normal(shape, dtype=np.float32)


MATRIX = _floats(4, 4)

CASES: dict[str, tuple[str, dict[str, Array], set[str]]] = {
    "a layer and its bias": ("a = MatMul (x, w) y = Add (a, b)", {"w": MATRIX, "b": _floats(4)}, {"w", "b"}),
    "a scale before any layer": ("a = Mul (x, b) y = MatMul (a, w)", {"w": MATRIX, "b": _floats(4)}, {"w"}),
    "one number": ("a = MatMul (x, w) y = Mul (a, b)", {"w": MATRIX, "b": array(0.5)}, {"w"}),
    "a mask": ("a = MatMul (x, w) y = Add (a, b)", {"w": MATRIX, "b": array([0, 0, -1e9, 0])}, {"w"}),
    "an infinite mask": ("a = MatMul (x, w) y = Add (a, b)", {"w": MATRIX, "b": array([0, 0, -np.inf, 0])}, {"w"}),
    "through a transposition": ("t = Transpose (w) y = MatMul (x, t)", {"w": MATRIX}, {"w"}),
    "bounds of a clip": ("a = MatMul (x, w) y = Clip (a, b)", {"w": MATRIX, "b": array(0.0)}, {"w"}),
    "normalization": ("y = LayerNormalization (x, w, b)", {"w": _floats(4), "b": _floats(4)}, {"w", "b"}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_learned(name: str, tmp_path: Path) -> None:
    body, arrays, learned = CASES[name]
    found = roles(load(graph("float[N,4] x => float[N,4] y", body, **arrays), tmp_path).ir)
    assert {value.name for value in found.learned} == learned


def test_statistics_and_scales_have_roles_of_their_own(tmp_path: Path) -> None:
    proto = graph(
        "float[N,4,3] x => float[N,4,3] y",
        """n = BatchNormalization (x, g, b, m, v)
           q = QuantizeLinear (n, s)
           y = DequantizeLinear (q, s)""",
        **{name: np.abs(_floats(4)) for name in "gbmv"},
        s=np.float32(0.1),
    )
    found = roles(load(proto, tmp_path).ir)
    names = [{value.name for value in values} for values in (found.learned, found.statistics, found.scales)]
    assert names == [{"g", "b"}, {"m", "v"}, {"s"}]


def test_untying_changes_nothing_and_retying_undoes_it(tmp_path: Path) -> None:
    proto = graph(
        "float[N,4] x => float[N,4] y",
        "a = LayerNormalization (x, g, b) c = MatMul (a, w) d = LayerNormalization (c, g, b) y = MatMul (d, w)",
        g=_floats(4),
        b=_floats(4),
        w=MATRIX,
    )
    model = load(proto, tmp_path)
    feeds = {"x": _floats(3, 4)}
    before = outputs(model, feeds, tmp_path)
    names = set(model.ir.graph.initializers)
    untied = untie(model.ir)
    assert {name: len(copies) for name, copies in untied.items()} == {"g": 1, "b": 1}
    np.testing.assert_array_equal(outputs(model, feeds, tmp_path)["y"], before["y"])
    retie(model.ir, untied)
    assert set(model.ir.graph.initializers) == names


def test_copies_that_were_trained_apart_stay_apart(tmp_path: Path) -> None:
    proto = graph(
        "float[N,4] x => float[N,4] y",
        "a = LayerNormalization (x, g) y = LayerNormalization (a, g)",
        g=_floats(4),
    )
    model = load(proto, tmp_path)
    untied = untie(model.ir)
    (copy,) = untied["g"]
    import onnx_ir as ir

    model.ir.graph.initializers[copy].const_value = ir.tensor(_floats(4))
    retie(model.ir, untied)
    assert {"g", copy} <= set(model.ir.graph.initializers)


def test_integer_biases_follow_the_scales(tmp_path: Path) -> None:
    proto = graph(
        "float[N,4] x => float[N,2] y",
        """q = QuantizeLinear (x, s, z)
           d = DequantizeLinear (q, s, z)
           w = DequantizeLinear (codes, t)
           b = DequantizeLinear (bias, u)
           y = Gemm (d, w, b)""",
        s=np.float32(0.1),
        z=np.uint8(128),
        codes=np.full((4, 2), 3, np.int8),
        t=np.float32(0.5),
        bias=np.array([20, -40], np.int32),
        u=np.float32(0.05),
    )
    model = load(proto, tmp_path)
    (bias,) = integer_biases(model.ir)
    np.testing.assert_allclose(bias.real, [1, -2], rtol=1e-6)
    bias.renew()
    values = model.ir.graph.initializers
    assert values["bias"].const_value.numpy().tolist() == [20, -40]  # type: ignore[union-attr]
    import onnx_ir as ir

    values["s"].const_value = ir.tensor(np.float32(0.2), name="s")
    bias.renew()
    assert values["bias"].const_value.numpy().tolist() == [10, -20]  # type: ignore[union-attr]
    np.testing.assert_allclose(values["u"].const_value.numpy(), 0.1, rtol=1e-6)  # type: ignore[union-attr]

"""Blocks are what is added to a shortcut and nothing else reads; without one, what follows reads the shortcut."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.blocks import find_blocks, remove_block
from compressor.graph.model import Model
from compressor.runtime.shapes import observe_shapes
from tests.models import floats, graph, load, outputs, run

Shapes = dict[str, tuple[int, ...]]


def _key(model: Model, shapes: Shapes, name: str) -> str:
    return next(block.key for block in find_blocks(model, shapes) if block.name == name)


def _loaded(folder: Path, body: str, sizes: dict[str, tuple[int, ...]]) -> tuple[Model, Shapes, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    arrays = {name: floats(rng, *shape) for name, shape in sizes.items()}
    model, x = load(graph("float[N,4] x => float[N,4] y", body, **arrays), folder), floats(rng, 3, 4)
    return model, observe_shapes(model, {"x": x}, folder), x


SQUARE = {"w1": (4, 4), "w2": (4, 4), "w3": (4, 4)}
TWO = """[one] a = MatMul(x, w1)  r = Relu(a)  [two] b = MatMul(r, w2)  s = Add(x, b)
[three] c = MatMul(s, w3)  t = Add(c, s)  y = Relu(t)"""
CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], list[str]]] = {
    "two in a row": (TWO, SQUARE, ["one", "three"]),
    "one inside another": (
        "[one] a = MatMul(x, w1)  [two] b = MatMul(a, w2)  c = Add(a, b)  s = Add(x, c)  y = Relu(s)",
        SQUARE,
        ["two", "one"],
    ),
    "read elsewhere": (
        "[one] a = MatMul(x, w1)  s = Add(x, a)  [two] b = MatMul(a, w2)  t = Mul(s, b)  y = Relu(t)",
        SQUARE,
        [],
    ),
    "another shape": ("[one] a = MatMul(x, w1)  p = ReduceMean(x)  s = Add(p, a)  y = Relu(s)", SQUARE, []),
    "a bias": ("[one] a = MatMul(x, w1)  s = Add(a, b1)  y = Relu(s)", SQUARE | {"b1": (4,)}, []),
    "an output": ("[one] a = MatMul(x, w1)  y = Add(a, x)", SQUARE, []),
    "two branches": ("[one] a = MatMul(x, w1)  [two] b = MatMul(x, w2)  s = Add(a, b)  y = Relu(s)", SQUARE, []),
    "no layer": ("a = Relu(x)  s = Add(a, x)  y = Relu(s)", SQUARE, []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_blocks_are_these(tmp_path: Path, name: str) -> None:
    body, sizes, expected = CASES[name]
    model, shapes, _ = _loaded(tmp_path, body, sizes)
    assert [block.name for block in find_blocks(model, shapes)] == expected


def test_without_a_block_its_input_takes_its_place(tmp_path: Path) -> None:
    model, shapes, x = _loaded(tmp_path, TWO, SQUARE)
    arrays = {w.value.name: w.matrix().T for w in model.weights()}
    remove_block(model, _key(model, shapes, "one"), shapes)
    expected = np.maximum(x + x @ arrays["w3"], 0)
    np.testing.assert_allclose(outputs(model, {"x": x}, tmp_path)["y"], expected, rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)
    assert [weight.name for weight in model.weights()] == ["three"]


def test_blocks_that_begin_with_the_same_layer_are_told_apart(tmp_path: Path) -> None:
    body = """[zero] h = MatMul(x, w1)  r = Relu(h)  [one] a = MatMul(r, w2)  i = Add(r, a)  [two] b = MatMul(i, w3)
    o = Add(r, b)  y = Relu(o)"""
    model, shapes, _ = _loaded(tmp_path, body, SQUARE)
    inner, outer = find_blocks(model, shapes)
    assert (inner.name, len(inner.weights)) == (outer.name, len(outer.weights) - 1) == ("one", 1)
    remove_block(model, inner.key, shapes)
    (left,) = find_blocks(model, shapes)
    assert left.key == outer.key
    remove_block(model, outer.key, shapes)
    assert [weight.name for weight in model.weights()] == ["zero"]


def test_a_mask_from_elsewhere_does_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    body = """m = Sigmoid(mask)  [one] a = MatMul(x, w1)  p = Mul(a, m)  s = Add(x, p)
    [two] b = MatMul(s, w2)  q = Mul(b, m)  t = Add(s, q)  y = Relu(t)"""
    weights = {"w1": floats(rng, 4, 4), "w2": floats(rng, 4, 4)}
    proto = graph("float[N,4] x, float[N,4] mask => float[N,4] y", body, **weights)
    feeds = {"x": floats(rng, 2, 4), "mask": floats(rng, 2, 4)}
    model = load(proto, tmp_path)
    shapes = observe_shapes(model, feeds, tmp_path)
    assert [block.name for block in find_blocks(model, shapes)] == ["one", "two"]
    remove_block(model, _key(model, shapes, "two"), shapes)
    assert outputs(model, feeds, tmp_path)["y"].shape == run(proto, feeds)["y"].shape


def test_a_block_that_is_not_there_is_our_mistake(tmp_path: Path) -> None:
    model, shapes, _ = _loaded(tmp_path, TWO, SQUARE)
    with pytest.raises(ValueError, match="no such block"):
        remove_block(model, "two", shapes)

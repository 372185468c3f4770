"""Smaller images in a graph: resized as ONNX Runtime would, and the sizes behind them follow."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compressor.graph.edit import constant
from compressor.graph.model import Model
from compressor.graph.resizing import find_images, follow, pool_globally, regrouped, shrink, sized
from compressor.runtime.shapes import Shape, observe_shapes
from tests.models import Array, floats, graph, load, outputs, run

RNG = np.random.default_rng(0)
FILTER = floats(RNG, 4, 3, 3, 3)


def _shapes(model: Model, x: Array, folder: Path) -> dict[str, tuple[int, ...]]:
    return observe_shapes(model, {"x": x}, folder)


def _small(proto: onnx.ModelProto, x: Array, size: tuple[int, int], folder: Path) -> Array:
    """What a model makes of `x` once its image is of this size."""
    model = load(proto, folder)
    images = find_images(model, _shapes(model, x, folder))
    shrink(model, [(image, size) for image in images])
    return outputs(model, {"x": x}, folder)["y"]


@pytest.mark.parametrize("size", [(12, 12), (14, 8), (9, 16), (16, 15)])
def test_an_image_of_fixed_size_is_resized_by_a_cubic_kernel(tmp_path: Path, size: tuple[int, int]) -> None:
    x = floats(RNG, 2, 3, 16, 16)
    found = _small(graph("float[N,3,16,16] x => float[N,4,A,B] y", "y = Conv(x, w)", w=FILTER), x, size, tmp_path)
    body = 's = Resize <mode = "cubic", axes = [2, 3]> (x, , , sizes)  y = Conv(s, w)'
    expected = run(graph("float[N,3,A,B] x => float[N,4,C,D] y", body, w=FILTER, sizes=np.int64(size)), {"x": x})["y"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_one_of_any_size_is_told_apart(tmp_path: Path) -> None:
    model = load(graph("float[N,3,H,W] x => float[N,4,A,B] y", "t = Neg(x)  y = Conv(t, w)", w=FILTER), tmp_path)
    assert [image.fixed for image in find_images(model, _shapes(model, floats(RNG, 1, 3, 16, 16), tmp_path))] == [False]


def test_what_a_branch_makes_of_an_image_is_none_itself(tmp_path: Path) -> None:
    body = """c = Conv(x, w)  i = If (flag) <then_branch = a () => (float[N,4,14,14] p) { p = Relu(c) },
    else_branch = b () => (float[N,4,14,14] q) { q = Neg(c) }>  y = Conv(i, v)"""
    arrays = {"w": FILTER, "v": floats(RNG, 2, 4, 1, 1), "flag": np.bool_(True)}
    model = load(graph("float[N,3,16,16] x => float[N,2,14,14] y", body, **arrays), tmp_path)
    assert [i.tensor for i in find_images(model, _shapes(model, floats(RNG, 1, 3, 16, 16), tmp_path))] == ["x"]


def test_an_image_in_half_precision_without_a_type(tmp_path: Path) -> None:
    half = FILTER.astype(np.float16)
    proto = graph(
        "float[N,3,16,16] x => float16[N,4,A,B] y", "h = Cast <to = 10> (x)  t = Neg(h)  y = Conv(t, w)", w=half
    )
    assert _small(proto, floats(RNG, 1, 3, 16, 16), (12, 12), tmp_path).shape == (1, 4, 10, 10)


@pytest.mark.parametrize(
    ("was", "made", "now", "axes", "wanted"),
    [
        ((1, 6, 8, 8), (1, 6, 16, 16), (1, 6, 6, 6), None, [1, 6, 12, 12]),
        ((1, 8, 8, 6), (1, 16, 16, 6), (1, 6, 6, 6), None, [1, 12, 12, 6]),
        ((1, 6, 8, 8), (1, 6, 16, 16), (1, 6, 6, 4), [3, 2], [8, 12]),
    ],
)
def test_a_resize_follows(was: Shape, made: Shape, now: Shape, axes: list[int] | None, wanted: list[int]) -> None:
    """On the axes that became shorter, wherever these are."""
    stored = np.int64(made) if axes is None else np.int64([made[axis] for axis in axes])
    given = "" if axes is None else f", axes = {axes}"
    body = f'y = Resize <mode = "nearest"{given}> (x, , , sizes)'
    model = Model(ir.from_proto(graph("float[A,B,C,D] x => float[E,F,G,H] y", body, sizes=stored)), Path("x"), 0)
    (node,) = sized(model)
    follow(node, {"x": was, "y": made}, now, (0.75, 0.75))
    assert constant(node.inputs[3]).tolist() == wanted  # type: ignore[union-attr]


def test_images_are_what_the_first_convolutions_read(tmp_path: Path) -> None:
    """Not what is made of one, nor a sequence one pixel high; what comes in front of the convolution is no matter."""
    body = """small = Mul(x, half)  a = Conv(small, w)  b = Conv(a, v)  twice = Mul(small, half)  c = Conv(twice, w)
    d = Conv(row, u)  y = Add(b, b)  z = Add(c, c)  q = Add(d, d)"""
    arrays = {"w": FILTER, "v": floats(RNG, 2, 4, 1, 1), "u": floats(RNG, 1, 2, 1, 3), "half": np.float32(0.5)}
    signature = "float[N,3,16,16] x, float[N,2,1,16] row => float[N,2,A,B] y, float[N,4,C,D] z, float[N,1,E,F] q"
    model = load(graph(signature, body, **arrays), tmp_path)
    feeds = {"x": floats(RNG, 1, 3, 16, 16), "row": floats(RNG, 1, 2, 1, 16)}
    found = find_images(model, observe_shapes(model, feeds, tmp_path))
    assert [(image.tensor, image.size, image.fixed) for image in found] == [("small", (16, 16), True)]


def test_strides_are_known(tmp_path: Path) -> None:
    body = "a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  y = MaxPool <kernel_shape = [2, 2]> (a)"
    model = load(graph("float[N,3,16,16] x => float[N,4,A,B] y", body, w=FILTER), tmp_path)
    assert [i.stride for i in find_images(model, _shapes(model, floats(RNG, 1, 3, 16, 16), tmp_path))] == [2]


def test_a_pool_over_the_whole_map_takes_any(tmp_path: Path) -> None:
    body = """p = AveragePool <kernel_shape = [16, 16]> (x)  q = MaxPool <kernel_shape = [16, 8], strides = [1, 8]> (x)
    r = MaxPool <kernel_shape = [16, 16], auto_pad = "SAME_UPPER"> (x)
    s = MaxPool <kernel_shape = [16, 16], pads = [8, 8, 0, 0], strides = [16, 16]> (x)"""
    signature = "float[N,3,16,16] x => float[N,3,1,1] p, float[N,3,1,2] q, float[N,3,16,16] r, float[N,3,1,1] s"
    proto = graph(signature, body)
    model, x = load(proto, tmp_path), floats(RNG, 2, 3, 16, 16)
    pool_globally(model, _shapes(model, x, tmp_path))
    assert model.node_counts() == {"GlobalAveragePool": 1, "MaxPool": 3}
    found = outputs(model, {"x": x}, tmp_path)
    for name, expected in run(proto, {"x": x}).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("was", "made", "now", "wanted"),
    [
        ([1, 6, 4, 4], [1, 2, 3, 4, 4], [1, 6, 2, 2], [1, 2, 3, 2, 2]),
        ([1, 2, 3, 4, 4], [1, 6, 16], [1, 2, 3, 2, 2], [1, 6, 4]),
        ([1, 6, 4, 4], [1, 96], [1, 6, 2, 2], [1, 24]),
        ([1, 6, 16], [1, 6, 4, 4], [1, 6, 4], [1, 6, 2, 2]),
        ([1, 6, 1, 1], [1, 6], [1, 6, 1, 1], [1, 6]),
        ([2, 6], [2, 1, 6, 1], [2, 6], [2, 1, 6, 1]),
        ([1, 6, 16], [1, 6, 2, 2, 4], [1, 6, 4], None),
        ([1, 6, 8, 4], [1, 6, 2, 4, 4], [1, 6, 4, 2], None),
        ([1, 6, 9], [1, 6, 3, 3], [1, 6, 5], None),
    ],
)
def test_a_reshape_follows(was: list[int], made: list[int], now: list[int], wanted: list[int] | None) -> None:
    assert regrouped(was, made, now, (0.5, 0.5)) == wanted


def test_what_resizes_is_no_weight(tmp_path: Path) -> None:
    """Passes that look for weights leave it alone, also in a file that was written and read again."""
    model = load(graph("float[N,3,16,16] x => float[N,4,A,B] y", "[c] y = Conv(x, w)", w=FILTER), tmp_path)
    images = find_images(model, _shapes(model, floats(RNG, 1, 3, 16, 16), tmp_path))
    shrink(model, [(image, (12, 12)) for image in images])
    model.save(tmp_path / "small.onnx")
    again = Model.load(tmp_path / "small.onnx")
    assert [weight.name for weight in again.weights()] == ["c"]
    assert again.node_counts()["Conv"] == 3
    assert [image.tensor for image in find_images(again, _shapes(again, floats(RNG, 1, 3, 16, 16), tmp_path))] == [
        "x_small"
    ]

"""A subsample is even: it does not see some channels, rows or columns more often than others."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.observe import values_by_name
from compressor.graph.subsample import Subsampler
from tests.models import Array, floats, graph, load, run


def _subsampled(folder: Path, x: Array, entries: int) -> tuple[Array, int]:
    """What is taken of a tensor whose shape the model does not know."""
    signature = f"float[{', '.join('abcdef'[: x.ndim])}] x => float y"
    model = load(graph(signature, "y = Identity(x)"), folder)
    values = values_by_name(model.ir)
    graph_ir = model.ir.graph
    graph_ir.outputs.extend(Subsampler(graph_ir).add(graph_ir, values["x"], entries, ("part", "stride")))
    model.save(folder / "subsampled.onnx")
    found = run(folder / "subsampled.onnx", {"x": x})
    return found["part"], int(found["stride"].item())


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5), (100,), (4, 0, 3)])
def test_a_tensor_of_no_more_entries_than_wanted_is_taken_whole(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = floats(np.random.default_rng(0), *shape)
    taken, stride = _subsampled(tmp_path, x, 100)
    assert np.array_equal(taken, x.ravel())
    assert stride == 1 or not x.size


SHAPES = [(2, 3, 224, 224), (1, 64, 7, 7), (13, 13, 26, 52), (1, 30030), (4, 96, 112, 112), (3, 17, 19, 23)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("entries", [500, 1000, 2500])
def test_about_as_many_are_taken_as_wanted(tmp_path: Path, shape: tuple[int, ...], entries: int) -> None:
    x = np.zeros(shape, np.float32)
    taken, stride = _subsampled(tmp_path, x, entries)
    assert entries / 2.5 <= len(taken) <= entries * 1.3 + 1
    assert stride * (len(taken) - 1) < x.size <= stride * len(taken)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_position_along_every_axis_is_seen_equally_often(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    taken, _ = _subsampled(tmp_path, x, 4000)
    inner = x.size
    for length in shape:
        inner //= length
        seen = np.bincount(taken.astype(int) // inner % length, minlength=length)
        assert seen.max() <= 1.3 * seen.mean() + 3
        assert seen.min() >= 0.7 * seen.mean() - 3


def test_the_same_entries_are_taken_every_time(tmp_path: Path, rng: np.random.Generator) -> None:
    x = floats(rng, 50, 77)
    first, second = (_subsampled(tmp_path, x, 100)[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_tensors_of_one_shape_have_one_stride_and_others_their_own(tmp_path: Path, rng: np.random.Generator) -> None:
    signature = "float[n, 30] x, float[m, 30] z => float[n, 30] a, float[n, 30] b, float[m, 30] c"
    model = load(graph(signature, "a = Neg(x)\n b = Exp(x)\n c = Neg(z)"), tmp_path)
    values, inner = values_by_name(model.ir), model.ir.graph
    subsampler = Subsampler(inner)
    for name in "abc":
        inner.outputs.extend(subsampler.add(inner, values[name], 50, (f"part_{name}", f"stride_{name}")))
    model.save(tmp_path / "subsampled.onnx")
    x, z = floats(rng, 40, 30), floats(rng, 5, 30)
    found = run(tmp_path / "subsampled.onnx", {"x": x, "z": z})
    strides = {name: int(found[f"stride_{name}"].item()) for name in "abc"}
    assert strides["a"] == strides["b"] > strides["c"] > 1
    for name, whole in (("a", -x), ("b", np.exp(x)), ("c", -z)):
        assert np.allclose(found[f"part_{name}"], whole.ravel()[:: strides[name]])
    assert sum(node.op_type == "Mod" for node in inner) == 2

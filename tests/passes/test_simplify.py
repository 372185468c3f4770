"""simplify: the same function in fewer nodes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.cli import tiny
from tests.cli.calling import call, ran, write_recipe
from tests.passes.findings import entries


def _types(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def _simplified(folder: Path) -> tuple[Counter[str], Path]:
    ran(folder)
    return _types(folder / "out.onnx"), folder / "out.onnx"


def _assert_same_function(folder: Path, x: np.ndarray) -> None:
    expected, found = (tiny.execute(folder / name, {"x": x}) for name in ("model.onnx", "out.onnx"))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max(), rtol=0)


def _chain(folder: Path, *nodes: onnx.NodeProto, **arrays: tiny.Array) -> None:
    """A model x (1, 2, 6, 6) → conv → nodes → y."""
    first = helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1])
    shape = [1, 2, 6, 6]
    stored = {"w": tiny.normal(2, 2, 3, 3), **arrays}
    tiny.write(folder / "model.onnx", [first, *nodes], [tiny.value("x", shape)], [tiny.value("y", shape)], stored)


def test_batch_normalization_is_folded_into_its_convolution(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    types, _ = _simplified(tmp_path)
    assert types["BatchNormalization"] == 0
    assert types["Conv"] == 2
    _assert_same_function(tmp_path, tiny.normal(3, 3, 8, 8, seed=1))


def test_a_folded_layer_is_reported_under_its_name(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    changes = entries(ran(tmp_path), "changes")
    assert "BatchNormalization" in str(changes["stem"]["detail"])


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 2, 1, 1), (1,), ()])
@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
def test_an_affine_map_per_channel_is_folded_into_the_convolution(
    tmp_path: Path, op_type: str, shape: tuple[int, ...]
) -> None:
    _chain(
        tmp_path, helper.make_node(op_type, ["c", "k"], ["y"]), k=np.abs(tiny.normal(*shape, seed=3)) + np.float32(1)
    )
    types, _ = _simplified(tmp_path)
    assert types == {"Conv": 1}
    _assert_same_function(tmp_path, tiny.normal(1, 2, 6, 6, seed=1))


def test_a_constant_that_differs_within_a_channel_stays(tmp_path: Path) -> None:
    _chain(tmp_path, helper.make_node("Mul", ["c", "k"], ["y"]), k=tiny.normal(1, 2, 6, 6, seed=3))
    assert _simplified(tmp_path)[0] == {"Conv": 1, "Mul": 1}
    _assert_same_function(tmp_path, tiny.normal(1, 2, 6, 6, seed=1))


def test_a_convolution_with_a_second_reader_is_not_folded_into(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["c", "k"], ["m"]), helper.make_node("Sub", ["m", "c"], ["y"])]
    _chain(tmp_path, *nodes, k=np.array([2, 3], np.float32).reshape(2, 1, 1))
    ran(tmp_path)
    _assert_same_function(tmp_path, tiny.normal(1, 2, 6, 6, seed=1))


def test_identity_and_dropout_go(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["c"], ["i"]),
        helper.make_node("Dropout", ["i"], ["d"]),
        helper.make_node("Identity", ["d"], ["y"]),
    ]
    _chain(tmp_path, *nodes)
    assert _simplified(tmp_path)[0] == {"Conv": 1}
    _assert_same_function(tmp_path, tiny.normal(1, 2, 6, 6, seed=1))


def test_constants_are_computed_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Exp", ["k"], ["e"]), helper.make_node("Relu", ["c"], ["r"])]
    nodes.append(helper.make_node("Max", ["r", "e"], ["y"]))
    _chain(tmp_path, *nodes, k=tiny.normal(6, 6, seed=3))
    assert _simplified(tmp_path)[0]["Exp"] == 0
    _assert_same_function(tmp_path, tiny.normal(1, 2, 6, 6, seed=1))


def test_duplicate_arrays_are_stored_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "a"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    arrays = {"a": tiny.normal(64, 64), "b": tiny.normal(64, 64)}
    shape = [64, 64]
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", shape)], [tiny.value("y", shape)], arrays)
    _, result = _simplified(tmp_path)
    assert [a.shape for a in tiny.arrays_of(result).values()] == [(64, 64)]
    _assert_same_function(tmp_path, tiny.normal(64, 64, seed=1))


def test_a_model_with_nothing_to_fold_goes_through(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    assert call(tmp_path, "run", write_recipe(tmp_path)).code == 0
    _assert_same_function(tmp_path, tiny.normal(3, 8, seed=1))

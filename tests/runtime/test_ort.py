"""Execution: arrays in, arrays out, and one line when it fails."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.errors import DataError, ModelError
from compressor.runtime.ort import Session
from tests.models import Array, array, floats, graph, mlp, write

RNG = np.random.default_rng(0)
ADD = graph("float[a,b] x, float[c,d] z => float[e,f] y", "y = Add(x, z)")


def test_all_outputs_come_by_name(tmp_path: Path) -> None:
    proto = graph("float[2] x => float[2] y, float[2] z", "y = Neg(x)  z = Abs(x)")
    session = Session(write(proto, tmp_path / "model.onnx"))
    found = session.run({"x": array([1, -2])})
    assert session.output_names == ("y", "z")
    assert {name: values.tolist() for name, values in found.items()} == {"y": [-1, 2], "z": [1, 2]}


def test_the_optimized_graph_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    proto = graph("float[2,3] x => float[2,3] y", "c = Add(w, w)  y = Mul(x, c)", w=floats(RNG, 2, 3))
    Session(write(proto, tmp_path / "model.onnx"), optimized=tmp_path / "optimized.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["Mul"]


@pytest.mark.parametrize(
    "proto",
    [
        graph("float[2] x => float[2] y", "y = NoSuchOperator(x)"),
        graph("float[2] x => float[2] y", "y = mine.Own(x)", domains=("mine",)),
        graph("float[2] x => float[2] y", "y = Add(x, missing)"),
        graph("float[2,3] x => float[2,3] y", "y = MatMul(x, x)"),
        graph("float[2] x => int64[2] y", "y = Relu(x)"),
        graph("float[2] x => float[2] y", "y = Relu(x)", opset=60),
        graph("int8[2] x => int8[2] y", "y = Sin(x)"),
        onnx.ModelProto(),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line_with_its_path(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = write(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelError) as refused:
        Session(path)
    _is_one_line(str(refused.value), f"{path}: ONNX Runtime cannot load it: ")


def _is_one_line(message: str, start: str) -> None:
    assert message.startswith(start)
    assert len(message) > len(start) + 10
    assert "\n" not in message
    assert "[ONNXRuntimeError]" not in message


def test_a_file_that_is_missing_or_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("missing.onnx", "text.onnx"):
        with pytest.raises(ModelError) as refused:
            Session(tmp_path / name)
        _is_one_line(str(refused.value), f"{tmp_path / name}: ONNX Runtime cannot load it: ")


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": floats(RNG, 2, 7)},
        {"x": floats(RNG, 8)},
        {"x": np.zeros((2, 8))},
        {"z": floats(RNG, 2, 8)},
        {"x": floats(RNG, 2, 8), "z": floats(RNG, 1)},
        {},
    ],
)
def test_arrays_that_the_model_cannot_take_are_one_line(feeds: dict[str, Array], tmp_path: Path) -> None:
    path = write(mlp(RNG), tmp_path / "model.onnx")
    with pytest.raises(DataError) as refused:
        Session(path).run(feeds)
    _is_one_line(str(refused.value), f"{path}: cannot run on ")


@pytest.mark.parametrize(
    ("proto", "feeds"),
    [
        (ADD, {"x": floats(RNG, 2, 3), "z": floats(RNG, 4, 5)}),
        (graph("float[a] x => float[b,c] y", "y = Reshape(x, s)", s=np.array([2, 3])), {"x": floats(RNG, 5)}),
        (graph("int64[a] i => float[b,c] y", "y = Gather(w, i)", w=floats(RNG, 3, 2)), {"i": np.array([9])}),
    ],
)
def test_what_fails_inside_the_model_is_one_line(
    proto: onnx.ModelProto, feeds: dict[str, Array], tmp_path: Path
) -> None:
    path = write(proto, tmp_path / "model.onnx")
    with pytest.raises(DataError) as refused:
        Session(path).run(feeds)
    _is_one_line(str(refused.value), f"{path}: cannot run on ")

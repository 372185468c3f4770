"""Models of a few kilobytes, each the smallest that can break a law."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Shape = Sequence[int | str]

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Standard normal entries."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def value(name: str, shape: Shape, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    arrays: Mapping[str, Array],
    opset: int = 17,
    domains: Sequence[str] = (),
) -> Path:
    """A model file."""
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), stored)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def mlp(path: Path, first: str = "first", second: str = "second") -> Path:
    """x (batch, 8) → Gemm 16 → Relu → MatMul 4 → y (batch, 4)."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], first, transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], second),
    ]
    arrays = {"w1": normal(16, 8, seed=1), "b1": normal(16, seed=2), "w2": normal(16, 4, seed=3)}
    return write(path, nodes, [value("x", ["batch", 8])], [value("y", ["batch", 4])], arrays)


def cnn(path: Path) -> Path:
    """x (batch, 3, 8, 8) → Conv 8 → BatchNormalization → Relu → Conv 8 → mean → Gemm 4 → y."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "gain", "shift", "mean", "var"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2", "b2"], ["c2"], "body", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "head", transB=1),
    ]
    arrays: dict[str, Array] = {
        "w1": normal(8, 3, 3, 3, seed=1),
        "b1": normal(8, seed=2),
        "gain": np.abs(normal(8, seed=3)) + 0.5,
        "shift": normal(8, seed=4),
        "mean": normal(8, seed=5),
        "var": np.abs(normal(8, seed=6)) + 0.5,
        "w2": normal(8, 8, 3, 3, seed=7),
        "b2": normal(8, seed=8),
        "w3": normal(4, 8, seed=9),
        "b3": normal(4, seed=10),
    }
    return write(path, nodes, [value("x", ["batch", 3, 8, 8])], [value("y", ["batch", 4])], arrays)


def lookup(path: Path) -> Path:
    """ids (batch, 3) int64 → Gather from (10, 4) → y (batch, 3, 4)."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], "embedding")]
    inputs, outputs = [value("ids", ["batch", 3], INT64)], [value("y", ["batch", 3, 4])]
    return write(path, nodes, inputs, outputs, {"table": normal(10, 4)})


def recurrent(path: Path) -> Path:
    """x (5, 1, 4) → LSTM 3 → y; with weights W (1, 12, 4) and R (1, 12, 3)."""
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=3)]
    arrays = {"w": normal(1, 12, 4), "r": normal(1, 12, 3, seed=1)}
    return write(path, nodes, [value("x", [5, 1, 4])], [value("y", [5, 1, 1, 3])], arrays)


MIXED = {
    "conv": "Conv",
    "up": "ConvTranspose",
    "embedding": "Gather",
    "lstm.W": "LSTM",
    "lstm.R": "LSTM",
    "inside": "MatMul",
    "twice_a": "MatMul",
    "gemm": "Gemm",
}
"""Name and layer of every weight of `mixed`; twice_a and twice_b share one."""


def mixed(path: Path) -> Path:
    """One layer of every kind, side by side; `inside` in a branch of If."""
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["z", "wi"], ["t"], "inside")], "then", [], [value("t", [2, 4])]
    )
    branch.initializer.append(numpy_helper.from_array(normal(4, 4, seed=6), "wi"))
    other = helper.make_graph([helper.make_node("Identity", ["z"], ["e"])], "else", [], [value("e", [2, 4])])
    nodes = [
        helper.make_node("Conv", ["image", "wc"], ["a"], "conv"),
        helper.make_node("ConvTranspose", ["image", "wt"], ["b"], "up"),
        helper.make_node("Gather", ["we", "ids"], ["c"], "embedding"),
        helper.make_node("LSTM", ["series", "wl", "rl"], ["d"], "lstm", hidden_size=3),
        helper.make_node("If", ["flag"], ["i"], "choice", then_branch=branch, else_branch=other),
        helper.make_node("MatMul", ["x", "ws"], ["s"], "twice_a"),
        helper.make_node("MatMul", ["i", "ws"], ["u"], "twice_b"),
        helper.make_node("Gemm", ["x", "wg", "bg"], ["g"], "gemm", transB=1),
    ]
    inputs = [
        value("image", [1, 2, 5, 5]),
        value("ids", [2], INT64),
        value("series", [3, 1, 4]),
        value("flag", [], TensorProto.BOOL),
        value("x", [2, 4]),
        value("z", [2, 4]),
    ]
    shapes = {
        "a": [1, 3, 3, 3],
        "b": [1, 3, 7, 7],
        "c": [2, 4],
        "d": [3, 1, 1, 3],
        "s": [2, 4],
        "u": [2, 4],
        "g": [2, 5],
    }
    arrays = {
        "wc": normal(3, 2, 3, 3, seed=1),
        "wt": normal(2, 3, 3, 3, seed=2),
        "we": normal(10, 4, seed=3),
        "wl": normal(1, 12, 4, seed=4),
        "rl": normal(1, 12, 3, seed=5),
        "ws": normal(4, 4, seed=7),
        "wg": normal(5, 4, seed=8),
        "bg": normal(5, seed=9),
    }
    return write(path, nodes, inputs, [value(n, s) for n, s in shapes.items()], arrays)


def arrays_of(path: Path) -> dict[str, Array]:
    """The initializers of the main graph."""
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def execute(path: Path, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs, by ONNX Runtime with default settings."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(feeds))]


def signature(path: Path) -> list[tuple[str, int, list[int | str]]]:
    """Name, element type and dimensions of every input and output."""
    graph = onnx.load(path).graph
    constant = {i.name for i in graph.initializer}
    return [
        (v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in (*(i for i in graph.input if i.name not in constant), *graph.output)
    ]

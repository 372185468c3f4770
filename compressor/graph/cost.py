"""What a model costs to run, counted: multiply-accumulates from the shapes it really has."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import new_initializer
from compressor.graph.equations import equation_of
from compressor.graph.model import Model
from compressor.graph.reading import WORKING_OPSET
from compressor.graph.weights import attribute

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CostedLayer:
    """A layer whose work follows from the shapes of its tensors.

    Attributes:
        name: of the layer.
        layer: its operator type.
        tensors: names of the tensors whose shapes are needed, for `macs`.
    """

    name: str
    layer: str
    tensors: tuple[str, ...]
    node: ir.Node

    def macs(self, shapes: dict[str, Shape]) -> int:
        """Multiply-accumulates of one execution.

        Args:
            shapes: of every tensor in `tensors`.
        """
        return _MACS[self.layer](self.node, *(shapes[name] for name in self.tensors))


def alone(layer: CostedLayer, shapes: dict[str, Shape]) -> Model | None:
    """A model of one layer with weights of noise, at these sizes; None for layers other than convolutions and products.

    Args:
        layer: of any model; its constants become constants, its other inputs become inputs.
        shapes: of every tensor in `tensors`.
    """
    if layer.layer not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return None
    graph = ir.Graph([], [], nodes=[], opset_imports={"": WORKING_OPSET}, name="alone")
    inputs = []
    for value, name in zip(layer.node.inputs[:2], layer.tensors[:2], strict=True):
        if value is not None and value.is_initializer():
            noise = np.random.default_rng(0).standard_normal(shapes[name]).astype(np.float32)
            inputs.append(new_initializer(graph, name, noise))
        else:
            real = ir.TensorType(ir.DataType.FLOAT)
            inputs.append(ir.Value(name=f"{name}_in", shape=ir.Shape(shapes[name]), type=real))
            graph.inputs.append(inputs[-1])
    attributes = dict(layer.node.attributes)
    if "group" in attributes and layer.layer == "Conv":
        attributes["group"] = ir.AttrInt64("group", shapes[layer.tensors[0]][1] // shapes[layer.tensors[1]][1])
    node = ir.Node("", layer.layer, inputs, list(attributes.values()), name=layer.name)
    node.outputs[0].name, node.outputs[0].type = "out", ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(shapes[layer.tensors[2]])
    graph.append(node)
    graph.outputs.append(node.outputs[0])
    return Model(ir.Model(graph, ir_version=10), Path("alone"), 0)


def costed_layers(model: Model) -> tuple[CostedLayer, ...]:
    """The layers of the main graph that multiply; those in branches of If and bodies of Loop are not counted."""
    found = []
    for node in model.ir.graph:
        if node.op_type in _MACS and len(node.inputs) > 1:
            output = next((o for o in node.outputs if o.name), None)
            values = [node.inputs[0], node.inputs[_SECOND.get(node.op_type, 1)], output]
            names = tuple(v.name for v in values if v is not None and v.name)
            if len(names) == len(values):
                found.append(CostedLayer(node.name or "", node.op_type, names, node))
    return tuple(found)


def _conv(node: ir.Node, x: Shape, w: Shape, y: Shape) -> int:
    return prod(y) * prod(w[1:])


def _conv_transpose(node: ir.Node, x: Shape, w: Shape, y: Shape) -> int:
    return prod(x) * prod(w[1:])


def _matmul(node: ir.Node, a: Shape, b: Shape, y: Shape) -> int:
    return prod(y) * a[-1]


def _gemm(node: ir.Node, a: Shape, b: Shape, y: Shape) -> int:
    return prod(y) * a[0 if attribute(node, "transA", 0) else 1]


def _recurrent(node: ir.Node, x: Shape, w: Shape, y: Shape) -> int:
    """x is (steps, batch, inputs) or (batch, steps, inputs); w is (directions, gates · hidden, inputs)."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
    return x[0] * x[1] * w[0] * w[1] * (w[2] + w[1] // gates)


def _integer_recurrent(node: ir.Node, x: Shape, w: Shape, y: Shape) -> int:
    """As of LSTM, with w as (directions, inputs, 4 · hidden)."""
    return x[0] * x[1] * w[0] * w[2] * (w[1] + w[2] // 4)


def _einsum(node: ir.Node, a: Shape, b: Shape, y: Shape) -> int:
    """One for every combination of all letters; 0 for dots and for other than two factors, which are not counted."""
    equation = equation_of(node)
    if equation is None or len(equation.terms) != 2:
        return 0
    first, second = equation.terms
    lengths = [*zip(first, a, strict=True), *zip(second, b, strict=True)]
    return prod(max(n for c, n in lengths if c == letter) for letter in {c for c, _ in lengths})


_SECOND = {"QLinearConv": 3, "QLinearMatMul": 3}
_MACS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    "Gemm": _gemm,
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "DynamicQuantizeLSTM": _integer_recurrent,
}

"""Where what a layer makes is best compared with the reference: behind everything that is only added to it."""

from dataclasses import dataclass

import onnx_ir as ir

from compressor.graph.weights import Weight, uses_of

_LINEAR = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Outlet:
    """The result of a layer, with its bias and with what a shortcut adds.

    Attributes:
        tensor: name of it.
        axis: of the channels, from the end.
    """

    tensor: str
    axis: int


def outlet(weight: Weight) -> Outlet | None:
    """Of a layer of the main graph; None where the layer is no single product with rows for outputs.

    A sum with another tensor is taken as the result only where that tensor is there before the layer runs:
    then the layer can make up for what is missing in it.
    """
    node = weight.uses[0].node
    single = len(weight.uses) == 1 and weight.uses[0].idx == 1 and not weight.read_otherwise
    if not single or weight.in_subgraph or node.op_type not in _LINEAR or node.graph is None:
        return None
    if node.op_type == "MatMul" and len(weight.shape) != 2:
        return None
    places = {item: number for number, item in enumerate(node.graph)}
    value = node.outputs[0]
    while (behind := _added(value, places, node)) is not None:
        value = behind
    axis = 1 - len(weight.shape) if node.op_type == "Conv" else -1
    return None if value.is_graph_output() and not value.name else Outlet(value.name or "", axis)


def _added(value: ir.Value, places: dict[ir.Node, int], layer: ir.Node) -> ir.Value | None:
    """The sum of a tensor with something that is there before the layer runs, if nothing else reads the tensor."""
    uses = uses_of(value)
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != "Add" or uses[0].node.graph != layer.graph:
        return None
    node, idx = uses[0]
    other = node.inputs[1 - idx]
    producer = None if other is None else other.producer()
    early = other is not None and (producer is None or places.get(producer, len(places)) < places[layer])
    same = value.shape is None or node.outputs[0].shape is None or len(value.shape) == len(node.outputs[0].shape)
    return node.outputs[0] if early and same else None

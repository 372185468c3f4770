"""Which tensors of two models stand for each other, when one was made from the other by passes.

Layers keep their names. What a layer makes is found at the layer itself, and, in the original, behind the
affine maps per channel that passes have folded into it.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import constant
from compressor.graph.model import Model
from compressor.graph.weights import Use, Weight, is_weight, uses_of

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FOLDED = ("BatchNormalization", "Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, slots=True)
class Twins:
    """What a layer makes, in both models.

    Attributes:
        layer: its name in both.
        layer_type: its operator type in the original.
        expected: the tensor in the original.
        found: the tensor in the other.
        axis: of the channels, from the end.
        channels: how many.
    """

    layer: str
    layer_type: str
    expected: str
    found: str
    axis: int
    channels: int


def find_twins(weight: Weight, model: Model) -> Twins | str:
    """What a layer of the original makes, in both; or why that is unknown, or nothing has changed.

    Args:
        weight: of the original.
        model: made from it.
    """
    reason = _refusal(weight)
    if reason is not None:
        return reason
    original = weight.uses[0].node
    node = next((node for node in model.ir.graph if node.name == original.name), None)
    if node is None:
        return "the model has no layer of this name any more"
    if _is_unchanged(weight, node):
        return "its weights are as they were"
    names = {output.name for other in model.ir.graph for output in other.outputs}
    expected, found = _folded(original.outputs[0], names), node.outputs[0]
    axis = 1 - len(weight.shape) if weight.layer in ("Conv", "ConvTranspose") else -1
    return Twins(weight.name, weight.layer, expected.name or "", found.name or "", axis, len(weight.matrix()))


def _refusal(weight: Weight) -> str | None:
    if weight.layer not in _LINEAR or weight.uses[0].idx != 1:
        return f"{weight.layer} has no bias per output channel"
    if weight.layer == "MatMul" and len(weight.shape) != 2:
        return f"a batch of matrices ({len(weight.shape)} axes) has no bias per output channel"
    if len(weight.uses) > 1:
        return "its weights are shared"
    return "inside a branch of If or the body of Loop" if weight.in_subgraph else None


def _is_unchanged(weight: Weight, node: ir.Node) -> bool:
    use = Use(node, 1)
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or node.op_type != weight.layer or not is_weight(use):
        return False
    array = constant(value)
    return array is not None and np.array_equal(array, np.asarray(constant(weight.value)))


def _folded(value: ir.Value, names: set[str | None]) -> ir.Value:
    """The tensor that `value` has become behind affine maps per channel whose outputs are not in `names`."""
    uses = uses_of(value)
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type not in _FOLDED:
        return value
    node = uses[0].node
    others = [other for idx, other in enumerate(node.inputs) if idx != uses[0].idx]
    if node.outputs[0].name in names or any(constant(other) is None for other in others):
        return value
    return _folded(node.outputs[0], names)

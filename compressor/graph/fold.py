"""Folds that onnxscript.optimizer leaves: affine maps per channel into the linear layer beside them.

Conv · BatchNormalization      Conv · Mul/Div/Add/Sub constant      (also ConvTranspose, Gemm)
BatchNormalization · Conv      (only without padding: the border would see another zero)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import bypass, constant, new_initializer, remove_if_unused, set_array
from compressor.graph.weights import Use, Weight, attribute, find_weights
from compressor.numerics.affine import Floats
from compressor.numerics.folding import ChannelAffine, batch_normalization, fold_after, fold_before

_LINEAR = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True, slots=True)
class Folded:
    """A layer that swallowed a neighbour."""

    layer: str
    layer_type: str
    neighbour: str

    @property
    def detail(self) -> str:
        """What happened, in words."""
        return f"{self.neighbour} folded in"


def fold_affine(model: ir.Model) -> Iterator[Folded]:
    """Fold every affine map per channel that sits beside a linear layer into it, until none is left."""
    for weight in list(find_weights(model)):
        if not _foldable(weight):
            continue
        while (found := _fold_following(weight) or _fold_preceding(weight)) is not None:
            yield found


def merge_biases(model: ir.Model) -> Iterator[Folded]:
    """Turn MatMul of a matrix by a constant, followed by Add of a constant per output, into Gemm."""
    for weight in list(find_weights(model)):
        node, output = weight.uses[0].node, weight.uses[0].node.outputs[0]
        uses = [Use(*use) for use in output.uses()]
        bias = _added_bias(weight, uses[0]) if len(uses) == 1 and _is_matrix_product(weight) else None
        if bias is None or output.is_graph_output():
            continue
        node.op_type = "Gemm"
        node.resize_inputs(3)
        node.replace_input_with(2, bias)
        bypass(uses[0].node, output)
        yield Folded(node.name or "", "Gemm", "Add")


def _is_matrix_product(weight: Weight) -> bool:
    node, source = weight.uses[0].node, weight.uses[0].node.inputs[0]
    flat = source is not None and source.shape is not None and len(source.shape) == 2
    return node.op_type == "MatMul" and weight.uses[0].idx == 1 and len(weight.shape) == 2 and flat


def _added_bias(weight: Weight, use: Use) -> ir.Value | None:
    """The constant per output that `use` adds to the product."""
    if use.node.op_type != "Add" or use.node.graph is not weight.uses[0].node.graph:
        return None
    bias, columns = use.node.inputs[1 - use.idx], weight.shape[1]
    array = constant(bias)
    return bias if array is not None and array.shape in ((columns,), (1, columns)) else None


def _foldable(weight: Weight) -> bool:
    node = weight.uses[0].node
    if node.op_type not in _LINEAR or len(weight.uses) > 1 or len(weight.value.uses()) > 1:
        return False
    if weight.value.is_graph_output() or weight.uses[0].idx != 1 or weight.dtype == "float64":
        return False
    plain = node.op_type != "Gemm" or (_scalar(node, "alpha") == 1 and _scalar(node, "beta") == 1)
    return plain and layer_bias(weight) is not None


def _scalar(node: ir.Node, name: str) -> float:
    found = node.attributes.get(name)
    return 1.0 if found is None else found.as_float()


def _fold_following(weight: Weight) -> Folded | None:
    """y = affine(W x + b)."""
    node = weight.uses[0].node
    output = node.outputs[0]
    uses = [Use(*use) for use in output.uses()]
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.graph is not node.graph:
        return None
    matrix, bias = weight.matrix(), layer_bias(weight)
    ndim = 2 if node.op_type == "Gemm" else len(weight.shape)
    affine = _affine(uses[0], len(matrix), ndim)
    if affine is None or bias is None:
        return None
    return _absorb(weight, uses[0].node, output, fold_after(matrix, bias, affine))


def _fold_preceding(weight: Weight) -> Folded | None:
    """y = W affine(x) + b."""
    node = weight.uses[0].node
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    if source is None or producer is None or producer.op_type != "BatchNormalization" or not _unpadded(node):
        return None
    if len(source.uses()) != 1 or source.is_graph_output() or producer.graph is not node.graph:
        return None
    matrix, bias = weight.matrix(), layer_bias(weight)
    affine = _batch_normalization(producer)
    if affine is None or bias is None or matrix.shape[1] % len(affine.scale):
        return None
    if node.op_type != "Conv" or attribute(node, "group", 1) != 1:
        return None
    return _absorb(weight, producer, producer.inputs[0], fold_before(matrix, bias, affine))


def _absorb(weight: Weight, neighbour: ir.Node, value: ir.Value | None, folded: tuple[Floats, Floats]) -> Folded | None:
    node = weight.uses[0].node
    if value is None:
        return None
    matrix, bias = folded
    weight.store(matrix.astype(np.float32))
    _store_bias(weight, bias.astype(np.float32))
    constants = [v for v in neighbour.inputs if v is not None and v.is_initializer()]
    bypass(neighbour, value)
    for unused in constants:
        remove_if_unused(unused)
    return Folded(node.name or "", node.op_type, neighbour.op_type)


def _affine(use: Use, channels: int, ndim: int) -> ChannelAffine | None:
    """What the reader of a layer's output does to each channel, if it is an affine map."""
    node = use.node
    if node.op_type == "BatchNormalization":
        return _batch_normalization(node) if use.idx == 0 else None
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    array = constant(node.inputs[1 - use.idx])
    values = None if array is None else _per_channel(array, channels, ndim)
    if values is None or (node.op_type == "Div" and use.idx == 1):
        return None
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    match node.op_type:
        case "Add":
            return ChannelAffine(one, values)
        case "Sub":
            return ChannelAffine(one, -values) if use.idx == 0 else ChannelAffine(-one, values)
        case "Mul":
            return ChannelAffine(values, zero)
        case _:
            return ChannelAffine(np.reciprocal(values), zero) if np.all(values != 0) else None


def _per_channel(array: np.ndarray, channels: int, ndim: int) -> Floats | None:
    """`array` as (channels,), if it broadcasts along the channel axis of (batch, channels, …) alone."""
    if array.ndim > ndim or not np.issubdtype(array.dtype, np.floating):
        return None
    aligned = (1,) * (ndim - array.ndim) + array.shape
    if any(n != 1 for axis, n in enumerate(aligned) if axis != 1) or aligned[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)


def _batch_normalization(node: ir.Node) -> ChannelAffine | None:
    arrays = [constant(value) for value in node.inputs[1:5]]
    if any(a is None for a in arrays) or attribute(node, "training_mode", 0) or len(node.outputs) > 1:
        return None
    epsilon = node.attributes.get("epsilon")
    gamma, beta, mean, variance = (np.asarray(a, np.float32) for a in arrays)
    return batch_normalization(gamma, beta, mean, variance, 1e-5 if epsilon is None else epsilon.as_float())


def _unpadded(node: ir.Node) -> bool:
    pads = node.attributes.get("pads")
    auto = node.attributes.get("auto_pad")
    same = auto is not None and auto.as_string().startswith("SAME")
    return not same and (pads is None or not any(pads.as_ints()))


def layer_bias(weight: Weight) -> Floats | None:
    """(outputs,), zeros when the layer has none; None when it is computed or of another shape."""
    node, outputs = weight.uses[0].node, len(weight.matrix())
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(outputs, np.float32)
    array = constant(value)
    if array is None or array.size not in (1, outputs) or len(array.shape) > 1:
        return None
    return np.broadcast_to(array, (outputs,)).astype(np.float32)


def _store_bias(weight: Weight, bias: Floats) -> None:
    node = weight.uses[0].node
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None and not bias.any():
        return
    array = bias.astype(weight.dtype)
    if value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        set_array(value, array)
        return
    if node.graph is None:
        raise ValueError(f"{node.name} is in no graph")
    new = new_initializer(node.graph, f"{weight.value.name}_bias", array)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, new)
    if value is not None:
        remove_if_unused(value)

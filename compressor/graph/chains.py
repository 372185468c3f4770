"""Channels that can be rescaled without changing the function: who makes them, and who reads them.

The channels of a tensor may be divided by s > 0 where they are made, if everything that reads the tensor is a
layer whose weights can be multiplied by s. In between there may be operators that work channel by channel
and are positively homogeneous, f(a x) = a f(x) for a > 0. Channels are made by

- a linear layer with its bias:                  W x + b           ->  S⁻¹ W x + S⁻¹ b
- LayerNormalization with its scale and bias:    γ · norm(x) + β   ->  S⁻¹ γ · norm(x) + S⁻¹ β
- multiplication by a constant per channel, and addition of one behind any of these.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import constant, insert, new_initializer, new_node, redirect, set_array
from compressor.graph.weights import Use, Weight, attribute, is_weight, uses_of
from compressor.numerics.affine import Floats
from compressor.numerics.equalization import input_magnitudes, multiply_inputs

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_POOLING = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_WITHOUT_VALUES = ("Shape", "Size")


@dataclass(frozen=True, slots=True, eq=False)
class Maker:
    """What gives a tensor its channels, and can divide them.

    Attributes:
        name: of the operator.
        weight: the layer whose outputs they are; None when it is no linear layer.
        vectors: where constants with one entry per channel are read: biases, scales, shifts.
    """

    name: str
    weight: Weight | None
    vectors: tuple[Use, ...] = ()

    def divide(self, scale: Floats) -> None:
        """Every channel by its entry of `scale`, (channels,)."""
        if self.weight is not None:
            self.weight.store((self.weight.matrix() / scale[:, None]).astype(np.float32))
        for use in self.vectors:
            _divide_vector(use, scale)


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The channels of a tensor, and the layers that multiply by them.

    Attributes:
        value: the tensor.
        axis: of its channels, from the end.
        readers: weights of the layers; others may read the tensor too.
    """

    value: ir.Value
    axis: int
    readers: tuple[Weight, ...]

    @property
    def tensor(self) -> str:
        """Name of the tensor."""
        return self.value.name or ""

    @property
    def count(self) -> int:
        """How many channels."""
        return _channels_read(self.readers[0])

    def maker(self) -> Maker | str:
        """Who can divide the channels for the readers alone; or why nobody can."""
        readers = {Use(use.node, 0) for weight in self.readers for use in weight.uses}
        return _maker(self.value, self.axis, self.count, readers)

    def magnitudes(self) -> Floats:
        """Largest magnitude of the weights that read each channel, (channels,)."""
        magnitudes: Floats = np.max([input_magnitudes(w.matrix(), _groups(w), self.count) for w in self.readers], 0)
        return magnitudes

    def multiply(self, scale: Floats) -> None:
        """Let every reader multiply its weights by `scale`, (channels,)."""
        for weight in self.readers:
            weight.store(multiply_inputs(weight.matrix(), _groups(weight), scale))

    def divide_in_front(self, scale: Floats) -> None:
        """Put a multiplication by 1 / `scale`, (channels,), between the tensor and the readers."""
        nodes = [use for weight in self.readers for use in weight.uses]
        graph = self.value.graph or nodes[0].node.graph
        if graph is None:
            raise ValueError(f"{self.tensor} is in no graph")
        factors = (1 / scale.astype(np.float64)).astype(self.readers[0].dtype)
        aligned = factors.reshape(-1, *[1] * (-1 - self.axis))
        stored = new_initializer(graph, f"{self.tensor}_smoothing", aligned)
        node = new_node("Mul", [self.value, stored], f"{self.tensor}_smoothed", self.value.dtype)
        node.outputs[0].shape = self.value.shape
        insert(graph, self.value, [node])
        redirect([Use(use.node, 0) for use in nodes], node.outputs[0])


def read_together(weights: Iterable[Weight]) -> list[Channels]:
    """The tensors that these weights multiply by, each with all of the weights that read it.

    Args:
        weights: with no `reading_refusal`.
    """
    found: dict[tuple[ir.Value, int], list[Weight]] = {}
    for weight in weights:
        value = weight.uses[0].node.inputs[0]
        if value is not None:
            found.setdefault((value, _axis(weight)), []).append(weight)
    return [Channels(value, axis, tuple(readers)) for (value, axis), readers in found.items()]


def reading_refusal(weight: Weight) -> str | None:
    """Why what a layer reads cannot be rescaled in its weights; None when it can."""
    node, source = weight.uses[0].node, weight.uses[0].node.inputs[0]
    same = all(use.node.inputs[0] is source and use.node.op_type == weight.layer for use in weight.uses)
    reasons = {
        f"{weight.layer} does not multiply channels by a matrix": weight.layer not in _LINEAR,
        "its weights are float64": weight.dtype == "float64",
        "the constant is the left factor of the product": any(use.idx != 1 for use in weight.uses),
        "its input is a constant": source is None or source.is_initializer(),
        "its weights are shared by layers with other inputs": not same,
        "its weights are read by more than layers": weight.read_otherwise or weight.value.is_graph_output(),
        "its weights are not finite": not np.isfinite(weight.matrix()).all(),
        f"a batch of matrices ({len(weight.shape)} axes)": weight.layer == "MatMul" and len(weight.shape) != 2,
        "Gemm with transA": attribute(node, "transA", 0) != 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def is_vector(use: Use, axis: int, count: int) -> bool:
    """Whether a constant has one entry per channel, along `axis` from the end, and no other extent."""
    array = constant(use.node.inputs[use.idx])
    return array is not None and array.ndim >= -axis and array.shape[axis] == count == array.size


def rewrite(use: Use, array: NDArray[np.float64]) -> None:
    """Give a layer another constant there, in the type it had; whatever else reads the old one keeps it."""
    old, graph = use.node.inputs[use.idx], use.node.graph
    if old is None or old.dtype is None or graph is None:
        raise ValueError(f"{use.node.name} reads no constant there")
    new = array.astype(old.dtype.numpy())
    if len(old.uses()) == 1 and not old.is_graph_output():
        set_array(old, new)
    else:
        use.node.replace_input_with(use.idx, new_initializer(graph, old.name or "", new))


def _maker(value: ir.Value | None, axis: int, count: int, readers: set[Use]) -> Maker | str:
    """Walk back from what `readers` read to whoever makes its channels."""
    node = None if value is None else value.producer()
    if value is None or node is None:
        return "its input is an input of the model"
    other = _other_reader(value, readers)
    if other is not None:
        return other
    if node.domain:
        return f"its input comes from {node.op_type} of {node.domain}"
    if _passes_on(node, axis):
        return _maker(node.inputs[0], axis, count, {Use(node, 0)})
    match node.op_type:
        case "Conv" | "ConvTranspose" | "Gemm" | "MatMul":
            return _linear(node, axis, count)
        case "LayerNormalization":
            return _normalization(node, axis, count)
        case "Add" | "Sub" | "Mul" | "Div":
            return _arithmetic(node, axis, count)
        case "Clip":
            return "its input comes from Clip, which cuts off at the same value whatever the scale"
    return f"its input comes from {node.op_type}, whose channels cannot be rescaled"


def _other_reader(value: ir.Value, readers: set[Use]) -> str | None:
    if value.is_graph_output():
        return "its input is an output of the model"
    others = [use.node.op_type for use in uses_of(value) if use not in readers]
    return next((f"its input is also read by {other}" for other in others if other not in _WITHOUT_VALUES), None)


def _passes_on(node: ir.Node, axis: int) -> bool:
    """Whether channels that are rescaled in front of a node come out rescaled behind it."""
    match node.op_type:
        case "Relu" | "LeakyRelu":
            return True
        case "PRelu":
            return constant(node.inputs[1]) is not None
        case "Clip":
            bounds = [constant(value) for value in node.inputs[1:] if value is not None]
            return all(bound is not None and bound.item() == 0 for bound in bounds)
    return node.op_type in _POOLING and axis < -1 and len(node.outputs) == 1


def _linear(node: ir.Node, axis: int, count: int) -> Maker | str:
    use, value = Use(node, 1), node.inputs[1]
    if value is None or not is_weight(use):
        return f"its input comes from {node.op_type}, whose weights are no float constant"
    if len(value.uses()) > 1 or value.is_graph_output():
        return f"its input comes from {node.name}, whose weights are shared"
    weight = Weight(value, (use,), False)
    if _axis(weight) != axis or len(weight.matrix()) != count:
        return f"its input comes from {node.op_type}, but the channels are along another axis"
    bias = Use(node, 2)
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return Maker(weight.name, weight)
    if not is_vector(bias, -1, count):
        return f"its input comes from {node.name}, whose bias is not one constant per channel"
    return Maker(weight.name, weight, (bias,))


def _normalization(node: ir.Node, axis: int, count: int) -> Maker | str:
    vectors = [Use(node, idx) for idx, value in enumerate(node.inputs) if idx and value is not None]
    if axis != -1 or not all(is_vector(use, -1, count) for use in vectors):
        return f"its input comes from {node.name}, whose scale and bias are not one constant per channel"
    return Maker(node.name or "", None, tuple(vectors))


def _arithmetic(node: ir.Node, axis: int, count: int) -> Maker | str:
    """Of two tensors, or of one and a constant."""
    for idx in (1, 0):
        if constant(node.inputs[idx]) is not None:
            return _by_constant(Use(node, idx), axis, count)
    return _factor(node, axis, count)


def _by_constant(use: Use, axis: int, count: int) -> Maker | str:
    """Addition of one number per channel, multiplication by such, or by a number for all."""
    node, array = use.node, constant(use.node.inputs[use.idx])
    one, per_channel = array is not None and array.size == 1, is_vector(use, axis, count)
    behind = _maker(node.inputs[1 - use.idx], axis, count, {Use(node, 1 - use.idx)})
    match node.op_type:
        case "Mul" if one:
            return behind
        case "Div" if one and use.idx == 1:
            return behind
        case "Mul" if per_channel:
            return Maker(node.name or "", None, (use,))
        case "Add" | "Sub" if per_channel:
            return behind if isinstance(behind, str) else replace(behind, vectors=(*behind.vectors, use))
    return f"its input comes from {node.op_type} of a constant that is not one number per channel"


def _factor(node: ir.Node, axis: int, count: int) -> Maker | str:
    """One of the factors of a gate, as in SwiGLU, if its channels can be divided."""
    made = [_maker(value, axis, count, {Use(node, idx)}) for idx, value in enumerate(node.inputs)]
    if node.op_type != "Mul" or all(isinstance(maker, str) for maker in made):
        return f"its input comes from {node.op_type} of two tensors"
    return next(maker for maker in made if isinstance(maker, Maker))


def _divide_vector(use: Use, scale: Floats) -> None:
    """By `scale`, (channels,)."""
    array = constant(use.node.inputs[use.idx])
    if array is None:
        raise ValueError(f"{use.node.name} reads no constant there")
    rewrite(use, array.astype(np.float64) / scale.reshape(array.shape))


def _axis(weight: Weight) -> int:
    """The axis of the channels that a layer reads, and of those it makes, from the end."""
    return 1 - len(weight.shape) if weight.layer in ("Conv", "ConvTranspose") else -1


def _groups(weight: Weight) -> int:
    return attribute(weight.uses[0].node, "group", 1)


def _channels_read(weight: Weight) -> int:
    if weight.layer == "ConvTranspose":
        return weight.shape[0]
    return weight.shape[1] * _groups(weight) if weight.layer == "Conv" else weight.matrix().shape[1]

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
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", *_POOLING)
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
    if weight.layer not in _LINEAR:
        return f"{weight.layer} does not multiply channels by a matrix"
    if weight.dtype == "float64":
        return "its weights are float64"
    if any(use.idx != 1 for use in weight.uses):
        return "the constant is the left factor of the product"
    if source is None or source.is_initializer():
        return "its input is a constant"
    if any(use.node.inputs[0] is not source or use.node.op_type != weight.layer for use in weight.uses):
        return "its weights are shared by layers with other inputs"
    if weight.layer == "MatMul" and len(weight.shape) != 2:
        return f"a batch of matrices ({len(weight.shape)} axes)"
    return "Gemm with transA" if attribute(node, "transA", 0) else None


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


def _maker(value: ir.Value, axis: int, count: int, readers: set[Use]) -> Maker | str:
    """Walk back from what `readers` read to whoever makes its channels."""
    node, other = value.producer(), _other_reader(value, readers)
    if other or node is None:
        return other or "its input is an input of the model"
    source = node.inputs[0] if node.inputs else None
    if source is not None and _passes_on(node, axis):
        return _maker(source, axis, count, {Use(node, 0)})
    if node.op_type in _LINEAR:
        return _linear(node, axis, count)
    if node.op_type == "LayerNormalization":
        return _normalization(node, axis, count)
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        return _arithmetic(node, axis, count)
    if node.op_type == "Clip":
        return "its input comes from Clip, which cuts off at the same value whatever the scale"
    return f"its input comes from {node.op_type}, whose channels cannot be rescaled"


def _other_reader(value: ir.Value, readers: set[Use]) -> str | None:
    if value.is_graph_output():
        return "its input is an output of the model"
    others = [use.node.op_type for use in uses_of(value) if use not in readers]
    return next((f"its input is also read by {other}" for other in others if other not in _WITHOUT_VALUES), None)


def _passes_on(node: ir.Node, axis: int) -> bool:
    """Whether channels that are rescaled in front of a node come out rescaled behind it."""
    if node.domain:
        return False
    if node.op_type == "Clip":
        bounds = [None if v is None else constant(v) for v in (*node.inputs[1:], None, None)][:2]
        return all(bound is None or bound.item() == 0 for bound in bounds)
    if node.op_type == "PRelu" and constant(node.inputs[1]) is None:
        return False
    if node.op_type in _POOLING:
        return axis < -1 and len(node.outputs) == 1
    return node.op_type in _HOMOGENEOUS


def _linear(node: ir.Node, axis: int, count: int) -> Maker | str:
    use = Use(node, 1)
    value = node.inputs[1]
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
    """Addition of a constant per channel; multiplication by one, by a scalar, or by another tensor."""
    idx = next((idx for idx in (1, 0) if constant(node.inputs[idx]) is not None), None)
    if idx is None:
        return _factor(node, axis, count)
    use, other, array = Use(node, idx), node.inputs[1 - idx], constant(node.inputs[idx])
    scales = node.op_type == "Mul" or (node.op_type == "Div" and idx == 1)
    if other is not None and scales and array is not None and array.size == 1:
        return _maker(other, axis, count, {Use(node, 1 - idx)})
    if other is None or node.op_type == "Div" or not is_vector(use, axis, count):
        return f"its input comes from {node.op_type} of a constant that is not one number per channel"
    if scales:
        return Maker(node.name or "", None, (use,))
    made = _maker(other, axis, count, {Use(node, 1 - idx)})
    return made if isinstance(made, str) else replace(made, vectors=(*made.vectors, use))


def _factor(node: ir.Node, axis: int, count: int) -> Maker | str:
    """One of the factors of a gate, as in SwiGLU, if its channels can be divided."""
    values = [(idx, value) for idx, value in enumerate(node.inputs) if value is not None and node.op_type == "Mul"]
    made = [_maker(value, axis, count, {Use(node, idx)}) for idx, value in values]
    found = (maker for maker in made if isinstance(maker, Maker))
    return next(found, f"its input comes from {node.op_type} of two tensors")


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

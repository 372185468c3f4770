"""Which arrays of a graph are learned: told by who reads them, not by how they are stored.

Exporters store everything as initializers: weights, but also masks, frequencies and scales of the arithmetic
around them. A layer's inputs are learned. An array in an addition or a product is learned when it meets
something that has been through a layer already, has more than one entry, and is no mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import new_initializer, redirect, remove_if_unused, set_array
from compressor.graph.model import Model
from compressor.graph.reading import initializers
from compressor.graph.weights import FLOATS, Use, output_axis, takes_weight, uses_of

_LEARNED: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "BiasGelu": (1,),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Einsum": (0, 1),
    "FastGelu": (1,),
    "FusedMatMul": (0, 1),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
}
_STATISTICS = {"BatchNormalization": (3, 4)}
_JOINED = ("Add", "Sub", "Mul", "Div", "Sum", "Concat")
_PASSED = (
    "Cast",
    "DequantizeLinear",
    "Expand",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
_PRODUCTS = ("MatMul", "FusedMatMul", "Gather", "Einsum")
_MASKING = 1e4
_CHANNELS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Roles:
    """The arrays that training changes.

    Attributes:
        learned: by gradients, in the order of the graph.
        statistics: means and variances that follow the batches.
        scales: of quantizers.
    """

    learned: tuple[ir.Value, ...]
    statistics: tuple[ir.Value, ...]
    scales: tuple[ir.Value, ...]


def roles(model: ir.Model) -> Roles:
    """The roles of all float initializers, those of subgraphs included."""
    touched = _touched(model)
    learned, statistics, scales = [], [], []
    for value in initializers(model):
        tensor = value.const_value
        if tensor is None or tensor.dtype not in FLOATS or value.is_graph_output():
            continue
        if any(use.idx in _STATISTICS.get(use.node.op_type, ()) for use in uses_of(value)):
            statistics.append(value)
        elif all(use.node.op_type in ("QuantizeLinear", "DequantizeLinear") and use.idx == 1 for use in uses_of(value)):
            scales += [value] if uses_of(value) else []
        elif any(_is_learned(use, value, touched) for use in readers(value)):
            learned.append(value)
    return Roles(tuple(learned), tuple(statistics), tuple(scales))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that reads an array that is learned.

    Attributes:
        names: that a selector may use: of the layer, of one whose result it adds to or multiplies, of the array.
        type: operator type.
        output_axis: axis of the array that runs over the layer's outputs; None where there is no such axis.
    """

    names: tuple[str, ...]
    type: str
    output_axis: int | None


def layers_of(model: Model) -> dict[str, list[Layer]]:
    """Every array that is learned, in the order of the graph, and the layers that read it.

    Names are those of a `Network`: vectors that exporters merged have one for each layer.
    """
    copy = model.copy().ir
    untie(copy)
    return {value.name or "": [_layer(use, value) for use in readers(value)] for value in roles(copy).learned}


def layers_behind_scales(model: Model) -> dict[str, list[Layer]]:
    """Every scale of a quantizer, and the layers that read what it rounds."""
    copy = model.copy().ir
    untie(copy)
    return {
        scale.name or "": [
            _layer(use, scale) for rounds in uses_of(scale) for output in rounds.node.outputs for use in readers(output)
        ]
        for scale in roles(copy).scales
    }


def _layer(use: Use, value: ir.Value) -> Layer:
    node, name = use.node, value.name or ""
    before = [v.producer() for v in node.inputs if v is not None] if node.op_type in _JOINED else []
    names = [node.name, *(producer.name for producer in before if producer is not None), name]
    tensor = value.const_value
    direct = tensor is not None and node.inputs[use.idx] is value and takes_weight(use)
    axis = output_axis(use, len(tensor.shape)) if direct and tensor is not None and node.op_type in _CHANNELS else None
    return Layer(tuple(n for n in names if n), node.op_type, axis)


def readers(value: ir.Value) -> Iterator[Use]:
    """Where an array is really used: past what only turns, shapes, joins or quantizes it."""
    for use in uses_of(value):
        if _passes(use):
            for output in use.node.outputs:
                yield from readers(output)
        else:
            yield use


def _passes(use: Use) -> bool:
    if use.node.op_type == "Concat":
        return all(value is not None and _is_fixed(value) for value in use.node.inputs)
    return use.node.op_type in _PASSED and use.idx == 0


def _is_fixed(value: ir.Value) -> bool:
    """Whether a value is made of initializers alone, by moving their entries."""
    producer = value.producer()
    if producer is None:
        return value.const_value is not None
    moved = producer.op_type in (*_PASSED, "Concat")
    return moved and all(source is None or _is_fixed(source) for source in producer.inputs)


def is_learned_by(use: Use) -> bool:
    """Whether this input of a layer is a place for learned arrays."""
    return use.idx in _LEARNED.get(use.node.op_type, ())


def _is_learned(use: Use, value: ir.Value, touched: set[ir.Value]) -> bool:
    node, tensor = use.node, value.const_value
    if tensor is None:
        return False
    wide = sum(n > 1 for n in tensor.shape.numpy())
    if is_learned_by(use):
        if node.op_type not in _PRODUCTS or wide > 1:
            return True
        return node.op_type != "Gather" and _meets(node, touched)
    if node.op_type not in _JOINED or tensor.size < 2 or not _meets(node, touched):
        return False
    array = tensor.numpy().astype(np.float32)
    varied = node.op_type != "Concat" or array.min() < array.max()
    return varied and bool(np.isfinite(array).all()) and float(np.abs(array).max()) < _MASKING


def _meets(node: ir.Node, touched: set[ir.Value]) -> bool:
    return any(value in touched for value in node.inputs if value is not None)


def _touched(model: ir.Model) -> set[ir.Value]:
    """Every value that has been through a layer with an array of its own."""
    found: set[ir.Value] = set()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if _meets(node, found) or _has_array(node):
            found.update(node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found.update(attribute.as_graph().inputs)
    return found


def _has_array(node: ir.Node) -> bool:
    """Whether the node is a layer with a matrix, which need not be stored as one."""
    places = _LEARNED.get(node.op_type, ())
    return any(value is not None and _constant_matrix(value) for i, value in enumerate(node.inputs) if i in places)


def _constant_matrix(value: ir.Value) -> bool:
    if value.const_value is not None:
        return sum(n > 1 for n in value.const_value.shape.numpy()) > 1
    producer = value.producer()
    if producer is None or producer.op_type not in (*_PASSED, "Concat") or producer.inputs[0] is None:
        return False
    return _constant_matrix(producer.inputs[0])


def untie(model: ir.Model) -> dict[str, list[str]]:
    """Give every layer that reads the same learned vector one of its own.

    Exporters store arrays of equal values once, such as the ones of all normalizations: trained as one, they
    would move together. Matrices that are shared are shared on purpose and stay.

    Returns:
        Array -> names of the copies, in the order of the layers that read them; the first layer keeps it.
    """
    found: dict[str, list[str]] = {}
    for value in roles(model).learned:
        graph = value.graph
        if not _is_merged(value):
            continue
        if not isinstance(graph, ir.Graph) or value.const_value is None:
            continue
        for use in uses_of(value)[1:]:
            own = new_initializer(graph, f"{value.name}_untied", value.const_value.numpy())
            use.node.replace_input_with(use.idx, own)
            found.setdefault(value.name or "", []).append(own.name or "")
    return found


def _is_merged(value: ir.Value) -> bool:
    """Whether several readers take all of a vector; those that take a part of it share it on purpose."""
    if value.const_value is None or len(value.const_value.shape) > 1 or len(uses_of(value)) < 2:
        return False
    return not any(use.node.op_type in ("Slice", "Split", "Concat", "Gather") for use in uses_of(value))


def retie(model: ir.Model, untied: dict[str, list[str]]) -> None:
    """Undo `untie` for the copies that still equal what they were copied from."""
    values = {value.name or "": value for value in initializers(model)}
    for name, copies in untied.items():
        kept = values[name]
        for copy in map(values.__getitem__, copies):
            if _same(kept, copy):
                redirect(uses_of(copy), kept)
                remove_if_unused(copy)


def _same(one: ir.Value, other: ir.Value) -> bool:
    if one.const_value is None or other.const_value is None:
        return False
    return np.array_equal(one.const_value.numpy(), other.const_value.numpy())


@dataclass(frozen=True, slots=True)
class IntegerBias:
    """The int32 bias of a layer on integers, which kernels read in units of input scale × weight scale.

    Attributes:
        codes: the int32 array.
        scale: what brings it to float in the graph.
        parts: scales of the layer's input and weight.
        real: what it stood for when it was found.
    """

    codes: ir.Value
    scale: ir.Value
    parts: tuple[ir.Value, ir.Value]
    real: NDArray[np.float64]

    def renew(self) -> None:
        """Quantize it anew when its scale is no longer the product of the two."""
        wanted = _array(self.parts[0]).astype(np.float64) * _array(self.parts[1])
        if np.array_equal(wanted.astype(np.float32).ravel(), _array(self.scale).ravel()):
            return
        self.store(self.real)

    def store(self, real: NDArray[np.float64]) -> bool:
        """Let it stand for `real` at the scale that kernels take for granted; whether that changed its codes."""
        wanted = _array(self.parts[0]).astype(np.float64) * _array(self.parts[1])
        limit = float(np.iinfo(np.int32).max)
        codes = np.clip(np.round(real / wanted), -limit, limit).astype(np.int32)
        changed = not np.array_equal(codes, _array(self.codes))
        set_array(self.scale, np.broadcast_to(wanted, _array(self.scale).shape).astype(np.float32))
        set_array(self.codes, codes)
        return changed


def integer_biases(model: ir.Model) -> list[IntegerBias]:
    """Every int32 bias behind a DequantizeLinear, in layers whose input and weight have constant scales."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    found = (_integer_bias(operands) for node in nodes for operands in _biased(node))
    return [bias for bias in found if bias is not None]


def _biased(node: ir.Node) -> Iterator[tuple[ir.Value | None, ...]]:
    """Input, weight and bias of a layer; a product's bias is what is added to it."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2:
        yield tuple(node.inputs[:3])
    elif node.op_type == "Add":
        for product, bias in (node.inputs, node.inputs[::-1]):
            producer = None if product is None else product.producer()
            if producer is not None and producer.op_type == "MatMul":
                yield (*producer.inputs, bias)


def _integer_bias(operands: tuple[ir.Value | None, ...]) -> IntegerBias | None:
    scales = [_scale(value) for value in operands]
    producer = None if operands[2] is None else operands[2].producer()
    codes = None if producer is None else producer.inputs[0]
    if None in scales or codes is None or codes.const_value is None or codes.const_value.dtype != ir.DataType.INT32:
        return None
    x, weight, bias = (scale for scale in scales if scale is not None)
    return IntegerBias(codes, bias, (x, weight), _array(codes) * _array(bias).astype(np.float64))


def _scale(value: ir.Value | None) -> ir.Value | None:
    """The constant scale of what is dequantized into `value`."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    scale = producer.inputs[1]
    return scale if scale is not None and scale.const_value is not None else None


def _array(value: ir.Value) -> NDArray[Any]:
    if value.const_value is None:
        raise ValueError(f"{value.name} has no constant value")
    array: NDArray[Any] = value.const_value.numpy()
    return array

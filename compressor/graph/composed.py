"""Constants that are put together from others when the model is loaded: codes from bytes, weights from codes."""

from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from compressor.graph.packing import DOMAIN

CODES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT32)
"""Types of integers that stand for real numbers."""

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True, slots=True)
class Composed:
    """A value that is computed from constants alone.

    Attributes:
        source: the array it stems from: the largest one of codes, where there is one, else of all.
        size: its entries.
        arrays: everything that goes into it.
    """

    source: ir.Value
    size: int
    arrays: frozenset[ir.Value]

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The array it stems from."""
        if self.source.const_value is None:
            raise ValueError(f"{self.source.name} has no constant value")
        return self.source.const_value

    @property
    def of_codes(self) -> bool:
        """Whether it stems from integers that stand for real numbers."""
        return self.tensor.dtype in CODES


def composed(model: ir.Model) -> dict[ir.Value, Composed]:
    """Every value of the model that is computed from constants alone."""
    found: dict[ir.Value, Composed] = {}
    for node in (node for graph in model.graphs() for node in graph):
        sources = [found.get(value) or _constant(value) for value in node.inputs if value is not None]
        parts = [source for source in sources if source is not None]
        captures = any(attribute.type in _GRAPHS for attribute in node.attributes.values())
        if parts and len(parts) == len(sources) and not captures:
            found.update(dict.fromkeys(node.outputs, _joined(node, parts)))
    return found


def _constant(value: ir.Value) -> Composed | None:
    tensor = value.const_value
    return None if tensor is None else Composed(value, tensor.size, frozenset([value]))


def _joined(node: ir.Node, parts: list[Composed]) -> Composed:
    main = max(parts, key=lambda part: (part.of_codes, part.tensor.size))
    size = _reshaped(node, parts[-1].tensor) or max(part.size for part in parts)
    return Composed(main.source, size, frozenset().union(*(part.arrays for part in parts)))


def _reshaped(node: ir.Node, shape: ir.TensorProtocol) -> int:
    """Entries of what a shape, the last input, is given to; 0 where it does not say."""
    shaped = node.op_type == "Reshape" or (node.domain == DOMAIN and node.op_type != "LookUp3")
    return max(prod(shape.numpy().tolist()), 0) if shaped and len(shape.shape) == 1 else 0

"""What training found, however it is stored: as numbers, as codes, or as codes packed into bytes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compressor.graph.composed import CODES, Composed, composed
from compressor.graph.weights import Use, attribute, is_scale, takes_weight, uses_of

_CODE_INPUTS = {
    "DequantizeLinear": (0,),
    "MatMulInteger": (0, 1),
    "ConvInteger": (0, 1),
    "Gather": (0,),
    "DynamicQuantizeLSTM": (1, 2),
}
_GRID_INPUTS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "MatMulNBits": (2, 3),
    "GatherBlockQuantized": (2, 3),
    "LookUp3": (2, 3),
}
"""Scales, zero points, multipliers."""

_PACKED: dict[str, tuple[int, Callable[[ir.Node, ir.TensorProtocol], int]]] = {
    "MatMulNBits": (1, lambda node, _: attribute(node, "K", 0) * attribute(node, "N", 0)),
    "GatherBlockQuantized": (0, lambda node, packed: packed.size * 8 // attribute(node, "bits", 4)),
    "LookUp3": (0, lambda _, packed: packed.size * 4),
}
"""Operators that read packed codes: which input these are, and how many entries there are."""


@dataclass(frozen=True, slots=True)
class Learned:
    """An array that training found.

    Attributes:
        value: the initializer.
        entries: how many numbers it stands for.
        packed: whether it has not one entry for each of them, of which 0 stands for 0.
    """

    value: ir.Value
    entries: int
    packed: bool = False

    @property
    def zeros(self) -> int:
        """Numbers that are exactly zero; none where they are packed, which is not looked into."""
        if self.packed or self.value.const_value is None:
            return 0
        return self.entries - int(np.count_nonzero(self.value.const_value.numpy()))


def learned(model: ir.Model) -> Iterator[Learned]:
    """Every array that training found: not shapes, indices, scales, multipliers or zero points."""
    coded, parts = _coded(model)
    for graph in model.graphs():
        for value in graph.initializers.values():
            found = coded.get(value) or (None if value in parts else _stored(value))
            if found is not None:
                yield found


def _coded(model: ir.Model) -> tuple[dict[ir.Value, Learned], set[ir.Value]]:
    """What is made of codes, by their array; and all arrays that go into it."""
    made = composed(model)
    whole = [what for value, what in made.items() if what.of_codes and _is_read(value, made)]
    parts = {array for what in whole for array in what.arrays}
    return {what.source: Learned(what.source, what.size, _is_packed(what)) for what in whole}, parts


def _is_read(value: ir.Value, made: dict[ir.Value, Composed]) -> bool:
    """Whether a layer that is no constant itself reads the value as its weight or bias."""
    producer = value.producer()
    dequantized = producer is not None and producer.op_type == "DequantizeLinear"
    uses = (use for use in uses_of(value) if use.node.outputs[0] not in made)
    return any(dequantized or takes_weight(use) or _among(use, _CODE_INPUTS) for use in uses)


def _is_packed(what: Composed) -> bool:
    return what.tensor.dtype in (ir.DataType.UINT8, ir.DataType.UINT4) or what.tensor.size != what.size


def _stored(value: ir.Value) -> Learned | None:
    """An array that is read as it is."""
    tensor, uses = value.const_value, uses_of(value)
    if tensor is None or any(_among(use, _GRID_INPUTS) or is_scale(use) for use in uses):
        return None
    for node, index in uses:
        place, entries = _PACKED.get(node.op_type, (None, None))
        if entries is not None and index == place:
            return Learned(value, entries(node, tensor), packed=True)
    codes = tensor.dtype in CODES and any(_among(use, _CODE_INPUTS) for use in uses)
    return Learned(value, tensor.size) if codes or tensor.dtype.is_floating_point() else None


def _among(use: Use, inputs: dict[str, tuple[int, ...]]) -> bool:
    return use.idx in inputs.get(use.node.op_type, ())

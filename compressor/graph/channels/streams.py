"""Channels that linear layers alone make and read: they may be mixed, and the outputs stay as they are.

Between the layers that make them and those that read them is nothing but sums, means over other axes and
transpositions, so that z = T⁻¹x may take the place of x: what makes x then makes T⁻¹ times that, what reads it takes
its weights times T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compressor.graph.channels.coupling import Coupling
from compressor.graph.edit import set_array
from compressor.graph.inputs import LayerInput
from compressor.graph.weights import attribute
from compressor.numerics.affine import Doubles

_LAYERS = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "Sub", "Identity", "Transpose", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """A constant that has the channels along one axis.

    Attributes:
        value: the constant.
        axis: of it.
        order: which channel each entry is, counted as in the group.
    """

    value: ir.Value
    axis: int
    order: tuple[int, ...]

    def matrix(self) -> Doubles:
        """(all else, channels)."""
        moved = np.moveaxis(self._array(), self.axis, -1).reshape(-1, len(self.order))
        return moved[:, np.argsort(self.order)].astype(np.float64)

    def times(self, factor: Doubles) -> None:
        """Multiply the channels by a matrix from the right."""
        array = self._array()
        rest = [n for axis, n in enumerate(array.shape) if axis != self.axis]
        mixed = (self.matrix() @ factor)[:, self.order].reshape(*rest, len(self.order))
        set_array(self.value, np.ascontiguousarray(np.moveaxis(mixed, -1, self.axis).astype(array.dtype)))

    def _array(self) -> Doubles:
        if self.value.const_value is None:
            raise ValueError(f"{self.value.name} has no entries")
        return self.value.const_value.numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Channels x that may be mixed.

    Attributes:
        width: how many.
        made: rows of layers, biases, and what else is added.
        read: weights that multiply the channels, each with the tensor that its layer reads, one pixel at a time.
    """

    width: int
    made: tuple[Along, ...]
    read: tuple[tuple[Along, LayerInput], ...]

    def mix(self, basis: Doubles, inverse: Doubles) -> None:
        """Let z take the place of x = T z.

        Args:
            basis: T, (channels, channels).
            inverse: T⁻¹.
        """
        for along in self.made:
            along.times(inverse.T)
        for along, _ in self.read:
            along.times(basis)


class Streams:
    """Finds them.

    Args:
        coupling: of the axes of all tensors.
    """

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self._axes: dict[int, list[tuple[ir.Value, int]]] = {}
        for value, axes in (*coupling.constants(), *coupling.results()):
            for number, axis in enumerate(axes):
                roots = () if axis.labels is None else np.unique(coupling.tags.find(axis.labels)).tolist()
                for atom in dict.fromkeys(atom for root in roots for atom in coupling.tags.atoms(root)):
                    self._axes.setdefault(atom, []).append((value, number))

    def find(self, units: Sequence[int]) -> Stream | None:
        """The stream of these units; None where they are something else."""
        there = self._axes.get(units[0], [])
        orders = {value: self._order(value, axis, units) for value, axis in there}
        if len(orders) < len(there) or any(self._axes.get(unit) != there for unit in units):
            return None
        made, read = [], []
        for value, axis in there:
            order = orders[value]
            if order is None or not all(self._is_linear(node, orders) for node in _nodes(value)):
                return None
            if value.is_initializer():
                if value.dtype != ir.DataType.FLOAT:
                    return None
                sources = [_pixels(node) for node, _ in value.uses() if _is_layer(node) and node.inputs[0] in orders]
                made += [] if sources else [Along(value, axis, order)]
                read += [(Along(value, axis, order), source) for source in sources[:1]]
        return Stream(len(units), tuple(made), tuple(read)) if made and read else None

    def _order(self, value: ir.Value, axis: int, units: Sequence[int]) -> tuple[int, ...] | None:
        """Which unit each entry of an axis is; None where some are none, or several."""
        labels = self._coupling.axes(value)[axis].labels
        places = {unit: number for number, unit in enumerate(units)}
        atoms = [] if labels is None else [self._coupling.tags.atoms(label) for label in labels.tolist()]
        order = tuple(places.get(found[0], -1) if len(found) == 1 else -1 for found in atoms)
        return order if sorted(order) == list(range(len(units))) else None

    @staticmethod
    def _is_linear(node: ir.Node, touched: dict[ir.Value, tuple[int, ...] | None]) -> bool:
        """Whether a node makes the channels, reads them, or passes them on, and does that linearly."""
        inside = [value in touched for value in node.inputs if value is not None]
        makes = any(output in touched for output in node.outputs)
        if node.op_type in _BETWEEN and not node.domain:
            return makes and all(inside)
        if not _is_layer(node) or attribute(node, "group", 1) != 1 or attribute(node, "transA", 0):
            return False
        weight = node.inputs[1]
        return weight in touched and weight is not None and weight.is_initializer() and inside[0] != makes


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in _LAYERS and not node.domain


def _pixels(node: ir.Node) -> LayerInput:
    """What a layer reads, as rows of channels."""
    source, weight = node.inputs[0], node.inputs[1]
    tensor = "" if source is None else source.name or ""
    if node.op_type != "Conv" or weight is None or weight.shape is None:
        return LayerInput(tensor)
    ones = (1,) * (len(weight.shape) - 2)
    return LayerInput(tensor, 1, ones, ones, ones, ((0, 0),) * len(ones))


def _nodes(value: ir.Value) -> list[ir.Node]:
    """All that make or read a value."""
    made = value.producer()
    return [*([made] if made is not None else []), *(node for node, _ in value.uses())]

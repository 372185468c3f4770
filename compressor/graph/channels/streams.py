"""Channels that linear layers alone make and read: they may be mixed, and the outputs stay as they are.

Between the layers that make them and those that read them is nothing but sums, means over other axes and
transpositions, so that z = T⁻¹x may take the place of x: what makes x then makes T⁻¹ times that, what reads it takes
its weights times T.
"""

from collections.abc import Collection, Sequence
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
    """A tensor or a constant that has the channels along one axis.

    Attributes:
        value: which.
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
        alongs = [along for value, axis in there if (along := self._along(value, axis, units)) is not None]
        touched = {along.value for along in alongs}
        if len(touched) < len(there) or any(self._axes.get(unit) != there for unit in units):
            return None
        if not all(_is_linear(node, touched) for value in touched for node in _nodes(value)):
            return None
        constants = [along for along in alongs if along.value.is_initializer()]
        read = [(along, source) for along in constants for source in _sources(along.value, touched)[:1]]
        made = [along for along in constants if not _sources(along.value, touched)]
        floats = all(along.value.dtype == ir.DataType.FLOAT for along in constants)
        return Stream(len(units), tuple(made), tuple(read)) if made and read and floats else None

    def _along(self, value: ir.Value, axis: int, units: Sequence[int]) -> Along | None:
        """A tensor or constant with these units along an axis, each once; None where it has them otherwise."""
        labels = self._coupling.axes(value)[axis].labels
        places = {unit: number for number, unit in enumerate(units)}
        atoms = [] if labels is None else [self._coupling.tags.atoms(label) for label in labels.tolist()]
        order = tuple(places.get(found[0], -1) if len(found) == 1 else -1 for found in atoms)
        return Along(value, axis, order) if sorted(order) == list(range(len(units))) else None


def _is_linear(node: ir.Node, touched: Collection[ir.Value]) -> bool:
    """Whether a node makes the channels, reads them, or passes them on, and does that linearly."""
    inside = [value in touched for value in node.inputs if value is not None]
    makes = any(output in touched for output in node.outputs)
    if node.op_type in _BETWEEN and not node.domain:
        return makes and all(inside)
    if not _is_layer(node) or attribute(node, "group", 1) != 1 or attribute(node, "transA", 0):
        return False
    weight = node.inputs[1]
    return weight is not None and weight in touched and weight.is_initializer() and inside[0] != makes


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in _LAYERS and not node.domain


def _sources(weight: ir.Value, touched: Collection[ir.Value]) -> list[LayerInput]:
    """What the layers read that multiply the channels by this weight; nothing where none does."""
    return [_pixels(node) for node, _ in weight.uses() if _is_layer(node) and node.inputs[0] in touched]


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

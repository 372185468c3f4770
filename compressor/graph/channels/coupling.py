"""What is tied to what in a graph: the axes of all tensors, and what has to be rewritten when channels go."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compressor.graph.channels.tags import Labels, Mask, Tags
from compressor.graph.edit import set_array, settle
from compressor.graph.model import Model

Alive = Callable[[Labels], Mask]
"""Which entries with these tags stay."""

Shapes = dict[str, tuple[int, ...]]
"""Sizes that really occur in one execution, by name of the tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """One axis of a tensor.

    Attributes:
        size: entries in the execution that was watched.
        labels: tags of its entries; None where none can be dropped.
        why: the reason for that.
    """

    size: int
    labels: Labels | None = None
    why: str = ""


class Coupling:
    """The axes of all tensors of a graph, tied operator by operator.

    Attributes:
        model: what is looked at; it is changed by `cut` alone.
        shapes: of its tensors in one execution.
        tags: of all entries of all axes.
        rewrites: what else changes when channels go: attributes, and numbers in constants.
        relaxed: nodes that take a mean or a sum over an axis, with its labels: it will be over what is left.
        parts: stretches of axes that became axes of their own: something must be left of each.
    """

    def __init__(self, model: Model, shapes: Shapes) -> None:
        self.model, self.shapes = model, shapes
        self.tags = Tags()
        self.rewrites: list[Callable[[Alive], None]] = []
        self.relaxed: list[tuple[ir.Node, Labels]] = []
        self.parts: list[Labels] = []
        self._axes: dict[ir.Value, list[Axis]] = {}

    def sizes(self, value: ir.Value) -> tuple[int, ...] | None:
        """Of a tensor or a constant; None when it was not seen."""
        if value.const_value is not None and value.is_initializer():
            return tuple(value.const_value.shape.numpy())
        return self.shapes.get(value.name or "")

    def axes(self, value: ir.Value) -> list[Axis]:
        """Of a tensor; all free when it is a constant that was not met before, fixed when it is unknown."""
        if value not in self._axes:
            sizes = self.sizes(value) or ()
            if value.is_initializer():
                self._axes[value] = [Axis(n, self.tags.fresh(n)) if n > 1 else Axis(n) for n in sizes]
            else:
                what = "an input of the model" if value.is_graph_input() else "not understood"
                self._axes[value] = [Axis(n, None, f"{value.name} is {what}") for n in sizes]
        return self._axes[value]

    def set_axes(self, value: ir.Value, axes: Sequence[Axis]) -> None:
        """Of a result."""
        self._axes[value] = list(axes)

    def constants(self) -> list[tuple[ir.Value, list[Axis]]]:
        """All constants that were met, with their axes."""
        return [(value, axes) for value, axes in self._axes.items() if value.is_initializer()]

    def results(self) -> list[tuple[ir.Value, list[Axis]]]:
        """All inputs and results that were met, with their axes."""
        return [(value, axes) for value, axes in self._axes.items() if not value.is_initializer()]

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Two axes whose entries meet one to one, or of which one has a single entry; what results."""
        if a.size == 1 or b.size == 1:
            return b if a.size == 1 else a
        if a.labels is None or b.labels is None:
            fixed = a if a.labels is None else b
            for axis in (a, b):
                self.freeze(axis, fixed.why)
            return fixed
        if a.size != b.size:
            self.freeze(a, "axes of different sizes meet")
            self.freeze(b, "axes of different sizes meet")
            return Axis(max(a.size, b.size), None, "axes of different sizes meet")
        self.tags.unify(a.labels, b.labels)
        return a

    def freeze(self, axis: Axis, reason: str) -> Axis:
        """Let all entries of an axis stay."""
        if axis.labels is not None:
            self.tags.freeze(axis.labels, reason)
        return Axis(axis.size, None, axis.why or reason)

    def fix(self, value: ir.Value, numbers: Iterable[int], reason: str) -> None:
        """Let axes of a constant stay as they are: they are no channels."""
        axes = self.axes(value)
        for number in numbers:
            axes[number] = self.freeze(axes[number], reason)

    def relax(self, node: ir.Node, axes: Sequence[Axis]) -> None:
        """Note that a node takes a mean over these axes, and that it will be over what is left of them."""
        self.relaxed += [(node, axis.labels) for axis in axes if axis.labels is not None]

    def freeze_all(self, node: ir.Node, reason: str) -> None:
        """Let everything a node reads stay, and what it makes be fixed."""
        for value in node.inputs:
            for axis in self.axes(value) if value is not None else ():
                self.freeze(axis, reason)
        for output in node.outputs:
            self.set_axes(output, [Axis(n, None, reason) for n in self.sizes(output) or ()])

    def regroup(self, axes: Sequence[Axis], into: Sequence[int], reason: str) -> list[Axis]:
        """The axes that a reshape makes of neighbouring axes."""
        labels = self.tags.regroup([a.size for a in axes], [a.labels for a in axes], into)
        why = next((axis.why for axis in axes if axis.why and axis.size > 1), reason)
        return [
            Axis(n, found, "" if found is not None or n == 1 else why) for n, found in zip(into, labels, strict=True)
        ]

    def labels(self, axis: Axis) -> Labels:
        """Tags of an axis, frozen ones where it has none."""
        if axis.labels is not None:
            return axis.labels
        made = self.tags.fresh(axis.size)
        self.tags.freeze(made, axis.why or "fixed")
        return made

    def cut(self, dropped: Sequence[int]) -> None:
        """Drop atoms, and whatever stays only with them, from the model.

        Args:
            dropped: atoms, none of them frozen.
        """

        def alive(labels: Labels) -> Mask:
            return self.tags.alive(labels, dropped)

        for rewrite in self.rewrites:
            rewrite(alive)
        for value, axes in self._axes.items():
            kept = {i: alive(axis.labels) for i, axis in enumerate(axes) if axis.labels is not None}
            less = {i: mask for i, mask in kept.items() if not mask.all()}
            if less:
                _shrink(value, less)
        settle(self.model.ir)


def _shrink(value: ir.Value, kept: dict[int, Mask]) -> None:
    """Keep some entries of some axes of a constant, or say so of a result."""
    if value.is_initializer() and value.const_value is not None:
        array = value.const_value.numpy()
        for axis, mask in kept.items():
            array = array.compress(mask, axis)
        set_array(value, np.ascontiguousarray(array))
    elif value.shape is not None:
        sizes = list(value.shape)
        for axis, mask in kept.items():
            if axis < len(sizes) and isinstance(sizes[axis], int):
                sizes[axis] = int(mask.sum())
        value.shape = ir.Shape(sizes)

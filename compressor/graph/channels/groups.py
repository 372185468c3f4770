"""Groups of channels: what goes together, what competes for a place, and what must stay."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.channels.costs import Costs
from compressor.graph.channels.coupling import Coupling, Shapes
from compressor.graph.channels.rules import couple
from compressor.graph.channels.streams import Stream, Streams
from compressor.graph.model import Model
from compressor.graph.weights import Weight, find_weights, layout_of

Kind = Literal["channels", "neurons", "heads", "head_channels", "hidden_units"]
Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a weight has the units of a group.

    Attributes:
        weight: of a layer.
        role: "makes" them, in rows of its matrix, or "reads" them, in columns; a lookup makes its columns.
        positions: rows or columns of each unit, in the order of the group's units.
    """

    weight: Weight
    role: Literal["makes", "reads"]
    positions: tuple[Positions, ...]

    @property
    def in_columns(self) -> bool:
        """Whether the positions are columns of the matrix."""
        return self.role == "reads" or self.weight.layer == "Gather"


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Units of which any may go, each from all places at once; or must stay.

    Attributes:
        name: of the first layer that makes them; with the kind, where it makes several.
        kind: what a unit is.
        units: atoms of the coupling.
        places: in the weights of layers.
        entries: numbers, in all constants, that go with one unit while all others stay.
        relaxed: names of nodes that take a mean or a sum over them, which will be over those that are left.
        reason: why they must stay; empty where they may go.
    """

    name: str
    kind: Kind
    units: tuple[int, ...]
    places: tuple[Place, ...]
    entries: int
    relaxed: tuple[str, ...] = ()
    reason: str = ""

    @property
    def width(self) -> int:
        """How many units."""
        return len(self.units)

    @property
    def makers(self) -> tuple[Place, ...]:
        """The layers whose outputs they are."""
        return tuple(place for place in self.places if place.role == "makes")

    @property
    def readers(self) -> tuple[Place, ...]:
        """The layers whose inputs they are."""
        return tuple(place for place in self.places if place.role == "reads")


@dataclass(slots=True, eq=False)
class _Found:
    """Positions of one atom on one axis of one constant."""

    value: ir.Value
    axis: int
    positions: list[int] = field(default_factory=list)


class Channels:
    """All groups of a model.

    Attributes:
        groups: those that may be pruned, in graph order.
        frozen: those that must stay, each with its reason.
        shapes: that they were found with.
        costs: of the model without some units.
    """

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self.shapes = coupling.shapes
        self.costs = Costs(coupling)
        found = list(_groups(coupling))
        self.groups = tuple(group for group in found if not group.reason)
        self.frozen = tuple(group for group in found if group.reason)

    def streams(self) -> dict[str, Stream]:
        """Of those groups that linear layers alone make and read, by name."""
        streams = Streams(self._coupling)
        found = {group.name: streams.find(group.units) for group in self.groups}
        return {name: stream for name, stream in found.items() if stream is not None}

    @classmethod
    def of(cls, model: Model, shapes: Shapes) -> "Channels":
        """Find the groups of a model.

        Args:
            model: is changed by `drop` alone.
            shapes: of all tensors of its main graph in one execution.
        """
        return cls(couple(model, shapes))

    def kept(self, units: Collection[int]) -> dict[str, dict[int, Positions]]:
        """What is left of the axes of every result when units go: tensor -> axis from the end -> entries.

        Axes that lose nothing are left out.
        """
        found: dict[str, dict[int, Positions]] = {}
        for value, axes in self._coupling.results():
            masks = {
                number - len(axes): self._coupling.tags.alive(axis.labels, units)
                for number, axis in enumerate(axes)
                if axis.labels is not None
            }
            less = {number: np.flatnonzero(mask) for number, mask in masks.items() if not mask.all()}
            if less and value.name:
                found[value.name] = less
        return found

    def mask(self, copy: Model, units: Collection[int]) -> None:
        """Set what goes with these units to zero in all constants of a copy of the model, which keeps its form."""
        values = {value.name: value for value in copy.ir.graph.initializers.values()}
        for value, axes in self._coupling.constants():
            tensor = value.const_value
            if tensor is None or not tensor.dtype.is_floating_point() or _divides(value):
                continue
            masks = [None if a.labels is None else self._coupling.tags.alive(a.labels, units) for a in axes]
            if all(mask is None or mask.all() for mask in masks):
                continue
            target = values[value.name]
            array = np.array(target.const_value.numpy()) if target.const_value is not None else np.empty(0)
            for number, mask in enumerate(masks):
                if mask is not None:
                    array[(slice(None),) * number + (~mask,)] = 0
            target.const_value = ir.tensor(array, dtype=tensor.dtype, name=value.name)

    def drop(self, units: Collection[int]) -> None:
        """Remove units from all constants, and let all sizes follow; the model is cut once, then look again.

        Args:
            units: of `groups`, at least one of each group staying.

        Raises:
            ValueError: a group would be left without any.
        """
        gone = set(units)
        for group in self.groups:
            if gone.issuperset(group.units):
                raise ValueError(f"{group.name}: no unit is left")
        self._coupling.cut(sorted(gone))


_DIVISORS = {("BatchNormalization", 4), ("Div", 1), ("Log", 0), ("Reciprocal", 0)}
"""Inputs that are not to be zero."""


def _divides(value: ir.Value) -> bool:
    return any((node.op_type, idx) in _DIVISORS for node, idx in value.uses())


def _groups(c: Coupling) -> Iterator[ChannelGroup]:
    weights = {weight.value: weight for weight in find_weights(c.model.ir)}
    atoms, parts = _atoms(c), _parts(c)
    members: dict[tuple[object, ...], list[int]] = {}
    for atom, found in atoms.items():
        places = ((item.value, item.axis) for item in found)
        key = (c.tags.family(atom), c.tags.why_frozen(atom) is None, tuple(parts.get(atom, ())), *places)
        members.setdefault(key, []).append(atom)
    order = {value: number for number, value in enumerate(weights)}
    taken: set[str] = set()
    overs = [
        (node, {atom for root in np.unique(c.tags.find(labels)).tolist() for atom in c.tags.atoms(root)})
        for node, labels in c.relaxed
    ]
    made = (_group(c, units, atoms, weights, order, overs) for units in members.values())
    groups = [group for group in made if group is not None]
    for group in sorted(groups, key=lambda g: (order[g.places[0].weight.value], g.kind)):
        yield _named(group, taken)


def _parts(c: Coupling) -> dict[int, list[int]]:
    """In which stretches of axes every atom is."""
    found: dict[int, list[int]] = {}
    for number, labels in enumerate(c.parts):
        roots = np.unique(c.tags.find(labels)).tolist()
        for atom in dict.fromkeys(atom for root in roots for atom in c.tags.atoms(root)):
            found.setdefault(atom, []).append(number)
    return found


def _atoms(c: Coupling) -> dict[int, list[_Found]]:
    """Where every atom is, in all constants."""
    found: dict[int, list[_Found]] = {}
    for value, axes in c.constants():
        for number, axis in enumerate(axes):
            if axis.labels is None:
                continue
            here: dict[int, _Found] = {}
            for position, root in enumerate(c.tags.find(axis.labels).tolist()):
                for atom in c.tags.atoms(root):
                    here.setdefault(atom, _Found(value, number)).positions.append(position)
            for atom, place in here.items():
                found.setdefault(atom, []).append(place)
    return found


def _group(
    c: Coupling,
    units: Sequence[int],
    atoms: dict[int, list[_Found]],
    weights: dict[ir.Value, Weight],
    order: dict[ir.Value, int],
    overs: Sequence[tuple[ir.Node, set[int]]],
) -> ChannelGroup | None:
    """None where no layer with weights makes them."""
    places = []
    for number, first in enumerate(atoms[units[0]]):
        if first.value in weights:
            each = [atoms[unit][number].positions for unit in units]
            place = _place(weights[first.value], first.axis, each)
            if place is not None:
                places.append(place)
    if not any(place.role == "makes" for place in places):
        return None
    places.sort(key=lambda place: (place.role == "reads", order[place.weight.value]))
    entries = sum(
        len(place.positions)
        * ((place.value.const_value.size if place.value.const_value is not None else 0) // max(n, 1))
        for place in atoms[units[0]]
        for n in [c.axes(place.value)[place.axis].size]
    )
    relaxed = dict.fromkeys(node.name or "" for node, over in overs if units[0] in over)
    reason = c.tags.why_frozen(units[0]) or ""
    kind = _kind(c, units[0], places, atoms)
    return ChannelGroup("", kind, tuple(units), tuple(places), entries, tuple(relaxed), reason)


def _place(weight: Weight, axis: int, positions: Sequence[Sequence[int]]) -> Place | None:
    """Rows or columns of the matrix that are these positions of an axis; None where they are neither."""
    shape = weight.shape
    numbers = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    spread = (
        layout_of(weight.uses[0], shape).to_matrix(np.broadcast_to(numbers, shape).astype(np.float32)).astype(np.int64)
    )
    along_rows, along_columns = (spread == spread[:, :1]).all(), (spread == spread[:1]).all()
    if along_rows == along_columns:
        return None
    line = spread[:, 0] if along_rows else spread[0]
    ranks = np.argsort(line, kind="stable")
    starts = np.searchsorted(line[ranks], np.arange(shape[axis] + 1))
    each = tuple(
        np.sort(np.concatenate([ranks[starts[p] : starts[p + 1]] for p in unit]).astype(np.int64)) for unit in positions
    )
    if weight.layer == "Gather":
        return Place(weight, "makes", each) if along_columns else None
    return Place(weight, "makes" if along_rows else "reads", each)


def _kind(c: Coupling, unit: int, places: Sequence[Place], atoms: dict[int, list[_Found]]) -> Kind:
    if any(place.weight.layer in ("LSTM", "GRU", "RNN") and place.role == "makes" for place in places):
        return "hidden_units"
    if any(place.weight.layer in ("Conv", "ConvTranspose") and place.role == "makes" for place in places):
        return "channels"
    for place in atoms[unit]:
        labels = c.axes(place.value)[place.axis].labels
        if labels is not None:
            factors = c.tags.atoms(int(labels[place.positions[0]]))
            if len(factors) > 1:
                return "head_channels" if factors[-1] == unit else "heads"
    return "neurons"


def _named(group: ChannelGroup, taken: set[str]) -> ChannelGroup:
    base = group.places[0].weight.name
    name, number = base, 1
    while name in taken:
        name = f"{base}:{group.kind}" if number == 1 else f"{base}:{group.kind}.{number}"
        number += 1
    taken.add(name)
    return replace(group, name=name)

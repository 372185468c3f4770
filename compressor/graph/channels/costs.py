"""What a model costs with some of its channels gone, before they are."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from compressor.graph.channels.coupling import Coupling
from compressor.graph.channels.tags import Labels, Mask
from compressor.graph.cost import CostedLayer, costed_layers
from compressor.graph.learned import learned


@dataclass(frozen=True, slots=True, eq=False)
class _Extent:
    """The sizes of a tensor: per axis what its entries need to stay, or a size that is fixed."""

    axes: tuple[Labels | int, ...]

    def sizes(self, gone: Mask) -> tuple[int, ...]:
        return tuple(a if isinstance(a, int) else int((~gone[a].any(axis=1)).sum()) for a in self.axes)


class Costs:
    """Multiply-accumulates and parameters of a coupled model, for any set of dropped units.

    Args:
        coupling: of the model as it stands; not cut yet.
    """

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self._layers = costed_layers(coupling.model)
        self._tables: dict[int, Labels] = {}
        values = {value.name: value for value, _ in (*coupling.constants(), *coupling.results())}
        needed = dict.fromkeys(name for layer in self._layers for name in layer.tensors)
        self._extents = {name: self._extent(values[name]) for name in needed if name in values}
        self._layers = tuple(layer for layer in self._layers if set(layer.tensors) <= self._extents.keys())
        met = {value for value, _ in coupling.constants()}
        arrays = [found for found in learned(coupling.model.ir) if not found.packed]
        self._arrays = [self._extent(found.value) for found in arrays if found.value in met]
        self._others = sum(found.entries for found in arrays if found.value not in met)

    def macs(self, dropped: Collection[int]) -> int:
        """Multiply-accumulates of the execution that was watched, without these units."""
        return sum(layer.macs(sizes) for layer, sizes in self.layers(dropped))

    def layers(self, dropped: Collection[int]) -> Iterator[tuple[CostedLayer, dict[str, tuple[int, ...]]]]:
        """Every layer that multiplies, with the sizes of its tensors without these units."""
        gone = self._gone(dropped)
        sizes = {name: extent.sizes(gone) for name, extent in self._extents.items()}
        for layer in self._layers:
            yield layer, {name: sizes[name] for name in layer.tensors}

    def parameters(self, dropped: Collection[int]) -> int:
        """Entries of all learned arrays, without these units."""
        gone = self._gone(dropped)
        return self._others + sum(prod(extent.sizes(gone)) for extent in self._arrays)

    def _gone(self, dropped: Collection[int]) -> Mask:
        gone = np.zeros(self._coupling.tags.count, np.bool_)
        gone[list(dropped)] = True
        return gone

    def _extent(self, value: ir.Value) -> _Extent:
        return _Extent(tuple(self._axes_of(value)))

    def _axes_of(self, value: ir.Value) -> Iterator[Labels | int]:
        for axis in self._coupling.axes(value):
            if axis.labels is None:
                yield axis.size
            else:
                if id(axis.labels) not in self._tables:
                    self._tables[id(axis.labels)] = self._coupling.tags.table(axis.labels)
                yield self._tables[id(axis.labels)]

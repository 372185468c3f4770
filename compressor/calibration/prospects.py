"""What becomes of groups of channels when they get narrower: which units go first, and what each width costs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from compressor.calibration.coding import Surroundings
from compressor.calibration.moments import collect_moments
from compressor.data import Dataset
from compressor.graph.channels import ChannelGroup, Channels, Place, Shapes
from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.model import Model
from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.elimination import Elimination, Reader, eliminate

_BYTES_AT_ONCE = 1 << 30
"""Of second moments and their inverses held at the same time."""

_WORST = 1e9
"""Drift of outputs that are no numbers any more."""


@dataclass(frozen=True, slots=True, eq=False)
class Prospect:
    """A group and what it may become.

    Attributes:
        group: of channels.
        widths: it may have, descending; the first is the one it has.
        elimination: its units, those that go first in front.
        probe: the width at which weights were kept.
        probed: name of array -> matrix of a layer that reads the group, when it has this width, made up for.
    """

    group: ChannelGroup
    widths: tuple[int, ...]
    elimination: Elimination
    probe: int
    probed: Mapping[str, Floats]

    def dropped(self, width: int) -> list[int]:
        """The units that go when so many are to stay."""
        return [self.group.units[unit] for unit in self.elimination.order[: self.group.width - width]]

    def errors(self) -> Doubles:
        """Of what reads the group, as a share of the power of its output, at every width."""
        return self.elimination.errors[[self.group.width - width for width in self.widths]]

    def losses(self, drift: float) -> Doubles:
        """Drift of the model's outputs at every width, when this was measured at the probe; never infinite."""
        errors = self.errors()
        probed = float(errors[self.widths.index(self.probe)])
        return errors * (min(drift, _WORST) / probed if probed > 0 else 0.0)


def narrowed(model: Model, channels: Channels, prospect: Prospect, cut: bool = False) -> Model:
    """A copy in which a group counts for no more than it would at the probed width, its readers making up for it.

    Args:
        model: whose group it is.
        channels: of the model.
        prospect: the group.
        cut: take the channels out, though setting them to zero is quicker.
    """
    trial, dropped = model.copy(), prospect.dropped(prospect.probe)
    for weight in trial.weights():
        made_up = prospect.probed.get(weight.value.name or "")
        if made_up is not None:
            weight.store(made_up)
    if cut or prospect.group.relaxed:
        Channels.of(trial, channels.shapes).drop(dropped)
    else:
        channels.mask(trial, dropped)
    return trial


def by_magnitude(groups: Sequence[tuple[ChannelGroup, Sequence[int]]]) -> Iterator[Prospect]:
    """Units whose weights are smallest go first; no data is needed.

    Args:
        groups: each with the widths it may have, descending.
    """
    for group, widths in groups:
        scores = sum((_shares(place, range(group.width)) for place in group.places), start=np.zeros(group.width))
        found = eliminate([], group.width, group.width - widths[-1], scores)
        yield Prospect(group, tuple(widths), found, _middle(widths), {})


def by_gradients(
    groups: Sequence[tuple[ChannelGroup, Sequence[int]]], draws: Iterable[Mapping[str, Floats]]
) -> Iterator[Prospect]:
    """Units go first without which the outputs change least, to first order.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning": the square of Σ w · ∂/∂w over the
    weights that read a unit, or make it where none does; here of random projections of the outputs.

    Args:
        groups: each with the widths it may have, descending.
        draws: gradients of the weights by name, as they are stored.
    """
    scores = [np.zeros(group.width) for group, _ in groups]
    for drawn in draws:
        for (group, _), score in zip(groups, scores, strict=True):
            score += sum((_slopes(place, drawn) for place in group.readers or group.makers), np.zeros(group.width)) ** 2
    for (group, widths), score in zip(groups, scores, strict=True):
        found = eliminate([], group.width, group.width - widths[-1], score / max(float(score.sum()), 1e-300))
        yield Prospect(group, tuple(widths), found, _middle(widths), {})


def _slopes(place: Place, drawn: Mapping[str, Floats]) -> Doubles:
    """Σ w · g over the weights of each unit."""
    gradient = drawn.get(place.weight.value.name or "")
    if gradient is None:
        return np.zeros(len(place.positions))
    matrix = place.weight.matrix().astype(np.float64)
    products = (matrix * place.weight.as_matrix(gradient)).sum(axis=0 if place.in_columns else 1)
    return np.array([products[at].sum() for at in place.positions])


def by_second_order(
    model: Model,
    shapes: Shapes,
    groups: Sequence[tuple[ChannelGroup, Sequence[int]]],
    data: Dataset,
    context: Surroundings,
) -> Iterator[Prospect]:
    """Units that the layers that read them can best do without go first (`numerics/elimination.py`).

    Where what a layer reads cannot be seen as rows, as in recurrent layers, its weights speak for it.

    Args:
        model: whose channels these are.
        shapes: of its tensors for one sample.
        groups: each with the widths it may have, descending.
        data: samples to learn from.
        context: where to execute the model.

    Raises:
        PassError: an activation is not finite.
        DataError: the data does not fit.
    """
    waiting = list(groups)
    while waiting:
        taken, needs = _as_many_as_fit(waiting)
        waiting = waiting[len(taken) :]
        moments = dict(
            collect_moments(model, list(needs.items()), data, context.scratch, context.progress, context.threads)
        )
        for group, widths in context.progress.track(taken, "channels", len(taken)):
            yield _second_order(group, widths, moments, lambda place: len(data) * _positions(place, shapes))


def _second_order(
    group: ChannelGroup,
    widths: Sequence[int],
    moments: Mapping[LayerInput, Doubles],
    rows: Callable[[Place], int],
) -> Prospect:
    readers: dict[str, Reader] = {}
    scores = np.zeros(group.width)
    seen = [(place, _seen(place)) for place in group.readers]
    for place, source in seen:
        if source is None:
            scores += _shares(place, range(group.width))
        else:
            matrix = place.weight.matrix()
            grouped = matrix.reshape(source.groups, -1, matrix.shape[1])
            readers[place.weight.value.name or ""] = Reader(grouped, moments[source], place.positions, rows(place))
    if not group.readers:
        scores += sum((_shares(place, range(group.width)) for place in group.makers), start=np.zeros(group.width))
    probe = _middle(widths)
    first = eliminate(list(readers.values()), group.width, group.width - probe, scores)
    probed = {name: reader.matrix() for name, reader in readers.items()}
    rest = eliminate(list(readers.values()), group.width, probe - widths[-1], scores, first)
    return Prospect(group, tuple(widths), rest, probe, probed)


def _positions(place: Place, shapes: Shapes) -> int:
    """Rows that a layer multiplies for one sample."""
    shape = shapes.get(place.weight.uses[0].node.outputs[0].name or "", ())
    return prod(shape) // max(len(place.weight.matrix()), 1)


def _as_many_as_fit(
    groups: Sequence[tuple[ChannelGroup, Sequence[int]]],
) -> tuple[list[tuple[ChannelGroup, Sequence[int]]], dict[LayerInput, int]]:
    """The next groups whose moments fit into memory, and these, each with the inputs per row."""
    taken: list[tuple[ChannelGroup, Sequence[int]]] = []
    needs: dict[LayerInput, int] = {}
    for entry in groups:
        sources = ((_seen(place), place.weight.matrix().shape[1]) for place in entry[0].readers)
        together = needs | {source: width for source, width in sources if source is not None}
        entries = 2 * sum(source.groups * width * width for source, width in together.items())
        size = entries * np.dtype(np.float64).itemsize
        if taken and size > _BYTES_AT_ONCE:
            break
        taken.append(entry)
        needs = together
    return taken, needs


def _seen(place: Place) -> LayerInput | None:
    """What a layer reads, where it can be seen as rows and has the units as whole inputs in every group."""
    weight = place.weight
    if weight.in_subgraph or len(weight.uses) > 1:
        return None
    return layer_input(weight.uses[0])


def _shares(place: Place, units: Sequence[int]) -> Doubles:
    """Power of the weights of each unit, as a share of all."""
    matrix = place.weight.matrix().astype(np.float64)
    power = (matrix**2).sum(axis=0 if place.in_columns else 1)
    return np.array([power[place.positions[unit]].sum() for unit in units]) / max(float(power.sum()), 1e-300)


def _middle(widths: Sequence[int]) -> int:
    return widths[len(widths) // 2]

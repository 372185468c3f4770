"""What a layer may become in factors: every form and rank with what it saves and what it loses."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import islice
from math import ceil, prod
from operator import add
from typing import Literal, NamedTuple

import numpy as np

from compressor.calibration.coding import Surroundings
from compressor.calibration.moments import BYTES_AT_ONCE, collect_moments
from compressor.data import Dataset
from compressor.graph.factors import Kernel, insert_convolutions, insert_factors
from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.model import Model
from compressor.graph.outlets import Shapes
from compressor.graph.weights import Use, Weight, attribute
from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.low_rank import canonical, damped, joined_kernels, spectrum, split_kernel, tucker
from compressor.numerics.rounding import output_error

Form = Literal["svd", "channel", "spatial", "tucker2", "cp"]

_MOST_RANKS = 24
_CP_EVERY = 4
"""Of the ranks that are looked at, those for which three factors are found: it takes many sweeps."""
_NARROW = 128
"""Channels of a convolution below which a second convolution costs more than it counts."""

_LARGEST_SHARE, _LARGEST_SHARE_NARROW = 0.9, 0.7
"""Of the multiply-accumulates: what factors may take, so that two layers are quicker than one (measured)."""


class Ranks(NamedTuple):
    """Which ranks are looked at.

    Attributes:
        step: they are multiples of this; of what is fast, when None.
        exact: this one alone.
    """

    step: int | None = None
    exact: int | None = None

    def shared(self, groups: int) -> "Ranks":
        """Of every one of several groups, of which they are the sum."""
        step, exact = (None if told is None else max(told // groups, 1) for told in self)
        return Ranks(step, exact)

    def of(self, full: int, most: float, step: int) -> list[int]:
        """At most two dozen, up to where nothing is saved any more.

        Args:
            full: the rank that loses nothing.
            most: the rank from which factors cost as much as the whole.
            step: what is fast.
        """
        if self.exact is not None:
            return [min(self.exact, full)] if self.exact <= most else []
        step = self.step or step
        ranks = range(step, min(full, ceil(most)) + 1, step)
        return list(ranks[:: -(-len(ranks) // _MOST_RANKS) or 1])


class Made(NamedTuple):
    """Factors.

    Attributes:
        parts: svd: (rank, inputs) and (outputs, rank); else the kernels of the convolutions.
        matrix: what they multiply to, (outputs, inputs).
    """

    parts: tuple[Floats, ...]
    matrix: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One way for a layer to become several.

    Attributes:
        form: svd, of a product; channel, spatial, tucker2 or cp, of a convolution.
        ranks: channels in between, from input to output.
        make: the factors.
        error: share of the output's power that is lost.
        macs: multiply-accumulates for one sample.
        parameters: entries of all parts.
    """

    form: Form
    ranks: tuple[int, ...]
    make: Callable[[], "Made"]
    error: float
    macs: float
    parameters: int

    @property
    def told(self) -> str:
        """Form and ranks, for a reader."""
        rank = " and ".join(map(str, self.ranks))
        return f"{self.form}, rank{'s' * (len(self.ranks) > 1)} {rank}"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer that may become several.

    Attributes:
        weight: of it.
        macs: for one sample; 0 of a table, which multiplies nothing.
        ways: what pays, the most expensive first; those that lose more than a cheaper one are left out.
        nearest: of what does not pay the one that takes least, where nothing does.
    """

    weight: Weight
    macs: float
    ways: tuple[Factors, ...]
    nearest: Factors | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a layer's cost its weight does not say: how often it is multiplied by, for one sample.

    Attributes:
        read: positions of the input; of a product the rows.
        made: positions of the output.
        between: positions once a convolution has gone along the height alone.
    """

    read: int
    made: int
    between: int = 0

    def __add__(self, other: "Sizes") -> "Sizes":
        return Sizes(self.read + other.read, self.made + other.made, self.between + other.between)


def layers(
    model: Model,
    weights: Sequence[Weight],
    forms: Collection[Form],
    shapes: Shapes,
    data: Dataset | None,
    ranks: Ranks,
    context: Surroundings,
) -> Iterator[Layer]:
    """Every layer with its ways to become several.

    Args:
        model: whose weights these are; it is not changed.
        weights: without a `factor_refusal`.
        forms: that may be taken.
        shapes: of the model's tensors for one sample.
        data: samples whose second moments decide what is lost; every input counts alike when None.
        ranks: that are looked at.
        context: where to execute the model.

    Raises:
        PassError: an activation is not finite.
        DataError: the data does not fit.
    """
    waiting = iter(context.progress.track(weights, "factors", len(weights)))
    for some in _at_once(weights, forms, data is not None):
        moments: dict[LayerInput, Doubles] = {}
        if data is not None:
            needs = {key: width for weight in some for key, width in _needs(weight, forms)}
            pairs = collect_moments(model, [*needs.items()], data, context.scratch, context.progress, context.threads)
            moments = {key: damped(found) for key, found in pairs}
        yield from (
            _layer(weight, forms, sizes_of(weight, shapes), moments, ranks) for weight in islice(waiting, len(some))
        )


def _at_once(weights: Sequence[Weight], forms: Collection[Form], seen: bool) -> Iterator[list[Weight]]:
    """The layers, in order, as many at a time as there is room for the moments of what they read."""
    some: list[Weight] = []
    size = 0
    for weight in weights:
        needed = sum(8 * width**2 for _, width in _needs(weight, forms)) if seen else 0
        if some and size + needed > BYTES_AT_ONCE:
            yield some
            some, size = [], 0
        some, size = [*some, weight], size + needed
    yield some


def _layer(
    weight: Weight, forms: Collection[Form], sizes: Sizes, moments: Mapping[LayerInput, Doubles], ranks: Ranks
) -> Layer:
    ways = list(ways_of(weight, forms, sizes, moments, ranks))
    multiplied = weight.layer != "Gather"
    whole = float(weight.size * sizes.made) if multiplied else 0.0
    limit = _LARGEST_SHARE_NARROW if _is_narrow(weight) else _LARGEST_SHARE
    pays = [way for way in ways if _share(way, weight, whole) <= limit]
    nearest = min(ways, key=lambda way: _share(way, weight, whole), default=None)
    return Layer(weight, whole, tuple(_undominated(pays)), None if pays else nearest)


def insert(weight: Weight, way: Factors) -> None:
    """Let a layer be computed in factors."""
    parts = way.make().parts
    if way.form == "svd":
        insert_factors(weight, *parts)
        return
    everything = tuple(range(len(weight.shape) - 2))
    between = (), everything, ()
    axes = {"channel": (everything, ()), "spatial": ((0,), (1,)), "tucker2": between, "cp": between}[way.form]
    alone = [way.form == "cp" and along == everything for along in axes]
    insert_convolutions(weight, [Kernel(*kernel) for kernel in zip(parts, axes, alone, strict=True)])


def trial(model: Model, weight: Weight, way: Factors) -> Model:
    """A copy in which a weight is what its factors multiply to."""
    copy = model.copy()
    for other in copy.weights():
        if other.value.name == weight.value.name:
            other.store(way.make().matrix)
    return copy


def _needs(weight: Weight, forms: Collection[Form]) -> Iterator[tuple[LayerInput, int]]:
    """What must be seen of a layer's inputs, with the inputs per row."""
    source = _seen(weight)
    if source is None:
        return
    width = weight.matrix().shape[1]
    yield source, width
    if "spatial" in forms and _is_spatial(weight):
        yield _along_height(source), width // weight.shape[3]
    if {"tucker2", "cp"} & set(forms) and _is_tucker(weight):
        yield _at_one_place(source), weight.shape[1]


def _seen(weight: Weight) -> LayerInput | None:
    return layer_input(weight.uses[0]) if len(weight.uses) == 1 else None


def ways_of(
    weight: Weight,
    forms: Collection[Form],
    sizes: Sizes,
    moments: Mapping[LayerInput, Doubles],
    ranks: Ranks,
) -> Iterator[Factors]:
    """All forms and ranks that cost less than the whole layer.

    Args:
        weight: of the layer.
        forms: that may be taken.
        sizes: of what it reads and makes.
        moments: of what layers read, as far as it was seen.
        ranks: that are looked at.
    """
    source = _seen(weight)
    whole = None if source is None else moments.get(source)
    judged = partial(_judged, weight=weight, moments=whole)
    if weight.layer != "Conv":
        if "svd" in forms:
            yield from map(judged, _products(weight, sizes, whole, ranks))
        return
    if "channel" in forms:
        yield from map(judged, _by_channel(weight, sizes, whole, ranks))
    if "spatial" in forms and _is_spatial(weight):
        tall = None if source is None else moments.get(_along_height(source))
        yield from map(judged, _by_side(weight, sizes, tall, ranks))
    if _is_tucker(weight):
        placed = None if source is None else moments.get(_at_one_place(source))
        if "tucker2" in forms:
            yield from map(judged, _by_tucker(weight, sizes, placed, ranks))
        if "cp" in forms:
            yield from map(judged, _by_places(weight, sizes, placed, ranks))


def _products(weight: Weight, sizes: Sizes, moments: Doubles | None, ranks: Ranks) -> Iterator[Factors]:
    matrix = weight.matrix()
    outputs, inputs = matrix.shape
    found = spectrum(matrix[None], moments)
    table = weight.layer == "Gather"

    def make(rank: int) -> Made:
        first, second = (factor[0] for factor in found.factors(rank))
        return Made((first, second), second @ first)

    for rank in ranks.of(found.full, outputs * inputs / (outputs + inputs), 1):
        macs = sizes.made * rank * (inputs if table else inputs + outputs)
        yield Factors("svd", (rank,), partial(make, rank), 0.0, macs, rank * (inputs + outputs))


def _by_channel(weight: Weight, sizes: Sizes, moments: Doubles | None, ranks: Ranks) -> Iterator[Factors]:
    groups = attribute(weight.uses[0].node, "group", 1)
    shape, matrix = weight.shape, weight.matrix()
    rows, inputs = len(matrix) // groups, matrix.shape[1]
    found = spectrum(matrix.reshape(groups, rows, inputs), moments)
    ones = (1,) * (len(shape) - 2)

    def make(rank: int) -> Made:
        first, second = found.factors(rank)
        parts = first.reshape(groups * rank, *shape[1:]), second.reshape(-1, rank, *ones)
        return Made(parts, (second @ first).reshape(-1, inputs))

    for rank in ranks.shared(groups).of(found.full, rows * inputs / (rows + inputs), max(_step(weight) // groups, 1)):
        entries = groups * rank * (rows + inputs)
        yield Factors("channel", (groups * rank,), partial(make, rank), 0.0, sizes.made * entries, entries)


def _by_side(weight: Weight, sizes: Sizes, moments: Doubles | None, ranks: Ranks) -> Iterator[Factors]:
    array = _array(weight)
    outputs, channels, height, width = array.shape
    found = spectrum(split_kernel(array)[None], moments)
    cost = sizes.between * channels * height + sizes.made * outputs * width

    def make(rank: int) -> Made:
        first, second = (factor[0] for factor in found.factors(rank))
        tall, wide = joined_kernels(first, second, height, width)
        kernel = np.einsum("rch,orw->ochw", tall[..., 0], wide[:, :, 0], optimize=True)
        return Made((tall, wide), kernel.reshape(outputs, -1))

    for rank in ranks.of(found.full, sizes.made * array.size / cost, _step(weight)):
        entries = rank * (channels * height + outputs * width)
        yield Factors("spatial", (rank,), partial(make, rank), 0.0, rank * cost, entries)


def _by_tucker(weight: Weight, sizes: Sizes, moments: Doubles | None, ranks: Ranks) -> Iterator[Factors]:
    array = _array(weight)
    outputs, channels, *kernel = array.shape
    ones, flat = (1,) * len(kernel), array.reshape(outputs, channels, -1, 1)

    def make(inner: int, outer: int) -> Made:
        found = tucker(flat, (inner, outer), None if moments is None else moments[0])
        first, last = found.first.reshape(inner, channels, *ones), found.last.reshape(outputs, outer, *ones)
        parts = first, found.core.reshape(outer, inner, *kernel), last
        return Made(parts, found.kernel().reshape(outputs, -1))

    step, shares = ranks.step or _step(weight), np.linspace(0.1, 0.9, 9)
    pairs = dict.fromkeys((_multiple(channels * s, step), _multiple(outputs * s, step)) for s in shares)
    if ranks.exact is not None:
        pairs = {(min(ranks.exact, channels), min(ranks.exact, outputs)): None}
    for inner, outer in pairs:
        if inner <= channels and outer <= outputs and (inner, outer) != (channels, outputs):
            before, behind = inner * channels, outer * (inner * prod(kernel) + outputs)
            macs = sizes.read * before + sizes.made * behind
            yield Factors("tucker2", (inner, outer), partial(make, inner, outer), 0.0, macs, before + behind)


def _by_places(weight: Weight, sizes: Sizes, moments: Doubles | None, ranks: Ranks) -> Iterator[Factors]:
    array = _array(weight)
    outputs, channels, *kernel = array.shape
    ones, places = (1,) * len(kernel), prod(kernel)
    flat = array.reshape(outputs, channels, places)

    def make(rank: int) -> Made:
        found = canonical(flat, rank, None if moments is None else moments[0])
        first, last = found.first.reshape(rank, channels, *ones), found.last.reshape(outputs, rank, *ones)
        return Made((first, found.middle.reshape(rank, 1, *kernel), last), found.kernel().reshape(outputs, -1))

    before, behind = sizes.read * channels, sizes.made * (places + outputs)
    most = sizes.made * array.size / (before + behind)
    for rank in ranks.of(min(outputs, channels) * places, most, _step(weight))[
        :: _CP_EVERY if ranks.exact is None else 1
    ]:
        macs, entries = rank * (before + behind), rank * (channels + places + outputs)
        yield Factors("cp", (rank,), partial(make, rank), 0.0, macs, entries)


def _judged(way: Factors, weight: Weight, moments: Doubles | None) -> Factors:
    """With what is lost, in one measure for all forms."""
    matrix = weight.matrix()
    groups = 1 if moments is None else len(moments)
    seen = np.eye(matrix.shape[1])[None] if moments is None else moments
    grouped = groups, -1, matrix.shape[1]
    return replace(way, error=output_error(matrix.reshape(grouped), way.make().matrix.reshape(grouped), seen))


def _undominated(ways: Sequence[Factors]) -> list[Factors]:
    """The most expensive first; every cheaper one loses more."""
    kept: list[Factors] = []
    for way in sorted(ways, key=lambda way: (way.macs, way.parameters, way.error)):
        if not kept or way.error < kept[-1].error:
            kept.append(way)
    return kept[::-1]


def _share(way: Factors, weight: Weight, macs: float) -> float:
    """Of the multiply-accumulates; of a table, which has none, of the parameters."""
    return way.parameters / weight.size if weight.layer == "Gather" else way.macs / max(macs, 1)


def sizes_of(weight: Weight, shapes: Shapes) -> Sizes:
    """Positions for one sample.

    Args:
        weight: of a layer.
        shapes: of all tensors.
    """
    return reduce(add, (_positions(weight, use, shapes) for use in weight.uses))


def _positions(weight: Weight, use: Use, shapes: Shapes) -> Sizes:
    node = use.node
    read = shapes.get((node.inputs[0].name if node.inputs[0] is not None else "") or "", ())
    made = shapes.get(node.outputs[0].name or "", ())
    if weight.layer == "Conv":
        samples = max(made[0] if made else 1, 1)
        between = made[2] * prod(read[3:]) if len(made) > 2 else 0
        return Sizes(prod(read[2:]) * samples, prod(made[2:]) * samples, between * samples)
    if weight.layer in ("MatMul", "Gemm", "Gather"):
        rows = prod(made) // max(len(weight.matrix()) if weight.layer != "Gather" else weight.shape[1], 1)
        return Sizes(rows, rows)
    steps = prod(read[:2])
    return Sizes(steps, steps)


def _step(weight: Weight) -> int:
    """Ranks of a convolution that are fast."""
    return 16 if min(weight.shape[:2]) >= 64 else 8


def _multiple(number: float, step: int) -> int:
    return max(round(number / step) * step, step)


def _array(weight: Weight) -> Floats:
    return weight.matrix().reshape(weight.shape)


def _is_spatial(weight: Weight) -> bool:
    plain = attribute(weight.uses[0].node, "group", 1) == 1
    return len(weight.shape) == 4 and plain and min(weight.shape[2:]) > 1


def _is_tucker(weight: Weight) -> bool:
    return attribute(weight.uses[0].node, "group", 1) == 1 and prod(weight.shape[2:]) > 1


def _is_narrow(weight: Weight) -> bool:
    return weight.layer == "Conv" and min(weight.shape[:2]) < _NARROW


def _along_height(source: LayerInput) -> LayerInput:
    """What a convolution along the height alone reads."""
    pads = (source.pads[0], (0, 0))
    return replace(
        source,
        kernel=(source.kernel[0], 1),
        strides=(source.strides[0], 1),
        dilations=(source.dilations[0], 1),
        pads=pads,
    )


def _at_one_place(source: LayerInput) -> LayerInput:
    """What a convolution of 1 × 1 reads."""
    ones = (1,) * len(source.kernel)
    nothing = ((0, 0),) * len(ones)
    return replace(source, kernel=ones, strides=ones, dilations=ones, pads=nothing, auto_pad="")

"""Weights into codes, with the second moments of their inputs where rounding wants them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from compressor.calibration.moments import collect_moments, seen
from compressor.data import Dataset
from compressor.errors import PassError
from compressor.graph.inputs import LayerInput
from compressor.graph.model import Model
from compressor.graph.weights import Weight, attribute
from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.divergence import relative_error
from compressor.numerics.levels import Coded
from compressor.numerics.rounding import output_error
from compressor.numerics.schemes import Scheme, encode
from compressor.progress import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A weight, and what it is to become.

    Attributes:
        weight: of any layer.
        scheme: of its codes.
        least: a floor under the scales of whole rows, () or (outputs,).
    """

    weight: Weight
    scheme: Scheme
    least: Floats | float = 0.0


class Surroundings(Protocol):
    """What it takes to execute a model on samples; the context of a pass has it."""

    @property
    def calibration(self) -> Dataset | None:
        """Samples; None when there are none."""
        ...

    @property
    def scratch(self) -> Path:
        """Folder for observed models."""
        ...

    @property
    def progress(self) -> Progress:
        """Told about every batch."""
        ...

    @property
    def threads(self) -> int:
        """Inside one operator."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Fulfilled:
    """An order and what came of it.

    Attributes:
        order: as carried out.
        coded: the codes.
        moments: of the layer's inputs, (groups, inputs, inputs), where they were wanted.
    """

    order: Order
    coded: Coded
    moments: Doubles | None = None

    def rounded(self) -> Floats:
        """The real values the codes stand for, (outputs, inputs)."""
        return np.ascontiguousarray(self.coded.dequantize()[:, : self.order.weight.matrix().shape[1]])

    def noise(self) -> float:
        """Noise power of the layer's output over its signal power; of the weights where inputs were not seen."""
        matrix = self.order.weight.matrix()
        if self.moments is None:
            return relative_error(matrix, self.rounded()) ** 2
        grouped = (len(self.moments), -1, matrix.shape[1])
        return output_error(matrix.reshape(grouped), self.rounded().reshape(grouped), self.moments)


def fulfil(model: Model, orders: Sequence[Order], context: Surroundings) -> Iterator[Fulfilled]:
    """The codes of every weight; those that need second moments last, as many at a time as memory allows.

    The model may be edited between two of them. A layer whose inputs cannot be seen as rows is rounded
    to nearest; the order that comes back says so.

    Args:
        model: whose weights these are.
        orders: what is to be done; the same weight may be ordered several times.
        context: second-order rounding needs its samples.

    Raises:
        DataError: the data does not fit the model.
        PassError: an activation is not finite, or data is needed and there is none.
    """
    waiting: dict[LayerInput, list[Order]] = {}
    for order in orders:
        key = seen(order.weight) if order.scheme.needs_moments else None
        if key is None:
            plain = order if not order.scheme.needs_moments else _to_nearest(order)
            coded = encode(order.weight.matrix(), plain.scheme, None, _groups(order.weight), order.least)
            yield Fulfilled(plain, coded)
        else:
            waiting.setdefault(key, []).append(order)
    if not waiting:
        return
    if context.calibration is None:
        rounding = next(iter(waiting.values()))[0].scheme.rounding
        raise PassError(f"rounding {rounding} needs data.calibration; or take another rounding")
    widths = [(key, orders[0].weight.matrix().shape[1]) for key, orders in waiting.items()]
    observed, data = model.copy(), context.calibration
    for key, moments in collect_moments(observed, widths, data, context.scratch, context.progress, context.threads):
        for order in waiting[key]:
            coded = encode(order.weight.matrix(), order.scheme, moments, key.groups, order.least)
            yield Fulfilled(order, coded, moments)


def _to_nearest(order: Order) -> Order:
    return replace(order, scheme=replace(order.scheme, rounding="nearest"))


def _groups(weight: Weight) -> int:
    return attribute(weight.uses[0].node, "group", 1) if weight.layer == "Conv" else 1

"""Weights into codes, with the second moments of their inputs where rounding wants them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.calibration.moments import collect_moments
from compressor.data import Dataset
from compressor.errors import PassError
from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.model import Model
from compressor.graph.weights import Weight, attribute
from compressor.numerics.affine import Floats
from compressor.numerics.levels import Coded
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


def fulfil(
    model: Model, orders: Sequence[Order], data: Dataset | None, scratch: Path, progress: Progress, threads: int
) -> Iterator[tuple[Order, Coded]]:
    """The codes of every weight; those that need second moments last, as many at a time as memory allows.

    The model may be edited between two of them. A layer whose inputs cannot be seen as rows is rounded
    to nearest; the order that comes back says so.

    Args:
        model: whose weights these are.
        orders: what is to be done.
        data: samples; second-order rounding needs them.
        scratch: folder for the observed model.
        progress: told about every batch.
        threads: threads inside one operator.

    Raises:
        DataError: the data does not fit the model.
        PassError: an activation is not finite, or data is needed and there is none.
    """
    waiting: dict[LayerInput, list[Order]] = {}
    for order in orders:
        key = layer_input(order.weight.uses[0]) if order.scheme.rounding == "second_order" else None
        if key is None:
            plain = order if order.scheme.rounding != "second_order" else _to_nearest(order)
            yield plain, encode(order.weight.matrix(), plain.scheme, None, _groups(order.weight), order.least)
        else:
            waiting.setdefault(key, []).append(order)
    if not waiting:
        return
    if data is None:
        raise PassError("rounding second_order needs data.calibration; or take another rounding")
    widths = [(key, waiting[key][0].weight.matrix().shape[1]) for key in waiting]
    for key, moments in collect_moments(model.copy(), widths, data, scratch, progress, threads):
        for order in waiting[key]:
            yield order, encode(order.weight.matrix(), order.scheme, moments, key.groups, order.least)


def _to_nearest(order: Order) -> Order:
    return replace(order, scheme=replace(order.scheme, rounding="nearest"))


def _groups(weight: Weight) -> int:
    return attribute(weight.uses[0].node, "group", 1) if weight.layer == "Conv" else 1

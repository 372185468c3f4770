"""Weight ranges of neighbouring layers made equal, channel by channel: before quantization, without data.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", with the formulas
of `numerics/equalization.py`, repeated over all pairs until nothing moves. It helps most where a weight has
one scale: channels that use a hundredth of the range are rounded to nothing. The function that the model
computes in float stays the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compressor.graph.chains import Channels, Maker, read_together, reading_refusal
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.graph.weights import Weight
from compressor.numerics.equalization import equalizing_scale
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip

_SWEEPS = 50
_SETTLED = 1e-3
"""Largest |log s| of a sweep after which no other is worth it."""


class Equalize(Pass):
    """Cross-layer equalization: equal weight ranges on both sides of a channel. Needs no data, loses nothing."""

    type: Literal["equalize"] = "equalize"

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Find the pairs, equalize them until nothing moves, and say what each weight was paired with."""
        yield from (Skip(*found) for found in set_aside(model))
        weights = list(model.weights(self.selectors))
        pairs, reasons = _find_pairs(weights)
        partners = _equalize(pairs)
        for weight in weights:
            others = partners.get(weight.name)
            if others:
                yield Change(weight.name, weight.layer, f"equalized with {', '.join(others)}")
            else:
                yield Skip(weight.name, weight.layer, reasons.get(weight.name, "its ranges are equal already"))
        settle(model.ir)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A layer, and those that alone read what it makes."""

    maker: Maker
    weight: Weight
    channels: Channels

    def equalize(self) -> bool:
        """Do it once; returns whether anything moved."""
        made = np.abs(self.weight.matrix()).max(axis=1)
        scale = equalizing_scale(made, self.channels.magnitudes())
        moved = bool(np.abs(np.log(scale)).max() > _SETTLED)
        if moved:
            self.maker.divide(scale)
            self.channels.multiply(scale)
        return moved


def _find_pairs(weights: list[Weight]) -> tuple[list[_Pair], dict[str, str]]:
    """All pairs, and for every weight that nothing is paired with in front why not."""
    refused = {weight.name: reason for weight in weights if (reason := reading_refusal(weight)) is not None}
    pairs: list[_Pair] = []
    for channels in read_together(weight for weight in weights if weight.name not in refused):
        pair = _pair(channels, weights)
        if isinstance(pair, str):
            refused.update({weight.name: pair for weight in channels.readers})
        else:
            pairs.append(pair)
    return pairs, refused


def _pair(channels: Channels, selected: list[Weight]) -> _Pair | str:
    """The pair around these channels, or why there is none."""
    maker = channels.maker()
    if isinstance(maker, str):
        return maker
    if maker.weight is None:
        return f"its input comes from {maker.name}, which has no weights to equalize with"
    if all(weight.value is not maker.weight.value for weight in selected):
        return f"its input comes from {maker.name}, which is not selected"
    return _Pair(maker, maker.weight, channels)


def _equalize(pairs: list[_Pair]) -> dict[str, list[str]]:
    """Sweep over all pairs until nothing moves; returns layer -> layers it was equalized with."""
    moved: dict[_Pair, None] = {}
    for _ in range(_SWEEPS):
        found = [pair for pair in pairs if pair.equalize()]
        if not found:
            break
        moved.update(dict.fromkeys(found))
    partners: dict[str, list[str]] = {}
    for pair in moved:
        for reader in pair.channels.readers:
            partners.setdefault(pair.weight.name, []).append(reader.name)
            partners.setdefault(reader.name, []).append(pair.weight.name)
    return partners

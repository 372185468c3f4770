"""Layers as several thin ones in a row, where and only where that makes the model smaller or faster.

What a form and rank lose is known in closed form (`numerics/low_rank.py`), for every rank at once. How many ranks each
layer keeps follows from what the model's outputs miss: every layer is tried alone, the drift is measured, and within a
budget the choice of least sum of drifts is taken,

    drift(layer, rank) ≈ drift(layer, probe) · error(layer, rank) / error(layer, probe).

Layers for which two in a row are no quicker than one stay as they are, and the report says what it would have taken.
Afterwards the last of the layers in a row is fitted, by least squares, to what the whole one made, on the inputs that
it gets from those before, which are in factors already.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compressor.calibration.factoring import Factors, Form, Layer, Ranks, insert, layers, trial
from compressor.calibration.repair import Fit, fits, repair
from compressor.calibration.timing import time_ratio, within_time
from compressor.data import held_out
from compressor.errors import PassError
from compressor.evaluate.judge import Judge
from compressor.graph.edit import settle
from compressor.graph.factors import factor_refusal
from compressor.graph.model import Model
from compressor.graph.outlets import Shapes
from compressor.graph.refusals import set_aside
from compressor.graph.weights import Weight
from compressor.numerics.affine import Doubles
from compressor.numerics.allocation import Candidates, least_loss, least_size
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip
from compressor.runtime.macs import count_macs
from compressor.runtime.shapes import observe_shapes

_FORMS: dict[str, tuple[Form, ...]] = {
    "auto": ("svd", "channel", "spatial", "tucker2"),
    "svd": ("svd", "channel"),
    "channel": ("svd", "channel"),
    "spatial": ("svd", "spatial"),
    "tucker2": ("svd", "tucker2"),
    "cp": ("svd", "cp"),
}
_BUDGETS = ("macs", "parameters", "latency", "drift", "energy", "ratio", "rank")
_TRIALS = 6
_CLOSE = 0.97

Choice = list[Factors | None]
"""For every layer its factors, or None where it stays as it is."""


class Factorize(Pass):
    """Low-rank factors in place of weights, where that pays. Give a budget, or what every layer keeps."""

    type: Literal["factorize"] = "factorize"
    method: Literal["auto", "svd", "channel", "spatial", "tucker2", "cp"] = Field(
        default="auto",
        description="form of convolutions: k × k and 1 × 1 (channel, also called svd), k × 1 and 1 × k (spatial), "
        "1 × 1, k × k and 1 × 1 (tucker2), the same with k × k channel by channel (cp), or what loses least at "
        "the cost, cp left out (auto); products have one form",
    )
    macs: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="multiply-accumulates to keep, as a share of what the model has at this point"
    )
    parameters: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="instead: parameters of the selected layers to keep, as a share"
    )
    latency: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="instead: time of an execution to keep, as a share, measured on this machine with one thread",
    )
    drift: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="instead: as little as the outputs bear: KL divergence of class scores on the calibration data, "
        "else the share of noise in the power of the outputs; before any repair",
    )
    energy: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="instead, layer by layer: share of the power of its output that a layer keeps at least",
    )
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="instead, layer by layer: share of its parameters that a layer keeps at most"
    )
    rank: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="instead, layer by layer: the rank, of all groups together; of tucker2 both ranks"
    )
    whiten: bool = Field(
        default=True,
        description="lose least in what the layers make of the calibration data, rather than in their weights; without "
        "calibration data it is the weights either way, as it is for recurrent layers and weights that layers share",
    )
    repair: bool = Field(
        default=True, description="fit the last of the factors to the outputs of the whole layer, on calibration data"
    )
    round_to: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None,
        description="ranks are multiples of this; when left out, 16 for convolutions, 8 for those with fewer than 64 "
        "channels, 1 for products",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in _BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(_BUDGETS[:-1])} and {_BUDGETS[-1]}, for example macs: 0.7")
        return self

    @property
    def needs_calibration(self) -> bool:
        """Where what is lost is measured on the outputs."""
        return any(getattr(self, name) is not None for name in ("macs", "parameters", "latency", "drift"))

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Find what pays, choose, write, and repair."""
        yield from (Skip(*found) for found in set_aside(model))
        refusals = [(weight, _refusal(weight)) for weight in model.weights(self.selectors)]
        yield from (Skip(weight.name, weight.layer, reason) for weight, reason in refusals if reason is not None)
        weights = [weight for weight, reason in refusals if reason is None]
        if not weights:
            return
        shapes = observe_shapes(model, context.feeds(), context.scratch)
        data = None if context.calibration is None or not self.whiten else held_out(context.calibration)[0]
        ranks = Ranks(self.round_to, self.rank)
        looked = list(layers(model, weights, _FORMS[self.method], shapes, data, ranks, context))
        yield from (
            Skip(layer.weight.name, layer.weight.layer, self._unpaid(layer)) for layer in looked if not layer.ways
        )
        found = [layer for layer in looked if layer.ways]
        if found:
            choice = self._choose(model, found, context)
            findings = [_finding(layer, way) for layer, way in zip(found, choice, strict=True)]
            self._write(model, [(x.weight, way) for x, way in zip(found, choice, strict=True) if way], shapes, context)
            yield from findings

    def _write(self, model: Model, written: Sequence[tuple[Weight, Factors]], shapes: Shapes, context: Context) -> None:
        """Put factors in place of weights, and fit the last of each anew."""
        before = model.copy()
        for weight, way in written:
            insert(weight, way)
        settle(model.ir)
        if self.repair and written and context.calibration is not None:
            names = {weight.name for weight, _ in written}
            list(repair(model, before, list(_last_factors(model, before, shapes, names)), context))

    def _choose(self, model: Model, found: Sequence[Layer], context: Context) -> Choice:
        if self.rank is not None:
            return [min(layer.ways, key=lambda way: way.error) for layer in found]
        if self.ratio is not None:
            return [_of_ratio(layer, self.ratio) for layer in found]
        if self.energy is not None:
            return [_cheapest(layer, 1 - self.energy) for layer in found]
        return self._within_budget(model, found, context)

    def _within_budget(self, model: Model, found: Sequence[Layer], context: Context) -> Choice:
        if context.calibration is None:
            raise PassError("a budget is measured on data.calibration; without it, give energy, ratio or rank")
        others = held_out(context.calibration)[1]
        losses = _losses(model, found, context.judge_from(model, others), context)
        if self.drift is not None:
            judge = Judge(context.reference, others, context.scratch, context.threads)
            return _within_drift(model, found, losses, self.drift, judge)
        if self.parameters is not None:
            sizes = [np.array([layer.weight.size, *(w.parameters for w in layer.ways)], np.float64) for layer in found]
            total = float(sum(weight.size for weight in model.weights(self.selectors)))
            return _within(found, losses, sizes, total, self.parameters, "parameters")
        costs = [np.array([layer.macs, *(way.macs for way in layer.ways)], np.float64) for layer in found]
        whole = float(sum(count_macs(model, context.feeds(), context.scratch).values()))
        if self.macs is not None:
            return _within(found, losses, costs, whole, self.macs, "macs")
        return within_time(
            self.latency or 1.0,
            lambda share: _within(found, losses, costs, whole, share, "latency"),
            lambda choice: _time(model, found, choice, context),
        )

    def _unpaid(self, layer: Layer) -> str:
        """Why no form and rank is worth it."""
        way, weight = layer.nearest, layer.weight
        if way is not None:
            table = weight.layer == "Gather"
            taken = way.parameters / weight.size if table else way.macs / max(layer.macs, 1)
            what = "parameters" if table else "multiply-accumulates"
            return (
                f"does not pay: {way.told} would take {taken:.2f} of the {what}, and lose {way.error:.1%} of the output"
            )
        rows, columns = weight.matrix().shape
        most = rows * columns // (rows + columns)
        if weight.layer == "Conv" and self.method not in ("auto", "svd", "channel"):
            return f"has no form {self.method}: that is for kernels of several places and no groups"
        if self.rank is not None and self.rank > most:
            return f"rank {self.rank} saves nothing; up to {most} would"
        if self.round_to is not None and self.round_to > most:
            return f"no multiple of round_to saves anything; ranks up to {most} would"
        return "too small: there is no rank between none and all"


def _refusal(weight: Weight) -> str | None:
    """Why a layer stays as it is, whatever is asked; None where it need not."""
    reason = factor_refusal(weight)
    if reason is None and not np.isfinite(weight.matrix()).all():
        return "it holds entries that are not finite"
    return reason


def _last_factors(model: Model, before: Model, shapes: Shapes, names: Collection[str]) -> Iterator[list[Fit]]:
    """What is to be fitted, in order: the factors that have the names of the layers.

    All in front of what the whole layer read is settled by then, in both models.
    """
    read = {w.name: w.uses[0].node.inputs[1 if w.layer == "Gather" else 0] for w in before.weights()}
    for stage in fits(model, {}, shapes):
        for fit in stage:
            source = read.get(fit.weight.name)
            if fit.weight.name in names and source is not None:
                yield [replace(fit, settled=source.name or "")]


def _losses(model: Model, found: Sequence[Layer], judge: Judge, context: Context) -> list[Doubles]:
    """Of every layer the drift from the model as it is: 0, and in each of its ways."""
    losses: list[Doubles] = []
    for layer in context.progress.track(found, "layers", len(found)):
        probe = layer.ways[len(layer.ways) // 2]
        drift = judge.drift(trial(model, layer.weight, probe))
        per_error = drift / probe.error if probe.error > 0 else 0.0
        losses.append(np.array([0.0, *(way.error * per_error for way in layer.ways)]))
    return losses


def _within(
    found: Sequence[Layer], losses: Sequence[Doubles], costs: Sequence[Doubles], whole: float, share: float, name: str
) -> Choice:
    """The choice of least loss within a share of the whole, to which all else belongs as well.

    Raises:
        PassError: there is none.
    """
    candidates = [Candidates(loss, cost) for loss, cost in zip(losses, costs, strict=True)]
    fixed = whole - sum(float(cost[0]) for cost in costs)
    limit = share * whole - fixed
    picked = least_loss(candidates, limit) if limit > 0 else None
    if picked is None:
        least = (fixed + sum(float(cost.min()) for cost in costs)) / max(whole, 1.0)
        raise PassError(f"{name}: {share:.2f} is not reached: at the lowest ranks {least:.2f} is left")
    return _ways(found, picked)


def _ways(found: Sequence[Layer], picked: Sequence[int]) -> Choice:
    return [None if i == 0 else layer.ways[i - 1] for layer, i in zip(found, picked, strict=True)]


def _within_drift(
    model: Model, found: Sequence[Layer], losses: Sequence[Doubles], limit: float, judge: Judge
) -> Choice:
    """The least multiply-accumulates whose measured drift is within the limit."""
    costs = [np.array([layer.macs, *(way.macs for way in layer.ways)], np.float64) for layer in found]
    candidates = [Candidates(loss, cost) for loss, cost in zip(losses, costs, strict=True)]
    best: Choice = [None] * len(found)
    asked = limit
    for _ in range(_TRIALS):
        choice = _ways(found, least_size(candidates, asked))
        copy = model.copy()
        values = {layer.weight.value.name: way for layer, way in zip(found, choice, strict=True) if way is not None}
        for weight in copy.weights():
            if weight.value.name in values:
                weight.store(values[weight.value.name].make().matrix)
        reached = judge.drift(copy)
        if reached <= limit:
            best = choice
            if reached >= _CLOSE * limit:
                break
        asked *= limit / reached if reached > 0 else 2.0
    return best


def _time(model: Model, found: Sequence[Layer], choice: Choice, context: Context) -> float:
    """Of an execution, as a share of that of the model as it is."""
    copy = model.copy()
    weights = {weight.value.name: weight for weight in copy.weights()}
    for layer, way in zip(found, choice, strict=True):
        if way is not None:
            insert(weights[layer.weight.value.name], way)
    settle(copy.ir)
    return time_ratio(model, copy, context.feeds(), context.scratch)


def _of_ratio(layer: Layer, ratio: float) -> Factors | None:
    """The way that loses least of those with so few parameters."""
    fitting = (way for way in layer.ways if way.parameters <= ratio * layer.weight.size)
    return min(fitting, key=lambda way: way.error, default=None)


def _cheapest(layer: Layer, error: float) -> Factors | None:
    """The cheapest way that loses no more."""
    return next((way for way in reversed(layer.ways) if way.error <= error), None)


def _finding(layer: Layer, way: Factors | None) -> Finding:
    weight = layer.weight
    if way is None:
        lightest = layer.ways[0]
        lost = f"{lightest.error:.1%} of its output"
        return Skip(weight.name, weight.layer, f"worth more whole: {lightest.told} would lose {lost}")
    counted = layer.macs and weight.layer != "Gather"
    share = f"{way.macs / layer.macs:.2f} of the multiply-accumulates, " if counted else ""
    detail = f"{way.told}, {share}{way.error:.2%} of the output lost"
    entry = weight.nbytes // max(weight.size, 1)
    return Change(weight.name, weight.layer, detail, way.error**0.5, weight.nbytes, way.parameters * entry)

"""Make layers narrower: whole channels, neurons, attention heads and hidden units go, from all that make or read them.

Which must go together is found in the graph alone (`graph/channels`). Four things are kept apart:

- what stands for a group: channels that linear layers alone make and read are mixed first (`calibration/mixing.py`);
- which units of a group go first: those that the layers that read them can best do without, once their other
  weights make up for it (`numerics/elimination.py`), or those with the smallest weights;
- how many of each group go: every group is tried alone at one width, the drift of the model's outputs is measured,
  and widths are chosen so that the budget is met with the least sum of drifts,

      drift(group, width) ≈ drift(group, probe) · error(group, width) / error(group, probe);

- what becomes of the rest: layer by layer, from the input to the output, weights and biases are fitted anew by least
  squares to what the unpruned model makes there (`calibration/repair.py`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compressor.calibration.mixing import Mixed
from compressor.calibration.narrowing import Cost, dropped_units, widths_of_equal_share, widths_of_least_loss
from compressor.calibration.prospects import Prospect, by_gradients, by_magnitude, by_second_order, narrowed
from compressor.calibration.repair import Fitted, fits, repair
from compressor.calibration.timing import time_of_layers, time_without, within_time
from compressor.data import Dataset, held_out
from compressor.errors import PassError
from compressor.graph.channels import ChannelGroup, Channels, Kind, prepare, tidy
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.graph.select import Selectors
from compressor.numerics.affine import Doubles
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip
from compressor.runtime.shapes import observe_shapes
from compressor.training.sensitivity import output_gradients

_KINDS: tuple[Kind, ...] = ("channels", "neurons", "heads", "hidden_units")

_MULTIPLES: dict[Kind, int] = {"channels": 16, "neurons": 8, "heads": 1, "head_channels": 4, "hidden_units": 8}
"""What is fast on x86: blocks of 16 channels in convolutions; products take any size, a vector register has 8 or 16."""

_NARROW = 64
"""Channels below which half a block is worth it."""

_MOST_WIDTHS = 24


class PruneChannels(Pass):
    """Make layers narrower (structured): smaller and faster. Give macs, parameters, latency or sparsity."""

    type: Literal["prune_channels"] = "prune_channels"
    macs: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="multiply-accumulates to keep, as a share of what the model has at this point"
    )
    parameters: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="instead: parameters to keep, as a share"
    )
    latency: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="instead: time of an execution to keep, as a share, measured on this machine with one thread",
    )
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="instead: share of the units to drop"
    )
    scope: Literal["global", "layer"] = Field(
        default="global",
        description="groups give up what the outputs miss least, or all the same share; layer is meant for comparisons",
    )
    structure: Annotated[tuple[Kind, ...], Field(min_length=1)] = Field(
        default=_KINDS,
        description="what may go: channels of convolutions, neurons of products, attention heads, what is inside of "
        "heads (head_channels), hidden units of recurrent layers",
    )
    importance: Literal["second_order", "taylor", "magnitude"] = Field(
        default="second_order",
        description="which units go first: what the layers that read them can best make up for, on calibration data; "
        "those whose gradients say that the outputs miss them least (needs torch); or those with the smallest weights",
    )
    repair: bool = Field(
        default=True,
        description="fit the layers that are left to the outputs of the unpruned ones, on calibration data",
    )
    round_to: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None,
        description="widths become multiples of this; when left out, what is fast: 16 for channels, 8 where there are "
        "fewer than 64 of them, 8 for neurons and hidden units, 1 for heads",
    )
    min_width: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.125,
        description="share of every group that stays at least; never fewer than round_to units, nor than one",
    )
    mix: bool = Field(
        default=True,
        description="mix channels that only linear layers make and read, which leaves the outputs as they are, so that "
        "the last of them are missed least",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("macs", "parameters", "latency", "sparsity") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of macs, parameters, latency and sparsity, for example macs: 0.5")
        return self

    @property
    def needs_calibration(self) -> bool:
        """Unless units go by the magnitude of their weights, and nothing is repaired."""
        return self.importance != "magnitude" or self.repair

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Find the groups, choose, cut, and repair."""
        yield from (Skip(*found) for found in set_aside(model))
        feeds = context.feeds()
        prepare(model, observe_shapes(model, feeds, context.scratch))
        shapes = observe_shapes(model, feeds, context.scratch)
        channels = Channels.of(model, shapes)
        yield from (_frozen(group) for group in channels.frozen)
        chosen: list[tuple[ChannelGroup, list[int]]] = []
        for group in channels.groups:
            reason = self._refusal(group)
            if reason is None:
                chosen.append((group, self._widths(group)))
            else:
                yield Skip(group.name, group.kind, reason)
        if chosen:
            yield from self._prune(model, channels, chosen, context)
        tidy(model)

    def _refusal(self, group: ChannelGroup) -> str | None:
        """Why a group is left alone; None when it is to be pruned."""
        makers = [(place.weight.names, place.weight.layer) for place in group.makers]
        if group.kind not in self.structure:
            return f"structure does not name {group.kind}"
        if not any(Selectors(self.targets).match(*layer) for layer in makers):
            return "targets select none of the layers that make it"
        if not all(Selectors((), self.ignore).match(*layer) for layer in makers):
            return "ignore names a layer that makes it"
        if len(self._widths(group)) < 2:
            return f"as narrow as it may get in multiples of {self._multiple(group)}"
        return None

    def _multiple(self, group: ChannelGroup) -> int:
        if self.round_to is not None:
            return self.round_to if group.kind != "heads" else 1
        narrow = group.kind == "channels" and group.width < _NARROW
        return 8 if narrow else _MULTIPLES[group.kind]

    def _widths(self, group: ChannelGroup) -> list[int]:
        """What a group may become, descending, the width it has first."""
        multiple = self._multiple(group)
        least = max(math.ceil(self.min_width * group.width), multiple)
        narrower = range((group.width - 1) // multiple * multiple, least - 1, -multiple)
        thinned = narrower[::-1][:: -(-len(narrower) // _MOST_WIDTHS) or 1][::-1]
        return [group.width, *thinned]

    def _prune(
        self, model: Model, channels: Channels, groups: Sequence[tuple[ChannelGroup, list[int]]], context: Context
    ) -> Iterator[Finding]:
        mixed = self._mixed(model, channels, groups, context)
        prospects, losses = self._prospects(model, channels, groups, context)
        widths = self._choose(model, channels, prospects, losses, context)
        narrower = [p.group.name for p, width in zip(prospects, widths, strict=True) if width < p.group.width]
        mixed_ones = mixed.keep(narrower) if mixed is not None else ()
        dropped = dropped_units(prospects, widths)
        before, kept = model.copy(), channels.kept(dropped)
        channels.drop(dropped)
        fitted: dict[str, Fitted] = {}
        if self.repair and dropped:
            fitted = {found.name: found for found in repair(model, before, fits(model, kept, channels.shapes), context)}
        for prospect, width in zip(prospects, widths, strict=True):
            yield _finding(prospect, width, fitted, prospect.group.name in mixed_ones)

    def _mixed(
        self, model: Model, channels: Channels, groups: Sequence[tuple[ChannelGroup, list[int]]], context: Context
    ) -> Mixed | None:
        """The groups that can be, mixed."""
        if not self.mix or self.importance == "magnitude" or context.calibration is None:
            return None
        streams = channels.streams()
        wanted = {group.name: streams[group.name] for group, _ in groups if group.name in streams}
        return Mixed(model, wanted, held_out(context.calibration)[0], context)

    def _prospects(
        self, model: Model, channels: Channels, groups: Sequence[tuple[ChannelGroup, list[int]]], context: Context
    ) -> tuple[list[Prospect], list[Doubles]]:
        """Every group with its widths, and what each width loses."""
        if self.importance == "magnitude":
            prospects = list(by_magnitude(groups))
            return prospects, [prospect.errors() for prospect in prospects]
        if context.calibration is None:
            raise PassError(f"importance {self.importance} needs data.calibration; or take importance: magnitude")
        learn, others = held_out(context.calibration)
        judge = context.judge_from(model, others)
        prospects, losses = [], []
        for prospect in self._found(model, channels, groups, learn, context):
            drift = judge.drift(narrowed(model, channels, prospect)) if self.scope == "global" else 0.0
            if not math.isfinite(drift):  # somewhere zeros are divided by, or their logarithm is taken
                drift = judge.drift(narrowed(model, channels, prospect, cut=True))
            prospects.append(replace(prospect, probed={}))
            losses.append(prospect.losses(drift))
        return prospects, losses

    def _found(
        self,
        model: Model,
        channels: Channels,
        groups: Sequence[tuple[ChannelGroup, list[int]]],
        data: Dataset,
        context: Context,
    ) -> Iterator[Prospect]:
        """Every group with the order of its units, as the data says."""
        if self.importance == "second_order":
            return by_second_order(model, channels.shapes, groups, data, context)
        arrays = {place.weight.value.name or "" for group, _ in groups for place in group.places}
        return by_gradients(groups, output_gradients(model, arrays, data, context.seed, context))

    def _choose(
        self,
        model: Model,
        channels: Channels,
        prospects: Sequence[Prospect],
        losses: Sequence[Doubles],
        context: Context,
    ) -> list[int]:
        """A width for every group."""
        costs = channels.costs
        if self.macs is not None:
            return self._within(prospects, losses, costs.macs, self.macs)
        if self.parameters is not None:
            return self._within(prospects, losses, costs.parameters, self.parameters)
        if self.sparsity is not None:
            units = sum(prospect.group.width for prospect in prospects)
            return self._within(prospects, losses, lambda gone: units - len(gone), 1 - self.sparsity)
        cost = time_of_layers(channels, context.scratch)

        def timed(widths: Sequence[int]) -> float:
            dropped = dropped_units(prospects, widths)
            return time_without(model, channels, dropped, context.feeds(), context.scratch)

        return within_time(self.latency or 1.0, lambda share: self._within(prospects, losses, cost, share), timed)

    def _within(self, prospects: Sequence[Prospect], losses: Sequence[Doubles], cost: Cost, share: float) -> list[int]:
        if self.scope == "layer":
            return widths_of_equal_share(prospects, cost, share * cost(()))
        return widths_of_least_loss(prospects, losses, cost, share * cost(()))


def _frozen(group: ChannelGroup) -> Skip:
    return Skip(group.name, group.kind, group.reason)


def _finding(prospect: Prospect, width: int, fitted: Mapping[str, Fitted], mixed: bool) -> Finding:
    group = prospect.group
    if width == group.width:
        return Skip(group.name, group.kind, "the budget is met with less loss elsewhere")
    tied = tuple(dict.fromkeys(place.weight.name for place in group.places))
    left = [fitted[place.weight.name].after for place in group.readers if place.weight.name in fitted]
    repaired = f", {max(left):.1%} of what its readers make is lost" if left else ""
    how = "mixed first, " if mixed else ""
    detail = f"{group.width} → {width}, {how}tied in {len(tied)} layers{repaired}"
    entry = group.places[0].weight.nbytes // max(group.places[0].weight.size, 1)
    before, after = group.entries * group.width, group.entries * width
    return Change(
        group.name,
        group.kind,
        detail,
        bytes_before=before * entry,
        bytes_after=after * entry,
        widths=(group.width, width),
        tied=tied,
        mixed=mixed,
    )

"""Plans for int8 tried out before one is carried out: what ONNX Runtime makes of them, and what that is worth.

A plan is carried out on a copy of the model, with weights rounded to nearest, and seen through two questions:

- Which layers does ONNX Runtime not fuse to an integer kernel? It says so nowhere, but in the graph that it
  writes after its fusions they still read their weight through DequantizeLinear. Where it merged a product with
  the Add behind it, the constant of that Add must be in int32 for the two to fuse; all others stay in float.
- Which layers are faster in float? Float convolutions come with activations fused that integer ones know
  nothing of, and every change between float and integers is a pass over a tensor. So two kinds of layers are
  taken back to float as long as the whole model gets faster by a twentieth: those with float on both sides,
  and the first 1, 4, 16, 64 … of the graph, where tensors are large and channels few.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from compressor.graph.kernels import weights_made_float
from compressor.graph.model import EXTERNAL_DATA_BYTES, Model
from compressor.graph.quantize import StaticPlan, added_bias, insert_activations, insert_layer, plan_static
from compressor.graph.weights import Weight
from compressor.numerics.affine import Grid, asymmetric_grid
from compressor.numerics.levels import Coded
from compressor.numerics.observers import Range
from compressor.numerics.schemes import Scheme, encode
from compressor.progress import Progress
from compressor.runtime import latency
from compressor.runtime.ort import Feeds, Session

_ROUNDS = 3
_WORTH_IT = 0.95
"""Of the time, at most, for layers to go back to float: what is less cannot be told from chance."""

_REPEATS, _SECONDS = 3, 0.25
"""Pairs of sessions, and how long each is timed: where its arrays come to lie can make a tenth of a session's time."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Which layers run in int8, by the names of their arrays.

    Attributes:
        integer: those that do, in graph order.
        merged: those of them that ONNX Runtime merges with the Add behind them.
        floating: why the others do not.
    """

    integer: tuple[str, ...]
    merged: frozenset[str] = frozenset()
    floating: Mapping[str, str] = field(default_factory=dict)

    def without(self, names: Collection[str], reason: str) -> "Mix":
        """The same with some of them in float."""
        integer = tuple(name for name in self.integer if name not in names)
        return replace(self, integer=integer, floating={**self.floating, **dict.fromkeys(names, reason)})


class Rehearsal:
    """Carries plans out on copies.

    Args:
        model: to be quantized; it is not changed.
        ranges: of every activation that can get a grid.
        scratch: folder for the copies.
    """

    def __init__(self, model: Model, ranges: Mapping[str, Range], scratch: Path) -> None:
        self._model, self._ranges, self._scratch = model, ranges, scratch
        self._coded: dict[str, Coded] = {}

    def fused(self, names: Collection[str]) -> Mix:
        """Those layers in int8 that ONNX Runtime fuses to an integer kernel."""
        return self._fused(Mix(tuple(names)))

    def faster(self, mix: Mix, feeds: Feeds, progress: Progress) -> Mix:
        """Without the layers that are faster in float, timed on this machine.

        Args:
            mix: what ONNX Runtime fuses.
            feeds: one sample.
            progress: told about every trial.
        """
        counts = [4**power for power in range(len(mix.integer)) if 4**power < len(mix.integer)]
        trials = [None, *(mix.integer[:count] for count in counts), None]
        for trial in progress.track(trials, "int8 or float", len(trials)):
            names = self._alone(mix) if trial is None else [name for name in trial if name in mix.integer]
            mix = self._faster_without(names, mix, feeds)
        return self._fused(mix)

    def _fused(self, mix: Mix) -> Mix:
        for _ in range(_ROUNDS):
            left = self._unfused(mix)
            mergeable = {w.value.name or "" for w in left if w.value.name not in mix.merged and _adds_a_bias(w)}
            others = {weight.value.name or "" for weight in left} - mergeable
            mix = replace(mix, merged=mix.merged | mergeable).without(others, "ONNX Runtime does not fuse it here")
            if not left:
                break
        return mix

    def _unfused(self, mix: Mix) -> list[Weight]:
        if not mix.integer or self._model.nbytes() > EXTERNAL_DATA_BYTES:
            return []
        with TemporaryDirectory(dir=self._scratch) as folder:
            optimized = Path(folder) / "optimized.onnx"
            Session(self._write(mix, Path(folder) / "plan.onnx"), optimized=optimized)
            found = weights_made_float(optimized)
        return [w for w in self._chosen(self._model, mix) if any(f"{use.node.name}_weight" in found for use in w.uses)]

    def _alone(self, mix: Mix) -> list[str]:
        """Layers that get no integers from another one, and give none to it."""
        plan = plan_static(list(self._chosen(self._model, mix)))
        layers, groups = set(plan.region.layers), plan.region.groups()
        own = {weight.value.name or "": {use.node for use in weight.uses} for weight in plan.weights}
        return [name for name, nodes in own.items() if set().union(*(groups[n] for n in nodes)) & layers == nodes]

    def _faster_without(self, names: Collection[str], mix: Mix, feeds: Feeds) -> Mix:
        if not names or len(names) == len(mix.integer):
            return mix
        with TemporaryDirectory(dir=self._scratch) as folder:
            before = self._write(mix, Path(folder) / "before.onnx")
            after = self._write(mix.without(names, ""), Path(folder) / "after.onnx")
            timings = [latency.compare(before, after, feeds, seconds=_SECONDS) for _ in range(_REPEATS)]
        ratio = median(timing.ratio.median for timing in timings)
        reason = f"the model then takes {ratio:.2f} of the time"
        return mix if ratio > _WORTH_IT else mix.without(names, reason)

    def _write(self, mix: Mix, file: Path) -> Path:
        model = self._model.copy()
        plan = plan_static(list(self._chosen(model, mix)), mix.merged)
        grids = shared_grids(plan, self._ranges)
        for weight in plan.weights:
            insert_layer(model, plan, weight, self._codes(weight), grids)
        insert_activations(model, plan, grids)
        model.save(file)
        return file

    def _codes(self, weight: Weight) -> Coded:
        name = weight.value.name or ""
        if name not in self._coded:
            self._coded[name] = encode(weight.matrix(), Scheme(8))
        return self._coded[name]

    def _chosen(self, model: Model, mix: Mix) -> Iterator[Weight]:
        return (weight for weight in model.weights() if weight.value.name in mix.integer)


def shared_grids(plan: StaticPlan, ranges: Mapping[str, Range], bits: int = 8) -> dict[str, Grid]:
    """A uint8 grid per shared grid, over the union of the ranges of its members.

    Args:
        plan: says what shares one.
        ranges: of all members.
        bits: of grids with neither an input nor an output of the model on them; those have 8.
    """
    grids = {}
    for tensor in plan.tensors:
        lows, highs = zip(*(ranges[name] for name in plan.members(tensor)), strict=True)
        grids[tensor] = asymmetric_grid(min(lows), max(highs), bits_of(plan, tensor, bits))
    return grids


def bits_of(plan: StaticPlan, tensor: str, bits: int) -> int:
    """Of the grid of a tensor, when inner ones have `bits`."""
    return 8 if plan.is_at_the_edge(tensor) else bits


def _adds_a_bias(weight: Weight) -> bool:
    outputs = len(weight.matrix())
    return all(added_bias(use, outputs) is not None for use in weight.uses)

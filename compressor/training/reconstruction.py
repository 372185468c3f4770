"""Rounding that is learned: stretch by stretch, so that each makes again what it made before it was rounded.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", with whole stretches of layers in
place of single ones as in Li et al. 2021, "BRECQ", and on demand with quantizers that let some entries pass, as in
Wei et al. 2022, "QDrop". Every stretch is fed what the rounded ones before it make of the samples.
"""

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from compressor.calibration.coding import Fulfilled, Surroundings
from compressor.calibration.staged import Staged
from compressor.data import Batch
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, frontier, with_tensors
from compressor.graph.spans import spans
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats
from compressor.numerics.levels import Codes
from compressor.numerics.relaxation import Between, between
from compressor.runtime.autograd import Network
from compressor.training.constraints import Relaxed, stretched
from compressor.training.pool import Pool, Rows, has_fixed_batch
from compressor.training.settings import RoundingSettings
from compressor.training.teacher import tensors

_GIVEN, _EXACT, _WANTED = "given.", "exact.", "wanted."
_HELD_OUT = 8
"""One sample of so many judges whether what was learned serves others too."""

_POWER_SAMPLES = 256
_TINY = 1e-12
_CPU = torch.device("cpu")
_SHARPEST, _SOFTEST = 20.0, 2.0
"""Exponents of the term that drives shares to 0 and 1: at first it is flat in the middle."""

_GROWTH = 100.0
"""How much heavier that term becomes, so that no weight is left between its levels."""


def reconstruct(
    model: Model,
    rounded: Model,
    found: Sequence[Fulfilled],
    settings: RoundingSettings,
    seed: int,
    context: Surroundings,
) -> dict[str, Fulfilled]:
    """Learn which of two neighbouring levels each weight goes to, stretch by stretch.

    Args:
        model: before it was rounded; it is not changed.
        rounded: the same graph with quantizers of activations, where there are to be some; its weights are edited.
        found: the codes that every weight has been given; those whose scheme says learned are learned.
        settings: how long, and how fast.
        seed: of every random choice.
        context: the samples.

    Returns:
        Name of an array -> its new codes, where they serve better on samples that were not learned from.

    Raises:
        DataError: the samples do not fit the model.
        ModelError: torch cannot execute a stretch.
        PassError: there are no samples.
    """
    if context.calibration is None:
        raise PassError("rounding learned needs data.calibration")
    torch.set_num_threads(context.threads)
    torch.manual_seed(seed)
    copies = {weight.value.name or "": weight for weight in rounded.weights()}
    for one in found:
        copies[one.order.weight.value.name or ""].store(one.rounded())
    waiting = {one.order.weight.value.name or "": one for one in found if one.order.scheme.rounding == "learned"}
    better: dict[str, Fulfilled] = {}
    stretches = spans(model.ir, waiting)
    with TemporaryDirectory(dir=context.scratch) as folder:
        exact, made = (Staged(context.calibration, Path(folder), context.threads) for _ in range(2))
        settled: tuple[str, ...] = ()
        for number, span in enumerate(context.progress.track(stretches, "learned rounding", len(stretches))):
            given = frontier(model, settled)
            batches = _samples((model, rounded), (exact, made), given, span.ends, settled)
            place = Path(folder) / f"pool-{number}"
            pool = Pool.fill(batches, context.calibration.name, place, has_fixed_batch(model))
            stretch = _Stretch(rounded, given, span.ends, pool, settings, seed)
            choices = {name: between(waiting[name].coded, _matrix(waiting[name])) for name in span.arrays}
            codes = stretch.learn({name: (copies[name], choices[name]) for name in span.arrays})
            for name, learned in codes.items():
                better[name] = _with_codes(waiting[name], learned)
                copies[name].store(better[name].rounded())
            settled = span.ends
            shutil.rmtree(pool.folder)
    return better


class _Stretch:
    """A part of a model as a network, with samples of what goes in and of what is to come out.

    Args:
        model: whose part it is.
        given: names of the tensors that go in.
        ends: names of those that come out.
        pool: samples of both.
        settings: of the learning.
        seed: of every random choice.
    """

    def __init__(
        self,
        model: Model,
        given: Sequence[str],
        ends: Sequence[str],
        pool: Pool,
        settings: RoundingSettings,
        seed: int,
    ) -> None:
        self._pool, self._settings, self._seed = pool, settings, seed
        self._learn, self._judge = pool.split(max(len(pool) // _HELD_OUT, 1), seed)
        first = pool.batch(Rows(0, (0,))).feeds
        dtypes = {name: first[_GIVEN + name].dtype for name in given}
        self._network = Network(with_tensors(model, tuple(ends), dtypes))
        self._network.requires_grad_(False)
        self._ends = tuple(end for end in ends if np.issubdtype(first[_WANTED + end].dtype, np.floating))
        self._power = self._powers()

    def learn(self, weights: Mapping[str, tuple[Weight, Between]]) -> dict[str, Codes]:
        """Choose a level for every entry of some weights; nothing, where that is no better on samples held out."""
        before = self.error()
        places = {name: place for name, place in self._network.places.items() if name in weights}
        free = []
        for name, place in places.items():
            weight, choice = weights[name]
            parts = (torch.from_numpy(weight.as_stored(part)) for part in (choice.low, choice.gap, choice.share))
            parametrize.register_parametrization(place.owner, place.name, Relaxed(*parts))
            v: Tensor = place.owner.parametrizations[place.name].original  # type: ignore[union-attr, index]
            free.append(v.requires_grad_(True))
        if not free or not before:
            return {}
        self._descend(free, before)
        codes = {}
        with torch.no_grad():
            for name, v in zip(places, free, strict=True):
                (weight, choice), up = weights[name], v > 0
                v.copy_(torch.where(up, torch.inf, -torch.inf))
                codes[name] = choice.settled(weight.as_matrix(up.numpy()))
        return codes if self.error() < before else {}

    def error(self) -> float:
        """Mean square of what is missing in the results on the samples held out, beside their own."""
        total = count = 0.0
        with torch.no_grad():
            for rows in self._pool.pieces(self._judge, self._settings.batch):
                feeds = self._pool.batch(rows).feeds
                total += float(self._distance(tensors(feeds, _CPU), 0.0)) * self._pool.samples(rows)
                count += self._pool.samples(rows)
        return total / max(count, 1)

    def _descend(self, free: Sequence[Tensor], before: float) -> None:
        settings, entries = self._settings, sum(v.numel() for v in free)
        optimizer = torch.optim.Adam(free, settings.learning_rate)
        self._network.let_pass(settings.drop)
        for number, parts in zip(range(settings.steps), self._steps(), strict=False):
            done = number / settings.steps
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros(())
            for rows in parts:
                feeds = tensors(self._pool.batch(rows).feeds, _CPU)
                loss = loss + self._distance(feeds, settings.drop) / (before * len(parts))
            if done >= settings.warmup:
                left = 1 - (done - settings.warmup) / (1 - settings.warmup)
                exponent = _SOFTEST + (_SHARPEST - _SOFTEST) * left
                undecided = sum((1 - (2 * stretched(v) - 1).abs() ** exponent).sum() for v in free)
                loss = loss + settings.decide * _GROWTH ** (1 - left) * undecided / entries
            loss.backward()
            optimizer.step()
        self._network.let_pass(0.0)

    def _steps(self) -> Iterator[list[Rows]]:
        """The samples of step after step, without end."""
        for epoch in itertools.count():
            yield from self._pool.steps(self._learn, self._settings.batch, self._seed, epoch)

    def _distance(self, feeds: Mapping[str, Tensor], exact: float) -> Tensor:
        """Of the results from what they are to be, the mean square beside theirs.

        Args:
            feeds: of the pool.
            exact: share of the entries that come as they would be without any rounding before.
        """
        given = {}
        for name in self._network.input_names:
            made, known = feeds[_GIVEN + name], feeds[_EXACT + name]
            mixes = exact and made.is_floating_point() and made.shape == known.shape
            given[name] = torch.where(torch.rand_like(made) < exact, known, made) if mixes else made
        results = self._network.run(given)
        total = torch.zeros(())
        for end in self._ends:
            total = total + (results[VALUE + end] - feeds[_WANTED + end]).square().mean() / self._power[end]
        return total / max(len(self._ends), 1)

    def _powers(self) -> dict[str, float]:
        first = next(self._pool.pieces(self._learn, _POWER_SAMPLES))
        feeds = self._pool.batch(first).feeds
        return {end: max(float(np.square(feeds[_WANTED + end]).mean()), _TINY) for end in self._ends}


def _samples(
    models: tuple[Model, Model],
    runs: tuple[Staged, Staged],
    given: Sequence[str],
    ends: Sequence[str],
    settled: Sequence[str],
) -> Iterator[Batch]:
    """What a stretch is given by the layers before it, with and without rounding, and what it is to make of it."""
    model, rounded = models
    exact = runs[0].run(model, (*given, *ends), settled)
    for known, made in zip(exact, runs[1].run(rounded, given, settled), strict=True):
        feeds = {_GIVEN + name: made[name] for name in given}
        feeds |= {_EXACT + name: known[name] for name in given}
        feeds |= {_WANTED + name: known[name] for name in ends}
        yield Batch(feeds, {}, max((len(known[name]) for name in ends if known[name].ndim), default=1))


def _matrix(one: Fulfilled) -> Floats:
    return one.order.weight.matrix()


def _with_codes(one: Fulfilled, learned: Codes) -> Fulfilled:
    """The same with other codes; inputs that were added to fill up blocks keep theirs."""
    codes = one.coded.codes.copy()
    codes[:, : learned.shape[1]] = learned
    return replace(one, coded=replace(one.coded, codes=codes))

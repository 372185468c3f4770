"""What narrower groups of channels do to the outputs, measured: one alone, and one among others.

Drifts do not add up: what a group loses weighs more, or less, once other groups have lost something too. So what a
group's error is worth is measured again around a choice of widths, with all others as chosen, in place of the random
search for such coefficients of Frantar & Alistarh 2022, "SPDY: Accurate Pruning with Speedup Guarantees".
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from compressor.calibration.narrowing import dropped_units
from compressor.calibration.prospects import Prospect
from compressor.graph.channels import Channels
from compressor.graph.model import Model
from compressor.numerics.affine import Doubles, Floats
from compressor.progress import Progress

_STEP = 4.0
"""What an error is worth falls to such a part of it at most in one round: single measurements are noisy."""

_SHARES = (1.0, 0.5, 0.25)
"""Of the way to what was measured, in logarithms: losses around a choice hold near it, and may lead too far."""


class Trials:
    """Copies of a model whose groups count for no more than they would if they were narrower.

    Args:
        model: that is to be pruned.
        channels: its groups.
        drift: of a model from this one.
    """

    def __init__(self, model: Model, channels: Channels, drift: Callable[[Model], float]) -> None:
        self._model, self._channels, self._drift = model, channels, drift
        self._weights = {weight.value.name or "": weight for weight in model.weights()}
        self._readers = lru_cache(len(channels.groups) + 1)(Prospect.readers)

    def drift(self, prospects: Sequence[Prospect], widths: Sequence[int]) -> float:
        """Of the outputs when these groups have these widths, all else being as it is."""
        pairs = [(prospect, width) for prospect, width in zip(prospects, widths, strict=True)]
        relaxed = any(prospect.group.relaxed and width < prospect.group.width for prospect, width in pairs)
        drift = self._drift(self._narrowed(pairs, cut=relaxed))
        if not math.isfinite(drift) and not relaxed:  # somewhere zeros are divided by, or their logarithm is taken
            drift = self._drift(self._narrowed(pairs, cut=True))
        return drift

    def _narrowed(self, pairs: Sequence[tuple[Prospect, int]], cut: bool) -> Model:
        """With what goes set to zero, or cut out, which takes longer."""
        trial, changed = self._model.copy(), self._changed(pairs)
        for weight in trial.weights():
            matrix = changed.get(weight.value.name or "")
            if matrix is not None:
                weight.store(matrix)
        dropped = dropped_units(*zip(*pairs, strict=True))
        if cut:
            Channels.of(trial, self._channels.shapes).drop(dropped)
        else:
            self._channels.mask(trial, dropped)
        return trial

    def _changed(self, pairs: Sequence[tuple[Prospect, int]]) -> dict[str, Floats]:
        """Matrices of all layers that make up for something; where one reads two groups, it does so for both."""
        changed: dict[str, Floats] = {}
        for prospect, width in pairs:
            for name, matrix in self._readers(prospect, width).items() if width < prospect.group.width else ():
                before = self._weights[name].matrix()
                changed[name] = changed.get(name, before) + (matrix - before)
        return changed


def losses_around(
    trials: Trials, prospects: Sequence[Prospect], losses: Sequence[Doubles], widths: Sequence[int], progress: Progress
) -> Iterator[Doubles]:
    """Drift of the outputs at every width of a group, as it changes from the chosen one while others stay as chosen.

    Every group is tried with half of what it gave up, and with half as much as it may give up yet; between and beyond,
    the drift follows the errors.

    Args:
        trials: to measure with.
        prospects: the groups.
        losses: of every width as they were thought to be.
        widths: chosen for every group.
        progress: told about every group.
    """
    here = trials.drift(prospects, widths)
    for i, prospect in enumerate(progress.track(prospects, "groups together", len(prospects))):
        errors, at = prospect.errors(), prospect.widths.index(widths[i])
        moves = errors - errors[at]
        for other, side in ((at // 2, slice(at)), ((at + len(errors)) // 2, slice(at + 1, None))):
            if other != at and errors[other] != errors[at]:
                tried = [*widths[:i], prospect.widths[other], *widths[i + 1 :]]
                worth = (trials.drift(prospects, tried) - here) / (errors[other] - errors[at])
                before = (losses[i][other] - losses[i][at]) / (errors[other] - errors[at])
                moves[side] *= max(worth, before / _STEP)
        yield moves - moves[0]


def widths_tried(
    trials: Trials,
    prospects: Sequence[Prospect],
    losses: Sequence[Doubles],
    choose: Callable[[Sequence[Doubles]], list[int]],
    rounds: int,
    progress: Progress,
) -> list[int]:
    """Widths of all groups that drift least together of those that were tried.

    Args:
        trials: to measure with.
        prospects: the groups.
        losses: of every width, alone.
        choose: the widths of least loss within a budget.
        rounds: times that losses are measured around the best widths so far, until that leads to none better.
        progress: told about every group.
    """
    best = choose(losses)
    drift = trials.drift(prospects, best) if rounds else 0.0
    for _ in range(rounds):
        around = list(losses_around(trials, prospects, losses, best, progress))
        for share in _SHARES:
            mixed = [old ** (1 - share) * new**share for old, new in zip(losses, around, strict=True)]
            widths = choose(mixed)
            reached = trials.drift(prospects, widths)
            if reached < drift:
                best, drift, losses = widths, reached, mixed
                break
        else:
            break
    return best

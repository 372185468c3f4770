"""What the outputs owe to weights, by gradients, for passes that know nothing of torch."""

from collections.abc import Collection, Iterator

import numpy as np

from compressor.calibration.coding import Fulfilled, Surroundings
from compressor.data import Dataset
from compressor.errors import PassError, UsageError
from compressor.graph.model import Model
from compressor.numerics.affine import Floats


def output_gradients(
    model: Model, arrays: Collection[str], data: Dataset, seed: int, context: Surroundings
) -> Iterator[dict[str, Floats]]:
    """See `gradients.draws`.

    Raises:
        CompressorError: see there.
        UsageError: there is no torch.
    """
    try:
        from compressor.training.gradients import draws  # imports torch
    except ModuleNotFoundError as error:
        raise UsageError("gradients need torch: pip install 'compressor[torch]'") from error
    return draws(model, arrays, data, seed, context)


class GradientProbe:
    """What codes do to the outputs, to first order: the mean of (Δw · g)² over draws; all at once.

    The logit Jacobian in place of the Fisher information of a loss, which hangs on few samples where a model is
    sure of most.

    Args:
        model: whose weights are coded.
        seed: of the draws.
        context: the samples.
    """

    def __init__(self, model: Model, seed: int, context: Surroundings) -> None:
        self._model, self._seed, self._context = model, seed, context
        self._changes: dict[str, tuple[str, Floats]] = {}

    def add(self, coding: Fulfilled) -> None:
        """Ask for the codes of one more weight."""
        weight = coding.order.weight
        change = coding.rounded() - weight.matrix()
        self._changes[weight.value.name or ""] = weight.name, weight.as_stored(change)

    def drifts(self) -> dict[str, float]:
        """Name of a weight -> change of the outputs beside their power.

        Raises:
            PassError: there are no samples.
        """
        if self._context.calibration is None:
            raise PassError("sensitivity gradient needs data.calibration")
        sums, count = dict.fromkeys(self._changes, 0.0), 0
        data = self._context.calibration
        for drawn in output_gradients(self._model, self._changes.keys(), data, self._seed, self._context):
            for name, gradient in drawn.items():
                sums[name] += float(np.vdot(self._changes[name][1], gradient)) ** 2
            count += 1
        return {self._changes[name][0]: total / max(count, 1) for name, total in sums.items()}

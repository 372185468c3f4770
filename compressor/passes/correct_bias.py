"""Biases moved so that every quantized layer makes on average what it made before: after quantization.

Nagel et al. 2019, with means measured on sample data (`numerics/bias_correction.py`). Layers are corrected
from the input to the output in up to sixteen stages, each measured on the model as corrected so far, because
a corrected layer changes the means of all behind it. A stage, or else a single layer of it, is kept only if
the drift of the outputs falls by a hundredth.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from compressor.calibration.shifts import collect_shifts
from compressor.errors import PassError
from compressor.evaluate.judge import Judge
from compressor.graph.biases import bias_refusal, move_bias
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.twins import Twins, find_twins
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats
from compressor.numerics.bias_correction import LEAST_CORRELATION, ChannelMoments
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip

_STAGES = 16

_WORTH_IT = 0.99
"""Share of the drift that may be left: less is gained on any samples by chance."""

Shift = tuple[Twins, Floats]


class CorrectBias(Pass):
    """Bias correction: restore the mean outputs of quantized layers. Goes last; costs nothing at run time."""

    type: Literal["correct_bias"] = "correct_bias"

    @property
    def needs_calibration(self) -> bool:
        """Always."""
        return True

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Measure, move and judge, stage by stage."""
        layers: list[Twins] = []
        for weight in context.reference.weights(self.selectors):
            layer = _correctable(weight, model)
            if isinstance(layer, str):
                yield Skip(weight.name, weight.layer, layer)
            else:
                layers.append(layer)
        if layers:
            trials = _Trials(model, context.judge)
            size = -(-len(layers) // _STAGES)
            for start in range(0, len(layers), size):
                yield from _stage(layers[start : start + size], trials, context)


def _correctable(weight: Weight, model: Model) -> Twins | str:
    """The layer of a weight of the reference, or why its bias cannot be corrected."""
    layer = find_twins(weight, model)
    return layer if isinstance(layer, str) else bias_refusal(model, layer) or layer


class _Trials:
    """A model that is changed as long as that brings it nearer to the reference."""

    def __init__(self, model: Model, judge: Judge) -> None:
        self.model, self._judge = model, judge
        self._drift = judge.drift(model)

    def keep(self, shifts: Sequence[Shift]) -> bool:
        """Move these biases; returns False, and leaves all as it was, when the drift hardly falls."""
        trial = self.model.copy()
        for layer, shift in shifts:
            move_bias(trial, layer, shift)
        settle(trial.ir)
        drift = self._judge.drift(trial)
        if drift > _WORTH_IT * self._drift:
            return False
        self.model.ir, self._drift = trial.ir, drift
        return True


def _stage(layers: Sequence[Twins], trials: _Trials, context: Context) -> Iterator[Finding]:
    """Correct all of these layers at once, or else one after the other."""
    shifts: list[Shift] = []
    for layer, moments in zip(layers, _moments(layers, trials.model, context), strict=True):
        if moments.correlation() < LEAST_CORRELATION:
            yield Skip(layer.layer, layer.layer_type, "what it makes no longer follows the reference")
        else:
            shifts.append((layer, moments.shift()))
    together = trials.keep(shifts)
    for layer, shift in shifts:
        if together or (len(shifts) > 1 and trials.keep([(layer, shift)])):
            yield Change(layer.layer, layer.layer_type, f"bias moved by up to {np.abs(shift).max():.2g}")
        else:
            yield Skip(layer.layer, layer.layer_type, "with its mean restored the outputs drift hardly less")


def _moments(layers: Sequence[Twins], model: Model, context: Context) -> list[ChannelMoments]:
    if context.calibration is None:
        raise PassError("correct_bias: needs data.calibration, to measure what layers make on average")
    models = context.reference, model
    return collect_shifts(models, layers, context.calibration, context.scratch, context.progress, context.threads)

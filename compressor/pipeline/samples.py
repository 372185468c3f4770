"""Which samples passes learn from, and which the result is judged on."""

from dataclasses import dataclass

from compressor.data import AnySource, Dataset, MetricName, RandomSource
from compressor.graph.model import Model

_MOST_HELD_OUT = 512


@dataclass(frozen=True, slots=True)
class Samples:
    """The data of a run.

    Attributes:
        calibration: for the passes; None when the recipe has none.
        evaluation: for the judgement; there always is some.
        seen: what the report says of the evaluation data.
        metric: of accuracy, if there are labels.
        warnings: what the reader must know of the data.
    """

    calibration: Dataset | None
    evaluation: Dataset
    seen: str
    metric: MetricName | None
    warnings: tuple[str, ...]


def open_samples(calibration: AnySource | None, evaluation: AnySource | None, model: Model, seed: int) -> Samples:
    """Open both, and hold samples out where they would be the same.

    Raises:
        DataError: missing, empty, or not fitting the model.
    """
    if calibration is None:
        return _only_evaluation(evaluation, model, seed)
    warnings = _warnings(calibration)
    if evaluation is not None and not calibration.same_samples(evaluation):
        learn = calibration.open(model, "data.calibration", seed)
        judge = evaluation.open(model, "data.evaluation", seed)
        return Samples(learn, judge, "", evaluation.metric, warnings)
    source = evaluation if evaluation is not None else calibration
    learn, judge = source.open_split(model, "data.calibration", seed, calibration.samples)
    if not len(judge):
        return Samples(learn, learn, ", seen in calibration", source.metric, warnings)
    most = source.samples if evaluation is not None else _MOST_HELD_OUT
    held_out = judge.split(most or len(judge))[0]
    return Samples(learn, held_out, ", held out", source.metric, warnings)


def _only_evaluation(evaluation: AnySource | None, model: Model, seed: int) -> Samples:
    if evaluation is not None:
        return Samples(None, evaluation.open(model, "data.evaluation", seed), "", evaluation.metric, ())
    made_up = RandomSource(samples=16).open(model, "data", seed)
    warning = "no data given: fidelity is measured on random inputs, and says little about real ones"
    return Samples(None, made_up, "", None, (warning,))


def _warnings(calibration: AnySource) -> tuple[str, ...]:
    if not isinstance(calibration, RandomSource):
        return ()
    return ("calibrated on random inputs: ranges say little about real data; give data.calibration for a real model",)

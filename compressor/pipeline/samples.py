"""Which samples passes learn from, and which the result is judged on."""

from dataclasses import dataclass, replace

from compressor.data import AnySource, Dataset, MetricName, RandomSource
from compressor.graph.model import Model

_MOST_HELD_OUT = 512
_MADE_UP = 16


@dataclass(frozen=True, slots=True)
class Samples:
    """The data of a run.

    Attributes:
        calibration: for the passes; None when the recipe has none.
        evaluation: for the judgement; there always is some.
        seen: what the report says of the evaluation data.
        metric: of accuracy, if there are labels.
        made_up: whether calibration and evaluation are random inputs.
        training: for passes that train; None when they take those of calibration.
        seen_in_training: whether the evaluation data is what passes train on.
    """

    calibration: Dataset | None
    evaluation: Dataset
    seen: str
    metric: MetricName | None
    made_up: tuple[bool, bool]
    training: Dataset | None = None
    seen_in_training: bool = False

    def warnings(self, calibrated: bool) -> tuple[str, ...]:
        """What the reader must know of the data.

        Args:
            calibrated: whether a pass used the calibration data.
        """
        found = []
        if calibrated and self.made_up[0]:
            found.append("calibrated on random inputs: ranges say little about real ones; give data.calibration")
        if self.made_up[1]:
            found.append("fidelity is measured on random inputs, and says little about real ones")
        if self.seen_in_training:
            found.append("data.training and data.evaluation are the same samples: the figures flatter the result")
        return tuple(found)


def open_samples(
    calibration: AnySource | None, training: AnySource | None, evaluation: AnySource | None, model: Model, seed: int
) -> Samples:
    """Open all, and hold samples out where those to judge by would be those of calibration.

    Raises:
        DataError: missing, empty, or not fitting the model.
    """
    opened = _open_two(calibration, evaluation, model, seed)
    if training is None:
        return opened
    same = evaluation is not None and training.same_samples(evaluation, model.inputs())
    return replace(opened, training=training.open(model, "data.training", seed), seen_in_training=same)


def _open_two(calibration: AnySource | None, evaluation: AnySource | None, model: Model, seed: int) -> Samples:
    if calibration is None:
        return _only_evaluation(evaluation, model, seed)
    random = isinstance(calibration, RandomSource)
    if evaluation is not None and not calibration.same_samples(evaluation, model.inputs()):
        learn = calibration.open(model, "data.calibration", seed)
        judge = evaluation.open(model, "data.evaluation", seed)
        return Samples(learn, judge, "", evaluation.metric, (random, isinstance(evaluation, RandomSource)))
    source = evaluation if evaluation is not None else calibration
    learn, judge = source.open_split(model, "data.calibration", seed, calibration.samples)
    if not len(judge):
        return Samples(learn, learn, ", seen in calibration", source.metric, (random, random))
    most = source.samples if evaluation is not None else _MOST_HELD_OUT
    held_out = judge.split(most or len(judge))[0]
    return Samples(learn, held_out, ", held out", source.metric, (random, random))


def _only_evaluation(evaluation: AnySource | None, model: Model, seed: int) -> Samples:
    source = evaluation or RandomSource(samples=_MADE_UP)
    judge = source.open(model, "data.evaluation", seed)
    return Samples(None, judge, "", source.metric, (False, isinstance(source, RandomSource)))

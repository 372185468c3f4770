"""What is minimized: the distance of a student from its teacher, over all outputs, features and labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import PassError
from compressor.training import losses
from compressor.training.settings import LossName, TrainingSettings

Tensors = Mapping[str, Tensor]

_SUMS_TO_ONE = 1e-3


@dataclass(frozen=True, slots=True)
class Match:
    """An output and how it follows the teacher's.

    Attributes:
        name: of the output in both.
        loss: the distance.
        power: mean square of the teacher's entries.
        scores: whether the last axis holds scores of classes.
        probabilities: whether these are probabilities rather than logits.
    """

    name: str
    loss: LossName
    power: float
    scores: bool = False
    probabilities: bool = False


@dataclass(frozen=True, slots=True)
class Feature:
    """A tensor inside that follows one of the teacher's.

    Attributes:
        student: its name.
        teacher: name of the teacher's.
        power: mean square of the teacher's entries.
        projection: makes it as wide as the teacher's; None where it is.
    """

    student: str
    teacher: str
    power: float
    projection: nn.Module | None


@dataclass(frozen=True, slots=True)
class Example:
    """What is known of the samples of a step besides what goes into the models.

    Attributes:
        samples: how many.
        labels: output -> class numbers, or "" for the only ones.
        mask: name -> which positions of a text are real, (samples, positions).
        share: of every sample that is itself, where samples were blended.
        partners: the other sample of each, (samples,).
    """

    samples: int
    labels: Tensors
    masks: Tensors
    share: float = 1.0
    partners: Tensor | None = None

    def known(self) -> int:
        """How many labels there are."""
        return sum(int((labels >= 0).sum()) for labels in self.labels.values())


def matches(
    outputs: Tensors, samples: int, settings: TrainingSettings, vocabularies: frozenset[int]
) -> tuple[Match, ...]:
    """How every float output is to be followed.

    Args:
        outputs: of the teacher, for some samples.
        samples: how many.
        settings: may say it, for all or by name.
        vocabularies: sizes of the model's tables: scores over so many tokens are those of a language model.

    Raises:
        PassError: there is no such output, or it has no classes.
    """
    given = settings.loss if isinstance(settings.loss, dict) else {}
    unknown = sorted(given.keys() - outputs.keys())
    if unknown:
        raise PassError(f"loss names {unknown[0]}, which is no output of both; there are {', '.join(outputs)}")
    found = []
    for name, output in outputs.items():
        wanted = given.get(name) if given else settings.loss
        if not output.is_floating_point() or (given and wanted is None):
            continue
        scores = _are_scores(output, samples, vocabularies)
        loss: LossName = wanted if isinstance(wanted, str) else "kl" if scores else "mse"
        if loss == "kl" and (output.dim() < 2 or output.shape[-1] < 2):
            raise PassError(f"loss kl is for scores of classes, but {name} is {list(output.shape)}; use mse")
        scores = scores or loss == "kl"
        found.append(Match(name, loss, power_of(output), scores, _are_probabilities(output)))
    if not found:
        raise PassError("no output holds floats that a student could follow")
    return tuple(found)


class Objective:
    """Loss of every sample.

    Args:
        matches: outputs to follow.
        features: tensors inside to follow.
        settings: of the losses.
    """

    def __init__(self, matches: Sequence[Match], features: Sequence[Feature], settings: TrainingSettings) -> None:
        self._matches, self._features, self._settings = tuple(matches), tuple(features), settings
        self._alpha = 1.0 if settings.alpha is None else settings.alpha

    def followed(self) -> dict[str, str]:
        """Output -> the loss by which it follows the teacher."""
        return {match.name: match.loss for match in self._matches}

    def projections(self) -> list[nn.Module]:
        """What learns beside the student and is dropped afterwards."""
        return [feature.projection for feature in self._features if feature.projection is not None]

    def loss(self, student: Tensors, teacher: Tensors, example: Example) -> Tensor:
        """(samples,)."""
        total = torch.zeros(example.samples, device=next(iter(student.values())).device)
        if self._alpha:
            for match in self._matches:
                total = total + self._alpha * self._followed(
                    match, self._settings.temperature, student, teacher, example
                )
            for feature in self._features:
                own = student[feature.student]
                projected = own if feature.projection is None else feature.projection(own)
                rows = losses.row_loss("mse", 1.0, feature.power)
                distance = _distance(rows, projected, teacher[feature.teacher], None, example.samples)
                total = total + self._settings.feature_weight * distance / len(self._features)
        if self._alpha < 1:
            total = total + (1 - self._alpha) * self._labelled(student, example)
        return total

    def divergence(self, student: Tensors, teacher: Tensors, example: Example) -> Tensor:
        """What is judged by, (samples,): the loss at a temperature of 1, without features.

        That is KL in nats for class scores, and the error beside the power for all else, unless the recipe says more.
        """
        total = torch.zeros(example.samples, device=next(iter(student.values())).device)
        for match in self._matches:
            total = total + self._alpha * self._followed(match, 1.0, student, teacher, example)
        if self._alpha < 1:
            total = total + (1 - self._alpha) * self._labelled(student, example)
        return total

    def correct(self, outputs: Tensors, example: Example) -> int:
        """How many samples get the class of their label, in the first output of scores."""
        name = next((match.name for match in self._matches if match.scores), None)
        labels = example.labels.get("", example.labels.get(name or ""))
        if name is None or labels is None or labels.shape != outputs[name].shape[:-1]:
            return 0
        return int((outputs[name].argmax(-1) == labels).sum())

    def check_labels(self, labels: Iterable[tuple[str, NDArray[Any]]], outputs: Tensors) -> None:
        """Refuse labels that are no classes of an output.

        Args:
            labels: output, or "", and class numbers, (samples, ...).
            outputs: of the student, for some samples.

        Raises:
            PassError: there is no such output, or labels do not fit it.
        """
        for name, array in labels:
            match, told = self._labelled_by(name), f"labels {name or 'of the training data'}"
            shape = outputs[match.name].shape
            if array.dtype.kind not in "iu" or array.ndim != len(shape) - 1:
                raise PassError(
                    f"{told} are {array.dtype} {list(array.shape)}, and not one class number for each row of scores of "
                    f"output {match.name}, {list(shape)}"
                )
            if array.max(initial=0) >= shape[-1]:
                raise PassError(
                    f"{told} go up to {array.max()}, and output {match.name} has classes 0 to {shape[-1] - 1}; what "
                    "has no label takes a negative number"
                )

    def _labelled_by(self, name: str) -> Match:
        """The output that labels are for."""
        scores = [match for match in self._matches if match.scores]
        found = next((match for match in scores if not name or match.name == name), None)
        if found is None:
            raise PassError(f"labels {name or 'of the data'} belong to no output with scores of classes; use alpha: 1")
        return found

    def _followed(
        self, match: Match, temperature: float, student: Tensors, teacher: Tensors, example: Example
    ) -> Tensor:
        own, other = student[match.name], teacher[match.name]
        if match.probabilities and match.loss == "kl":
            own, other = (torch.log(scores.clamp(min=1e-12)) for scores in (own, other))
        rows = losses.row_loss(match.loss, temperature, match.power)
        mask = _mask_of(own, example)
        by_position = match.loss in ("kl", "cosine") or (mask is not None and match.loss == "mse")
        if not by_position or own.shape[:1] != (example.samples,):
            return _distance(rows, own, other, None, example.samples)
        return _distance(rows, own, other, mask, example.samples, positions=True)

    def _labelled(self, student: Tensors, example: Example) -> Tensor:
        total = torch.zeros(example.samples, device=next(iter(student.values())).device)
        for name, labels in example.labels.items():
            match = self._labelled_by(name)
            scores = student[match.name]
            if match.probabilities:
                scores = torch.log(scores.clamp(min=1e-12))
            total = total + self._crossed(scores, labels, example)
        return total

    def _crossed(self, scores: Tensor, labels: Tensor, example: Example) -> Tensor:
        rows = scores.reshape(-1, scores.shape[-1])
        found = losses.cross_entropy(rows, labels.reshape(-1).long())
        if example.share < 1 and example.partners is not None:
            other = losses.cross_entropy(rows, labels[example.partners].reshape(-1).long())
            found = example.share * found + (1 - example.share) * other
        return found.reshape(example.samples, -1).mean(1)


def power_of(array: Tensor) -> float:
    """Mean square of the entries."""
    return float(array.float().square().mean())


def projection(student: Tensor, teacher: Tensor, names: tuple[str, str]) -> nn.Module | None:
    """What makes one feature as wide as the other; None where it is.

    Raises:
        PassError: they differ in more than their width.
    """
    if student.shape == teacher.shape:
        return None
    axis = 1 if student.dim() == 4 else student.dim() - 1
    rest = [tuple(size for i, size in enumerate(t.shape) if i != axis) for t in (student, teacher)]
    if student.dim() != teacher.dim() or student.dim() < 2 or rest[0] != rest[1]:
        raise PassError(
            f"features: {names[0]} is {list(student.shape)} and {names[1]} of the teacher {list(teacher.shape)}; "
            "they may differ in their width only"
        )
    return _Projection(student.shape[axis], teacher.shape[axis], axis)


class _Projection(nn.Module):
    """A linear map of one axis; at first the identity, as far as that goes."""

    def __init__(self, width: int, wanted: int, axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(wanted, width))
        self._axis = axis

    def forward(self, x: Tensor) -> Tensor:
        moved = x.movedim(self._axis, -1) @ self.weight.T
        return moved.movedim(-1, self._axis)


def _distance(
    rows: losses.RowLoss, own: Tensor, other: Tensor, mask: Tensor | None, samples: int, positions: bool = False
) -> Tensor:
    """(samples,); where an output has no axis of samples, all share its distance.

    Args:
        rows: the distance of rows of values.
        own: of the student.
        other: of the teacher.
        mask: which positions count, (samples, positions).
        samples: how many.
        positions: whether every position of the last axis but one is a row of its own.
    """
    if own.shape != other.shape:
        raise PassError(f"the student makes {list(own.shape)} where the teacher makes {list(other.shape)}")
    if own.shape[:1] != (samples,):
        return rows(own.reshape(1, -1), other.reshape(1, -1)).expand(samples)
    width = own.shape[-1] if positions and own.dim() > 1 else prod(own.shape[1:])
    found = rows(own.reshape(-1, width), other.reshape(-1, width)).reshape(samples, -1)
    if mask is None:
        return found.mean(1)
    weights = mask.to(own.dtype)
    return (found * weights).sum(1) / weights.sum(1).clamp(min=1)


def _mask_of(output: Tensor, example: Example) -> Tensor | None:
    """Which positions count, for an output of (samples, positions, values) or (samples, positions)."""
    if output.dim() != 3:
        return None
    return next((mask for mask in example.masks.values() if mask.shape == output.shape[:2]), None)


def _are_scores(output: Tensor, samples: int, vocabularies: frozenset[int]) -> bool:
    if output.dim() == 3:
        return output.shape[-1] in vocabularies
    if output.dim() != 2 or output.shape[1] < 2 or len(output) != samples:
        return False
    unit = bool((output.norm(dim=1) - 1).abs().max() < _SUMS_TO_ONE) and bool((output < 0).any())
    return not unit


def _are_probabilities(output: Tensor) -> bool:
    if output.dim() < 2 or bool((output < 0).any()):
        return False
    return bool((output.sum(-1) - 1).abs().max() < _SUMS_TO_ONE)

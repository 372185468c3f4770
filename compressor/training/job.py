"""A training as something that several processes can be told to do: files, settings, and the work itself."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compressor.errors import DataError, PassError
from compressor.graph.features import has_tensor, shared_features
from compressor.graph.latent import Freed, free, is_quantized
from compressor.graph.model import Model
from compressor.graph.normalizing import Normalized, normalize, settle
from compressor.graph.observe import VALUE, with_more_outputs
from compressor.graph.select import Selectors
from compressor.progress import Progress
from compressor.runtime.autograd import Network
from compressor.runtime.ort import Array
from compressor.training import augment
from compressor.training.loop import History, Trainer, held_out
from compressor.training.objective import Feature, Match, Objective, Tensors, matches, power_of, projection
from compressor.training.pool import Pool, Rows
from compressor.training.settings import FeaturePair, TrainingSettings
from compressor.training.student import Student
from compressor.training.teacher import NetworkTeacher, SessionTeacher, Teacher, Teachers, tensors
from compressor.training.world import World

_MEASURED = 16
"""Batches from which the statistics of a normalization are taken at first."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a process has to know.

    Attributes:
        student: file of the model that learns.
        teachers: files of those it learns from.
        pool: folder of the samples.
        checkpoint: file that is written from time to time.
        scratch: folder for temporary files.
        settings: of the training.
        selectors: of the layers that learn.
        seed: of every random choice.
        threads: of this process.
    """

    student: Path
    teachers: tuple[Path, ...]
    pool: Path
    checkpoint: Path
    scratch: Path
    settings: TrainingSettings
    selectors: Selectors
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a job.

    Attributes:
        student: in the state that is kept.
        history: how it got there.
        followed: output -> the loss by which it followed the teacher.
        warnings: what the user should know.
    """

    student: Student
    history: History
    followed: Mapping[str, str]
    warnings: tuple[str, ...]


def work(job: Job, world: World, progress: Progress) -> Trained:
    """Train, in this process, as one of those that do.

    Raises:
        DataError: the samples do not fit one of the models.
        ModelError: torch cannot execute the student.
        PassError: the settings ask for what is not there, or nothing could be learned.
    """
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    settings, device = job.settings, chosen_device(job.settings.device)
    model, first, pool = Model.load(job.student), Model.load(job.teachers[0]), Pool(job.pool)
    augment.check(settings.augment, model.inputs())
    pairs = feature_pairs(settings, model, first)
    teacher = Teachers(
        [
            _teacher(path, pairs if number == 0 else (), job, device, world, number)
            for number, path in enumerate(job.teachers)
        ]
    )
    names = tuple(dict.fromkeys(pair.student for pair in pairs))
    freed = free(model)
    restores = settings.batch_norm == "restore"
    if settings.batch_norm != "fixed" and world.size > 1:
        raise PassError(f"batch_norm: {settings.batch_norm} is for one process, which sees whole batches; leave it out")
    normalized = normalize(freed.model, job.selectors) if restores and _may_normalize(freed, settings) else []
    learn, _ = pool.split(held_out(pool), job.seed)
    measure(freed.model, normalized, pool, learn, settings.batch)
    student = Student(freed, normalized, names, job.selectors, settings, device)
    objective = _objective(student, teacher, pool, pairs, settings, _vocabularies(first))
    trainer = Trainer(student, teacher, objective, pool, settings, job.seed, world, device)
    warnings = [*trainer.doubts()]
    if restores and not normalized:
        warnings.append("distill: batch_norm: restore finds no convolution of floats that it could normalize")
    if settings.augment and not any(pool.varies(bucket) for bucket in range(pool.buckets)):
        warnings.append("distill: augment does nothing: an input of the model does not begin with the samples")
    return Trained(student, trainer.run(job.checkpoint, progress), objective.followed(), tuple(warnings))


def _may_normalize(freed: Freed, settings: TrainingSettings) -> bool:
    """Whether normalization can be folded away again: not where the scale of a layer is that of its codes."""
    return settings.only == "all" and not freed.names and not is_quantized(freed.model)


def measure(model: Model, normalized: Sequence[Normalized], pool: Pool, learn: Sequence[Rows], batch: int) -> None:
    """Let the normalizations that were put into a model know what goes through them, on some batches."""
    if not normalized:
        return
    observed = Network(with_more_outputs(model, [entry.output for entry in normalized]))
    sums = {entry.output: np.zeros((2, 1)) for entry in normalized}
    count = 0
    with torch.no_grad():
        for parts in pool.steps(learn, batch, 0, 0)[:_MEASURED]:
            for part in parts:
                outputs = observed.run(tensors(pool.batch(part).feeds, torch.device("cpu")))
                for entry in normalized:
                    tensor = outputs[VALUE + entry.output].double()
                    axes = [axis for axis in range(tensor.dim()) if axis != 1]
                    variance, mean = torch.var_mean(tensor, axes, correction=0)
                    sums[entry.output] = sums[entry.output] + torch.stack([mean, variance + mean**2]).numpy()
                count += 1
    for entry in normalized:
        mean, power = sums[entry.output] / count
        settle(model, entry, mean, power - mean**2)


def chosen_device(wanted: str) -> torch.device:
    """The device that a recipe asks for.

    Raises:
        PassError: there is no such device.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise PassError("device cuda: torch finds none on this machine; use device: auto")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def feature_pairs(settings: TrainingSettings, student: Model, teacher: Model) -> tuple[FeaturePair, ...]:
    """The tensors inside that are to become alike.

    Raises:
        PassError: one of them is not there.
    """
    if settings.features == "auto":
        found = shared_features(student, teacher)
        if not found:
            raise PassError("features: auto finds no tensor of the same name in student and teacher; name the pairs")
        return tuple(FeaturePair(student=name, teacher=name) for name in found)
    for pair in settings.features:
        for name, model, whose in ((pair.student, student, "model"), (pair.teacher, teacher, "teacher")):
            if not has_tensor(model, name):
                raise PassError(f"features: {name} is no tensor that the {whose} computes")
    return settings.features


def _teacher(
    path: Path, pairs: Sequence[FeaturePair], job: Job, device: torch.device, world: World, number: int
) -> Teacher:
    names = [pair.teacher for pair in pairs]
    if device.type != "cpu":
        return NetworkTeacher(Model.load(path), names, device)
    return SessionTeacher(Model.load(path), names, job.scratch / f"teacher-{world.rank}-{number}.onnx", job.threads)


def _objective(
    student: Student,
    teacher: Teacher,
    pool: Pool,
    pairs: Sequence[FeaturePair],
    settings: TrainingSettings,
    vocabularies: frozenset[int],
) -> Objective:
    """The distance between the two, after a look at what both make of the first samples."""
    rows = next(pool.pieces([Rows(0, tuple(range(pool.count(0))))], settings.batch))
    batch = pool.batch(rows)
    wanted = tensors(_first(teacher, batch.feeds, "teacher"), student.device)
    with torch.no_grad():
        found = student.outputs(tensors(batch.feeds, student.device))
    features = list(_features(pairs, found, wanted, settings, student.device))
    followed = _followed(found, wanted, {f.teacher for f in features}, batch.samples, settings, vocabularies)
    objective = Objective(followed, features, settings)
    if settings.alpha is not None and settings.alpha < 1:
        if not pool.labelled:
            raise PassError("alpha below 1 mixes in labels, and the training data has none; leave alpha out")
        objective.check_labels(pool.labels(), found)
    return objective


def _features(
    pairs: Sequence[FeaturePair], found: Tensors, wanted: Tensors, settings: TrainingSettings, device: torch.device
) -> Iterator[Feature]:
    """What is to become alike inside; of what was found by itself, floats alone."""
    for pair in pairs:
        own, other = found[pair.student], wanted[pair.teacher]
        if own.is_floating_point():
            bridge = projection(own, other, (pair.student, pair.teacher))
            yield Feature(pair.student, pair.teacher, power_of(other), bridge and bridge.to(device))
        elif settings.features != "auto":
            raise PassError(f"features: {pair.student} holds no floats that could become alike")


def _followed(
    found: Tensors,
    wanted: Tensors,
    features: Collection[str],
    samples: int,
    settings: TrainingSettings,
    vocabularies: frozenset[int],
) -> tuple[Match, ...]:
    """The outputs that are to become alike, and how."""
    outputs = {name: wanted[name] for name in found if name in wanted and name not in features}
    if not outputs:
        raise PassError(f"the teacher has none of the outputs {', '.join(found)}; map them by outputs")
    followed = matches(outputs, samples, settings, vocabularies)
    for match in followed:
        if found[match.name].shape != wanted[match.name].shape:
            raise PassError(
                f"output {match.name} is {list(found[match.name].shape)}, and {list(wanted[match.name].shape)} of the "
                "teacher: they must be alike"
            )
    return followed


def _first(teacher: Teacher, feeds: Mapping[str, Array], whose: str) -> dict[str, Array]:
    try:
        outputs = teacher.outputs(feeds)
    except DataError as error:
        raise DataError(f"the {whose} does not take the training data: {error}") from error
    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise PassError(f"the {whose} itself makes NaN or infinity in {name} of the training data")
    return outputs


def _vocabularies(model: Model) -> frozenset[int]:
    return frozenset(weight.shape[0] for weight in model.weights() if weight.layer == "Gather")

"""A training from its beginning to its end: the files it needs, the processes that share it, and what it leaves."""

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compressor.data import Dataset
from compressor.errors import PassError
from compressor.graph.model import Model, data_path, sha256
from compressor.graph.select import Selectors
from compressor.progress import Progress
from compressor.runtime.launched import Launched, launched
from compressor.training.job import Job, Trained, work
from compressor.training.pool import Pool, has_fixed_batch
from compressor.training.settings import TrainingSettings
from compressor.training.world import Gang, World


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training happens.

    Attributes:
        scratch: folder that is gone after the run.
        checkpoints: folder that stays until the run has succeeded.
        threads: of all processes together.
        progress: told about every step.
    """

    scratch: Path
    checkpoints: Path
    threads: int
    progress: Progress


def distill(
    model: Model,
    teachers: Sequence[Model],
    data: Dataset,
    settings: TrainingSettings,
    selectors: Selectors,
    seed: int,
    place: Place,
) -> Trained:
    """Train a copy of a model to say what its teachers say.

    Args:
        model: the student; it is not changed, see `Student.store`.
        teachers: with outputs of the same names.
        data: samples to learn from, some of which are held out.
        settings: of the training.
        selectors: of the layers that learn.
        seed: of every random choice.
        place: where it happens.

    Raises:
        CompressorError: see `job.work`.
    """
    folder = place.scratch / "training"
    folder.mkdir(exist_ok=True)
    pool = Pool.fill(data.singly().batches(), data.name, folder / "pool", has_fixed_batch(model))
    student = folder / "student.onnx"
    model.save(student)
    files = tuple(folder / f"teacher-{number}.onnx" for number in range(len(teachers)))
    for file, teacher in zip(files, teachers, strict=True):
        teacher.save(file)
    started = launched()
    if started.size > 1 and settings.workers > 1:
        raise PassError(f"workers: {started.size} processes were launched already; leave it out")
    sharing = started.local_size if started.size > 1 else settings.workers

    def job() -> Job:
        key = _key((student, *files), pool, settings, selectors, seed)
        checkpoint, threads = place.checkpoints / f"{key}.pt", max(place.threads // sharing, 1)
        return Job(student, files, pool.folder, checkpoint, folder, settings, selectors, seed, threads)

    if started.size > 1:
        with _launched(started) as world:
            for file in (student, data_path(student)):
                world.share(file)
            said = job()
            world.share(said.checkpoint)
            return work(said, world, place.progress)
    said = job()
    with _gang(said, settings.workers) as world:
        return work(said, world, place.progress)


def _key(files: Sequence[Path], pool: Pool, settings: TrainingSettings, selectors: Selectors, seed: int) -> str:
    """Equal for trainings that would come to the same end."""
    said = [
        *(sha256(part) for file in files for part in (file, data_path(file)) if part.exists()),
        pool.digest(),
        settings.model_dump_json(exclude={"workers", "cache_bytes"}),
        selectors,
        seed,
    ]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


@contextmanager
def _launched(started: Launched) -> Iterator[World]:
    """This process among those that a launcher has started."""
    world = Gang(None, started.rank, started.size)
    try:
        yield world
    finally:
        world.close()


@contextmanager
def _gang(job: Job, size: int) -> Iterator[World]:
    """This process and, where several are wanted, those that it starts.

    Raises:
        PassError: one of the others failed.
    """
    if size == 1:
        yield World()
        return
    told, meeting = job.scratch / "job", job.scratch / f"meeting-{os.getpid()}"
    told.write_bytes(pickle.dumps(job))
    command = [sys.executable, "-W", "ignore", "-m", "compressor.training.worker", str(told)]
    others = [
        subprocess.Popen([*command, str(rank), str(size), str(meeting)], stderr=subprocess.PIPE, text=True)
        for rank in range(1, size)
    ]
    try:
        world = Gang(meeting, 0, size)
        yield world
        world.close()
        for other in others:
            other.wait()
    except RuntimeError as error:
        for other in others:
            other.terminate()
        said = [(other.communicate()[1].strip().splitlines() or [""])[-1] for other in others]
        raise PassError(f"workers: {next(filter(None, said), str(error))}") from error
    finally:
        for other in others:
            other.kill()
            other.communicate()

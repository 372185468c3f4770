"""What the student is to say: the teacher's outputs, computed once where samples are not varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_more_outputs
from compressor.runtime.autograd import Network
from compressor.runtime.autograd.values import from_numpy
from compressor.runtime.ort import Array, Feeds, Session
from compressor.training.pool import Pool, Rows


class Teacher(Protocol):
    """A model that is run and not changed."""

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs, and features under their own names."""
        ...


class SessionTeacher:
    """A teacher in ONNX Runtime.

    Args:
        model: any.
        features: names of tensors inside that are wanted too.
        file: where it may be written.
        threads: inside one operator.
    """

    def __init__(self, model: Model, features: Sequence[str], file: Path, threads: int) -> None:
        with_more_outputs(model, features).save(file)
        self._session = Session(file, threads)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """See `Teacher.outputs`."""
        return {name.removeprefix(VALUE): array for name, array in self._session.run(feeds).items()}


class NetworkTeacher:
    """A teacher in torch, where there is a device that is faster than ONNX Runtime on the processor.

    Args:
        model: of operators that torch can execute.
        features: names of tensors inside that are wanted too.
        device: that runs it.
    """

    def __init__(self, model: Model, features: Sequence[str], device: torch.device) -> None:
        self._network = Network(with_more_outputs(model, features)).to(device)
        self._device = device

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """See `Teacher.outputs`."""
        with torch.no_grad():
            made = self._network.run(tensors(feeds, self._device))
        return {name.removeprefix(VALUE): tensor.cpu().numpy() for name, tensor in made.items()}


class Teachers:
    """The mean of several teachers, or one.

    Args:
        members: what they are; features come from the first.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        self._members = tuple(members)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """The mean of every float output that all of them have; see `Teacher.outputs`."""
        first, *others = [member.outputs(feeds) for member in self._members]
        for name, array in first.items():
            further = [other[name] for other in others if name in other]
            if further and np.issubdtype(array.dtype, np.floating):
                total = sum((other.astype(np.float64) for other in further), start=array.astype(np.float64))
                first[name] = (total / (1 + len(further))).astype(array.dtype)
        return first


class Remembered:
    """Outputs of a teacher for the samples of a pool, kept on disk from the first time on.

    Args:
        teacher: asked when something is new.
        pool: of the samples, none of which is varied.
        nbytes: to keep at most; what goes beyond it is computed anew each time.
        rank: number of this process; each keeps its own.
    """

    def __init__(self, teacher: Teacher, pool: Pool, nbytes: int, rank: int) -> None:
        self._teacher, self._pool, self._left, self._rank = teacher, pool, nbytes, rank
        self._kept: dict[int, dict[str, Array] | None] = {}
        self._known = [np.zeros(pool.count(bucket), bool) for bucket in range(pool.buckets)]

    def outputs(self, rows: Rows) -> dict[str, Array]:
        """Of these samples."""
        places = list(rows.places)
        kept = self._kept.get(rows.bucket)
        if kept is not None and self._known[rows.bucket][places].all():
            alone = len(places) == 1 and self._pool.is_whole(rows.bucket)
            return {name: array[places[0]] if alone else array[places] for name, array in kept.items()}
        made = self._teacher.outputs(self._pool.batch(rows).feeds)
        whole = self._pool.is_whole(rows.bucket)
        if rows.bucket not in self._kept and (whole or len(places) > 1):  # what has one row may count something else
            kept = self._kept[rows.bucket] = self._files(rows, made)
        if kept is not None:
            for name, array in made.items():
                kept[name][places] = array[None] if whole else array
            self._known[rows.bucket][places] = True
        return made

    def _files(self, rows: Rows, made: Mapping[str, Array]) -> dict[str, Array] | None:
        """Room for the outputs of a bucket; None when it is too much, or outputs do not count samples."""
        count, whole = self._pool.count(rows.bucket), self._pool.is_whole(rows.bucket)
        if not whole and any(array.ndim == 0 or len(array) != len(rows.places) for array in made.values()):
            return None
        shapes = {name: (count, *(array.shape if whole else array.shape[1:])) for name, array in made.items()}
        self._left -= sum(int(np.prod(shape)) * made[name].itemsize for name, shape in shapes.items())
        if self._left < 0:
            return None
        file = np.lib.format.open_memmap
        folder = self._pool.folder
        return {
            name: file(folder / f"teacher-{self._rank}-{rows.bucket}-{number}.npy", "w+", made[name].dtype, shape)
            for number, (name, shape) in enumerate(shapes.items())
        }


def tensors(arrays: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Arrays as tensors of their own on a device."""
    return {name: from_numpy(array).to(device) for name, array in arrays.items()}

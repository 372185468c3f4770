"""Samples at random: streamed once onto disk, then read in any order.

Samples of one shape lie together in one file per input, and a batch is drawn from samples of one shape, so
that nothing is filled up. Where a model takes a fixed number of samples, or has an input that does not begin
with them, batches stay as they came and are drawn as wholes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from compressor.data import Batch
from compressor.errors import DataError
from compressor.graph.model import Model, sha256
from compressor.runtime.ort import Array

_MOST_BYTES = 32 << 30
_INDEX = "pool.json"
_LABELS = "labels "


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples of one shape, by their places in its files.

    Attributes:
        bucket: number of the shape.
        places: of the samples, or of whole batches.
    """

    bucket: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """An input, or a kind of label, in a bucket: its file and what one entry of it is."""

    file: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Entries of one shape.

    Attributes:
        fields: name -> file.
        count: entries.
        samples: in each entry.
        whole: whether an entry is a batch as it came.
    """

    fields: Mapping[str, _Field]
    count: int
    samples: int
    whole: bool


class Pool:
    """All samples of a dataset in a folder; processes may share it.

    Args:
        folder: that `fill` has written.

    Attributes:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stored = json.loads((folder / _INDEX).read_text())
        self._buckets = [
            _Bucket({name: _Field(**field) for name, field in entry.pop("fields").items()}, **entry) for entry in stored
        ]
        self._open = [{name: self._mapped(b, f) for name, f in b.fields.items()} for b in self._buckets]

    @classmethod
    def fill(cls, batches: Iterable[Batch], title: str, folder: Path, fixed: bool = False) -> "Pool":
        """Write samples down.

        Args:
            batches: all of them.
            title: what they are, for messages.
            folder: for them alone.
            fixed: whether the model takes batches of one size only.

        Raises:
            DataError: they cannot be read, or are too many to be kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        written: dict[str, tuple[dict[str, _Field], int, int, bool]] = {}
        total = 0
        for batch in batches:
            fields, samples, whole = _entries(batch, fixed)
            key = str([(name, array.shape[1:], str(array.dtype)) for name, array in fields.items()]) + str(whole)
            if key not in written:
                files = {
                    name: _Field(f"{len(written)}-{i}.bin", array.shape[1:], str(array.dtype))
                    for i, (name, array) in enumerate(fields.items())
                }
                for field in files.values():
                    (folder / field.file).unlink(missing_ok=True)
                written[key] = files, 0, samples, whole
            files, count, _, _ = written[key]
            for name, array in fields.items():
                with (folder / files[name].file).open("ab") as stream:
                    np.ascontiguousarray(array).tofile(stream)
                total += array.nbytes
            written[key] = files, count + len(next(iter(fields.values()))), samples, whole
            if total > _MOST_BYTES:
                raise DataError(f"{title}: training samples take more than {_MOST_BYTES >> 30} GiB; lower samples")
        buckets = [asdict(_Bucket(*entry)) for entry in written.values()]
        (folder / _INDEX).write_text(json.dumps(buckets))
        return cls(folder)

    def __len__(self) -> int:
        """How many samples."""
        return sum(bucket.count * bucket.samples for bucket in self._buckets)

    def digest(self) -> str:
        """Hash of the samples, in hexadecimal."""
        files = [self.folder / _INDEX, *(self.folder / f.file for b in self._buckets for f in b.fields.values())]
        return "".join(sha256(file) for file in files if file.exists())

    def labels(self) -> Iterator[tuple[str, Array]]:
        """All labels of one kind and shape at a time: their name, and an array on disk, (samples, ...)."""
        for bucket, arrays in zip(self._buckets, self._open, strict=True):
            for name, array in arrays.items():
                if name.startswith(_LABELS):
                    yield name.removeprefix(_LABELS), array.reshape(-1, *array.shape[1 + bucket.whole :])

    def varies(self, bucket: int) -> bool:
        """Whether samples of a bucket can be told apart within an entry: all inputs begin with them."""
        found = self._buckets[bucket]
        inputs = [field for name, field in found.fields.items() if not name.startswith(_LABELS)]
        return not found.whole or all(field.shape[:1] == (found.samples,) for field in inputs)

    @cached_property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return any(name.startswith(_LABELS) for bucket in self._buckets for name in bucket.fields)

    def split(self, held_out: int, seed: int) -> tuple[list[Rows], list[Rows]]:
        """All entries, some of them held out at random: those to learn from, those to judge by, bucket by bucket.

        Args:
            held_out: samples to hold out, about; of a single entry nothing is, and it is in both.
            seed: of the draw.
        """
        everything = [(number, place) for number, bucket in enumerate(self._buckets) for place in range(bucket.count)]
        drawn = np.random.default_rng(seed).permutation(len(everything))
        samples = np.cumsum([self._buckets[everything[i][0]].samples for i in drawn])
        first = min(int(np.searchsorted(samples, held_out)) + 1, max(len(everything) // 2, 1))
        judge = sorted(everything[i] for i in drawn[:first])
        learn = sorted(everything[i] for i in drawn[first:]) or judge
        return self._rows(learn), self._rows(judge)

    def _rows(self, entries: Sequence[tuple[int, int]]) -> list[Rows]:
        places: dict[int, list[int]] = {}
        for bucket, place in entries:
            places.setdefault(bucket, []).append(place)
        return [Rows(bucket, tuple(found)) for bucket, found in places.items()]

    def steps(self, rows: Sequence[Rows], batch: int, seed: int, epoch: int) -> list[list[Rows]]:
        """One pass over entries in random order, cut into steps; what is left of a shape comes as a smaller step.

        Args:
            rows: the entries.
            batch: samples per step.
            seed: of the order.
            epoch: number of the pass.

        Returns:
            For every step the parts that are executed one after the other; several where batches stay whole.
        """
        rng = np.random.default_rng([seed, epoch])
        found: list[list[Rows]] = []
        for part in rows:
            bucket = self._buckets[part.bucket]
            order = rng.permutation(part.places)
            size = max(batch // bucket.samples, 1)
            for start in range(0, len(order), size):
                places = tuple(int(place) for place in order[start : start + size])
                whole = [Rows(part.bucket, (place,)) for place in places]
                found.append(whole if bucket.whole else [Rows(part.bucket, places)])
        return [found[i] for i in rng.permutation(len(found))]

    def samples(self, rows: Rows) -> int:
        """How many samples these are."""
        return len(rows.places) * self._buckets[rows.bucket].samples

    def share(self, parts: Sequence[Rows], rank: int, size: int) -> list[Rows]:
        """What one of several processes executes of a step; nothing, where there is too little for all."""
        if len(parts) > 1:
            return list(parts[rank::size])
        mine = [Rows(part.bucket, part.places[rank::size]) for part in parts]
        return [part for part in mine if part.places]

    def batch(self, rows: Rows) -> Batch:
        """The samples, put together."""
        bucket = self._buckets[rows.bucket]
        arrays = {name: mapped[list(rows.places)] for name, mapped in self._open[rows.bucket].items()}
        if bucket.whole:
            arrays = {name: array[0] for name, array in arrays.items()}
        feeds = {name: array for name, array in arrays.items() if not name.startswith(_LABELS)}
        labels = {name.removeprefix(_LABELS): array for name, array in arrays.items() if name.startswith(_LABELS)}
        return Batch(feeds, labels, self.samples(rows))

    def pieces(self, rows: Sequence[Rows], batch: int) -> Iterator[Rows]:
        """Entries in their order, about `batch` samples at a time."""
        for part in rows:
            bucket = self._buckets[part.bucket]
            size = 1 if bucket.whole else max(batch // bucket.samples, 1)
            for start in range(0, len(part.places), size):
                yield Rows(part.bucket, part.places[start : start + size])

    def is_whole(self, bucket: int) -> bool:
        """Whether an entry of a bucket is a batch as it came."""
        return self._buckets[bucket].whole

    def count(self, bucket: int) -> int:
        """Entries of a bucket."""
        return self._buckets[bucket].count

    @property
    def buckets(self) -> int:
        """How many there are."""
        return len(self._buckets)

    def _mapped(self, bucket: _Bucket, field: _Field) -> Array:
        shape = (bucket.count, *field.shape)
        if 0 in shape:
            return np.zeros(shape, field.dtype)
        return np.memmap(self.folder / field.file, field.dtype, "r", shape=shape)


def has_fixed_batch(model: Model) -> bool:
    """Whether a model takes as many samples at a time as its inputs say, and no others."""
    return any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs())


def _entries(batch: Batch, fixed: bool) -> tuple[dict[str, Array], int, bool]:
    """Arrays whose first axis counts entries; samples per entry; and whether the entry is the whole batch."""
    arrays = {**batch.feeds, **{f"{_LABELS}{name}": array for name, array in batch.labels.items()}}
    if not fixed and all(array.ndim and len(array) == batch.samples for array in arrays.values()):
        return arrays, 1, False
    return {name: array[None] for name, array in arrays.items()}, batch.samples, True

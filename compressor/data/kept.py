"""Samples that are asked for many times: decoded and prepared three times at most, then read back from disk."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from compressor.data.base import Array, Batch, Dataset

_WORTH_IT = 2
"""Times that all batches were asked for before they are kept: most passes look at samples once or twice."""

_MOST_BYTES = 2 << 30
"""On disk, about; what goes beyond it is prepared anew each time."""


class KeptDataset(Dataset):
    """Another dataset, whose batches are kept in a folder when they are all asked for a third time.

    Args:
        data: where the samples come from.
        folder: for one file per batch; whoever made it removes it.
    """

    def __init__(self, data: Dataset, folder: Path) -> None:
        super().__init__(data.name, data.specs, data.batch)
        self._data, self._folder = data, folder
        self._kept: list[tuple[Path, Batch]] = []
        self._bytes = 0
        self._times = 0

    def __len__(self) -> int:
        """How many samples."""
        return len(self._data)

    def batches(self) -> Iterator[Batch]:
        """All samples once; see `Dataset.batches`."""
        kept = list(self._kept)
        for file, batch in kept:
            yield replace(batch, feeds=_read(file, batch.feeds))
        if sum(batch.samples for _, batch in kept) == len(self):
            return
        for number, batch in enumerate(self._data.batches()):
            if number >= len(kept):
                if self._times >= _WORTH_IT and number == len(self._kept):
                    self._keep(batch)
                yield batch
        self._times += 1

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """The first `first` samples, and the others; neither is kept."""
        return self._data.split(first)

    def singly(self) -> Dataset:
        """See `Dataset.singly`; nothing is kept."""
        return self._data.singly()

    def first(self) -> Batch:
        """The first batch."""
        return next(self.batches()) if self._kept else self._data.first()

    def _keep(self, batch: Batch) -> None:
        self._bytes += sum(array.nbytes for array in batch.feeds.values())
        if self._bytes <= _MOST_BYTES:
            file = self._folder / f"samples-{len(self._kept)}.npz"
            np.savez(file, *batch.feeds.values())
            self._kept.append((file, replace(batch, feeds={name: np.empty(0) for name in batch.feeds})))


def _read(file: Path, names: Mapping[str, Array]) -> dict[str, Array]:
    with np.load(file) as arrays:
        return dict(zip(names, (arrays[key] for key in arrays.files), strict=True))

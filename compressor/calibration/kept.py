"""Batches that are needed many times: decoded and prepared once, then read back from disk."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np

from compressor.data import Dataset
from compressor.runtime.ort import Feeds

_MOST_BYTES = 2 << 30


class KeptBatches:
    """What a dataset feeds, kept in a folder as it is first asked for, as long as there is room.

    Args:
        data: where it comes from.
        folder: for one file per batch; whoever made it removes it.
    """

    def __init__(self, data: Dataset, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._files: list[Path] = []
        self._names: tuple[str, ...] = ()
        self._bytes = 0

    def __len__(self) -> int:
        """How many batches."""
        return ceil(len(self._data) / self._data.batch)

    def __iter__(self) -> Iterator[Feeds]:
        """All batches, in order."""
        kept = len(self._files)
        for file in self._files:
            with np.load(file) as arrays:
                yield dict(zip(self._names, (arrays[key] for key in arrays.files), strict=True))
        if kept == len(self):
            return
        for number, batch in enumerate(self._data.batches()):
            if number >= kept:
                self._keep(number, batch.feeds)
                yield batch.feeds

    def _keep(self, number: int, feeds: Feeds) -> None:
        self._bytes += sum(array.nbytes for array in feeds.values())
        if self._bytes <= _MOST_BYTES and number == len(self._files):
            file = self._folder / f"{number}.npz"
            np.savez(file, *feeds.values())
            self._names = tuple(feeds)
            self._files.append(file)

"""Some batches of a dataset, evenly spread: to learn from most samples, and judge by the others."""

from collections.abc import Iterator
from math import ceil

from compressor.data.base import Batch, Dataset


class ThinnedDataset(Dataset):
    """Every n-th batch of another dataset, or all but these.

    Args:
        data: where the samples come from.
        every: n.
        others: whether it is all other batches.
    """

    def __init__(self, data: Dataset, every: int, others: bool) -> None:
        super().__init__(data.name, data.specs, data.batch)
        self._data, self._every, self._others = data, every, others

    def __len__(self) -> int:
        """How many samples."""
        batches, whole = ceil(len(self._data) / self.batch), len(self._data)
        sizes = (min(self.batch, whole - number * self.batch) for number in range(batches) if self._has(number))
        return sum(sizes)

    def batches(self) -> Iterator[Batch]:
        """Its samples once; see `Dataset.batches`."""
        return (batch for number, batch in enumerate(self._data.batches()) if self._has(number))

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """Not of a part of a dataset."""
        raise NotImplementedError("split the whole dataset instead")

    def _has(self, number: int) -> bool:
        return (number % self._every == self._every - 1) != self._others


def held_out(data: Dataset, every: int = 4) -> tuple[Dataset, Dataset]:
    """Most of the samples, and the others; the same twice where there is a single one."""
    if len(data) < 2:
        return data, data
    if len(data) < every * data.batch:
        return data.split(len(data) - max(len(data) // every, 1))
    return ThinnedDataset(data, every, others=True), ThinnedDataset(data, every, others=False)

"""Samples in array files: .npz, .npy, .safetensors."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compressor.data.base import (
    Array,
    Batch,
    Dataset,
    RecipePath,
    Source,
    batch_size,
    fit,
    inputs_named,
    shuffled,
)
from compressor.data.preprocess import Normalization
from compressor.errors import DataError
from compressor.graph.model import Model, TensorSpec


class ArraysSource(Source, Normalization):
    """Arrays whose first axis counts samples.

    An array with one axis more than the model's input holds one whole feed per sample; one with as
    many axes is cut along the first into batches.
    """

    source: Literal["arrays"] = "arrays"
    path: RecipePath = Field(description="an .npz, .npy or .safetensors file")
    inputs: dict[str, str] = Field(default={}, description="model input: array name; the same name when left out")
    labels: str | dict[str, str] | None = Field(
        default=None, description="array of labels, or model output: array name for several"
    )

    def paths(self) -> tuple[Path, ...]:
        """The array file."""
        return (self.path,)

    def identity(self, specs: tuple[TensorSpec, ...]) -> object:
        """The file, and which of its arrays feed which input."""
        return self.path.resolve(), {s.name: self.inputs.get(s.name, s.name) for s in specs}

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        """The rows of the arrays; names, counts and axes are checked now, values when they are read."""
        arrays = _read(self.path, place)
        specs = model.inputs()
        names = _only_array(arrays, specs) or inputs_named(self.inputs, specs, place)
        labels = {"": self.labels} if isinstance(self.labels, str) else dict(self.labels or {})
        for stored in labels.values():
            if stored in arrays and not arrays[stored].ndim:
                raise DataError(f"{place}: {self.path}: {stored} is a single number; its first axis must count samples")
        count = _count(arrays, (*names.values(), *labels.values()), f"{place}: {self.path}")
        chosen = {name: arrays[stored] for name, stored in names.items()}
        whole = any(s.shape is not None and chosen[s.name].ndim == len(s.shape) + 1 for s in specs)
        return ArraysDataset(
            f"{self.path.name}",
            specs,
            1 if whole else batch_size(self.batch, specs, place),
            chosen,
            {name: arrays[stored] for name, stored in labels.items()},
            shuffled(count, self.samples, seed),
            self,
            place,
        )


class ArraysDataset(Dataset):
    """Rows of arrays that are read on demand."""

    def __init__(
        self,
        name: str,
        specs: tuple[TensorSpec, ...],
        batch: int,
        arrays: Mapping[str, Array],
        labels: Mapping[str, Array],
        rows: NDArray[np.int64],
        normalization: Normalization,
        place: str,
    ) -> None:
        super().__init__(name, specs, batch)
        self._arrays, self._labels, self._rows = arrays, labels, rows
        self._normalization, self._place = normalization, place

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self) -> Iterator[Batch]:
        """Rows, a batch at a time; a fixed batch that is not full is filled up by repeating rows."""
        for start in range(0, len(self._rows), self.batch):
            rows = self._rows[start : start + self.batch]
            fed = np.resize(rows, self.batch) if _fixed(self.specs) else rows
            feeds = {spec.name: self._feed(spec, fed, start) for spec in self.specs}
            yield Batch(feeds, {name: array[rows] for name, array in self._labels.items()}, len(rows))

    def _feed(self, spec: TensorSpec, rows: NDArray[np.int64], start: int) -> Array:
        array = self._arrays[spec.name]
        whole = spec.shape is not None and array.ndim == len(spec.shape) + 1
        picked = array if not array.ndim else np.asarray(array[rows[0]]) if whole else array[rows]
        place = f"{self._place}: {spec.name}, sample {start}"
        return fit(self._normalization.apply(picked, spec, place), spec, place)

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """By rows."""
        return self._with(self._rows[:first]), self._with(self._rows[first:])

    def _with(self, rows: NDArray[np.int64]) -> "ArraysDataset":
        return ArraysDataset(
            self.name, self.specs, self.batch, self._arrays, self._labels, rows, self._normalization, self._place
        )


def _count(arrays: Mapping[str, Array], used: tuple[str, ...], place: str) -> int:
    """How many samples the used arrays hold.

    Raises:
        DataError: one of them is missing, none is there, or they do not hold the same number.
    """
    for name in used:
        if name not in arrays:
            there = ", ".join(sorted(arrays))
            raise DataError(f"{place} has no array {name}; it has {there}: name one as inputs: {{model input: array}}")
    counts = {name: len(arrays[name]) for name in used if arrays[name].ndim}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(f"{place}: arrays differ in samples: {listed}")
    if not any(counts.values()):
        raise DataError(f"{place}: has no samples")
    return next(iter(counts.values()))


def _fixed(specs: tuple[TensorSpec, ...]) -> bool:
    return any(s.shape and isinstance(s.shape[0], int) for s in specs)


def _only_array(arrays: Mapping[str, Array], specs: tuple[TensorSpec, ...]) -> dict[str, str] | None:
    """A lone array feeds a lone input, whatever it is called."""
    if len(arrays) == 1 and len(specs) == 1:
        return {specs[0].name: next(iter(arrays))}
    return None


def _read(path: Path, place: str) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        match path.suffix:
            case ".npy":
                return {path.stem: np.lib.format.open_memmap(path, mode="r")}
            case ".npz":
                with zipfile.ZipFile(path) as archive:
                    return {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
            case ".safetensors":
                return dict(load_file(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, SafetensorError) as error:
        reason = (str(error).splitlines() or ["it is damaged"])[0]
        raise DataError(f"{place}: {path}: cannot be read: {reason}") from error
    raise DataError(f"{place}: {path}: is no .npz, .npy or .safetensors file")


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)

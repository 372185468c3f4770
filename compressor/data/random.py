"""Samples out of nothing but the model's own input shapes: good for speed, poor for ranges."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from compressor.data.base import Array, Batch, Dataset, Source, inputs_named
from compressor.errors import CompressorError, DataError
from compressor.graph.bounds import index_bounds
from compressor.graph.model import Model, TensorSpec

SIZES = (16, 32, 64, 128, 224, 256, 512, 640, 1024, 4096, 16000, 8, 4, 3, 2, 1)
"""What is tried for dimensions that the model leaves open, until it runs."""

DEFAULT_SAMPLES = 32
HELD_OUT_SAMPLES = 16


class RandomSource(Source):
    """Standard normal floats, and integers that the model's own lookups can take.

    Dimensions that the model leaves open are tried until it runs; the first axis is 1. Ranges found
    on such data say little about real data, so the report warns.
    """

    source: Literal["random"] = "random"
    shapes: dict[str, tuple[int, ...]] = Field(default={}, description="model input: shape, where it is open")
    values: dict[str, tuple[float, float]] = Field(
        default={}, description="model input: [low, high], uniform between them; integers include both"
    )

    def identity(self, specs: tuple[TensorSpec, ...]) -> object:
        """All random samples are drawn from the same place."""
        return "random"

    @field_validator("values")
    @classmethod
    def _ordered(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if low > high:
                raise ValueError(f"{name}: {low:g} is above {high:g}; write [low, high]")
        return value

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        """Made-up samples, of sizes on which the model has been seen to run."""
        specs = model.inputs()
        inputs_named({**dict.fromkeys(self.shapes, ""), **dict.fromkeys(self.values, "")}, specs, place)
        for spec in specs:
            if spec.dtype == "str":
                raise DataError(f"{place}: input {spec} takes text, which cannot be made up; give data")
        bounds = {name: (0.0, float(high)) for name, high in index_bounds(model).items()}
        values = {**bounds, **self.values}
        count = self.samples or DEFAULT_SAMPLES
        shapes = _runnable_shapes(model, self.shapes, values, place)
        return RandomDataset("random", specs, shapes, values, range(count), seed)

    def open_split(self, model: Model, place: str, seed: int, first: int | None) -> tuple[Dataset, Dataset]:
        """Different numbers for both; 16 to judge by."""
        count = first or DEFAULT_SAMPLES
        everything = self.model_copy(update={"samples": count + HELD_OUT_SAMPLES}).open(model, place, seed)
        return everything.split(count)


class RandomDataset(Dataset):
    """Sample i depends on the seed and i alone, so that the stream repeats."""

    def __init__(
        self,
        name: str,
        specs: tuple[TensorSpec, ...],
        shapes: Mapping[str, tuple[int, ...]],
        values: Mapping[str, tuple[float, float]],
        numbers: range,
        seed: int,
    ) -> None:
        super().__init__(name, specs, 1)
        self._shapes, self._values, self._numbers, self._seed = shapes, values, numbers, seed

    def __len__(self) -> int:
        return len(self._numbers)

    def batches(self) -> Iterator[Batch]:
        """One sample at a time, each drawn anew from its number."""
        for number in self._numbers:
            yield Batch(self.feed(number), {}, 1)

    def feed(self, number: int) -> dict[str, Array]:
        """One set of arrays."""
        rng = np.random.default_rng((self._seed, number))
        return {s.name: _draw(s, self._shapes[s.name], self._values.get(s.name), rng) for s in self.specs}

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """By numbers."""
        return self._with(self._numbers[:first]), self._with(self._numbers[first:])

    def _with(self, numbers: range) -> "RandomDataset":
        return RandomDataset(self.name, self.specs, self._shapes, self._values, numbers, self._seed)


def _draw(
    spec: TensorSpec, shape: tuple[int, ...], limits: tuple[float, float] | None, rng: np.random.Generator
) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype == np.bool_:
        return np.ones(shape, np.bool_)
    if np.issubdtype(dtype, np.floating):
        drawn = rng.standard_normal(shape) if limits is None else rng.uniform(*limits, shape)
        return drawn.astype(dtype)
    low, high = limits or (1, 1)
    return rng.integers(int(low), int(high), shape, endpoint=True).astype(dtype)


def _runnable_shapes(
    model: Model, given: Mapping[str, tuple[int, ...]], values: Mapping[str, tuple[float, float]], place: str
) -> dict[str, tuple[int, ...]]:
    """Complete input shapes on which ONNX Runtime executes the model."""
    from compressor.runtime.ort import Session

    specs = model.inputs()
    if all(s.name in given or _complete(s) for s in specs):
        return {s.name: given.get(s.name) or tuple(d for d in s.shape or () if isinstance(d, int)) for s in specs}
    failure: CompressorError | None = None
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        model.save(file)
        session = Session(file)
        for size, everywhere in product(SIZES, (True, False)):
            shapes = {
                s.name: given.get(s.name) or f for s, f in zip(specs, _filled(specs, size, everywhere), strict=True)
            }
            try:
                session.run(RandomDataset("", specs, shapes, values, range(1), 0).feed(0))
            except CompressorError as error:
                failure = failure or error
            else:
                return shapes
    raise DataError(
        f"{place}: no input sizes found on which the model runs ({failure}); give them as shapes: {{{specs[0].name}: "
        "[…]}, or give real data"
    )


def _complete(spec: TensorSpec) -> bool:
    return spec.shape is not None and all(isinstance(d, int) for d in spec.shape)


def _filled(specs: tuple[TensorSpec, ...], size: int, everywhere: bool) -> list[tuple[int, ...]]:
    """Shapes with `size` for open dimensions, of all inputs or of the first alone, and 1 for the batch.

    The batch is the first axis, and whatever else bears the name of one.
    """
    shapes = [spec.shape if spec.shape is not None else (None,) for spec in specs]
    batches = {shape[0] for shape in shapes if shape and isinstance(shape[0], str)}
    return [
        tuple(
            d if isinstance(d, int) else size if axis and d not in batches and (everywhere or not number) else 1
            for axis, d in enumerate(shape)
        )
        for number, shape in enumerate(shapes)
    ]

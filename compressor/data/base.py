"""What every source of samples is: settings of the recipe that open into a stream of batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    SerializationInfo,
    WithJsonSchema,
)

from compressor.errors import DataError
from compressor.graph.model import Model, TensorSpec

Array = NDArray[np.generic]
KnownMetric = Literal["top1", "top5", "f1", "mse", "mae", "spearman_cosine", "perplexity"]

NOT_SCORED = -100
"""Label of an entry that does not count, such as a token that nothing follows; most training code has the same."""

_BATCH_ENTRIES = 64 * 1024
_LARGEST_BATCH = 32


class Placed(str):
    """A string of a recipe that knows the folder of the file it was written in."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> "Placed":
        """`text`, whose relative paths start at `folder`."""
        placed = super().__new__(cls, text)
        placed.folder = folder
        return placed


def _resolve(value: object) -> object:
    match value:
        case Placed():
            folder, path = value.folder, Path(str(value)).expanduser()
            while path.parts[:1] == ("..",):  # the folder has no links, so going up is what the system would do
                folder, path = folder.parent, Path(*path.parts[1:])
            return folder / path
        case str():
            return Path(value).expanduser()
    return value


RecipePath = Annotated[Path, BeforeValidator(_resolve)]
"""A path, relative to the recipe file it is written in."""


class FunctionName(Placed):
    """`module:function`, or `folder/module:function`; relative folders start where it was written."""

    @property
    def module(self) -> str:
        """The module's name, dotted for an installed one."""
        return Path(self.rpartition(":")[0]).name

    @property
    def function(self) -> str:
        """The function's name."""
        return self.rpartition(":")[2]

    @property
    def file(self) -> Path | None:
        """The module's file, if it lies in the folder."""
        path = self.folder / Path(self.rpartition(":")[0])
        file = path.with_name(f"{path.name}.py")
        return file if file.is_file() else None


def _named(value: object) -> object:
    if not isinstance(value, str):
        return value
    path, colon, function = value.rpartition(":")
    if not colon or not path or not function.isidentifier():
        raise ValueError('write it as module:function, for example "batches:calibration"')
    return FunctionName(value, value.folder if isinstance(value, Placed) else Path())


def _metric(value: object) -> object:
    known = get_args(KnownMetric)
    if not isinstance(value, str) or value in known:
        return value
    if ":" not in value:
        raise ValueError(f'"{value}" is no metric; there are {", ".join(known)}, and module:class for one of your own')
    return _named(value)


def _serialized(name: str, info: SerializationInfo) -> object:
    return str(name) if info.mode == "json" else name


RecipeFunction = Annotated[
    InstanceOf[FunctionName],
    BeforeValidator(_named),
    PlainSerializer(_serialized),
    WithJsonSchema({"type": "string"}),
]
"""Code of the user's, relative to the recipe file it is named in."""

MetricName = Annotated[
    KnownMetric | InstanceOf[FunctionName],
    BeforeValidator(_metric),
    PlainSerializer(_serialized),
    WithJsonSchema({"anyOf": [{"enum": [*get_args(KnownMetric)]}, {"type": "string", "pattern": ".:."}]}),
]
"""One of ours, or `module:class` of the user's."""


class Settings(BaseModel):
    """A closed, frozen part of a recipe: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One feed of a model.

    Attributes:
        feeds: input name -> array.
        labels: name -> array, one entry per sample; empty when there are none. A source with one
            array of labels calls it "".
        samples: how many samples there are in it.
    """

    feeds: Mapping[str, Array]
    labels: Mapping[str, Array]
    samples: int


class Dataset(ABC):
    """Samples that can be streamed any number of times, always in the same order.

    Attributes:
        name: what it is and how much of it, for messages and the report.
        specs: the inputs of the model it feeds.
        batch: samples per batch.
    """

    def __init__(self, name: str, specs: tuple[TensorSpec, ...], batch: int) -> None:
        self.name = name
        self.specs = specs
        self.batch = batch

    @abstractmethod
    def __len__(self) -> int:
        """How many samples."""

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """All samples once.

        Raises:
            DataError: a sample cannot be read, is not finite, or does not fit the model.
        """

    @abstractmethod
    def split(self, first: int) -> tuple["Dataset", "Dataset"]:
        """The first `first` samples, and the others."""

    def singly(self) -> "Dataset":
        """The same samples, apart from each other where they are filled up to be batched."""
        return self

    def first(self) -> Batch:
        """The first batch."""
        return next(self.batches())


def batch_size(wanted: int | None, specs: tuple[TensorSpec, ...], place: str) -> int:
    """Samples per batch: what the model is fixed to, else what is wanted, else by the size of one.

    Raises:
        DataError: the model is fixed to another size than wanted.
    """
    shapes = [spec.shape or () for spec in specs]
    fixed = {shape[0] for shape in shapes if shape and isinstance(shape[0], int)}
    if len(fixed) == 1 and all(shapes):
        (size,) = fixed
        if wanted not in (None, size):
            raise DataError(f"{place}: batch is {wanted}, but the model takes exactly {size}; leave batch out")
        return size
    if wanted or fixed:
        return wanted or 1
    return int(np.clip(_BATCH_ENTRIES // max(sum(map(_entries, shapes)), 1), 1, _LARGEST_BATCH))


def _entries(shape: tuple[int | str | None, ...]) -> int:
    """Of one sample; open dimensions count as 1."""
    return prod(d for d in shape[1:] if isinstance(d, int))


def fit(array: Array, spec: TensorSpec, place: str) -> Array:
    """`array` as the input `spec` wants it, or a clear refusal.

    Numbers change type only within their kind: floats to the model's float type, integers to a
    wider or equal integer type that can hold them.

    Raises:
        DataError: wrong type, wrong shape, or entries that are not finite.
    """
    wanted = np.dtype(spec.dtype if spec.dtype != "str" else object)
    if not _convertible(array.dtype, wanted):
        raise DataError(f"{place}: is {array.dtype}, but input {spec} wants {spec.dtype}")
    if not _shape_fits(array.shape, spec):
        moved = array.ndim == 4 and _shape_fits(tuple(np.moveaxis(array, -1, 1).shape), spec)
        hint = "; layout: nhwc_to_nchw would fit" if moved else ""
        raise DataError(f"{place}: has shape {list(array.shape)}, but the model's input is {spec}{hint}")
    with np.errstate(over="ignore"):
        converted = array.astype(wanted, copy=False)
    if np.issubdtype(wanted, np.integer) and not np.array_equal(converted, array):
        raise DataError(f"{place}: holds numbers that {spec.dtype}, the type of input {spec.name}, cannot hold")
    if np.issubdtype(wanted, np.floating) and not np.isfinite(converted).all():
        bad = int(np.argmin(np.isfinite(converted).reshape(len(converted), -1).all(axis=1))) if converted.ndim else 0
        raise DataError(f"{place}: holds NaN or infinity (first in sample {bad} of the batch); remove those samples")
    return converted


def inputs_named(mapping: Mapping[str, str], specs: tuple[TensorSpec, ...], place: str) -> dict[str, str]:
    """Input name -> name in the data, complete.

    Raises:
        DataError: `mapping` names an input that the model does not have.
    """
    names = [s.name for s in specs]
    for name in mapping:
        if name not in names:
            raise DataError(f"{place}: inputs names {name}, which is no input of the model; it has {', '.join(names)}")
    return {name: mapping.get(name, name) for name in names}


def shuffled(count: int, samples: int | None, seed: int) -> NDArray[np.int64]:
    """Positions of the samples to use: all in order, or up to `samples` drawn without repetition."""
    if samples is None:
        return np.arange(count)
    return np.random.default_rng(seed).permutation(count)[:samples]


def _convertible(given: np.dtype, wanted: np.dtype) -> bool:
    if np.issubdtype(wanted, np.floating):
        return np.issubdtype(given, np.floating)
    if np.issubdtype(wanted, np.integer):
        return np.issubdtype(given, np.integer)
    return given == wanted


def _shape_fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    if len(shape) != len(spec.shape):
        return False
    return all(not isinstance(d, int) or d == n for n, d in zip(shape, spec.shape, strict=True))


class Source(Settings):
    """Settings common to all sources.

    Attributes:
        samples: how many to use; all, when left out.
        batch: samples per execution; chosen by the size of one sample when left out.
        metric: of accuracy, for evaluation data with labels.
    """

    samples: int | None = Field(default=None, ge=1, description="how many samples to use; all when left out")
    batch: int | None = Field(default=None, ge=1, description="samples per execution; by their size when left out")
    metric: MetricName | None = Field(
        default=None, description=f"accuracy to report: {', '.join(get_args(KnownMetric))}, or module:class"
    )

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        """The samples, checked as far as that goes without reading all of them.

        Args:
            model: whose inputs they are to feed.
            place: where in the recipe this source stands, for messages.
            seed: of any choice at random.

        Raises:
            DataError: missing, empty, or not fitting the model.
        """
        raise NotImplementedError

    def paths(self) -> tuple[Path, ...]:
        """Files and folders that must exist."""
        return ()

    def open_split(self, model: Model, place: str, seed: int, first: int | None) -> tuple[Dataset, Dataset]:
        """All samples in random order, cut in two: `first` of them (four fifths by default), the others."""
        everything = self.model_copy(update={"samples": _ALL}).open(model, place, seed)
        return everything.split(share(len(everything), first))

    def identity(self, specs: tuple[TensorSpec, ...]) -> object:
        """What the samples are, however they are written: equal for sources that draw from the same ones."""
        raise NotImplementedError

    def same_samples(self, other: "Source", specs: tuple[TensorSpec, ...]) -> bool:
        """Whether both draw from the same place, so that one must hold out what the other uses."""
        return type(self) is type(other) and self.identity(specs) == other.identity(specs)


_ALL = 2**40


def share(count: int, first: int | None) -> int:
    """How many of `count` samples to learn from, so that some are left to judge by."""
    return first if first is not None and first < count else max(1, count - -(-count // 5))

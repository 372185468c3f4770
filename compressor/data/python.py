"""Samples out of the user's own code."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, WithJsonSchema

from compressor.data.base import Array, Batch, Dataset, Placed, Source, fit, share
from compressor.errors import DataError
from compressor.graph.model import Model, TensorSpec

Items = Callable[[], Iterator[object]]


class FunctionName(Placed):
    """`module:function`, and the folder in which `module.py` is looked for first."""


def _placed(value: object) -> object:
    if not isinstance(value, str):
        return value
    module, colon, function = value.partition(":")
    if not colon or not module or not function.isidentifier():
        raise ValueError('write it as module:function, for example "batches:calibration"')
    return FunctionName(value, value.folder if isinstance(value, Placed) else Path())


class PythonSource(Source):
    """A function that returns an iterator of feeds.

    Each item is a mapping of input name to array (a whole feed), a pair of that and labels, or a lone
    array for a model with one input. The function is called anew for each pass over the data.
    """

    source: Literal["python"] = "python"
    function: Annotated[
        InstanceOf[FunctionName],
        BeforeValidator(_placed),
        PlainSerializer(str),
        WithJsonSchema({"type": "string"}),
    ] = Field(description="module:function; module.py beside the recipe, or an installed module")

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        function = _import(self.function, place)
        count = _count(function, self.samples)
        if count == 0:
            raise DataError(f"{place}: {self.function} yields nothing")
        return PythonDataset(str(self.function), model.inputs(), function, range(count), place)

    def open_split(self, model: Model, place: str, seed: int, first: int | None) -> tuple[Dataset, Dataset]:
        everything = self.model_copy(update={"samples": None}).open(model, place, seed)
        return everything.split(share(len(everything), first))


class PythonDataset(Dataset):
    """Items number `items.start` to `items.stop` of what the function yields; an item counts as one sample."""

    def __init__(self, name: str, specs: tuple[TensorSpec, ...], function: Items, items: range, place: str) -> None:
        super().__init__(name, specs, 1)
        self._function, self._items, self._place = function, items, place

    def __len__(self) -> int:
        return len(self._items)

    def batches(self) -> Iterator[Batch]:
        items = islice(self._function(), self._items.start, self._items.stop)
        for number, item in enumerate(items, start=self._items.start):
            yield self._batch(item, f"{self._place}: {self.name}, item {number}")

    def _batch(self, item: object, place: str) -> Batch:
        feeds, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(feeds, Mapping):
            feeds = {self.specs[0].name: feeds}
        if set(feeds) != {s.name for s in self.specs}:
            given, wanted = ", ".join(map(str, feeds)), ", ".join(s.name for s in self.specs)
            raise DataError(f"{place}: feeds {given}, but the model's inputs are {wanted}")
        arrays = {s.name: fit(np.asarray(feeds[s.name]), s, f"{place}: {s.name}") for s in self.specs}
        samples = max((len(a) for a in arrays.values() if a.ndim), default=1)
        return Batch(arrays, _labels(labels), samples)

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        return self._with(self._items[:first]), self._with(self._items[first:])

    def _with(self, items: range) -> "PythonDataset":
        return PythonDataset(self.name, self.specs, self._function, items, self._place)


def _labels(labels: object) -> dict[str, Array]:
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return {str(name): np.asarray(array) for name, array in labels.items()}
    return {"": np.asarray(labels)}


def _count(function: Items, most: int | None) -> int:
    return sum(1 for _ in islice(function(), most))


def _import(name: FunctionName, place: str) -> Items:
    module_name, _, function_name = str(name).partition(":")
    try:
        module = _module(module_name, name.folder)
    except ImportError as error:
        raise DataError(f"{place}: {name}: cannot be imported: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise DataError(f"{place}: {name}: {module_name} has no function {function_name}")
    return lambda: iter(function())


def _module(name: str, folder: Path) -> ModuleType:
    file = folder / f"{name}.py"
    if not file.is_file():
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"compressor_data_{name}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

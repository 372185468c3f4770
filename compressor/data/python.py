"""Samples out of the user's own code."""

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from pydantic import Field

from compressor.data.base import Array, Batch, Dataset, FunctionName, RecipeFunction, Source, fit, share
from compressor.errors import CompressorError, DataError
from compressor.graph.model import Model, TensorSpec

Items = Callable[[], Iterator[object]]


class PythonSource(Source):
    """A function that returns an iterator of feeds.

    Each item is a mapping of input name to array (a whole feed), a pair of that and labels, or a lone
    array for a model with one input. The function is called anew for each pass over the data.
    """

    source: Literal["python"] = "python"
    function: RecipeFunction = Field(description="module:function; module.py beside the recipe, or an installed module")

    def identity(self, specs: tuple[TensorSpec, ...]) -> object:
        """The function, wherever it is named from."""
        return self.function.file or self.function.module, self.function.function

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        """The items of the function, counted by calling it once."""
        items = _items(self.function, f"{place}: {self.function}")
        count = sum(1 for _ in islice(items(), self.samples))
        if count == 0:
            raise DataError(f"{place}: {self.function} yields nothing")
        return PythonDataset(str(self.function), model.inputs(), items, range(count), place)

    def open_split(self, model: Model, place: str, seed: int, first: int | None) -> tuple[Dataset, Dataset]:
        """In the order in which the function yields; it cannot be shuffled."""
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
        """One item at a time, checked against the model's inputs."""
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
        """By items."""
        return self._with(self._items[:first]), self._with(self._items[first:])

    def _with(self, items: range) -> "PythonDataset":
        return PythonDataset(self.name, self.specs, self._function, items, self._place)


def _labels(labels: object) -> dict[str, Array]:
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return {str(name): np.asarray(array) for name, array in labels.items()}
    return {"": np.asarray(labels)}


def _items(name: FunctionName, place: str) -> Items:
    """The user's function, with its failures told as the user's."""
    function = imported(name, place)

    def items() -> Iterator[object]:
        with user_code(place):
            found: Iterable[object] = function()
            yield from found

    return items


def imported(name: FunctionName, place: str) -> Callable[[], Any]:
    """What the user's code has under a name, to be called without arguments.

    Raises:
        DataError: it cannot be imported, or cannot be called.
    """
    try:
        with user_code(place):
            module = _module(name)
    except ImportError as error:
        raise DataError(f"{place}: cannot be imported: {error}") from error
    function: Callable[[], Any] | None = getattr(module, name.function, None)
    if not callable(function):
        raise DataError(f"{place}: {name.module} has no function {name.function}")
    return function


@contextmanager
def user_code(place: str) -> Iterator[None]:
    """Whatever the user's code raises is the user's fault: one line with the place in their file."""
    try:
        yield
    except (CompressorError, ImportError):
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f" ({Path(last.filename).name}, line {last.lineno})"
        raise DataError(f"{place}: {type(error).__name__}: {error}{where}") from error


def _module(name: FunctionName) -> ModuleType:
    """The module, run anew if it lies beside the recipe; nothing is left behind there."""
    file = name.file
    if file is None:
        return importlib.import_module(name.module)
    module = ModuleType(f"compressor_data_{name.module}")
    module.__file__ = str(file)
    code = compile(file.read_text(encoding="utf-8"), str(file), "exec")
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        exec(code, module.__dict__)
    finally:
        sys.path.remove(str(file.parent.resolve()))
    return module

"""Inputs of a TorchScript model as words: `name:float32[1,3,224,224]`, and numbers it is called with: `rate=16000`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

_INPUT = re.compile(r"^(?P<name>\w[\w.]*):(?P<dtype>\w+)\[(?P<sizes>[^\]]*)\]$")
_SIZE = re.compile(r"^(?:(?P<symbol>[A-Za-z_]\w*)=)?(?P<size>\d+)$")
_NUMBER = re.compile(r"^(?P<name>\w+)=(?P<value>[^=]+)$")
_FORM = "write it as name:float32[1,3,224,224], or name=VALUE for a number"


@dataclass(frozen=True, slots=True)
class GivenInput:
    """A tensor that the model is fed.

    Attributes:
        name: what it is called in the written model.
        dtype: NumPy's name of its type.
        shape: sizes of an example.
        symbols: name of each dimension that is to stay open, None for the others.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class GivenNumber:
    """A number, or nothing, that an argument always has; it becomes a constant of the model."""

    name: str
    value: bool | int | float | None


def parse(text: str) -> GivenInput | GivenNumber:
    """The input that `text` describes; a dimension written `batch=1` stays open under that name.

    Raises:
        ValueError: it is in no such form.
    """
    found = _INPUT.match(text.replace(" ", ""))
    if found is None:
        return _number(text)
    if found["dtype"] not in DTYPES:
        raise ValueError(f"{text}: {found['dtype']} is no type of inputs; there are {', '.join(DTYPES)}")
    sizes = [_SIZE.match(part) for part in found["sizes"].split(",") if part]
    if not all(sizes):
        raise ValueError(f"{text}: sizes are whole numbers, with a name where they may change: [batch=1,3,224,224]")
    known = [size for size in sizes if size is not None]
    return GivenInput(
        found["name"], found["dtype"], tuple(int(s["size"]) for s in known), tuple(s["symbol"] for s in known)
    )


def _number(text: str) -> GivenNumber:
    found = _NUMBER.match(text.strip())
    if found is None:
        raise ValueError(f"{text}: {_FORM}")
    word = found["value"].strip()
    if word.lower() in ("true", "false"):
        return GivenNumber(found["name"], word.lower() == "true")
    try:
        return GivenNumber(found["name"], int(word))
    except ValueError:
        pass
    try:
        return GivenNumber(found["name"], float(word))
    except ValueError as error:
        raise ValueError(f"{text}: {word} is no number; {_FORM}") from error


def draw(dtype: DTypeLike, shape: Sequence[int]) -> NDArray[Any]:
    """An example: standard normal floats, the same ones each time; zeros and ones of the other types."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)

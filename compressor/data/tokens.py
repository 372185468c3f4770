"""From texts to token ids, as the tokenizer.json of a model says, and on to the arrays it is fed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.data.base import Array, fit, inputs_named
from compressor.errors import DataError
from compressor.graph.model import TensorSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

Feature = Literal["input_ids", "attention_mask", "token_type_ids", "position_ids"]

IDS: Feature = "input_ids"
MASK: Feature = "attention_mask"
FEATURES: tuple[Feature, ...] = (IDS, MASK, "token_type_ids", "position_ids")

_PADDING_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One encoded sample.

    Attributes:
        ids: of its tokens.
        types: 1 for tokens of the second text of a pair, else 0.
    """

    ids: Sequence[int]
    types: Sequence[int]


class Tokenizer:
    """A tokenizer.json.

    Args:
        path: of the file.
        pad: the token that fills up short samples; the tokenizer's own when None.
        place: where in the recipe it is named, for messages.

    Attributes:
        max_length: to which the file itself says samples are cut; None when it does not.
        pad_left: whether short samples are filled up in front.

    Raises:
        DataError: the library is missing, the file is no tokenizer, or it does not know the token.
    """

    def __init__(self, path: Path, pad: str | None, place: str) -> None:
        self._place = f"{place}: {path}"
        self._tokenizer = _read(path, place, self._place)
        truncation, padding = self._tokenizer.truncation or {}, self._tokenizer.padding or {}
        self.max_length: int | None = truncation.get("max_length")
        self.pad_left = padding.get("direction") == "left"
        known = (self._tokenizer.token_to_id(token) for token in _PADDING_TOKENS)
        self._pad: int | None = padding.get("pad_id", next((i for i in known if i is not None), None))
        if pad is not None:
            self._pad = self._tokenizer.token_to_id(pad)
            if self._pad is None:
                raise DataError(f"{self._place}: pad is {pad}, which is no token of it")
        self._tokenizer.no_padding()

    @property
    def pad(self) -> int:
        """Id of the token that fills up short samples.

        Raises:
            DataError: the tokenizer has none.
        """
        if self._pad is None:
            raise DataError(f'{self._place}: has no token to fill up short texts; name one, such as pad: "</s>"')
        return self._pad

    def special_tokens(self, pair: bool) -> int:
        """How many tokens it adds to a text, or to a pair."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    def encode(self, texts: tuple[str, ...], max_length: int | None) -> Tokens:
        """A text, or two together, with special tokens, cut to `max_length`.

        Raises:
            DataError: the tokenizer makes nothing of it.
        """
        with _failing(self._place):
            if max_length is None:
                self._tokenizer.no_truncation()
            else:
                self._tokenizer.enable_truncation(max_length)
            encoding = self._tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
        if not encoding.ids:
            raise DataError(f'{self._place}: makes no token of "{" | ".join(texts)}"; remove that text')
        return Tokens(encoding.ids, encoding.type_ids)

    def prefix(self, text: str) -> list[int]:
        """The special tokens that it puts before a text, such as this one."""
        with _failing(self._place):
            self._tokenizer.no_truncation()
            encoding = self._tokenizer.encode(text)
        first = encoding.special_tokens_mask.index(0) if 0 in encoding.special_tokens_mask else 0
        return list(encoding.ids[:first])

    def plain(self, text: str) -> list[int]:
        """All token ids of a text, without special tokens."""
        with _failing(self._place):
            self._tokenizer.no_truncation()
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True)
class Feeder:
    """Stacks encoded samples into what a model is fed.

    Attributes:
        specs: the inputs of the model.
        features: input -> what it is fed.
        tokenizer: for padding.
        length: tokens per sample that the model is fixed to; None for the longest of the batch.
        place: for messages.
    """

    specs: tuple[TensorSpec, ...]
    features: Mapping[str, Feature]
    tokenizer: Tokenizer
    length: int | None
    place: str

    def feeds(self, samples: Sequence[Tokens]) -> dict[str, Array]:
        """One array (samples, tokens) per input.

        Raises:
            DataError: an input is of another shape or type.
        """
        length = self.length or max(len(sample.ids) for sample in samples)
        mask = np.stack([self._padded([1] * len(sample.ids), length, 0) for sample in samples])
        pad = 0 if mask.all() else self.tokenizer.pad
        arrays: dict[Feature, NDArray[np.int64]] = {
            "input_ids": np.stack([self._padded(sample.ids, length, pad) for sample in samples]),
            "attention_mask": mask,
            "token_type_ids": np.stack([self._padded(sample.types, length, 0) for sample in samples]),
            "position_ids": np.maximum(np.cumsum(mask, axis=1) - 1, 0),
        }
        return {spec.name: self._fitted(arrays[self.features[spec.name]], spec) for spec in self.specs}

    def _padded(self, numbers: Sequence[int], length: int, fill: int) -> NDArray[np.int64]:
        padding = [fill] * (length - len(numbers))
        return np.array([*padding, *numbers] if self.tokenizer.pad_left else [*numbers, *padding], np.int64)

    def _fitted(self, array: NDArray[np.int64], spec: TensorSpec) -> Array:
        """A mask is of whatever type the model wants; ids stay integers."""
        is_mask = self.features[spec.name] == MASK and spec.dtype != "str"
        return fit(array.astype(spec.dtype) if is_mask else array, spec, f"{self.place}: {spec.name}")


def features(given: Mapping[str, Feature], specs: tuple[TensorSpec, ...], place: str) -> dict[str, Feature]:
    """Input -> what it is fed, complete: as given, else by its name; a lone integer input takes ids.

    Raises:
        DataError: an input is not known, or none takes the ids.
    """
    names = inputs_named(given, specs, place)
    if len(specs) == 1 and np.issubdtype(np.dtype(specs[0].dtype), np.integer):
        return {specs[0].name: given.get(specs[0].name, IDS)}
    found: dict[str, Feature] = {n: f for n in names for f in FEATURES if names[n] == f}
    unknown = [name for name in names if name not in found]
    if unknown:
        raise DataError(
            f"{place}: text feeds {', '.join(FEATURES)}, and input {unknown[0]} is none of them; say which, as "
            f"inputs: {{{unknown[0]}: {IDS}}}, or use source: python"
        )
    if IDS not in found.values():
        raise DataError(f"{place}: no input takes {IDS}; say which, as inputs: {{{specs[0].name}: {IDS}}}")
    return found


def _read(path: Path, place: str, file: str) -> "Library":
    try:
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise DataError(f"{place}: source: text needs a library that is not there: pip install tokenizers") from error
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    with _failing(file):
        return Library.from_str(text)


@contextmanager
def _failing(place: str) -> Iterator[None]:
    """What the library raises is `Exception` itself; anything more precise is not its own."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise DataError(f"{place}: {str(error).splitlines()[0]}") from error

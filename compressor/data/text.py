"""Samples in text files, as the token ids that the model's own tokenizer makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from compressor.data.base import Array, Batch, Dataset, RecipePath, Source, batch_size, shuffled
from compressor.data.rows import TEXT, Columns, Rows
from compressor.data.tokens import IDS, MASK, Feature, Feeder, Tokenizer, Tokens, features
from compressor.data.windows import Windows
from compressor.errors import DataError
from compressor.graph.model import Model, TensorSpec


def _sequence(value: object) -> object:
    return (value,) if isinstance(value, (str, int)) else value


Position = Annotated[int, Field(ge=0)]
ColumnNames = Annotated[
    tuple[Position | str, ...],
    BeforeValidator(_sequence, json_schema_input_type=int | str | tuple[int | str, ...]),
    Field(min_length=1, max_length=2),
]
"""One or two columns, by name or by position."""


class TextSource(Source):
    """Texts out of a file, as token ids.

    A .txt has a text per line, in a column called text. A .csv, .tsv or .jsonl has columns, by name, or by
    position from 0 where its first line is no header. Inputs of the model are recognised by their names
    (input_ids, attention_mask, token_type_ids, position_ids); a lone integer input takes the ids. Short
    samples are filled up to the longest of their batch, or to what the model is fixed to. A model that
    takes no mask sees what they are filled up with: where its length is open, its batch is 1 then.

    Sentence embeddings, judged by pairs of sentences with a score:

        {source: text, path: pairs.csv, tokenizer: tokenizer.json, columns: [0, 1], labels: 2, unit: sentence,
         metric: spearman_cosine}

    A language model, judged on a text:

        {source: text, path: book.txt, tokenizer: tokenizer.json, unit: window, max_length: 512,
         metric: perplexity}
    """

    source: Literal["text"] = "text"
    path: RecipePath = Field(description="a .txt, .csv, .tsv or .jsonl file")
    tokenizer: RecipePath = Field(description="the tokenizer.json of the model; takes the tokenizers library")
    columns: ColumnNames = Field(default=(TEXT,), description="one column of text, or two; names, or positions from 0")
    unit: Literal["row", "sentence", "window"] = Field(
        default="row",
        description="what a sample is: a row, two columns together as a pair; a sentence, each column of a row by "
        "itself, for embeddings; or a window of max_length tokens of the whole text, for language models",
    )
    labels: Position | str | dict[str, Position | str] | None = Field(
        default=None, description="column of labels, or model output: column for several; windows bring their own"
    )
    classes: tuple[str, ...] = Field(
        default=(), description="the words that stand for labels 0, 1, …, in the order of the model's classes"
    )
    max_length: int | None = Field(
        default=None, ge=1, description="tokens per sample, longer ones are cut; the model's, or the tokenizer's"
    )
    stride: int | None = Field(
        default=None, ge=1, description="tokens from window to window; as many as fit, when left out"
    )
    pad: str | None = Field(default=None, description="token that fills up short samples; the tokenizer's own")
    inputs: dict[str, Feature] = Field(default={}, description="model input: what it is fed, where names do not tell")

    @model_validator(mode="after")
    def _fits_the_unit(self) -> Self:
        if self.unit == "sentence" and len(self.columns) != 2:
            raise ValueError("unit: sentence takes two columns of text")
        if self.unit == "window" and (len(self.columns) != 1 or self.labels is not None):
            raise ValueError("unit: window takes one column of text and no labels: its labels are the next tokens")
        if self.unit != "window" and self.stride is not None:
            raise ValueError("stride is for unit: window")
        if self.classes and self.labels is None:
            raise ValueError("classes says what labels stand for; give labels")
        return self

    def paths(self) -> tuple[Path, ...]:
        """The text and the tokenizer."""
        return self.path, self.tokenizer

    def identity(self, specs: tuple[TensorSpec, ...]) -> object:
        """The file: whatever is read of a row, the row is the same."""
        return self.path.resolve()

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        """The samples; all rows are looked at now, and tokenized when they are read."""
        specs = model.inputs()
        fed = features(self.inputs, specs, place)
        tokenizer = Tokenizer(self.tokenizer, self.pad, place)
        feeder = Feeder(specs, fed, tokenizer, _fixed_length(specs, fed), f"{place}: {self.path}")
        units = self._units(feeder, place)
        numbers = self._drawn(len(units), seed)
        wanted = self.batch
        if wanted is None and not _fixed_batch(specs) and self._alone(feeder):
            wanted = 1
        return TextDataset(self.path.name, batch_size(wanted, specs, place), units, feeder, numbers)

    @property
    def _members(self) -> int:
        """Samples in a row."""
        return 2 if self.unit == "sentence" else 1

    def _drawn(self, count: int, seed: int) -> NDArray[np.int64]:
        """Numbers of the samples to use; those of one row stay together."""
        wanted = None if self.samples is None else -(-self.samples // self._members)
        rows = shuffled(count // self._members, wanted, seed)
        return (rows[:, None] * self._members + np.arange(self._members)).ravel()[: self.samples]

    def _alone(self, feeder: Feeder) -> bool:
        """Whether one sample is enough of a batch: a window is long, and padding would be seen without a mask."""
        return self.unit == "window" or (feeder.length is None and MASK not in feeder.features.values())

    def _units(self, feeder: Feeder, place: str) -> "Units":
        labels = self.labels if isinstance(self.labels, dict) else {} if self.labels is None else {"": self.labels}
        columns = Columns(self.columns, tuple(labels.values()), self.classes)
        most = self._most_tokens(feeder, place)
        rows = Rows(self.path, columns, self.unit == "window", place)
        if self.unit == "window":
            if most is None:
                raise DataError(f"{place}: unit: window needs max_length, how many tokens the model reads at a time")
            return Windows(rows, feeder.tokenizer, most, self.stride, feeder.place)
        return Texts(rows, feeder.tokenizer, most, tuple(labels), self._members)

    def _most_tokens(self, feeder: Feeder, place: str) -> int | None:
        """To how many tokens a sample is cut.

        Raises:
            DataError: the model cannot take as many, or there is no room for text.
        """
        fixed, wanted = feeder.length, self.max_length
        if fixed is not None and wanted is not None and (wanted > fixed or (self.unit == "window" and wanted != fixed)):
            raise DataError(f"{place}: max_length is {wanted}, but the model takes exactly {fixed}; leave it out")
        most = wanted or fixed or feeder.tokenizer.max_length
        special = feeder.tokenizer.special_tokens(self.unit == "row" and len(self.columns) == 2)
        if most is not None and most <= special:
            raise DataError(
                f"{place}: max_length is {most}, and the tokenizer's own {special} tokens fill it; raise it"
            )
        return most


class Units(Protocol):
    """Numbered samples of a file."""

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> tuple[list[Tokens], dict[str, Array]]:
        """Some of them, encoded, and their labels."""
        ...


class TextDataset(Dataset):
    """Samples that are read and tokenized when they are wanted."""

    def __init__(self, name: str, batch: int, units: Units, feeder: Feeder, numbers: NDArray[np.int64]) -> None:
        super().__init__(name, feeder.specs, batch)
        self._units, self._feeder, self._numbers = units, feeder, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def batches(self) -> Iterator[Batch]:
        """Encoded samples; a fixed batch that is not full is filled up by repeating them."""
        size = self.batch if _fixed_batch(self.specs) else 0
        for start in range(0, len(self._numbers), self.batch):
            samples, labels = self._units.read(self._numbers[start : start + self.batch].tolist())
            fed = [samples[i % len(samples)] for i in range(max(size, len(samples)))]
            yield Batch(self._feeder.feeds(fed), labels, len(samples))

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """By samples; a pair of sentences that is cut in two loses its score."""
        return self._with(self._numbers[:first]), self._with(self._numbers[first:])

    def singly(self) -> Dataset:
        """One at a time, so that each has its own length."""
        if _fixed_batch(self.specs):
            return self
        return TextDataset(self.name, 1, self._units, self._feeder, self._numbers)

    def _with(self, numbers: NDArray[np.int64]) -> "TextDataset":
        return TextDataset(self.name, self.batch, self._units, self._feeder, numbers)


class Texts:
    """The rows of a file, each one sample, or each of its texts one.

    Args:
        rows: of the file.
        tokenizer: of the model.
        most: tokens of a sample.
        outputs: that the labels of a row belong to.
        members: samples in a row; with several, its labels stand at the last, and NaN at the others.
    """

    def __init__(
        self, rows: Rows, tokenizer: Tokenizer, most: int | None, outputs: tuple[str, ...], members: int
    ) -> None:
        self._rows, self._tokenizer, self._most = rows, tokenizer, most
        self._outputs, self._members = outputs, members

    def __len__(self) -> int:
        return len(self._rows) * self._members

    def read(self, numbers: Sequence[int]) -> tuple[list[Tokens], dict[str, Array]]:
        """Some of them, encoded, and their labels."""
        found: list[Tokens] = []
        labels: list[tuple[int | float, ...]] = []
        rows = self._rows.read(number // self._members for number in numbers)
        for number, row in zip(numbers, rows, strict=True):
            member = number % self._members
            texts = row.texts if self._members == 1 else row.texts[member : member + 1]
            found.append(self._tokenizer.encode(texts, self._most))
            labels.append(row.labels if member == self._members - 1 else (float("nan"),) * len(row.labels))
        columns = zip(*labels, strict=True)
        return found, {output: np.array(column) for output, column in zip(self._outputs, columns, strict=True)}


def _fixed_length(specs: tuple[TensorSpec, ...], fed: Mapping[str, Feature]) -> int | None:
    """Tokens per sample that the model takes, where it takes just one number of them."""
    shape = next(spec.shape for spec in specs if fed[spec.name] == IDS) or ()
    return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None


def _fixed_batch(specs: tuple[TensorSpec, ...]) -> bool:
    return any(s.shape and isinstance(s.shape[0], int) for s in specs)

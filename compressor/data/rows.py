"""Text files as rows: where each begins is noted once, and it is read again when it is wanted.

.txt has a text per line, in a column called `text`. .csv and .tsv have columns, counted from 0, or named by
their first line. .jsonl has an object per line, or a list, or a lone text. Memory: 16 bytes per row.
"""

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import BinaryIO

import numpy as np

from compressor.errors import DataError

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
TEXT = "text"

Column = int | str
Record = Mapping[Column, object]

_MOST_LISTED = 60


@dataclass(frozen=True, slots=True)
class Row:
    """What is used of a row.

    Attributes:
        texts: one per column of text.
        labels: one per column of labels.
    """

    texts: tuple[str, ...]
    labels: tuple[int | float, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what.

    Attributes:
        texts: columns of text.
        labels: columns of labels.
        classes: words that stand for the labels 0, 1, …; none where labels are numbers.
    """

    texts: tuple[Column, ...]
    labels: tuple[Column, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether they are told by name, which takes a header in some files."""
        return any(isinstance(column, str) for column in (*self.texts, *self.labels))

    def row(self, record: Record) -> Row:
        """The texts and labels of a record.

        Raises:
            ValueError: it lacks a column, or holds something else there.
        """
        return Row(
            tuple(_text(column, _cell(column, record)) for column in self.texts),
            tuple(self._label(_cell(column, record)) for column in self.labels),
        )

    def _label(self, value: object) -> int | float:
        if self.classes:
            if str(value) not in self.classes:
                raise ValueError(f'label "{value}" is none of classes: {", ".join(self.classes)}')
            return self.classes.index(str(value))
        return _number(value)


class Rows:
    """The rows of a text file, checked once from end to end.

    Args:
        path: of the file.
        columns: that every row must have; names are looked up in the first line of a .csv or .tsv.
        blank: whether blank lines of a .txt are rows.
        place: where in the recipe it is named, for messages.

    Raises:
        DataError: it cannot be read, has no rows, or has one that lacks what is wanted.
    """

    def __init__(self, path: Path, columns: Columns, blank: bool, place: str) -> None:
        self._path, self._columns, self._place = path, columns, f"{place}: {path}"
        self._header: list[str] | None = None
        if path.suffix not in SUFFIXES:
            raise DataError(f"{self._place}: is no {', '.join(SUFFIXES)} file")
        self._starts = np.array(self._index(blank), np.int64).reshape(-1, 2)
        if not len(self):
            raise DataError(f"{self._place}: has no rows")

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, numbers: Iterable[int]) -> Iterator[Row]:
        """Some rows, by their numbers.

        Raises:
            DataError: the file is no longer what it was.
        """
        with self._opened() as lines:
            for number in numbers:
                lines.seek(*self._starts[number].tolist())
                yield self._columns.row(self._record(next(self._parsed(lines), "")))

    def _index(self, blank: bool) -> "array[int]":
        """Offset and line of every row, in turn."""
        starts = array("q")
        with self._opened() as lines:
            records = self._parsed(lines)
            if self._columns.named and self._path.suffix in (".csv", ".tsv"):
                first = next(records, [])
                self._header = [str(name).strip() for name in first] if isinstance(first, list) else []
            start = lines.position
            for record in records:
                if blank or not _is_blank(record):
                    self._columns.row(self._record(record))
                    starts.extend(start)
                start = lines.position
        return starts

    def _parsed(self, lines: "_Lines") -> Iterator[object]:
        """Records as the file has them, without taking a line more than each needs."""
        match self._path.suffix:
            case ".csv":
                return csv.reader(lines, strict=True)
            case ".tsv":
                return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            case ".txt":
                return (line.rstrip("\r\n") for line in lines)
        return (_json(line) for line in lines)

    def _record(self, record: object) -> Record:
        match record:
            case str():
                return {TEXT: record}
            case list():
                return (
                    dict(enumerate(record)) if self._header is None else dict(zip(self._header, record, strict=False))
                )
            case dict():
                return record
        raise ValueError("is neither an object, a list nor a text")

    @contextmanager
    def _opened(self) -> Iterator["_Lines"]:
        """The file, and its faults told with their line."""
        try:
            with self._path.open("rb") as file:
                lines = _Lines(file)
                try:
                    yield lines
                except (ValueError, csv.Error) as error:
                    raise DataError(f"{self._place}, line {lines.line}: {error}") from error
        except OSError as error:
            raise DataError(f"{self._place}: cannot be read: {error.strerror}") from error


class _Lines:
    """Lines of a file from where it stands; they are counted.

    Attributes:
        line: number of the last one read, from 1.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.line = file, 0

    @property
    def position(self) -> tuple[int, int]:
        """Offset and number of the next line."""
        return self._file.tell(), self.line + 1

    def seek(self, offset: int, line: int) -> None:
        """Go to a position."""
        self._file.seek(offset)
        self.line = line - 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        self.line += 1
        try:
            return raw.decode("utf-8-sig" if self.line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError("is not UTF-8 text") from error


def _json(line: str) -> object:
    try:
        return json.loads(line) if line.strip() else ""
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg}, column {error.colno}") from error


def _is_blank(record: object) -> bool:
    return record == [] or (isinstance(record, str) and not record.strip())


def _cell(column: Column, record: Record) -> object:
    if column not in record:
        there = ", ".join(map(str, record))
        listed = there if len(there) <= _MOST_LISTED else f"{there[:_MOST_LISTED]}…"
        raise ValueError(
            f"has no column {column}; it has {listed}: give columns and labels by name, or by position from 0 where "
            "the first line is no header"
        )
    return record[column]


def _text(column: Column, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"column {column} holds {value!r}, which is no text")
    return value


def _number(value: object) -> int | float:
    text = str(int(value)) if isinstance(value, bool) else str(value).strip()
    try:
        number = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        number = inf
    if not isfinite(number):
        raise ValueError(
            f'label "{value}" is no number; list words as classes:, and give columns and labels by name where the '
            "first line is a header"
        )
    return number

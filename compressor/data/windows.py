"""Windows over a long text, for language models: what is fed, and the tokens that really follow."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from compressor.data.base import NOT_SCORED, Array
from compressor.data.rows import Rows
from compressor.data.tokens import Tokenizer, Tokens
from compressor.errors import DataError

_PIECE_CHARACTERS = 8192


class Windows:
    """Windows of equal length, whose labels are the next tokens.

    Each starts with the special tokens that the tokenizer puts before a text. Every token of the text is asked
    for once, by the first window that reaches it: where windows overlap, the others hold NOT_SCORED there, so
    that a shorter stride gives every token more to be predicted from. What does not fill a window at the end is
    left out.

    Args:
        rows: of the file, one column each.
        tokenizer: of the model.
        length: tokens of a window.
        stride: tokens of text from one window to the next; as many as a window holds when None.
        place: for messages.

    Raises:
        DataError: the text is too short, or windows would leave gaps.
    """

    def __init__(self, rows: Rows, tokenizer: Tokenizer, length: int, stride: int | None, place: str) -> None:
        self._corpus = Corpus(rows, tokenizer)
        self._prefix = self._corpus.prefix
        self._text = length - len(self._prefix)
        self._stride = stride or self._text
        if self._stride > self._text:
            raise DataError(f"{place}: stride is {stride}, more than the {self._text} tokens of text in a window")
        if len(self._corpus) <= self._text:
            raise DataError(
                f"{place}: holds {len(self._corpus)} tokens, too few for a window of {self._text} and the token after "
                "it; lower max_length"
            )

    def __len__(self) -> int:
        return (len(self._corpus) - 1 - self._text) // self._stride + 1

    def read(self, numbers: Sequence[int]) -> tuple[list[Tokens], dict[str, Array]]:
        """Some of them, and for each position the token that follows it."""
        windows, labels = [], []
        for number in numbers:
            start = number * self._stride
            tokens = np.array([*self._prefix, *self._corpus.tokens(start, start + self._text + 1)], np.int64)
            following = tokens[1:].copy()
            following[: self._known(number)] = NOT_SCORED
            windows.append(Tokens(tokens[:-1].tolist(), [0] * (len(tokens) - 1)))
            labels.append(following)
        return windows, {"": np.stack(labels)}

    def _known(self, number: int) -> int:
        """Leading positions whose next token is special, or was asked for by the window before."""
        return max(len(self._prefix) - 1, 0) if not number else len(self._prefix) + self._text - self._stride


class Corpus:
    """The text of all rows as one sequence of token ids, tokenized a piece at a time.

    Args:
        rows: of the file, one column each.
        tokenizer: of the model.

    Attributes:
        prefix: the special tokens that the tokenizer puts before a text.
    """

    def __init__(self, rows: Rows, tokenizer: Tokenizer) -> None:
        self._rows, self._tokenizer = rows, tokenizer
        self.prefix: list[int] = []
        bounds, ends = [0], [0]
        for stop, text in self._pieces():
            self.prefix = self.prefix or tokenizer.prefix(text)
            bounds.append(stop)
            ends.append(ends[-1] + len(tokenizer.plain(text)))
        self._bounds, self._ends = bounds, np.array(ends)
        self._piece = lru_cache(maxsize=4)(self._encoded)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def tokens(self, start: int, stop: int) -> list[int]:
        """Ids from position `start` up to `stop`."""
        first, last = np.searchsorted(self._ends, (start, stop - 1), side="right") - 1
        joined = [token for piece in range(first, last + 1) for token in self._piece(piece)]
        offset = int(self._ends[first])
        return joined[start - offset : stop - offset]

    def _pieces(self) -> Iterator[tuple[int, str]]:
        """Where each piece ends, as a row, and its text."""
        text = ""
        for stop, row in enumerate(self._rows.read(range(len(self._rows))), start=1):
            text += f"{row.texts[0]}\n"
            if len(text) >= _PIECE_CHARACTERS or stop == len(self._rows):
                yield stop, text
                text = ""

    def _encoded(self, piece: int) -> list[int]:
        rows = self._rows.read(range(self._bounds[piece], self._bounds[piece + 1]))
        return self._tokenizer.plain("".join(f"{row.texts[0]}\n" for row in rows))

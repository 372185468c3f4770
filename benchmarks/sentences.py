"""Pairs of sentences: read, tokenized, embedded, compared."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.runtime.ort import Session

Doubles = NDArray[np.float64]
Tokens = Sequence[Sequence[int]]

LONGEST = 128
_BATCH = 32


def read_pairs(path: Path) -> tuple[list[str], Doubles]:
    """The sentences, first and second in turn, and one score per pair."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    return [sentence for row in rows for sentence in row[:2]], np.array([float(row[2]) for row in rows])


def tokenize(tokenizer: Path, sentences: Sequence[str]) -> list[list[int]]:
    """Token ids of each sentence, at most `LONGEST`."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    loaded.no_padding()
    loaded.enable_truncation(LONGEST)
    return [encoding.ids for encoding in loaded.encode_batch(list(sentences))]


def padded(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """`input_ids` and `attention_mask`, (sentences, longest)."""
    width = max(map(len, tokens))
    ids, mask = np.zeros((2, len(tokens), width), np.int64)
    for row, sentence in enumerate(tokens):
        ids[row, : len(sentence)] = sentence
        mask[row, : len(sentence)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def embeddings(session: Session, tokens: Tokens) -> Doubles:
    """(sentences, features). Sentences of one length share a batch, so that nothing is padded."""
    found: dict[int, Doubles] = {}
    for rows in _of_equal_length(tokens):
        (output,) = session.run(padded([tokens[row] for row in rows])).values()
        found.update(zip(rows, output.astype(np.float64), strict=True))
    return np.stack([found[row] for row in range(len(tokens))])


def similarities(vectors: Doubles) -> Doubles:
    """Cosine of rows 0 and 1, 2 and 3, …"""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines: Doubles = (unit[0::2] * unit[1::2]).sum(axis=1)
    return cosines


def spearman(a: Doubles, b: Doubles) -> float:
    """Rank correlation; ties take the mean of their ranks."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Doubles) -> Doubles:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Doubles = (last - (counts - 1) / 2)[inverse]
    return ranks


def _of_equal_length(tokens: Tokens) -> Iterator[list[int]]:
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row, sentence in enumerate(tokens):
        groups[len(sentence)].append(row)
    for rows in groups.values():
        yield from (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))

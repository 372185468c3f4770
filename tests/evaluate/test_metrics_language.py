"""Perplexity, recomputed token by token, and the labels that a text is to itself."""

import math
from pathlib import Path

import numpy as np
import pytest

from compressor.data import Batch, Dataset, TextSource
from compressor.data.base import NOT_SCORED
from compressor.errors import DataError
from compressor.evaluate.metrics import METRICS, labels_for
from tests.models import Array, floats, graph, load, run
from tests.words import FIRST_WORD, ids, tokenizer

RNG = np.random.default_rng(7)
LOGITS, TOKENS = 3 * floats(RNG, 6, 5, 11), RNG.integers(0, 11, (6, 5))
TABLE = 2 * floats(RNG, 100, 100)
BIGRAMS = graph("int64[N,L] input_ids => float[N,L,100] logits", "logits = Gather(table, input_ids)", table=TABLE)


def _by_hand(logits: Array, tokens: Array) -> float:
    total, count = 0.0, 0
    for sample, wanted in zip(logits.tolist(), tokens.tolist(), strict=True):
        for scores, token in zip(sample, wanted, strict=True):
            if token != NOT_SCORED:
                total += math.log(math.exp(scores[token]) / sum(map(math.exp, scores)))
                count += 1
    return math.exp(-total / count)


def _over(logits: Array, tokens: Array, size: int = 6) -> float:
    metric = METRICS["perplexity"]()
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        metric.update({"logits": logits[part]}, {"": tokens[part]}, len(tokens[part]))
    return metric.result()


@pytest.mark.parametrize("size", [1, 4, 6])
def test_it_is_the_exponential_of_the_mean_surprise(size: int) -> None:
    assert _over(LOGITS, TOKENS, size) == pytest.approx(_by_hand(LOGITS, TOKENS))


def test_every_token_weighs_the_same_and_those_not_asked_for_nothing() -> None:
    some = np.where(RNG.random((6, 5)) < np.arange(6)[:, None] / 6, NOT_SCORED, TOKENS)
    assert _over(LOGITS, some, 1) == pytest.approx(_by_hand(LOGITS, some))


def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_tokens() -> None:
    assert _over(np.zeros((6, 5, 11), np.float32), TOKENS) == pytest.approx(11)


def test_a_model_that_is_always_right_is_at_1_and_one_that_is_always_wrong_at_infinity() -> None:
    sure = 1e5 * np.eye(11, dtype=np.float32)
    assert _over(sure[TOKENS], TOKENS) == pytest.approx(1)
    assert _over(sure[(TOKENS + 1) % 11], TOKENS) == math.inf


def test_logarithms_of_probabilities_and_half_precision_do_as_well() -> None:
    shifted = LOGITS - np.log(np.exp(LOGITS).sum(axis=2, keepdims=True))
    assert _over(shifted, TOKENS) == pytest.approx(_by_hand(LOGITS, TOKENS), rel=1e-5)
    half = LOGITS.astype(np.float16)
    assert _over(half, TOKENS) == pytest.approx(_by_hand(half, TOKENS))


def test_without_a_token_there_is_no_perplexity() -> None:
    assert math.isnan(METRICS["perplexity"]().result())
    assert math.isnan(_over(LOGITS, np.full_like(TOKENS, NOT_SCORED)))


@pytest.mark.parametrize("wrong", [-1, 11])
def test_a_label_that_is_no_token_is_refused(wrong: int) -> None:
    with pytest.raises(DataError, match=f"label {wrong} of output logits is no class; there are 11"):
        _over(LOGITS, np.full_like(TOKENS, wrong))


def _own_labels(**feeds: Array) -> list[list[int]]:
    samples = len(next(iter(feeds.values())))
    return [row.tolist() for row in labels_for("perplexity", Batch(feeds, {}, samples), "data")[""]]


def test_without_labels_they_are_the_next_tokens_fed_in() -> None:
    ids = np.array([[1, 7, 8], [1, 9, 5]])
    assert _own_labels(tokens=ids) == [[7, 8, NOT_SCORED], [9, 5, NOT_SCORED]]
    assert _own_labels(input_ids=ids, position_ids=ids) == _own_labels(tokens=ids)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([1, 1, 1, 0], [7, 8, -100, -100]), ([0, 1, 1, 1], [-100, 8, 0, -100]), ([0] * 4, [-100] * 4)],
)
def test_padding_is_never_asked_for_on_either_side(mask: list[int], expected: list[int]) -> None:
    assert _own_labels(input_ids=np.array([[1, 7, 8, 0]]), attention_mask=np.array([mask])) == [expected]


def test_samples_that_fill_up_a_batch_have_no_labels() -> None:
    batch = Batch({"input_ids": np.ones((4, 3), np.int64)}, {}, 2)
    assert labels_for("perplexity", batch, "data")[""].shape == (2, 3)


@pytest.mark.parametrize("feeds", [{"a": TOKENS, "b": TOKENS}, {"x": LOGITS[0]}, {"x": TOKENS[0]}])
def test_where_the_tokens_are_not_clear_labels_are_asked_for(feeds: dict[str, Array]) -> None:
    with pytest.raises(DataError, match="finds no token ids"):
        _own_labels(**feeds)


WORDS = [" ".join(f"w{i}" for i in RNG.integers(0, 90, 7)) for _ in range(20)]


def _opened(folder: Path, **settings: object) -> Dataset:
    (folder / "data.txt").write_text("\n".join(WORDS))
    given = {"path": folder / "data.txt", "tokenizer": tokenizer(folder / "tokenizer.json", "plain"), **settings}
    return TextSource.model_validate(given).open(load(BIGRAMS, folder), "data", 0)


def _perplexity(data: Dataset) -> float:
    metric = METRICS["perplexity"]()
    for batch in data.batches():
        metric.update(run(BIGRAMS, batch.feeds), labels_for("perplexity", batch, "data"), batch.samples)
    return metric.result()


@pytest.mark.parametrize(
    ("settings", "reached"), [({}, 131), ({"stride": 3}, 140), ({"stride": 10, "batch": 4}, 131), ({"stride": 9}, 137)]
)
def test_windows_over_a_text_see_it_as_one_sequence(tmp_path: Path, settings: dict[str, object], reached: int) -> None:
    text = np.array(ids(" ".join(WORDS))[:reached])
    expected = _by_hand(TABLE[text[:-1]][None], text[1:][None])
    assert _perplexity(_opened(tmp_path, unit="window", max_length=10, **settings)) == pytest.approx(expected)


def test_rows_are_sequences_of_their_own(tmp_path: Path) -> None:
    rows = np.array([ids(line) for line in WORDS])
    assert rows.min() >= FIRST_WORD
    expected = _by_hand(TABLE[rows[:, :-1]], rows[:, 1:])
    assert _perplexity(_opened(tmp_path)) == pytest.approx(expected, rel=1e-5)

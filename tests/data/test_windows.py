"""Windows over a text: as if it had been tokenized in one piece, every token asked for once."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import Dataset, TextSource, windows
from compressor.data.base import NOT_SCORED
from compressor.errors import DataError
from tests.models import graph, load
from tests.words import START, ids, tokenizer

MODEL = graph("int64[N,L] input_ids => int64[N,L] y", "y = Identity(input_ids)")
FIXED = graph("int64[3,8] input_ids => int64[3,8] y", "y = Identity(input_ids)")
LINES = [" ".join(f"w{(5 * i + 11 * j) % 90}" for j in range(i % 7)) for i in range(31)]
TEXT = [token for line in LINES for token in ids(line)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds a text of several pieces, blank lines among them."""
    monkeypatch.setattr(windows, "_PIECE_CHARACTERS", 50)
    (tmp_path / "data.txt").write_text("\n".join(LINES))
    return tmp_path


def _open(folder: Path, kind: str, model: object = MODEL, **settings: object) -> Dataset:
    given = {"path": folder / "data.txt", "tokenizer": tokenizer(folder / "tokenizer.json", kind), "unit": "window"}
    return TextSource.model_validate(given | settings).open(load(model, folder), "data.here", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["plain", "llama"])
@pytest.mark.parametrize("length", [2, 8, 40])
@pytest.mark.parametrize("stride", [None, 1, 3, 7])
@pytest.mark.parametrize("batch", [None, 4])
def test_windows_are_slices_of_the_whole_text_and_ask_for_every_token_once(
    folder: Path, kind: str, length: int, stride: int | None, batch: int | None
) -> None:
    prefix = [START] if kind == "llama" else []
    held = length - len(prefix)
    if stride is not None and stride > held:
        return
    step, asked, start = stride or held, [], 0
    for batched in _open(folder, kind, max_length=length, stride=stride, batch=batch).batches():
        for fed, wanted in zip(batched.feeds["input_ids"], batched.labels[""], strict=True):
            assert fed.tolist() == [*prefix, *TEXT[start : start + held]]
            for position in np.flatnonzero(wanted != NOT_SCORED):
                number = start + int(position) + 1 - len(prefix)
                assert wanted[position] == TEXT[number]
                asked.append(number)
            start += step
    assert start - step + held < len(TEXT) <= start + held
    assert asked == list(range(1 - len(prefix), start - step + held + 1))


def test_a_model_of_fixed_length_and_batch_sets_both(folder: Path) -> None:
    batches = list(_open(folder, "plain", FIXED).batches())
    assert {batch.feeds["input_ids"].shape for batch in batches} == {(3, 8)}
    assert sum(batch.samples for batch in batches) == (len(TEXT) - 9) // 8 + 1
    assert all(len(batch.labels[""]) == batch.samples for batch in batches)


def test_a_draw_and_a_split_are_of_whole_windows(folder: Path) -> None:
    everything = [b.feeds["input_ids"].tolist() for b in _open(folder, "plain", max_length=8).batches()]
    drawn = [b.feeds["input_ids"].tolist() for b in _open(folder, "plain", max_length=8, samples=5).batches()]
    assert len(drawn) == 5
    assert all(window in everything for window in drawn)
    left, right = _open(folder, "plain", max_length=8).split(3)
    assert [b.feeds["input_ids"].tolist() for part in (left, right) for b in part.batches()] == everything


def test_a_window_is_a_batch_of_its_own_unless_told_otherwise(folder: Path) -> None:
    assert _open(folder, "plain", max_length=8).batch == 1
    assert _open(folder, "plain", max_length=8, batch=4).batch == 4


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        (MODEL, {}, "unit: window needs max_length"),
        (MODEL, {"max_length": 1}, "max_length is 1, and the tokenizer's own 1 tokens fill it"),
        (MODEL, {"max_length": 1000}, f"holds {len(TEXT)} tokens, too few for a window of 999 and the token after it"),
        (MODEL, {"max_length": 8, "stride": 8}, "stride is 8, more than the 7 tokens of text in a window"),
        (FIXED, {"max_length": 4}, "max_length is 4, but the model takes exactly 8"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    folder: Path, model: object, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(DataError, match=f"^data.here: .*{reason}"):
        _open(folder, "llama", model, **settings)

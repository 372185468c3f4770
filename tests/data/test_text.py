"""Texts become token ids, masks and positions: every row once, as the model's own tokenizer says."""

import csv
import io
import json
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from compressor.data import ArraysSource, Dataset, TextSource
from compressor.errors import DataError
from tests.models import Array, graph, load
from tests.words import BETWEEN, FIRST, PAD, START, UNKNOWN, ids, tokenizer

MASKED = graph("int64[N,L] input_ids, int64[N,L] attention_mask => int64[N,L] y", "y = Add(input_ids, attention_mask)")
LONE = graph("int32[N,L] tokens => int32[N,L] y", "y = Identity(tokens)")
FIXED = graph("int64[4,6] input_ids, int64[4,6] attention_mask => int64[4,6] y", "y = Add(input_ids, attention_mask)")
EVERYTHING = graph(
    "int64[N,L] input_ids, float[N,L] attention_mask, int64[N,L] token_type_ids, int64[N,L] position_ids"
    " => int64[N,L] y, float[N,L] z",
    "a = Add(input_ids, token_type_ids)  y = Add(a, position_ids)  z = Identity(attention_mask)",
)
TEXTS = [" ".join(f"w{(7 * i + j) % 90}" for j in range(1 + i % 4)) for i in range(10)]


def _open(folder: Path, path: Path, proto: onnx.ModelProto = MASKED, seed: int = 0, **settings: object) -> Dataset:
    given = {"path": path, "tokenizer": folder / "tokenizer.json", **settings}
    return TextSource.model_validate(given).open(load(proto, folder), "data.here", seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a tokenizer that puts [CLS] and [SEP] around texts."""
    tokenizer(tmp_path / "tokenizer.json")
    return tmp_path


def _lines(folder: Path, *lines: str, name: str = "data.txt") -> Path:
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / name


def _table(folder: Path, rows: Sequence[Sequence[object]], name: str = "data.csv") -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / name


def _samples(data: Dataset) -> list[list[int]]:
    """The ids of every sample, without what fills up a batch or a row."""
    found: list[list[int]] = []
    for batch in data.batches():
        feeds, masks = batch.feeds["input_ids"], batch.feeds["attention_mask"]
        found += [row[mask == 1].tolist() for row, mask in zip(feeds, masks, strict=True)][: batch.samples]
    return found


def _labels(data: Dataset) -> Array:
    return np.concatenate([batch.labels[""] for batch in data.batches()])


def _bert(*texts: str) -> list[int]:
    return [FIRST, *(token for text in texts for token in (*ids(text), BETWEEN))]


FORMATS: dict[str, tuple[str, str, dict[str, object]]] = {
    "text": (".txt", "\n".join(TEXTS), {}),
    "text of Windows": (".txt", "\ufeff" + "\r\n".join(TEXTS) + "\r\n", {}),
    "blank lines": (".txt", "\n\n" + "\n  \n\n".join(TEXTS), {}),
    "columns by name": (".csv", "id,text\n" + "".join(f"{i},{t}\n" for i, t in enumerate(TEXTS)), {}),
    "another name": (".csv", "body, id\n" + "".join(f"{t},{i}\n" for i, t in enumerate(TEXTS)), {"columns": "body"}),
    "columns by position": (".csv", "".join(f'{i},"{t}"\r\n' for i, t in enumerate(TEXTS)), {"columns": [1]}),
    "tabs": (".tsv", "text\tid\n" + "".join(f"{t}\t{i}\n" for i, t in enumerate(TEXTS)), {}),
    "objects": (".jsonl", "\n".join(json.dumps({"text": t, "id": i}) for i, t in enumerate(TEXTS)), {}),
    "lists": (".jsonl", "\n\n".join(json.dumps([i, t]) for i, t in enumerate(TEXTS)), {"columns": 1}),
    "texts in JSON": (".ndjson", "\n".join(map(json.dumps, TEXTS)), {}),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_every_format_gives_all_texts_once_in_order(folder: Path, kind: str, batch: int) -> None:
    suffix, content, settings = FORMATS[kind]
    path = folder / f"data{suffix}"
    path.write_bytes(content.encode())
    data = _open(folder, path, batch=batch, **settings)
    assert len(data) == 10
    assert [b.samples for b in data.batches()] == [min(batch, 10 - i) for i in range(0, 10, batch)]
    assert _samples(data) == _samples(data) == [_bert(text) for text in TEXTS]


def test_a_cell_may_hold_commas_quotes_and_line_ends(folder: Path) -> None:
    rows = [["w1, w2\nw3", 'w4 "w5"'], ["w6", "w7\r\n\r\nw8"], ["w9", "w10"]]
    path = _table(folder, rows)
    found = _samples(_open(folder, path, columns=[0, 1], samples=3, seed=1))
    assert sorted(map(len, found)) == [5, 6, 8]
    assert [FIRST, UNKNOWN, *ids("w2 w3"), BETWEEN, *ids("w4"), UNKNOWN, BETWEEN] in found


def test_two_columns_of_a_row_are_encoded_together(folder: Path) -> None:
    path = _table(folder, [["w1 w2", "w3"], ["w4", "w5 w6 w7"]])
    feeds = _open(folder, path, EVERYTHING, columns=[0, 1]).first().feeds
    assert feeds["input_ids"].tolist() == [[*_bert("w1 w2", "w3"), PAD], _bert("w4", "w5 w6 w7")]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 0], [1] * 7]
    assert feeds["attention_mask"].dtype == np.float32
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 5], [0, 1, 2, 3, 4, 5, 6]]


def test_padding_comes_first_where_the_tokenizer_says_so_and_positions_start_after_it(folder: Path) -> None:
    tokenizer(folder / "tokenizer.json", left=True)
    feeds = _open(folder, _lines(folder, "w1", "w2 w3 w4"), EVERYTHING).first().feeds
    assert feeds["input_ids"].tolist() == [[PAD, PAD, *_bert("w1")], _bert("w2 w3 w4")]
    assert feeds["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1] * 5]
    assert feeds["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]


def test_another_token_may_fill_up(folder: Path) -> None:
    feeds = _open(folder, _lines(folder, "w1", "w2 w3"), pad="<s>").first().feeds
    assert feeds["input_ids"][0].tolist() == [*_bert("w1"), START]


def test_a_fixed_model_is_filled_up_in_both_directions_and_long_texts_are_cut(folder: Path) -> None:
    batches = list(_open(folder, _lines(folder, *TEXTS[:5], "w1 w2 w3 w4 w5 w6"), FIXED).batches())
    assert [(b.samples, b.feeds["input_ids"].shape) for b in batches] == [(4, (4, 6)), (2, (4, 6))]
    assert batches[1].feeds["input_ids"][1].tolist() == [FIRST, *ids("w1 w2 w3 w4"), BETWEEN]
    assert batches[1].feeds["attention_mask"][2].tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("limit", "settings", "length"),
    [(None, {}, 42), (5, {}, 5), (5, {"max_length": 9}, 9), (None, {"max_length": 3}, 3)],
)
def test_texts_are_cut_to_what_the_recipe_says_or_else_the_tokenizer(
    folder: Path, limit: int | None, settings: dict[str, object], length: int
) -> None:
    tokenizer(folder / "tokenizer.json", limit=limit)
    (found,) = _samples(_open(folder, _lines(folder, " ".join(f"w{i}" for i in range(40))), **settings))
    assert found == [FIRST, *(10 + i for i in range(length - 2)), BETWEEN]


def test_a_lone_integer_input_takes_the_ids_in_its_own_type(folder: Path) -> None:
    first = _open(folder, _lines(folder, "w1", "w2 w3"), LONE).first()
    assert first.feeds["tokens"].tolist() == [_bert("w1")]
    assert first.feeds["tokens"].dtype == np.int32


def test_nothing_is_filled_up_where_no_mask_would_tell(folder: Path) -> None:
    path = _lines(folder, *TEXTS)
    assert [b.feeds["tokens"].tolist()[0] for b in _open(folder, path, LONE).batches()] == [_bert(t) for t in TEXTS]
    assert _open(folder, path).batch == 32
    assert _open(folder, path, LONE, batch=3).batch == 3


def test_inputs_may_have_other_names(folder: Path) -> None:
    proto = graph("int64[N,L] words, int64[N,L] seen => int64[N,L] y", "y = Add(words, seen)")
    names = {"words": "input_ids", "seen": "attention_mask"}
    feeds = _open(folder, _lines(folder, "w1", "w2 w3"), proto, inputs=names).first().feeds
    assert feeds["words"].tolist() == [[*_bert("w1"), PAD], _bert("w2 w3")]
    assert feeds["seen"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("batch", [1, 2, 3, 20])
def test_sentences_of_a_row_follow_each_other_and_the_score_stands_at_the_second(folder: Path, batch: int) -> None:
    path = _table(folder, [[f"w{i}", f"w{i} w{i + 1}", i / 2] for i in range(5)])
    data = _open(folder, path, columns=[0, 1], labels=2, unit="sentence", batch=batch)
    assert _samples(data) == [_bert(text) for i in range(5) for text in (f"w{i}", f"w{i} w{i + 1}")]
    expected = [label for i in range(5) for label in (np.nan, i / 2)]
    np.testing.assert_array_equal(_labels(data), expected)


@pytest.mark.parametrize("count", [1, 4, 7, 99])
def test_a_draw_of_sentences_keeps_pairs_together(folder: Path, count: int) -> None:
    path = _table(folder, [[f"w{i}", f"w{i + 40}"] for i in range(5)])
    drawn = _samples(_open(folder, path, columns=[0, 1], unit="sentence", samples=count, seed=3))
    words = [sample[1] - 10 for sample in drawn]
    assert len(drawn) == len(set(words)) == min(count, 10)
    assert all(second == first + 40 for first, second in zip(words[::2], words[1::2], strict=False))


@pytest.mark.parametrize(
    ("cells", "settings", "expected"),
    [
        (["0", "2", "-1"], {}, np.array([0, 2, -1])),
        (["0.5", "2", "1e3"], {}, np.array([0.5, 2, 1000])),
        (["bad", "good", "bad"], {"classes": ["bad", "good"]}, np.array([0, 1, 0])),
    ],
)
def test_labels_are_numbers_or_words_for_them(
    folder: Path, cells: list[str], settings: dict[str, object], expected: Array
) -> None:
    path = _table(folder, [["text", "label"], *(["w1", cell] for cell in cells)])
    found = _labels(_open(folder, path, labels="label", **settings))
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


def test_labels_may_belong_to_several_outputs(folder: Path) -> None:
    path = folder / "data.jsonl"
    path.write_text('{"text": "w1", "a": 3, "b": true}\n')
    labels = _open(folder, path, labels={"y": "a", "z": "b"}).first().labels
    assert {name: array.tolist() for name, array in labels.items()} == {"y": [3], "z": [1]}


@pytest.mark.parametrize("first", [0, 1, 5, 10])
def test_a_split_holds_every_sample_exactly_once(folder: Path, first: int) -> None:
    left, right = _open(folder, _lines(folder, *TEXTS), batch=3).split(first)
    assert (len(left), len(right)) == (first, 10 - first)
    assert _samples(left) + _samples(right) == [_bert(text) for text in TEXTS]


def test_holding_out_is_at_random_and_repeats_with_the_seed(folder: Path) -> None:
    given = {"path": _lines(folder, *TEXTS), "tokenizer": folder / "tokenizer.json"}
    model, source = load(MASKED, folder), TextSource.model_validate(given)
    (learn, judge), again, other = (source.open_split(model, "data", seed, None) for seed in (0, 0, 1))
    assert (len(learn), len(judge)) == (8, 2)
    assert sorted(_samples(learn) + _samples(judge)) == sorted(map(_bert, TEXTS))
    assert _samples(judge) == _samples(again[1]) != _samples(other[1])


def test_the_same_file_is_the_same_place_however_it_is_read(folder: Path) -> None:
    given = {"path": "a.csv", "tokenizer": "t.json"}
    one = TextSource.model_validate({**given, "columns": [0, 1], "unit": "sentence"})
    same = TextSource.model_validate({**given, "columns": [0], "labels": 2})
    assert one.same_samples(same, ())
    assert not one.same_samples(TextSource.model_validate({**given, "path": "b.csv"}), ())
    assert not one.same_samples(ArraysSource.model_validate({"path": "a.csv"}), ())


UNKNOWN_INPUT = graph("int64[N,L] input_ids, float[N,L] past => float[N,L] y", "y = Relu(past)")
NO_IDS = graph(
    "int64[N,L] attention_mask, int64[N,L] position_ids => int64[N,L] y", "y = Add(attention_mask, position_ids)"
)
PICTURE = graph("float[N,3] x => float[N,3] y", "y = Relu(x)")
FLAT = graph("int64[L] input_ids => int64[L] y", "y = Identity(input_ids)")


@pytest.mark.parametrize(
    ("content", "proto", "settings", "reason"),
    [
        ("w1\n", UNKNOWN_INPUT, {}, "input past is none of them; say which, as inputs: {past: input_ids}"),
        ("w1\n", NO_IDS, {}, "no input takes input_ids"),
        ("w1\n", PICTURE, {}, "input x is none of them"),
        ("w1\n", FLAT, {}, "input_ids: has shape [1, 3], but the model's input is input_ids: int64[L]"),
        ("w1\n", MASKED, {"inputs": {"words": "input_ids"}}, "inputs names words, which is no input of the model"),
        ("w1\n", MASKED, {"columns": "body"}, "line 1: has no column body; it has text: give columns and labels by"),
        ("w1\n", FIXED, {"max_length": 9}, "max_length is 9, but the model takes exactly 6; leave it out"),
        ("w1\n", MASKED, {"max_length": 2}, "max_length is 2, and the tokenizer's own 2 tokens fill it; raise it"),
        ("w1\n", MASKED, {"pad": "<end>"}, "pad is <end>, which is no token of it"),
        ("", MASKED, {}, "has no rows"),
        ("\n \n", MASKED, {}, "has no rows"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    folder: Path, content: str, proto: onnx.ModelProto, settings: dict[str, object], reason: str
) -> None:
    path = folder / "data.txt"
    path.write_text(content)
    with pytest.raises(DataError) as refused:
        list(_open(folder, path, proto, **settings).batches())
    assert reason in str(refused.value)
    assert str(refused.value).startswith("data.here: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "settings", "reason"),
    [
        ("d.csv", b"a,b\nw1\nw2,w3\n", {"columns": "b"}, "line 2: has no column b; it has a"),
        ("d.csv", b"w1,w2\nw3,w4\n", {}, "line 2: has no column text; it has w1, w2: give columns"),
        ("d.csv", b'w1\n"w2\nw3\n', {"columns": 0}, "line 3: unexpected end of data"),
        ("d.csv", b"text,label\nw1,1\n\nw2,x\n", {"labels": "label"}, 'line 4: label "x" is no number; list words as'),
        ("d.csv", b"text,label\nw1,nan\n", {"labels": "label"}, 'line 2: label "nan" is no number'),
        ("d.csv", b"text,label\nw1,c\n", {"labels": "label", "classes": ["a"]}, 'label "c" is none of classes: a'),
        ("d.csv", b"text\n", {}, "has no rows"),
        ("d.csv", b"", {}, "has no rows"),
        ("d.jsonl", b'{"text": "w1"}\n{"text": 5}\n', {}, "line 2: column text holds 5, which is no text"),
        ("d.jsonl", b'{"text": "w1"}\n{"text": \n', {}, "line 2: is not JSON: "),
        ("d.jsonl", b"7\n", {}, "line 1: is neither an object, a list nor a text"),
        ("d.jsonl", b"null\n", {}, "line 1: is neither an object, a list nor a text"),
        ("d.txt", b"w1\nw\xff\n", {}, "line 2: is not UTF-8 text"),
        ("d.parquet", b"w1\n", {}, "is no .txt, .csv"),
        ("none.txt", None, {}, "cannot be read: No such file"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(
    folder: Path, name: str, content: bytes | None, settings: dict[str, object], reason: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        _open(folder, folder / name, **settings)
    assert reason in str(refused.value)
    assert str(refused.value).startswith(f"data.here: {folder / name}")
    assert "\n" not in str(refused.value)


def test_a_tokenizer_that_makes_nothing_of_a_text_says_so(folder: Path) -> None:
    tokenizer(folder / "tokenizer.json", "plain")
    path = _table(folder, [["text", "id"], ["", "1"]])
    with pytest.raises(DataError, match="makes no token of"):
        list(_open(folder, path).batches())


def test_without_a_token_to_fill_up_texts_must_be_of_one_length(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text().replace("[PAD]", "[NIX]")
    (folder / "tokenizer.json").write_text(text)
    data = _open(folder, _lines(folder, "w1 w2", "w3 w4", "w5"), batch=2)
    batches = data.batches()
    assert next(batches).samples == 2
    assert next(batches).samples == 1
    with pytest.raises(DataError, match="has no token to fill up short texts; name one, such as pad"):
        list(_open(folder, _lines(folder, "w1 w2", "w5"), batch=2).batches())


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"model": 5}', b"\xff\xfe"])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"^data.here: .*tokenizer\.json: ") as refused:
        _open(folder, _lines(folder, "w1"))
    assert "\n" not in str(refused.value)


def test_a_word_that_the_tokenizer_cannot_take_is_its_fault(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["unk_token"] = "gone"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"^data.here: .*tokenizer\.json: "):
        list(_open(folder, _lines(folder, "unheard")).batches())


def test_without_the_library_the_way_out_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"^data.here: .*pip install tokenizers$"):
        _open(folder, _lines(folder, "w1"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"unit": "sentence"}, "takes two columns"),
        ({"unit": "window", "columns": [0, 1]}, "takes one column"),
        ({"unit": "window", "labels": 1}, "its labels are the next tokens"),
        ({"stride": 3}, "stride is for unit: window"),
        ({"classes": ["a"]}, "give labels"),
        ({"columns": [0, 1, 2]}, "at most 2"),
        ({"columns": []}, "at least 1"),
        ({"columns": -1}, "greater than or equal to 0"),
        ({"inputs": {"x": "ids"}}, "input_ids"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TextSource.model_validate({"path": "a.csv", "tokenizer": "t.json", **settings})


def test_a_file_that_changes_under_way_is_told(folder: Path) -> None:
    path = folder / "data.jsonl"
    path.write_text('{"text": "w1"}\n' * 3)
    data = _open(folder, path, batch=1)
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"^data.here: .*data\.jsonl, line 1: "):
        list(data.batches())


def test_what_is_kept_of_a_file_does_not_grow_with_its_texts(folder: Path) -> None:
    def peak(length: int) -> int:
        content = io.StringIO()
        for _ in range(2000):
            content.write("w1 " * length + "\n")
        path = _lines(folder, content.getvalue())
        del content
        tracemalloc.start()
        assert sum(batch.samples for batch in _open(folder, path, max_length=8, batch=8).batches()) == 2000
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(200) - peak(2) < 2000 * 200  # the file is 1.2 MB longer

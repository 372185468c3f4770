"""Entries are filled in, what is missing is named, and the sample that is timed is a typical one."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.tasks import Entry, Places, Task, open_data, typical_sample
from tests.benchmarks import tiny
from tests.models import graph, write


def test_folders_are_put_in_wherever_an_entry_names_them(tmp_path: Path) -> None:
    places = Places(tmp_path / "a", tmp_path / "m")
    entry: Entry = {"path": "<assets>/x.npz", "deep": {"list": ["<made>/y", 1]}, "about": "in <assets>", "count": 3}
    assert places.entry(entry) == {
        "path": f"{tmp_path}/a/x.npz",
        "deep": {"list": [f"{tmp_path}/m/y", 1]},
        "about": "in <assets>",
        "count": 3,
    }


def test_a_filled_entry_shares_nothing_with_its_origin_which_yaml_would_write_as_an_alias(tmp_path: Path) -> None:
    mean = [0.5]
    filled = tiny.places(tmp_path).entry({"mean": mean, "std": mean})
    assert filled["mean"] is not filled["std"]


def test_what_is_missing_is_named_but_for_what_is_made(tmp_path: Path) -> None:
    places = tiny.places(tmp_path)
    task = replace(tiny.classes(tmp_path), calibration={"source": "arrays", "path": "<made>/later.npy"})
    assert list(task.missing(places)) == []
    (places.assets / "model.onnx").unlink()
    (places.assets / "data.npz").unlink()
    assert set(task.missing(places)) == {places.assets / "model.onnx", places.assets / "data.npz"}


def test_a_task_without_a_metric_is_judged_by_cosine(tmp_path: Path) -> None:
    task = tiny.classes(tmp_path)
    assert task.metric == "top-1"
    assert replace(task, evaluation={"source": "random"}).metric == "cosine"


def _of_lengths(places: Places, lengths: list[int]) -> Task:
    """Texts of so many letters for a model that takes any number of tokens."""
    write(graph("int64[N,T] input_ids => int64[N,T] y", "y = Identity(input_ids)"), places.assets / "model.onnx")
    (places.assets / "texts.txt").write_text("\n".join("a " * length for length in lengths))
    vocabulary = '{"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}'
    (places.assets / "tokenizer.json").write_text(
        '{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, '
        f'"pre_tokenizer": {{"type": "Whitespace"}}, "post_processor": null, "decoder": null, "model": {vocabulary}}}'
    )
    evaluation: Entry = {"source": "text", "path": "<assets>/texts.txt", "tokenizer": "<assets>/tokenizer.json"}
    return Task("texts", "<assets>/model.onnx", evaluation, (), timed=len(lengths))


def test_the_sample_that_is_timed_is_of_median_length(tmp_path: Path) -> None:
    places = tiny.places(tmp_path)
    sample = typical_sample(_of_lengths(places, [2, 9, 30, 4, 50]), places)
    assert sample["input_ids"].shape == (1, 9)


def test_data_comes_in_the_same_order_every_time(tmp_path: Path) -> None:
    places, task = tiny.places(tmp_path), tiny.classes(tmp_path)
    entry = places.entry({**task.evaluation, "samples": 10})
    once, again = ([b.feeds["x"] for b in open_data(entry, places.path(task.model)).batches()] for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(once), np.concatenate(again))

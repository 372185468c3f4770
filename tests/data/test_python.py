"""Samples out of a function in a file beside the recipe."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from compressor.data import Dataset, PythonSource
from compressor.data.base import Placed
from compressor.errors import DataError
from tests.models import graph, load

FLAT = graph("float[N,2] x => float[N,2] y", "y = Relu(x)")
TWO = graph("float[N,2] x, float[N,2] z => float[N,2] y", "y = Add(x, z)")
CODE = """
import numpy as np

def feeds():
    for i in range(5):
        yield {"x": np.full((i + 1, 2), i, np.float64)}

def labelled():
    for item in feeds():
        yield item, item["x"][:, 0].astype(int)

def several():
    for item in feeds():
        yield item, {"y": item["x"]}

def lone():
    return [item["x"] for item in feeds()]

def nothing():
    return []

def wrong():
    yield {"zz": np.zeros((1, 2))}

def integers():
    yield np.zeros((1, 2), int)

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds samples.py and nothing else."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "samples.py").write_text(CODE)
    return tmp_path / "beside"


def _open(folder: Path, name: str, proto: onnx.ModelProto = FLAT, **settings: object) -> Dataset:
    source = PythonSource.model_validate({"function": Placed(f"samples:{name}", folder), **settings})
    return source.open(load(proto, folder), "data.here", 0)


@pytest.mark.parametrize("name", ["feeds", "labelled", "several", "lone"])
def test_every_item_is_a_batch_of_the_models_type(name: str, folder: Path) -> None:
    batches = list(_open(folder, name).batches())
    assert [batch.samples for batch in batches] == [1, 2, 3, 4, 5]
    for index, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.feeds["x"], np.full((index + 1, 2), index))
        assert batch.feeds["x"].dtype == np.float32


def test_labels_come_along_with_or_without_a_name(folder: Path) -> None:
    assert _open(folder, "labelled").first().labels[""].tolist() == [0]
    assert _open(folder, "several").first().labels["y"].tolist() == [[0, 0]]


def test_a_stream_may_be_taken_again_and_cut_short(folder: Path) -> None:
    data = _open(folder, "feeds", samples=3)
    assert len(data) == len(list(data.batches())) == len(list(data.batches())) == 3


def test_a_split_holds_every_item_exactly_once(folder: Path) -> None:
    left, right = _open(folder, "feeds").split(2)
    values = [int(batch.feeds["x"][0, 0]) for part in (left, right) for batch in part.batches()]
    assert (len(left), len(right), values) == (2, 3, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "proto", "reason"),
    [
        ("nothing", FLAT, "samples:nothing yields nothing"),
        ("wrong", FLAT, "item 0: feeds zz, but the model's inputs are x"),
        ("feeds", TWO, "item 0: feeds x, but the model's inputs are x, z"),
        ("lone", TWO, "item 0: feeds x, but the model's inputs are x, z"),
        ("integers", FLAT, "item 0: x: is int64, but input x"),
        ("absent", FLAT, "samples has no function absent"),
        ("number", FLAT, "samples has no function number"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_item(
    name: str, proto: onnx.ModelProto, reason: str, folder: Path
) -> None:
    with pytest.raises(DataError, match=rf"^data.here: .*{reason}"):
        list(_open(folder, name, proto).batches())


def test_a_module_that_is_not_there_is_named(folder: Path) -> None:
    source = PythonSource.model_validate({"function": Placed("no_such_module:f", folder)})
    with pytest.raises(DataError, match=r"no_such_module:f: cannot be imported: No module named"):
        source.open(load(FLAT, folder), "data.here", 0)


@pytest.mark.parametrize("name", ["samples", "samples:", ":feeds", "samples:a b", "samples.feeds"])
def test_a_name_must_be_module_and_function(name: str) -> None:
    with pytest.raises(ValidationError, match="write it as module:function"):
        PythonSource.model_validate({"function": name})


def test_the_file_beside_the_recipe_wins_over_an_installed_module(folder: Path) -> None:
    (folder / "json.py").write_text("import numpy as np\n\ndef loads():\n    yield np.ones((1, 2))\n")
    source = PythonSource.model_validate({"function": Placed("json:loads", folder)})
    installed = sys.modules["json"]
    assert source.open(load(FLAT, folder), "data.here", 0).first().feeds["x"].tolist() == [[1, 1]]
    assert sys.modules["json"] is installed

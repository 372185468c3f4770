"""A metric of the user's own: a class beside the recipe, used like ours, with its faults told as the user's."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data.base import FunctionName
from compressor.errors import DataError
from compressor.evaluate.metrics import new_metric
from compressor.recipe import dump, load
from tests.cli import tiny
from tests.cli.calling import call, done, ran, refused, write_recipe

CODE = """
import numpy as np


class Misses:
    higher_is_better = False

    def __init__(self):
        self.wrong = self.seen = 0

    def update(self, outputs, labels, samples):
        self.wrong += int((outputs["y"][:samples].argmax(axis=1) != labels[""]).sum())
        self.seen += samples

    def result(self):
        return self.wrong / self.seen


class Largest:
    higher_is_better = True
    found = -np.inf

    def update(self, outputs, labels, samples):
        self.found = max(self.found, outputs["y"].max())

    def result(self):
        return self.found


class Broken(Misses):
    def update(self, outputs, labels, samples):
        raise KeyError("gone")


class NoNumber(Misses):
    def result(self):
        return "much"


class Unfinished:
    def update(self, outputs, labels, samples):
        pass


class Demanding(Misses):
    def __init__(self, threshold):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a model, labelled samples and scoring.py."""
    tiny.mlp(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=tiny.normal(20, 8), labels=np.arange(20) % 4)
    (tmp_path / "scoring.py").write_text(CODE)
    return tmp_path


def _evaluation(metric: str, labels: str | None = "labels") -> dict[str, object]:
    source = {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}, "metric": metric}
    return {"evaluation": source | ({"labels": labels} if labels else {})}


def test_it_is_reported_and_gated_like_ours(folder: Path) -> None:
    data = _evaluation("scoring:Misses")
    accuracy = ran(folder, data=data, gates={"accuracy_drop": {"max": 0}})["accuracy"]
    stored = np.load(folder / "data.npz")
    (scores,) = tiny.execute(folder / "model.onnx", {"x": stored["x"]})
    expected = (scores.argmax(axis=1) != stored["labels"]).mean()
    assert accuracy == {
        "metric": "scoring:Misses",
        "reference": pytest.approx(expected),
        "result": pytest.approx(expected),
        "higher_is_better": False,
        "samples": 20,
        "drop": 0,
    }


def test_a_loss_is_positive_in_the_direction_that_the_class_gives(folder: Path) -> None:
    prune = [{"type": "prune_magnitude", "sparsity": 0.9}]
    settings = {"passes": prune, "verify": {"cosine": -1}}
    for metric, sign in (("scoring:Misses", 1), ("scoring:Largest", -1)):
        write_recipe(folder, data=_evaluation(metric), **settings)
        found = done(folder, "run", "recipe.yaml", "--overwrite", "--json", "-").record()["accuracy"]
        assert isinstance(found, dict)
        assert found["drop"] == pytest.approx(sign * (found["result"] - found["reference"]))


def test_it_may_do_without_labels(folder: Path) -> None:
    accuracy = ran(folder, data=_evaluation("scoring:Largest", None))["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["reference"] == accuracy["result"] > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Broken", "metric scoring:Broken: KeyError: 'gone' (scoring.py, line "),
        ("NoNumber", "metric scoring:NoNumber: ValueError: "),
        ("Unfinished", "metric scoring:Unfinished: has no higher_is_better, result; a metric needs"),
        ("Demanding", "metric scoring:Demanding: TypeError: "),
        ("Absent", "scoring has no function Absent"),
    ],
)
def test_its_faults_are_told_in_one_line(folder: Path, name: str, says: str) -> None:
    recipe = write_recipe(folder, data=_evaluation(f"scoring:{name}"))
    assert len(refused(folder, 3, "run", recipe, says=(says,))) == 1


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="metric no_such:Thing: cannot be imported: No module named"):
        new_metric(FunctionName("no_such:Thing", Path()))


def test_a_metric_that_nobody_knows_is_an_error_of_the_recipe(folder: Path) -> None:
    recipe = write_recipe(folder, data=_evaluation("top3"))
    (line,) = refused(
        folder, 2, "check", recipe, says=('data.evaluation.metric: "top3" is no metric; there are top1,',)
    )
    assert line.endswith("and module:class for one of your own")


def test_a_recipe_with_one_survives_writing(folder: Path) -> None:
    recipe, _ = load(write_recipe(folder, data=_evaluation("scoring:Misses")))
    (folder / "sub").mkdir()
    (folder / "sub" / "again.yaml").write_text(dump(recipe, folder / "sub"))
    again, _ = load(folder / "sub" / "again.yaml")
    assert again.data.evaluation is not None
    assert isinstance(again.data.evaluation.metric, FunctionName)
    assert again.data.evaluation.metric.file is not None
    assert again.data.evaluation.metric.file.samefile(folder / "scoring.py")


def test_the_command_line_takes_one(folder: Path) -> None:
    sets = ("inputs={x: x}", "labels=labels", "metric=scoring:Misses", "gates.accuracy_drop.max=0")
    options = [part for entry in sets for part in ("--set", entry)]
    finished = call(folder, "compare", "model.onnx", "model.onnx", "--data", "data.npz", *options)
    assert finished.code == 0, finished.err
    assert "scoring:Misses" in finished.out

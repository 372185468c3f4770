"""A job becomes a recipe that is valid, or an order that says the same."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.tasks import Rival, Variant
from benchmarks.tools import Job, jobs, order, recipe
from compressor.recipe import load
from tests.benchmarks import tiny

BLOCKS = Variant("4-bit", (tiny.SIMPLIFY, {"type": "quantize_weights"}), Rival("blocks", {"bits": 4, "block_size": 32}))
ALONE = Variant("w3a8", (tiny.SIMPLIFY, {**tiny.STATIC, "scheme": "w3a8"}))
NOTHING = Variant("w4a8", (tiny.SIMPLIFY, {**tiny.STATIC, "scheme": "w4a8"}), "no 4-bit Conv")


def _job(folder: Path, tool: str, variant: Variant | None = None, samples: int | None = None) -> Job:
    task = tiny.classes(folder)
    return Job(task, variant or task.variants[0], tool, tiny.places(folder), samples)


def test_a_tool_is_asked_where_the_question_makes_sense(tmp_path: Path) -> None:
    task = tiny.with_variants(tiny.classes(tmp_path), ALONE, NOTHING, BLOCKS)
    found = [
        (j.variant.name, j.tool, j.absent)
        for j in jobs(task, tiny.places(tmp_path), {"compressor": 3, "onnxruntime": 4})
    ]
    assert found == [
        ("w3a8", "compressor", None),
        ("w4a8", "compressor", None),
        ("w4a8", "onnxruntime", "no 4-bit Conv"),
        ("4-bit", "compressor", None),
        ("4-bit", "onnxruntime", None),
    ]


def test_our_recipe_is_one_that_the_tool_accepts(tmp_path: Path) -> None:
    job = _job(tmp_path, "compressor")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(job)))
    loaded, _ = load(file)
    assert [step.type for step in loaded.passes] == ["simplify", "quantize_static"]
    assert loaded.output.model == job.output
    assert not loaded.runtime.latency


def test_other_sections_of_a_recipe_come_through(tmp_path: Path) -> None:
    variant = replace(ALONE, recipe={"verify": {"cosine": -1}})
    assert recipe(_job(tmp_path, "compressor", variant))["verify"] == {"cosine": -1}


def test_both_tools_calibrate_on_the_same_source(tmp_path: Path) -> None:
    ours, theirs = _job(tmp_path, "compressor"), _job(tmp_path, "onnxruntime")
    data = recipe(ours)["data"]
    assert isinstance(data, dict)
    assert (
        data["calibration"]
        == order(theirs)["calibration"]
        == {
            "source": "arrays",
            "path": str(tmp_path / "assets" / "data.npz"),
            "inputs": {"x": "x"},
            "samples": 32,
        }
    )


@pytest.mark.parametrize(("wanted", "fixed", "used"), [(None, None, 32), (7, None, 7), (None, 5, 5), (7, 5, 5)])
def test_samples_are_the_tasks_unless_asked_for_and_never_more_than_a_rival_can_hold(
    tmp_path: Path, wanted: int | None, fixed: int | None, used: int
) -> None:
    variant = Variant("x", (tiny.STATIC,), Rival("static", samples=fixed))
    calibration = _job(tmp_path, "onnxruntime", variant, wanted).calibration
    assert calibration is not None
    assert calibration["samples"] == used


def test_a_method_without_calibration_gets_none(tmp_path: Path) -> None:
    assert _job(tmp_path, "onnxruntime", BLOCKS).calibration is None
    assert _job(tmp_path, "onnxruntime", NOTHING).calibration is None
    assert _job(tmp_path, "compressor", BLOCKS).calibration is not None
    uncalibrated = replace(tiny.classes(tmp_path), calibration=None)
    job = Job(uncalibrated, BLOCKS, "compressor", tiny.places(tmp_path))
    assert job.calibration is None
    assert "calibration" not in recipe(job)["data"]


def test_an_order_is_plain_data(tmp_path: Path) -> None:
    found = order(_job(tmp_path, "onnxruntime", BLOCKS))
    assert json.loads(json.dumps(found)) == found
    assert found["method"] == "blocks"
    assert found["settings"] == {"bits": 4, "block_size": 32}


def test_there_is_no_order_where_there_is_no_call(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no call"):
        order(_job(tmp_path, "onnxruntime", NOTHING))


def test_files_of_different_jobs_have_different_names(tmp_path: Path) -> None:
    task = tiny.with_variants(tiny.classes(tmp_path), ALONE, NOTHING, BLOCKS)
    found = [job.output for job in jobs(task, tiny.places(tmp_path), {"compressor": None, "onnxruntime": None})]
    assert len(set(found)) == len(found)

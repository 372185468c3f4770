"""The variants are recipes that the tool accepts, under names that tell them apart."""

from pathlib import Path

import pytest

from benchmarks.catalogue import TASKS
from benchmarks.tasks import Places, Rival, Task, Variant, read_source
from benchmarks.tools import Job, order, recipe
from compressor.recipe.schema import Recipe

EVERY = [
    pytest.param(task, variant, id=f"{name}-{variant.name}")
    for name, task in TASKS.items()
    for variant in task.variants
]
PLACES = Places(Path("/assets"), Path("/made"))


@pytest.mark.parametrize(("task", "variant"), EVERY)
def test_our_recipe_is_valid(task: Task, variant: Variant) -> None:
    parsed = Recipe.model_validate(recipe(Job(task, variant, "compressor", PLACES)))
    assert parsed.passes[0].type == "simplify"
    assert parsed.passes[-1].type == "compact"


@pytest.mark.parametrize(("task", "variant"), [p for p in EVERY if isinstance(p.values[1].rival, Rival)])
def test_what_a_rival_calibrates_on_is_valid(task: Task, variant: Variant) -> None:
    calibration = order(Job(task, variant, "onnxruntime", PLACES))["calibration"]
    assert calibration is None or read_source(calibration).samples


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_data_that_results_are_judged_on_is_calibrated_on(task: Task) -> None:
    learned, judged = (dict(entry or {}) for entry in (task.calibration, task.evaluation))
    names = "path", "list", "inputs"
    assert not task.calibration or any(learned.get(name) != judged.get(name) for name in names)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_variants_of_a_task_have_different_names_fit_for_files(task: Task) -> None:
    names = [variant.name for variant in task.variants]
    assert len(set(names)) == len(names)
    assert all(name == Path(name).name and " " not in name for name in names)

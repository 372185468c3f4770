"""What passes learn from and what the result is judged on are never the same samples, and the report says so."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import AnySource, Dataset
from compressor.graph.model import Model
from compressor.pipeline.samples import Samples, open_samples
from compressor.recipe import load
from tests.cli import tiny
from tests.cli.calling import Values, ran, write_recipe

COUNT = 40
STATIC = [{"type": "quantize_static"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sample i of x holds i everywhere, so that it can be told again."""
    tiny.mlp(tmp_path / "model.onnx")
    numbers = np.repeat(np.arange(COUNT, dtype=np.float32)[:, None], 8, axis=1)
    np.savez(tmp_path / "data.npz", x=numbers, labels=np.arange(COUNT) % 4)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "data.npz")
    (tmp_path / "feeds.py").write_text(
        "import numpy as np\ndef samples():\n    for i in range(40):\n        yield np.full((1, 8), i, np.float32)\n"
    )
    return tmp_path


def _opened(folder: Path, data: Values, seed: int = 0) -> Samples:
    recipe, _ = load(write_recipe(folder, data=data, passes=STATIC))
    sources: list[AnySource | None] = [recipe.data.calibration, recipe.data.evaluation]
    return open_samples(sources[0], None, sources[1], Model.load(folder / "model.onnx"), seed)


def _numbers(data: Dataset | None) -> set[int]:
    """Which samples a dataset yields."""
    assert data is not None
    return {int(row[0]) for batch in data.batches() for row in np.asarray(batch.feeds["x"])[: batch.samples]}


ARRAYS: Values = {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}}
PYTHON: Values = {"source": "python", "function": "feeds:samples"}
SAME: dict[str, tuple[Values, Values]] = {
    "word for word": (ARRAYS, ARRAYS),
    "other labels": (ARRAYS, ARRAYS | {"labels": "labels", "metric": "top1"}),
    "other counts": (ARRAYS | {"samples": 10}, ARRAYS | {"samples": 20, "batch": 3}),
    "more than half": (ARRAYS | {"samples": 30}, ARRAYS),
    "another way to the file": (ARRAYS, ARRAYS | {"path": "sub/../data.npz"}),
    "a link to the file": (ARRAYS, ARRAYS | {"path": "link.npz"}),
    "inputs left out": (ARRAYS, {"source": "arrays", "path": "data.npz"}),
    "python": (PYTHON, PYTHON),
}


@pytest.mark.parametrize("case", SAME)
def test_calibration_and_evaluation_from_one_source_are_disjoint(folder: Path, case: str) -> None:
    calibration, evaluation = SAME[case]
    samples = _opened(folder, {"calibration": calibration, "evaluation": evaluation})
    learned, judged = _numbers(samples.calibration), _numbers(samples.evaluation)
    assert learned
    assert judged
    assert not learned & judged


@pytest.mark.parametrize("source", [ARRAYS, PYTHON], ids=["arrays", "python"])
def test_a_part_of_calibration_is_held_out_when_there_is_nothing_else(folder: Path, source: Values) -> None:
    samples = _opened(folder, {"calibration": source})
    learned, judged = _numbers(samples.calibration), _numbers(samples.evaluation)
    assert not learned & judged
    assert learned | judged == set(range(COUNT))
    assert len(learned) > len(judged) > 0


def test_calibration_takes_as_many_samples_as_it_says(folder: Path) -> None:
    samples = _opened(folder, {"calibration": ARRAYS | {"samples": 10}})
    assert len(_numbers(samples.calibration)) == 10
    assert not _numbers(samples.calibration) & _numbers(samples.evaluation)


def test_the_split_is_random_and_the_same_for_one_seed(folder: Path) -> None:
    first, again, other = (_numbers(_opened(folder, {"calibration": ARRAYS}, s).calibration) for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_two_arrays_of_one_file_are_used_whole(folder: Path) -> None:
    np.savez(folder / "two.npz", a=tiny.normal(12, 8), b=tiny.normal(9, 8))
    one, other = ({"source": "arrays", "path": "two.npz", "inputs": {"x": name}} for name in "ab")
    samples = _opened(folder, {"calibration": one, "evaluation": other})
    assert samples.calibration is not None
    assert (len(samples.calibration), len(samples.evaluation)) == (12, 9)


def _seen(report: Values) -> str:
    fidelity = report["fidelity"]
    assert isinstance(fidelity, dict)
    return str(fidelity["data"])


def test_the_report_says_that_samples_were_held_out(folder: Path) -> None:
    assert "held out" in _seen(ran(folder, passes=STATIC, data={"calibration": ARRAYS}))


def test_the_report_says_nothing_of_the_kind_where_evaluation_is_other_data(folder: Path) -> None:
    np.savez(folder / "other.npz", x=tiny.normal(9, 8))
    data = {"calibration": ARRAYS, "evaluation": ARRAYS | {"path": "other.npz"}}
    assert "held out" not in _seen(ran(folder, passes=STATIC, data=data))


def test_a_single_sample_is_calibrated_on_and_the_report_says_so(folder: Path) -> None:
    np.savez(folder / "one.npz", x=tiny.normal(1, 8))
    report = ran(folder, passes=STATIC, data={"calibration": ARRAYS | {"path": "one.npz"}})
    assert "seen in calibration" in _seen(report)


def test_the_calibrated_range_is_that_of_the_calibration_samples_alone(folder: Path) -> None:
    data: Values = {"calibration": ARRAYS, "evaluation": ARRAYS | {"labels": "labels", "metric": "top1"}}
    largest = max(_numbers(_opened(folder, data).calibration))
    ran(folder, passes=STATIC, data=data, verify={"cosine": -1})
    assert tiny.arrays_of(folder / "out.onnx")["x_scale"] == pytest.approx(largest / 255, rel=1e-6)

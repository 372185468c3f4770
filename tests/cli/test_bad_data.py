"""Data that cannot be used with the model: exit 3, the place and the value named, nothing written."""

import gc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli import tiny
from tests.cli.calling import Values, call, refused, write_recipe

STATIC = [{"type": "quantize_static"}]


def _calibrated(folder: Path, source: Values, model: str = "model.onnx") -> Path:
    return write_recipe(folder, model=model, data={"calibration": source}, passes=STATIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    tiny.cnn(tmp_path / "cnn.onnx")
    tiny.lookup(tmp_path / "lookup.onnx")
    return tmp_path


ARRAYS: dict[str, tuple[dict[str, object], Values, tuple[str, ...]]] = {
    "no such array": ({"pixels": tiny.normal(9, 8), "other": tiny.normal(9)}, {}, ("no array x", "other, pixels")),
    "no such input": ({"x": tiny.normal(9, 8), "z": tiny.normal(9)}, {"inputs": {"sensor": "x"}}, ("sensor", "x")),
    "wrong width": ({"x": tiny.normal(9, 7)}, {}, ("data.calibration: x", "[7, 7]", "float32[batch, 8]")),
    "wrong axes": ({"x": tiny.normal(9, 2, 2, 2)}, {}, ("data.calibration: x", "float32[batch, 8]")),
    "text": ({"x": np.array([["a"] * 8] * 9)}, {}, ("data.calibration: x", "float32")),
    "NaN": ({"x": np.full((9, 8), np.nan, np.float32)}, {}, ("data.calibration: x", "NaN", "sample 0")),
    "infinity": ({"x": np.full((9, 8), np.inf, np.float32)}, {}, ("data.calibration: x", "infinity")),
    "no samples": ({"x": tiny.normal(0, 8)}, {}, ("data.calibration", "no samples")),
    "unequal counts": ({"x": tiny.normal(9, 8), "l": np.zeros(7)}, {"labels": "l"}, ("x has 9", "l has 7")),
    "one mean too few": ({"x": tiny.normal(9, 8)}, {"mean": [0, 0, 0]}, ("data.calibration", "mean", "3", "8")),
    "one std too few": ({"x": tiny.normal(9, 8)}, {"std": [1, 1, 1]}, ("data.calibration", "std", "3", "8")),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_do_not_fit_are_refused_with_their_place(folder: Path, case: str) -> None:
    arrays, settings, says = ARRAYS[case]
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    recipe = _calibrated(folder, {"source": "arrays", "path": "data.npz", **settings})
    assert len(refused(folder, 3, "run", recipe, says=says)) == 1


def test_floats_do_not_become_the_integers_that_an_input_wants(folder: Path) -> None:
    np.savez(folder / "data.npz", ids=tiny.normal(9, 3))
    data = {"evaluation": {"source": "arrays", "path": "data.npz"}}
    recipe = write_recipe(folder, model="lookup.onnx", data=data)
    refused(folder, 3, "run", recipe, says=("data.evaluation: ids", "float32", "int64"))


def test_nan_in_a_late_sample_is_refused_too(folder: Path) -> None:
    samples = tiny.normal(100, 8)
    samples[97, 3] = np.nan
    np.savez(folder / "data.npz", x=samples)
    recipe = _calibrated(folder, {"source": "arrays", "path": "data.npz"})
    refused(folder, 3, "run", recipe, says=("data.calibration: x", "NaN"))


def _unreadable(path: Path) -> None:
    match path.suffix:
        case ".npz":
            np.savez(path, x=tiny.normal(64, 8))
        case ".npy":
            np.save(path, tiny.normal(64, 8))
        case _:
            path.write_bytes(b"\xff" * 999)
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("name", ["data.npz", "data.npy", "data.safetensors"])
def test_a_truncated_array_file_is_refused(folder: Path, name: str) -> None:
    _unreadable(folder / name)
    recipe = _calibrated(folder, {"source": "arrays", "path": name})
    assert len(refused(folder, 3, "run", recipe, says=("data.calibration", name))) == 1
    gc.collect()  # a file that was left open is noticed here, not in a later test


@pytest.mark.parametrize("name", ["data.npz", "data.npy", "data.safetensors"])
def test_an_empty_array_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).touch()
    recipe = _calibrated(folder, {"source": "arrays", "path": name})
    assert len(refused(folder, 3, "run", recipe, says=("data.calibration", name))) == 1


def test_an_array_file_of_another_kind_is_refused(folder: Path) -> None:
    (folder / "data.mat").write_bytes(b"MATLAB")
    recipe = _calibrated(folder, {"source": "arrays", "path": "data.mat"})
    refused(folder, 3, "run", recipe, says=("data.calibration", "data.mat", ".npz"))


@pytest.mark.parametrize("source", ["arrays", "images"])
def test_a_missing_path_in_a_recipe_is_reported_with_its_line(folder: Path, source: str) -> None:
    recipe = _calibrated(folder, {"source": source, "path": "none.npz"}, "cnn.onnx")
    line = 1 + recipe.read_text().splitlines().index("    path: none.npz")
    for command in ("run", "check"):
        refused(folder, 2, command, recipe, says=(f"{recipe}:{line}:5: data.calibration.path", "none.npz", "exist"))


@pytest.mark.parametrize("command", ["compress", "bench"])
def test_missing_data_on_the_command_line_is_exit_3(folder: Path, command: str) -> None:
    refused(folder, 3, command, "model.onnx", "--data", "none.npz", says=("none.npz",))
    refused(folder, 3, command, "model.onnx", "--data", "none", says=("--data none", "does not exist"))


def test_data_of_an_unknown_kind_is_a_usage_error(folder: Path) -> None:
    (folder / "data.bin").touch()
    refused(folder, 2, "compress", "model.onnx", "--data", "data.bin", says=("--data data.bin", ".npz"))


IMAGES: dict[str, tuple[Values, tuple[str, ...]]] = {
    "crop larger than the image": ({"crop": 99}, ("6×6", "99×99")),
    "mean of another length": ({"crop": 6, "mean": [0.5, 0.5]}, ("mean", "2", "3")),
    "wrong size": ({"crop": 5}, ("[2, 3, 5, 5]", "float32[batch, 3, 8, 8]")),
    "gray for a model with colours": ({"resize": [8, 8], "channels": "gray"}, ("[2, 1, 8, 8]", "[batch, 3, 8, 8]")),
    "labels that are nowhere": ({"resize": [8, 8], "labels": True}, ("labels", "a.png")),
    "path to a file": ({"path": "images/a.png"}, ("a.png", "folder")),
    "empty folder": ({"path": "nothing"}, ("no images", "nothing")),
    "list with a missing file": ({"list": "missing.csv"}, ("missing.csv, line 2", "z.png")),
    "list with a bad label": ({"list": "label.csv", "labels": True}, ("label.csv, line 1", '"cat"')),
    "list that is no text": ({"list": "binary.csv"}, ("binary.csv",)),
    "broken image": ({"path": "broken"}, (".png", "not an image")),
}


@pytest.fixture
def pictures(folder: Path) -> Path:
    for name in ("images", "nothing", "broken"):
        (folder / name).mkdir()
    for name in "abc":
        Image.new("RGB", (6, 6)).save(folder / "images" / f"{name}.png")
        (folder / "broken" / f"{name}.png").write_bytes(b"\x89PNG\r\n" + bytes(99))
    (folder / "missing.csv").write_text("a.png\nz.png\n")
    (folder / "label.csv").write_text("a.png,cat\n")
    (folder / "binary.csv").write_bytes(b"a.png,\xff\xfe\n")
    return folder


@pytest.mark.parametrize("case", IMAGES)
def test_images_that_do_not_fit_are_refused_with_their_place(pictures: Path, case: str) -> None:
    settings, says = IMAGES[case]
    recipe = _calibrated(pictures, {"source": "images", "path": "images", **settings}, "cnn.onnx")
    assert len(refused(pictures, 3, "run", recipe, says=says)) == 1


def test_images_cannot_feed_a_model_with_several_inputs(pictures: Path) -> None:
    tiny.mixed(pictures / "mixed.onnx")
    recipe = _calibrated(pictures, {"source": "images", "path": "images"}, "mixed.onnx")
    refused(pictures, 3, "run", recipe, says=("data.calibration", "image, ids, series, flag, x, z"))


def _yielding(item: str) -> str:
    return f"import numpy as np\ndef samples():\n    for _ in range(5):\n        yield {item}\n"


PYTHON: dict[str, tuple[str, tuple[str, ...]]] = {
    "no function": ("def other(): ...\n", ("feeds:samples", "no function samples")),
    "nothing": ("def samples():\n    return iter(())\n", ("feeds:samples", "yields nothing")),
    "no iterator": ("def samples():\n    return 3\n", ("feeds:samples",)),
    "no Python": ("def samples(:\n", ("feeds:samples",)),
    "missing import": ("import not_installed\n", ("feeds:samples", "not_installed")),
    "an error of its own": (
        "def samples():\n    raise OSError('no such sensor')\n",
        ("feeds:samples", "no such sensor"),
    ),
    "wrong names": (_yielding("{'z': np.zeros((1, 8))}"), ("item 0", "z", "x")),
    "wrong shape": (_yielding("np.zeros((1, 7))"), ("item 0", "[1, 7]")),
    "NaN": (_yielding("np.full((1, 8), np.nan)"), ("item 0", "NaN")),
}


@pytest.mark.parametrize("case", PYTHON)
def test_a_python_source_that_does_not_work_is_refused_with_its_name(folder: Path, case: str) -> None:
    code, says = PYTHON[case]
    (folder / "feeds.py").write_text(code)
    recipe = _calibrated(folder, {"source": "python", "function": "feeds:samples"})
    assert len(refused(folder, 3, "run", recipe, says=("data.calibration", *says))) == 1


def test_a_python_source_that_is_not_there_is_refused(folder: Path) -> None:
    recipe = _calibrated(folder, {"source": "python", "function": "nowhere_to_be_found:samples"})
    refused(folder, 3, "run", recipe, says=("data.calibration", "nowhere_to_be_found"))


@pytest.mark.parametrize("limits", [[0, 1000], [5, 1]])
def test_random_integers_that_the_model_cannot_take_are_refused(folder: Path, limits: list[int]) -> None:
    evaluation = {"source": "random", "values": {"ids": limits}}
    recipe = write_recipe(folder, model="lookup.onnx", data={"evaluation": evaluation})
    finished = call(folder, "run", recipe)
    assert finished.code in (2, 3)  # whether they are the recipe's fault or the data's is not laid down
    assert "ids" in finished.err
    assert not (folder / "out.onnx").exists()


LABELS: dict[str, tuple[object, str, str]] = {
    "a matrix": (np.zeros((9, 3), np.int64), "top1", "[9, 3]"),
    "text": (np.array(["cat"] * 9), "top1", "labels"),
    "no labels": (None, "top1", "labels"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_no_metric_can_use_are_refused(folder: Path, case: str) -> None:
    labels, metric, says = LABELS[case]
    arrays = {"x": tiny.normal(9, 8)} | ({} if labels is None else {"classes": labels})
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    named = {} if labels is None else {"labels": "classes"}
    evaluation = {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}, "metric": metric, **named}
    refused(folder, 3, "run", write_recipe(folder, data={"evaluation": evaluation}), says=(says,))

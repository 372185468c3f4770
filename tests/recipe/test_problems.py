"""Every problem of a recipe is reported at once, each with the line and column where it really is."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli import tiny
from tests.cli.calling import done, refused

GOOD = """\
version: 1
model: model.onnx
passes:
  - type: simplify
  - type: prune_magnitude
    sparsity: 0.5
runtime: {latency: false, memory: false}
output:
  model: out.onnx
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=tiny.normal(40, 8))
    return tmp_path


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _place(text: str, marked: str) -> str:
    """LINE:COLUMN of `marked` in `text`, both from 1."""
    before = text[: text.index(marked)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


WRONG: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "unknown pass": ("type: simplify", "type: simplifi", "type: simplifi", ("passes.0", '"simplifi"', "simplify?")),
    "unknown field of a pass": ("sparsity: 0.5", "sparsty: 0.5", "sparsty", ("passes.1.sparsty", "sparsity?")),
    "unknown field of the recipe": ("version: 1", "version: 1\nsede: 3", "sede", ("sede", "seed?")),
    "unknown field of a section": ("memory: false", "memmory: false", "memmory", ("runtime.memmory", "memory?")),
    "above the range": ("sparsity: 0.5", "sparsity: 1.5", "sparsity", ("passes.1.sparsity", "1.5", "less than 1")),
    "below the range": ("version: 1", "version: 1\nseed: -1", "seed", ("seed", "-1", "greater than or equal to 0")),
    "wrong type": ("sparsity: 0.5", "sparsity: much", "sparsity", ("passes.1.sparsity", "'much'", "number")),
    "wrong version": ("version: 1", "version: 2", "version", ("version", "2")),
    "missing type": ("- type: simplify", "- ignore: first", "ignore: first", ("passes.0", "type", "missing")),
    "missing field": ("model: model.onnx\n", "", "version", ("model", "is missing")),
    "missing output model": ("  model: out.onnx", "  report: r.md", "output:", ("output.model", "is missing")),
    "no passes": ("passes:", "passes: []\npassed:", "passes:", ("passes", "at least 1")),
    "wrong suffix": ("out.onnx", "out.tflite", "model: out.tflite", ("output.model", "out.tflite", ".onnx")),
    "wrong report": ("out.onnx", "out.onnx\n  report: r.pdf", "report", ("output.report", "r.pdf", ".json")),
    "missing model": ("model.onnx", "nowhere.onnx", "model: nowhere", ("model", "nowhere.onnx", "does not exist")),
    "two at once": ("0.5", "0.5\n    threshold: 1.0", "type: prune", ("passes.1", "sparsity or threshold, not both")),
    "broken expression": ("0.5", "0.5\n    targets: 're:('", "targets", ("passes.1.targets", '"re:("')),
    "selector of nothing": ("0.5", "0.5\n    targets: [frist]", "frist", ("passes.1.targets", '"frist"', "first")),
    "ignore of nothing": ("0.5", "0.5\n    ignore: ['re:sec']", "'re:sec'", ("passes.1.ignore", '"re:sec"', "second")),
    "teacher of nowhere": (
        "passes:\n",
        "data: {training: {source: random}}\npasses:\n  - {type: distill, teacher: [t.onnx]}\n",
        "t.onnx",
        ("passes.0.teacher.0", "t.onnx", "does not exist"),
    ),
    "training data of nowhere": (
        "version: 1",
        "version: 1\ndata: {training: {source: arrays, path: t.npz}}",
        "path: t.npz",
        ("data.training.path", "t.npz", "does not exist"),
    ),
    "unknown loss": (
        "simplify",
        "distill\n    loss: klx",
        "loss",
        ("passes.0.loss: ", "'klx'", "cosine"),
    ),
    "empty bound": ("version: 1", "version: 1\ngates: {cosine: {}}", "cosine", ("gates.cosine", "min, max")),
    "bound upside down": ("version: 1", "version: 1\ngates: {cosine: {min: 2, max: 1}}", "cosine", ("2.0", "1.0")),
    "gate that is not measured": ("version: 1", "version: 1\ngates: {latency_ratio: {max: 1}}", "", ("latency_ratio",)),
    "gate without labels": (
        "version: 1",
        "version: 1\ngates: {accuracy_drop: {max: 1}}",
        "",
        ("accuracy_drop", "labels"),
    ),
    "pass without data": ("simplify", "quantize_static", "", ("passes.0", "quantize_static", "data.calibration")),
    "unknown source": (
        "version: 1",
        "version: 1\ndata: {calibration: {source: imags}}",
        "calibration",
        ("imags", "images?"),
    ),
    "tab": ("version: 1", "version: 1\n\tseed: 3", "\tseed", ("\\t",)),
    "twice": ("version: 1", "version: 1\nseed: 1\nseed: 2", "seed: 2", ("seed", "twice")),
    "tag": ("version: 1", "version: 1\nseed: !!int 3", "!!int", ("tags", "int")),
    "python tag": ("version: 1", "version: 1\nseed: !!python/name:os.system x", "!!python", ("tags", "python")),
    "anchor": ("model.onnx", "&a model.onnx", "&a", ("anchors",)),
    "alias": ("model: out.onnx", "model: *a", "*a", ("alias",)),
    "unclosed": ("version: 1", "version: [1", ": model", ()),
    "variable": ("model.onnx", "${name}.onnx", "model: ${", ("${name}", "not in vars")),
}
"""Case: what is replaced in GOOD, by what, where the problem then is ("" for the file), what is said."""


@pytest.mark.parametrize("case", WRONG)
def test_a_problem_is_reported_where_it_is(folder: Path, case: str) -> None:
    old, new, marked, says = WRONG[case]
    text = GOOD.replace(old, new, 1)
    recipe = _write(folder, text)
    place = f"recipe.yaml:{_place(text, marked)}: " if marked else "recipe.yaml:"
    for command in ("check", "run"):
        refused(folder, 2, command, recipe, says=(place, *says))


def test_the_recipe_that_all_of_these_spoil_is_good(folder: Path) -> None:
    done(folder, "check", _write(folder, GOOD), "-q")


@pytest.mark.parametrize(
    "step", ["prune_magnitude\n    sparsity: much", "distill\n    loss: klx", "distill\n    features: atuo"]
)
def test_a_problem_in_a_union_is_said_once(folder: Path, step: str) -> None:
    recipe = _write(folder, GOOD.replace("simplify", step))
    assert len(refused(folder, 2, "check", recipe, says=())) == 1


def test_all_problems_are_reported_at_once(folder: Path) -> None:
    text = GOOD.replace("version: 1", "version: 7\nsede: 3").replace("0.5", "1.5").replace("simplify", "simplifi")
    lines = refused(folder, 2, "check", _write(folder, text), says=())
    places = [_place(text, marked) for marked in ("version", "sede", "type: simplifi", "sparsity")]
    assert len(lines) == len(places)
    assert all(any(f"recipe.yaml:{place}: " in line for line in lines) for place in places)


def test_several_missing_files_are_reported_at_once(folder: Path) -> None:
    data = "data: {calibration: {source: arrays, path: a.npz}, evaluation: {source: arrays, path: b.npz}}\n"
    recipe = _write(folder, data + GOOD.replace("model.onnx", "c.onnx", 1))
    assert len(refused(folder, 2, "check", recipe, says=("a.npz", "b.npz", "c.onnx"))) == 3


def test_several_selectors_of_nothing_are_reported_at_once(folder: Path) -> None:
    text = GOOD.replace("0.5", "0.5\n    targets: [frist, Gemm, '*x*y*']\n    ignore: [secnd]")
    lines = refused(folder, 2, "check", _write(folder, text), says=("frist", "*x*y*", "secnd"))
    assert len(lines) == 3


@pytest.mark.parametrize("selector", ["first", "Gemm", "fir*", "f?rst", "re:f.*t", "w1"])
def test_a_layer_can_be_named_by_name_type_glob_expression_or_array(folder: Path, selector: str) -> None:
    done(folder, "check", _write(folder, GOOD.replace("0.5", f"0.5\n    targets: '{selector}'")), "-q")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ("is not a recipe",)),
        (b"- a\n- b\n", ("is not a recipe",)),
        (b"just words\n", ("is not a recipe",)),
        (b"version: 1\n---\nversion: 1\n", ("recipe.yaml:2:1", "another document")),
        (b"version: \xff\xfe\n", ("cannot be read as text",)),
        (b"version: 1\nmodel: a\x07b\n", ("recipe.yaml",)),
        (b"version: 1\nmodel: \x00\n", ("recipe.yaml",)),
        (b"version: " + b"[" * 200 + b"]" * 200, ("recipe.yaml:1:", "nested deeper")),
        (b"version: " + b"{a: " * 200 + b"}" * 200, ("recipe.yaml:1:", "nested deeper")),
        (b"# " + b"x" * 1_100_000, ("larger than 1 MB",)),
        (b"version: 1\nseed: " + b"1" * 5000 + b"\n", ("recipe.yaml:2:", "seed")),
    ],
    ids=["empty", "list", "words", "documents", "latin", "bell", "nul", "lists", "mappings", "huge", "digits"],
)
def test_a_file_that_is_no_recipe_is_refused(folder: Path, content: bytes, says: tuple[str, ...]) -> None:
    (folder / "recipe.yaml").write_bytes(content)
    refused(folder, 2, "check", "recipe.yaml", says=("recipe.yaml", *says))


def test_a_key_that_is_no_text_is_shown_as_it_is_written(folder: Path) -> None:
    lines = refused(folder, 2, "check", _write(folder, f"{GOOD}? [a, b]\n: 3\n"), says=("recipe.yaml:10:3",))
    assert not any("ScalarNode" in line for line in lines)


def test_a_folder_is_no_recipe(folder: Path) -> None:
    refused(folder, 2, "check", ".", says=("cannot be read",))


def test_a_missing_recipe_is_refused_with_a_way_out(folder: Path) -> None:
    refused(folder, 2, "check", "none.yaml", says=("none.yaml", "no such file", "compressor init"))

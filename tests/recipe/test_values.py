"""What the text of a recipe means: scalars, variables, --set, extends, relative paths."""

from pathlib import Path

import pytest
import yaml

from compressor.passes import PruneMagnitude
from compressor.recipe import Recipe, load
from tests.cli import tiny
from tests.cli.calling import refused

GOOD = """\
version: 1
model: model.onnx
passes:
  - {type: simplify}
  - {type: prune_magnitude, sparsity: 0.5}
output: {model: out.onnx}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    return tmp_path


def _loaded(folder: Path, text: str, *overrides: str, name: str = "recipe.yaml") -> Recipe:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)[0]


def _pruning(recipe: Recipe) -> PruneMagnitude:
    step = recipe.passes[1]
    assert isinstance(step, PruneMagnitude)
    return step


@pytest.mark.parametrize(
    "text", ["2:4", "on", "off", "yes", "no", "Y", "1:30:00", "0b1", "0x_f", "2001-01-01", "=", "<<"]
)
def test_what_only_yaml_1_1_calls_a_number_a_date_or_a_truth_stays_text(folder: Path, text: str) -> None:
    recipe = _loaded(folder, GOOD.replace("sparsity: 0.5", f"ignore: [{text}]"))
    assert recipe.passes[1].ignore == (text,)


@pytest.mark.parametrize(("text", "value"), [("0.25", 0.25), (".5", 0.5), ("5e-1", 0.5), ("2.5E-1", 0.25)])
def test_numbers_are_numbers(folder: Path, text: str, value: float) -> None:
    assert _pruning(_loaded(folder, GOOD.replace("0.5", text))).sparsity == value


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_null_is_as_good_as_left_out(folder: Path, text: str) -> None:
    assert _pruning(_loaded(folder, GOOD.replace("0.5", text))).sparsity is None


def test_a_quoted_number_is_no_number(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(GOOD.replace("version: 1", "version: '1'"))
    refused(folder, 2, "check", "recipe.yaml", says=("recipe.yaml:1:1: version",))


def test_a_scalar_that_is_one_variable_takes_its_type(folder: Path) -> None:
    text = "vars: {share: 0.25, skipped: [first, Gemm]}\n" + GOOD
    text = text.replace("sparsity: 0.5", "sparsity: '${share}', ignore: '${skipped}'")
    step = _pruning(_loaded(folder, text))
    assert (step.sparsity, step.ignore) == (0.25, ("first", "Gemm"))


def test_a_variable_inside_a_text_is_put_in_as_text(folder: Path) -> None:
    recipe = _loaded(folder, "vars: {n: 3, stem: out}\n" + GOOD.replace("out.onnx", "'${stem}-${n}.onnx'"))
    assert recipe.output.model == folder / "out-3.onnx"


def test_set_gives_variables_values(folder: Path) -> None:
    text = "vars: {share: 0.25}\n" + GOOD.replace("0.5", "'${share}'")
    assert _pruning(_loaded(folder, text, "share=0.75")).sparsity == 0.75


def test_set_reaches_fields_entries_of_lists_and_sections_that_are_not_there_yet(folder: Path) -> None:
    overrides = (
        "seed=7",
        "passes.1.sparsity=0.125",
        "passes.1.ignore=[first]",
        "gates.cosine.min=0.5",
        "passes.0.type=simplify",
    )
    recipe = _loaded(folder, GOOD, *overrides)
    assert recipe.seed == 7
    assert (_pruning(recipe).sparsity, _pruning(recipe).ignore) == (0.125, ("first",))
    assert recipe.gates.cosine is not None
    assert recipe.gates.cosine.min == 0.5


def test_the_last_set_wins(folder: Path) -> None:
    assert _loaded(folder, GOOD, "seed=1", "seed=2").seed == 2


def test_set_of_one_list_entry_leaves_the_others(folder: Path) -> None:
    text = GOOD.replace("sparsity: 0.5", "ignore: [a, b, c]")
    assert _loaded(folder, text, "passes.1.ignore.1=z").passes[1].ignore == ("a", "z", "c")


def test_set_can_hold_an_equals_sign(folder: Path) -> None:
    assert _loaded(folder, GOOD, "output.model=a=b.onnx").output.model.name == "a=b.onnx"


def test_paths_start_at_the_recipe_file_and_those_of_set_at_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    text = GOOD.replace("model.onnx", "../model.onnx", 1)
    recipe = _loaded(folder, text, "output.report=r.md", name="sub/recipe.yaml")
    assert recipe.model.resolve() == folder / "model.onnx"
    assert recipe.output.model.resolve() == folder / "sub" / "out.onnx"
    assert [path.resolve() for path in recipe.output.report] == [folder / "here" / "r.md"]


def test_absolute_paths_stay(folder: Path) -> None:
    text = GOOD.replace("model.onnx", str(folder / "model.onnx"), 1)
    assert _loaded(folder, text, name="sub/recipe.yaml").model == folder / "model.onnx"


def test_extends_merges_mappings_and_replaces_lists(folder: Path) -> None:
    (folder / "base.yaml").write_text(GOOD + "gates: {cosine: {min: 0.9}, agreement: {min: 0.8}}\nseed: 3\n")
    over = "extends: base.yaml\ngates: {cosine: {min: 0.5}}\npasses: [{type: simplify}]\n"
    recipe = _loaded(folder, over)
    bounds = recipe.gates.given()
    assert [step.type for step in recipe.passes] == ["simplify"]
    assert {name: bound.min for name, bound in bounds.items()} == {"cosine": 0.5, "agreement": 0.8}
    assert recipe.seed == 3


def test_extends_keeps_paths_relative_to_the_file_they_are_written_in(folder: Path) -> None:
    (folder / "base.yaml").write_text(GOOD)
    recipe = _loaded(folder, "extends: ../base.yaml\noutput: {report: r.md}\n", name="sub/recipe.yaml")
    assert recipe.model.resolve() == folder / "model.onnx"
    assert recipe.output.model.resolve() == folder / "out.onnx"
    assert recipe.output.report[0].resolve() == folder / "sub" / "r.md"


def test_a_path_upwards_is_named_as_one_would_name_it(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder / "elsewhere")
    text = GOOD.replace("model.onnx", "../model.onnx").replace("out.onnx", "../link/../out.onnx")
    recipe = _loaded(folder, text, name="sub/recipe.yaml")
    assert str(recipe.model) == str(folder / "model.onnx")
    assert recipe.output.model == folder / "link" / ".." / "out.onnx", "a link may lead elsewhere: left to the system"


def test_variables_of_a_base_can_be_set_by_what_extends_it(folder: Path) -> None:
    (folder / "base.yaml").write_text("vars: {share: 0.5, other: 1}\n" + GOOD.replace("0.5", "'${share}'"))
    assert _pruning(_loaded(folder, "extends: base.yaml\nvars: {share: 0.125}\n")).sparsity == 0.125


def test_extends_through_two_files(folder: Path) -> None:
    (folder / "a.yaml").write_text(GOOD)
    (folder / "b.yaml").write_text("extends: a.yaml\nseed: 5\n")
    assert _loaded(folder, "extends: b.yaml\n").seed == 5


def test_a_problem_in_a_base_is_reported_in_the_base(folder: Path) -> None:
    (folder / "base.yaml").write_text(GOOD.replace("sparsity: 0.5", "sparsity: 5"))
    (folder / "recipe.yaml").write_text("extends: base.yaml\nseed: -1\n")
    column = GOOD.splitlines()[4].index("sparsity") + 1
    refused(folder, 2, "check", "recipe.yaml", says=(f"base.yaml:5:{column}: passes.1", "recipe.yaml:2:1: seed"))


@pytest.mark.parametrize("chain", [("a",), ("b", "a"), ("b", "c", "b")])
def test_a_circle_of_extends_is_refused(folder: Path, chain: tuple[str, ...]) -> None:
    for name, below in zip(("a", *chain), (*chain, chain[-1]), strict=True):
        (folder / f"{name}.yaml").write_text(f"extends: {below}.yaml\n")
    refused(folder, 2, "check", "a.yaml", says=("extends",))


@pytest.mark.parametrize(("base", "says"), [("none.yaml", "none.yaml"), ("[a, b]", "extends"), ("3", "extends")])
def test_extends_of_nothing_is_refused(folder: Path, base: str, says: str) -> None:
    (folder / "recipe.yaml").write_text(f"extends: {base}\n")
    refused(folder, 2, "check", "recipe.yaml", says=(says,))


def test_a_missing_base_is_reported_where_it_is_named(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("seed: 1\nextends: none.yaml\n")
    refused(folder, 2, "check", "recipe.yaml", says=("recipe.yaml:2:1", "none.yaml"))


def test_vars_must_be_a_mapping(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(GOOD + "vars: [a]\n")
    refused(folder, 2, "check", "recipe.yaml", says=("recipe.yaml:7:1", "vars", "mapping"))


def test_every_undefined_variable_is_reported_with_those_there_are(folder: Path) -> None:
    text = "vars: {known: 1}\n" + GOOD.replace("0.5", "'${a}'").replace("out.onnx", "'${b}'")
    (folder / "recipe.yaml").write_text(text)
    lines = refused(folder, 2, "check", "recipe.yaml", says=("${a}", "${b}", "known"))
    assert len(lines) == 2


def test_an_emptied_section_is_as_good_as_left_out(folder: Path) -> None:
    assert _loaded(folder, GOOD + "vars:\n").seed == 0


def test_yaml_that_other_readers_write_means_the_same(folder: Path) -> None:
    assert _loaded(folder, yaml.safe_dump(yaml.safe_load(GOOD))) == _loaded(folder, GOOD)

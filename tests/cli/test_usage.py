"""The command line itself: help, versions, unknown names, quiet and dry runs, import hygiene."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from compressor import __version__
from tests.cli import tiny
from tests.cli.calling import call, done, listing, refused, write_recipe

COMMANDS = ("run", "compress", "inspect", "compare", "bench", "check", "init", "passes", "schema", "explain")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=tiny.normal(40, 8))
    return tmp_path


def _python(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_help_of_the_installed_command_lists_every_command(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("compressor")
    shown = subprocess.run([program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(f" {command} " in shown.stdout for command in COMMANDS)
    assert shown.stderr == ""


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, compressor.cli; print(*sys.modules)"
    heavy = {"numpy", "pydantic", "yaml", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch", "PIL"}
    assert not heavy & set(_python(code, tmp_path).split())


def test_checking_a_recipe_loads_neither_onnxruntime_nor_torch(folder: Path) -> None:
    recipe = write_recipe(folder, data={"calibration": {"source": "arrays", "path": "data.npz"}})
    code = (
        "import sys\nfrom compressor import cli\n"
        f"sys.argv = ['compressor', 'check', {str(recipe)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as e:\n    print(e.code, *sys.modules)\n"
    )
    status, *loaded = _python(code, folder).split()
    assert status in ("0", "None")
    assert not {"onnxruntime", "onnxscript", "torch"} & set(loaded)


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert done(tmp_path, "--version").out == f"compressor {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    assert f" {command} " in done(tmp_path, command, "--help").out.split("\n\n")[0] + " "


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("run",), ("run", "a", "--frobnicate"), ("bench", "a", "--threads", "none")]
)
def test_a_command_line_that_makes_no_sense_is_exit_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    finished = call(tmp_path, *arguments)
    assert (finished.code, finished.out) == (2, "")
    assert "Traceback" not in finished.err
    assert "Usage:" in finished.err


def test_an_unknown_preset_is_named_with_those_there_are(folder: Path) -> None:
    says = ("--preset int9", "int8", "int8-dynamic", "int4", "auto")
    refused(folder, 2, "compress", "model.onnx", "--preset", "int9", says=says)


def test_a_recipe_in_place_of_a_model_is_named_with_the_command_that_takes_it(folder: Path) -> None:
    recipe = write_recipe(folder)
    refused(folder, 2, "compress", recipe, says=("is a recipe", "compressor run"))


def test_an_unknown_pass_is_named_with_those_there_are(tmp_path: Path) -> None:
    says = ("nonsense", "simplify", "prune_magnitude", "quantize_dynamic", "quantize_static")
    refused(tmp_path, 2, "passes", "nonsense", says=says)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("nope=1", ("nope", "neither a variable nor a field")),
        ("nope", ("nope", "name=value")),
        ("=1", ("name=value",)),
        ("passes.7.type=simplify", ("passes has no entry 7", "1 entries")),
        ("passes.first.type=simplify", ("passes has no entry first",)),
        ("model.name=x", ("model has no entry name",)),
        ("passes.0.sparsity=0.5", ("sparsity", "is no field here")),
        ("gates.ratio.min=2", ("gates.ratio", "is no field here")),
        ("seed=-1", ("--set seed", "greater than or equal to 0", "-1")),
        ("seed=[1,", ("--set seed",)),
        ("seed=!!python/name:os.system", ("--set seed", "tags")),
        ("seed=\x07", ("--set seed",)),
    ],
)
def test_a_wrong_set_is_named(folder: Path, entry: str, says: tuple[str, ...]) -> None:
    refused(folder, 2, "run", write_recipe(folder), "--set", entry, says=says)


def test_set_is_refused_by_compress_in_the_same_words(folder: Path) -> None:
    command = ("compress", "model.onnx", "--preset", "int8-dynamic", "--set")
    refused(folder, 2, *command, "nope=1", says=("nope",))
    refused(folder, 2, *command, "passes.1.nope=1", says=("passes.1.nope", "is no field here"))


def test_auto_cannot_set_fields_of_passes_it_has_not_chosen(folder: Path) -> None:
    refused(folder, 2, "compress", "model.onnx", "--set", "passes.1.ignore=first", says=("--set", "auto", "preset"))


def test_quiet_commands_print_nothing_on_success(folder: Path) -> None:
    recipe = write_recipe(folder)
    commands = (
        ("run", recipe, "-q"),
        ("check", recipe, "-q"),
        ("compress", "model.onnx", "-o", "c.onnx", "--preset", "int8-dynamic", "--set", "runtime.seconds=0.1", "-q"),
        ("compare", "model.onnx", "out.onnx", "-q"),
        ("bench", "model.onnx", "--seconds", "0.1", "-q"),
    )
    for command in commands:
        finished = done(folder, *command)
        assert (finished.out, finished.err) == ("", "")


def test_dry_run_writes_nothing_and_prints_a_recipe_that_runs(folder: Path) -> None:
    recipe = write_recipe(folder, output={"model": "deep/out.onnx", "report": ["r.json"]})
    before = listing(folder)
    shown = done(folder, "run", recipe, "--dry-run", "--set", "seed=7").out
    assert listing(folder) == before
    assert yaml.safe_load(shown)["seed"] == 7
    (folder / "again.yaml").write_text(shown)
    done(folder, "run", "again.yaml", "-q")
    assert (folder / "deep" / "out.onnx").exists()


def test_dry_run_of_compress_writes_nothing(folder: Path) -> None:
    before = listing(folder)
    shown = done(folder, "compress", "model.onnx", "-o", "small.onnx", "--data", "data.npz", "--dry-run").out
    assert listing(folder) == before
    assert yaml.safe_load(shown)["output"] == {"model": "small.onnx"}


def test_commands_that_only_look_leave_nothing_behind(folder: Path) -> None:
    recipe = write_recipe(folder)
    before = listing(folder)
    for command in (
        ("inspect", "model.onnx"),
        ("check", recipe),
        ("passes",),
        ("schema",),
        ("init", "model.onnx", "-o", "-"),
    ):
        done(folder, *command)
    done(folder, "compare", "model.onnx", "model.onnx")
    done(folder, "bench", "model.onnx", "--seconds", "0.1")
    assert listing(folder) == before


def test_the_recipe_that_init_writes_checks(folder: Path) -> None:
    for name, make in (("cnn", tiny.cnn), ("lookup", tiny.lookup), ("model", tiny.mlp)):
        make(folder / f"{name}.onnx")
        done(folder, "init", f"{name}.onnx")
        text = (folder / f"{name}.yaml").read_text()
        (folder / "images").mkdir(exist_ok=True)
        assert text.startswith("#")
        done(folder, "check", f"{name}.yaml")


@pytest.mark.parametrize(("make", "proposed"), [(tiny.cnn, ["correct_bias"]), (tiny.mlp, ["quantize_weights"])])
def test_what_init_proposes_in_comments_checks_too(
    tmp_path: Path, make: Callable[[Path], Path], proposed: list[str]
) -> None:
    make(tmp_path / "model.onnx")
    text = done(tmp_path, "init", "model.onnx", "-o", "-").out
    for comment, field in (("# scheme:", "scheme:"), ("# - type:", "- type:"), ("#   bits:", "  bits:")):
        text = text.replace(comment, field)
    (tmp_path / "start.yaml").write_text(text)
    (tmp_path / "images").mkdir()
    done(tmp_path, "check", "start.yaml")
    assert [step["type"] for step in yaml.safe_load(text)["passes"]][2:] == proposed

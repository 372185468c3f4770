"""Outputs that cannot be written: exit 2 before any work, and what was there stays."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.cli import tiny
from tests.cli.calling import call, done, listing, refused, write_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_existing_model_is_not_replaced_without_overwrite(folder: Path, dry: tuple[str, ...]) -> None:
    (folder / "out.onnx").write_text("precious")
    refused(folder, 2, "run", write_recipe(folder), *dry, says=("out.onnx", "exists already", "--overwrite"))


def test_an_existing_report_is_not_replaced_without_overwrite(folder: Path) -> None:
    (folder / "r.json").write_text("precious")
    recipe = write_recipe(folder, output={"model": "out.onnx", "report": ["r.json"]})
    refused(folder, 2, "run", recipe, says=("r.json", "exists already"))


@pytest.mark.parametrize("existing", ["small.onnx", "small.yaml"])
def test_compress_replaces_neither_model_nor_recipe_without_overwrite(folder: Path, existing: str) -> None:
    (folder / existing).write_text("precious")
    command = ("compress", "model.onnx", "-o", "small.onnx", "--preset", "int8-dynamic")
    refused(folder, 2, *command, says=(existing, "exists already"))


def test_init_does_not_replace_a_recipe_without_overwrite(folder: Path) -> None:
    (folder / "model.yaml").write_text("precious")
    refused(folder, 2, "init", "model.onnx", says=("model.yaml", "exists already"))


def test_overwrite_replaces_what_exists(folder: Path) -> None:
    (folder / "out.onnx").write_text("old")
    done(folder, "run", write_recipe(folder), "--overwrite")
    assert tiny.signature(folder / "out.onnx") == tiny.signature(folder / "model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "sub/../model.onnx"])
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_the_output_is_never_the_input(folder: Path, name: str, overwrite: tuple[str, ...]) -> None:
    (folder / "sub").mkdir()
    recipe = write_recipe(folder, output={"model": name})
    refused(folder, 2, "run", recipe, *overwrite, says=("model.onnx", "is the input", "output.model"))
    refused(folder, 2, "compress", "model.onnx", "-o", name, *overwrite, says=("model.onnx", "is the input"))


def test_a_link_to_the_input_is_the_input(folder: Path) -> None:
    (folder / "link.onnx").symlink_to(folder / "model.onnx")
    recipe = write_recipe(folder, output={"model": "link.onnx"})
    refused(folder, 2, "run", recipe, "--overwrite", says=("link.onnx", "is the input"))


@pytest.mark.parametrize("target", ["model", "report"])
def test_an_output_below_a_file_is_refused(folder: Path, target: str) -> None:
    (folder / "file").write_text("precious")
    output = {"model": "out.onnx"} | {target: "file/deep/out.onnx" if target == "model" else ["file/r.md"]}
    refused(folder, 2, "run", write_recipe(folder, output=output), says=("file", "is not a folder"))


def test_an_output_that_is_a_folder_is_refused(folder: Path) -> None:
    (folder / "out.onnx").mkdir()
    refused(folder, 2, "run", write_recipe(folder), "--overwrite", says=("out.onnx", "is a folder"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    recipe = write_recipe(folder, output={"model": "locked/out.onnx"})
    refused(folder, 2, "run", recipe, says=("locked", "no permission"))


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes of a file fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_space_for_the_model_is_exit_2_and_leaves_nothing(folder: Path) -> None:
    np.savez(folder / "data.npz", x=tiny.normal(9, 8))
    data = {"evaluation": {"source": "arrays", "path": "data.npz"}}
    recipe = write_recipe(folder, data=data, output={"model": "sub/out.onnx"})
    with _files_of_at_most(500):
        assert len(refused(folder, 2, "run", recipe, says=("out.onnx", "cannot be written"))) == 1


def test_no_space_for_the_report_is_exit_2_and_leaves_nothing(folder: Path) -> None:
    done(folder, "run", write_recipe(folder, output={"model": "trial/out.onnx", "report": ["trial/r.json"]}), "-q")
    model, report = ((folder / "trial" / name).stat().st_size for name in ("out.onnx", "r.json"))
    assert model < report
    recipe = write_recipe(folder, output={"model": "out.onnx", "report": ["r.json"]})
    with _files_of_at_most((model + report) // 2):
        refused(folder, 2, "run", recipe, says=("r.json", "cannot be written"))


def test_no_space_for_the_recipe_of_init_is_exit_2(folder: Path) -> None:
    with _files_of_at_most(100):
        refused(folder, 2, "init", "model.onnx", says=("model.yaml", "cannot be written"))


def test_folders_for_the_output_are_made(folder: Path) -> None:
    done(folder, "run", write_recipe(folder, output={"model": "a/b/out.onnx", "report": ["c/r.md"]}), "-q")
    made = set(listing(folder)) - {"model.onnx", "recipe.yaml"}
    assert made == {"a", "a/b", "a/b/out.onnx", "c", "c/r.md"}


def test_a_model_must_be_written_as_onnx(folder: Path) -> None:
    command = ("compress", "model.onnx", "--preset", "int8-dynamic", "-o")
    refused(folder, 2, *command, "small.bin", says=("small.bin", ".onnx"))


JSON_COMMANDS = (
    ("inspect", "model.onnx"),
    ("run", "recipe.yaml"),
    ("passes",),
    ("compare", "model.onnx", "model.onnx"),
)


@pytest.mark.parametrize("command", JSON_COMMANDS, ids=lambda command: command[0])
def test_json_never_takes_the_place_of_a_file_that_exists(folder: Path, command: tuple[str, ...]) -> None:
    write_recipe(folder)
    (folder / "precious.json").write_text("precious")
    call(folder, *command, "--json", "precious.json")
    assert (folder / "precious.json").read_text() == "precious"


def test_json_never_takes_the_place_of_the_model(folder: Path) -> None:
    before = (folder / "model.onnx").read_bytes()
    call(folder, "inspect", "model.onnx", "--json", "model.onnx")
    assert (folder / "model.onnx").read_bytes() == before


def test_json_below_a_file_is_refused(folder: Path) -> None:
    refused(folder, 2, "inspect", "model.onnx", "--json", "model.onnx/a.json", says=("a.json", "cannot be written"))


def test_a_refused_json_target_is_found_out_before_the_work(folder: Path) -> None:
    (folder / "file").touch()
    refused(folder, 2, "run", write_recipe(folder), "--json", "file/a.json", says=("a.json",))

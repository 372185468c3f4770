"""Every error that can be the user's fault reaches the command line as one line and its exit code."""

import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from compressor.cli import app
from compressor.errors import (
    CompressorError,
    DataError,
    InputError,
    ModelError,
    OutputError,
    PassError,
    RecipeError,
    ResultError,
    UsageError,
    VerificationError,
)
from tests.cli import tiny
from tests.cli.calling import call, refused, write_recipe

Arranged = tuple[tuple[str, ...], str]


def _recipe(folder: Path) -> Arranged:
    write_recipe(folder, sede=3)
    return ("run", "recipe.yaml"), "sede: is no field here; did you mean seed?"


def _output(folder: Path) -> Arranged:
    write_recipe(folder)
    (folder / "out.onnx").write_text("precious")
    return ("run", "recipe.yaml"), "out.onnx: exists already; use --overwrite"


def _model(folder: Path) -> Arranged:
    (folder / "model.onnx").write_bytes(b"")
    return ("inspect", "model.onnx"), "model.onnx: the file is empty (0 bytes)"


def _data(folder: Path) -> Arranged:
    write_recipe(folder, data={"calibration": {"source": "python", "function": "nowhere:samples"}})
    return ("run", "recipe.yaml"), "data.calibration: nowhere:samples: cannot be imported"


def _pass(folder: Path) -> Arranged:
    write_recipe(folder, passes=[{"type": "prune_magnitude", "threshold": 1e-30}])
    return ("run", "recipe.yaml"), "passes.0 (prune_magnitude): changed nothing"


def _verification(folder: Path) -> Arranged:
    write_recipe(folder, passes=[{"type": "prune_magnitude", "sparsity": 0.9}], verify={"cosine": 1})
    return ("run", "recipe.yaml"), "passes.0 (prune_magnitude): output y no longer resembles the reference"


LEAVES: dict[type[CompressorError], tuple[int, Callable[[Path], Arranged]]] = {
    RecipeError: (2, _recipe),
    OutputError: (2, _output),
    ModelError: (3, _model),
    DataError: (3, _data),
    PassError: (4, _pass),
    VerificationError: (4, _verification),
}


def _below(kind: type[CompressorError]) -> Iterator[type[CompressorError]]:
    """The leaves of the tree under `kind`."""
    if not kind.__subclasses__():
        yield kind
    for child in kind.__subclasses__():
        yield from _below(child)


def test_every_leaf_is_tested_here() -> None:
    assert set(_below(CompressorError)) == set(LEAVES)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_a_leaf_is_raised_shown_and_turned_into_its_exit_code(tmp_path: Path, leaf: type[CompressorError]) -> None:
    code, arrange = LEAVES[leaf]
    tiny.mlp(tmp_path / "model.onnx")
    command, message = arrange(tmp_path)
    assert leaf.exit_code == code
    assert len(refused(tmp_path, code, *command, says=(message,))) == 1
    with chdir(tmp_path), pytest.raises(leaf, match=re.escape(message)) as caught:
        app(command, standalone_mode=False)
    assert type(caught.value) is leaf


def test_a_usage_error_that_is_no_recipe_is_exit_2(tmp_path: Path) -> None:
    refused(tmp_path, 2, "passes", "nonsense", says=("nonsense: is no pass; there are simplify",))


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (InputError, 3), (ResultError, 4)])
def test_children_share_the_exit_code_of_their_branch(kind: type[CompressorError], code: int) -> None:
    assert {leaf.exit_code for leaf in _below(kind)} == {code}


def test_problems_of_a_recipe_are_lines_of_its_message() -> None:
    error = RecipeError("a.yaml:1:1: one", "a.yaml:2:1: two")
    assert str(error).splitlines() == list(error.problems) == ["a.yaml:1:1: one", "a.yaml:2:1: two"]


def test_a_bug_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    tiny.mlp(tmp_path / "model.onnx")
    monkeypatch.setattr("compressor.graph.model.Model.read", broken)
    finished = call(tmp_path, "inspect", "model.onnx")
    assert finished.code == 70
    assert "Traceback" in finished.err
    assert "KeyError: 'a bug'" in finished.err

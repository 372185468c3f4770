"""The README's commands work as they stand there, and what it shows is what is printed."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.calling import call

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("compressor ")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a newcomer has after cloning."""
    for folder in ("configs", "sample_models"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    return tmp_path


@pytest.mark.alone
@pytest.mark.slow
def test_every_command_of_the_readme_succeeds_in_the_order_given(checkout: Path) -> None:
    assert len(COMMANDS) > 4
    for command in COMMANDS:
        finished = call(checkout, *shlex.split(command)[1:])
        assert finished.code == 0, f"{command}\n{finished.err}"


@pytest.mark.slow
def test_the_report_in_the_readme_has_the_form_of_the_one_that_is_printed(checkout: Path) -> None:
    shown = re.search(r"```console\n\$ compressor (.*?)\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    printed = call(checkout, *shlex.split(shown[1])).out
    assert _form(shown[2]) == _form(printed)


def test_the_recipe_in_the_readme_is_valid(tmp_path: Path) -> None:
    recipe = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert recipe is not None
    (tmp_path / "recipe.yaml").write_text(recipe[1])
    problems = call(tmp_path, "check", "recipe.yaml").err.splitlines()
    assert problems
    assert all("does not exist" in line for line in problems)


def test_the_passes_of_the_readme_are_those_there_are() -> None:
    from compressor.passes import PASSES

    table = TEXT.partition("## Passes")[2].partition("## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert set(named) == {step.model_fields["type"].default for step in PASSES}


def _form(report: str) -> list[str]:
    """First words of the lines up to the machine's own, without the figures."""
    lines = [line.split() for line in report.partition("Measured on")[0].splitlines()]
    return [re.sub(r"[\d.,]+", "", words[0]) for words in lines if words]

"""The Markdown report: tables that every reader understands, with everything in them."""

import re
from pathlib import Path

import pytest

from tests.cli import tiny
from tests.cli.calling import call, write_recipe

CELL = re.compile(r"(?<!\\)\|")


def _written(folder: Path, **sections: object) -> str:
    call(folder, "run", write_recipe(folder, output={"model": "out.onnx", "report": ["r.md"]}, **sections), "-q")
    return (folder / "r.md").read_text(encoding="utf-8")


def _tables(text: str) -> list[list[list[str]]]:
    """Runs of lines that start with a pipe, as rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[CELL.split(line)[1:-1] for line in block.splitlines()] for block in blocks]


@pytest.mark.parametrize("first", ["first", "a|b", "a||b|", "`code`", "x" * 200])
def test_every_row_of_a_table_has_the_cells_of_its_header(tmp_path: Path, first: str) -> None:
    tiny.mlp(tmp_path / "model.onnx", first=first)
    tables = _tables(_written(tmp_path, passes=[{"type": "quantize_dynamic"}], gates={"cosine": {"min": 0.5}}))
    assert len(tables) >= 4
    for header, rule, *rows in tables:
        assert all(re.fullmatch(r" :?-{2,}:? ", cell) for cell in rule)
        assert {len(row) for row in (rule, *rows)} == {len(header)}
        assert len(rows) == len(set(map(tuple, rows))) > 0


def test_a_table_stands_apart_from_the_text_around_it(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    lines = ["", *_written(tmp_path, passes=[{"type": "quantize_dynamic"}]).splitlines(), ""]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("#"):
            assert (before, after) == ("", "")
        if line.startswith("|"):
            assert before.startswith(("|", "#")) or before == ""
            assert after.startswith("|") or after == ""


def test_every_changed_layer_is_listed(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    names = {
        row[0].strip() for table in _tables(_written(tmp_path, passes=[{"type": "quantize_dynamic"}])) for row in table
    }
    assert {"first", "second"} <= names


def test_the_verdict_of_the_gates_is_in_the_title(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    title = _written(tmp_path, gates={"compression_ratio": {"min": 9}}).splitlines()[0]
    assert title.startswith("# ")
    assert "gates failed" in title


def test_it_ends_with_one_line_break(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    text = _written(tmp_path)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")

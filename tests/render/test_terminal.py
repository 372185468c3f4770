"""The terminal: 80 columns whatever the names, nothing lost, nothing taken for markup."""

from pathlib import Path

import pytest

from tests.cli import tiny
from tests.cli.calling import call, done, write_recipe

LONG = "/backbone/stage_12/" + "residual_block_with_a_long_name/" * 4 + "Gemm"
UNBROKEN = "x" * 200
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", "recipe.yaml"),
    "run in full": ("run", "recipe.yaml", "-v"),
    "inspect": ("inspect", "model.onnx", "--layers"),
    "compare": ("compare", "model.onnx", "model.onnx"),
    "bench": ("bench", "model.onnx", "--seconds", "0.1"),
    "passes": ("passes",),
    "one pass": ("passes", "quantize_static"),
}


@pytest.mark.parametrize("name", [LONG, UNBROKEN, "層" * 60])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_line_fits_80_columns(tmp_path: Path, command: str, name: str) -> None:
    tiny.mlp(tmp_path / "model.onnx", first=name, second=f"{name}_2")
    passes = [
        {"type": "simplify"},
        {"type": "quantize_dynamic", "ignore": []},
        {"type": "prune_magnitude", "targets": []},
    ]
    write_recipe(tmp_path, passes=passes[:2], gates={"cosine": {"min": 0.5, "max": 1}}, runtime={"seconds": 0.1})
    shown = call(tmp_path, *COMMANDS[command]).out
    assert shown
    assert max(map(_columns, shown.splitlines())) <= 80


def _columns(line: str) -> int:
    """Cells of a terminal; characters of East Asia take two."""
    return sum(2 if "\u2e80" <= character <= "\uffdc" else 1 for character in line)


@pytest.mark.parametrize("name", [LONG, UNBROKEN])
def test_a_long_name_is_folded_and_not_cut(tmp_path: Path, name: str) -> None:
    tiny.mlp(tmp_path / "model.onnx", first=name)
    shown = done(tmp_path, "inspect", "model.onnx", "--layers").out
    first_column = "".join(line.split("  ")[1].strip() for line in shown.splitlines() if line.startswith("  "))
    assert name in first_column.replace(" ", "")


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "a:b:rocket:", "[bold"])
def test_names_are_no_markup(tmp_path: Path, name: str) -> None:
    tiny.mlp(tmp_path / "model.onnx", first=name)
    recipe = write_recipe(tmp_path, passes=[{"type": "quantize_dynamic"}])
    assert name in done(tmp_path, "run", recipe, "-v").out
    assert name in done(tmp_path, "inspect", "model.onnx", "--layers").out


def test_skipped_layers_are_grouped_by_reason(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    shown = done(tmp_path, "run", write_recipe(tmp_path, passes=[{"type": "quantize_dynamic"}])).out
    assert "2 × Conv" in shown
    assert "stem, body" in " ".join(shown.split())


def test_changed_layers_are_listed_only_when_asked_for(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx", first="layer_7")
    recipe = write_recipe(tmp_path, passes=[{"type": "quantize_dynamic"}])
    assert "layer_7" not in done(tmp_path, "run", recipe).out
    assert "layer_7" in done(tmp_path, "run", recipe, "-v", "--overwrite").out


def test_gates_show_value_bound_and_verdict(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, gates={"cosine": {"min": 0.5}, "compression_ratio": {"min": 9}})
    lines = [line.split() for line in call(tmp_path, "run", recipe).out.splitlines()]
    assert ["cosine", "1", "≥", "0.5", "passed"] in lines
    assert any(line[:1] == ["compression_ratio"] and line[2:] == ["≥", "9", "FAILED"] for line in lines)


def test_nothing_is_coloured_where_there_is_no_terminal(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    assert "\x1b" not in done(tmp_path, "run", write_recipe(tmp_path)).out


def test_an_error_about_a_long_path_is_one_line(tmp_path: Path) -> None:
    name = f"{'a' * 200}.onnx"
    assert call(tmp_path, "inspect", name).err.splitlines() == [
        f"error: {name}: no such file; give the path of an .onnx model"
    ]


def test_without_a_report_the_model_alone_is_drawn(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    shown = done(tmp_path, "inspect", "model.onnx").out
    assert "first" not in shown
    assert "1 Gemm" in shown

"""The command: what it selects, what it refuses, and one comparison from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import quantizers
from benchmarks.comparing import Effort, compare
from benchmarks.cost import Cost
from benchmarks.tasks import Rival, Variant
from benchmarks.tools import TOOLS
from tests.benchmarks import tiny
from tests.models import graph, write

NAMES = ("w8a8", "w4a8", "observer-mse", "binary")


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ([], ["w8a8", "w4a8", "observer-mse"]),
        (["binary"], ["binary"]),
        (["w?a8"], ["w8a8", "w4a8"]),
        (["observer-*", "binary"], ["observer-mse", "binary"]),
        (["nothing"], []),
    ],
)
def test_slow_variants_run_only_when_they_are_named(tmp_path: Path, asked: list[str], kept: list[str]) -> None:
    variants = (Variant(name, (tiny.STATIC,), slow=name == "binary") for name in NAMES)
    task = tiny.with_variants(tiny.classes(tmp_path), *variants)
    assert [variant.name for variant in quantizers.narrowed(task, asked).variants] == kept


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert quantizers.main(arguments) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_missing_assets_are_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "--only", "resnet20", "--assets", str(tmp_path))
    assert str(tmp_path / "models" / "resnet20_cifar10.onnx") in line
    assert "--assets" in line


def test_an_unknown_variant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--help" in _refused(capsys, "--variant", "w1a1", "--assets", str(tmp_path))


@pytest.mark.parametrize("arguments", [["--samples", "0"], ["--runs", "x"], ["--only", "vgg"]])
def test_a_wrong_option_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        quantizers.main(arguments)
    assert raised.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_lists_every_variant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quantizers.main(["--help"])
    printed = capsys.readouterr().out
    assert all(variant.name in printed for task in quantizers.TASKS.values() for variant in task.variants)


@pytest.mark.slow
def test_both_tools_are_run_and_judged_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quantizers, "TASKS", {"tiny": tiny.classes(tmp_path)})
    file, kept = tmp_path / "rows.json", tmp_path / "kept"
    options = ("--assets", str(tmp_path / "assets"), "--seconds", "0", "--json", str(file), "--keep", str(kept))
    assert quantizers.main(options) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["tool"], row["samples"]) for row in rows] == [("compressor", 32), ("onnxruntime", 32)]
    for row in rows:
        found = row["judgement"]
        assert found["before"] == 1
        assert found["after"] > 0.8
        assert found["bytes_after"] == (kept / f"tiny_w8a8_{row['tool']}.onnx").stat().st_size
        assert found["kernels"]["Conv"] == [2, 2]
        assert row["cost"]["code"] == 0
        assert 0 < row["cost"]["peak_mib"] < 4096
    assert "| tiny  | w8a8    | compressor, 32  |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_tool_that_fails_costs_its_own_row_only(tmp_path: Path) -> None:
    task = tiny.with_variants(
        tiny.classes(tmp_path),
        Variant("impossible", ({**tiny.STATIC, "targets": "nothing"},), "no such call"),
        Variant("dynamic", (tiny.SIMPLIFY,)),
    )
    rows = compare(task, tiny.places(tmp_path), Effort({"compressor": 8, "onnxruntime": 8}, 0, 1))
    failed, absent, simplified = rows
    assert isinstance(failed.cost, Cost)
    assert failed.cost.code
    assert "nothing" in failed.cost.complaint
    assert failed.judgement is None
    assert (absent.cost, absent.judgement) == ("no such call", None)
    assert simplified.judgement is not None
    assert simplified.judgement.after == 1


@pytest.mark.slow
def test_what_a_tool_writes_and_nobody_can_load_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: object) -> Cost:
        proto = graph("float[N] x => float[N] y", "y = NoSuchOperator(x)")
        write(proto, tiny.places(tmp_path).made / "tiny_w8a8_onnxruntime.onnx")
        return Cost(0, 1.0, 1.0, "")

    monkeypatch.setitem(TOOLS, "onnxruntime", broken)
    task = tiny.with_variants(tiny.classes(tmp_path), Variant("w8a8", (tiny.SIMPLIFY,), Rival("static")))
    ours, theirs = compare(task, tiny.places(tmp_path), Effort({"compressor": 8, "onnxruntime": 8}, 0, 1))
    assert ours.judgement is not None
    assert theirs.judgement is None

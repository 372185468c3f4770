"""One word per thing: the name of a pass is that of its module and its class, and words have one meaning."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from compressor.data import AnySource
from compressor.passes import PASSES, AnyPass, Pass
from compressor.recipe import Recipe
from compressor.report import Change, Measurement, Report, Skip

PACKAGE = Path(__file__).resolve().parents[1] / "compressor"
SOURCES: tuple[type[BaseModel], ...] = get_args(get_args(AnySource)[0])


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _type(step: type[Pass]) -> str:
    return str(step.model_fields["type"].default)


@pytest.mark.parametrize("step", PASSES, ids=_type)
def test_type_module_and_class_of_a_pass_have_one_name(step: type[Pass]) -> None:
    assert _type(step) == step.__module__.rpartition(".")[2] == _snake(step.__name__)


def test_every_module_of_passes_is_registered_once() -> None:
    modules = {path.stem for path in (PACKAGE / "passes").glob("*.py")} - {"__init__", "base"}
    assert sorted(map(_type, PASSES)) == sorted(modules)
    assert get_args(get_args(AnyPass)[0]) == PASSES


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_a_source_is_called_like_its_module(source: type[BaseModel]) -> None:
    name = str(source.model_fields["source"].default)
    assert name == source.__module__.rpartition(".")[2]
    assert source.__name__ == f"{name.capitalize()}Source"


@pytest.mark.parametrize("model", [*PASSES, *SOURCES, Recipe], ids=lambda model: model.__name__)
def test_every_field_of_a_recipe_is_described(model: type[BaseModel]) -> None:
    fields = model.model_fields.items()
    assert [name for name, field in fields if name not in ("type", "source") and not field.description] == []


@pytest.mark.parametrize("model", [*PASSES, *SOURCES, Recipe], ids=lambda model: model.__name__)
def test_recipes_are_closed_and_frozen(model: type[BaseModel]) -> None:
    assert model.model_config.get("extra") == "forbid"
    assert model.model_config.get("frozen") is True


@pytest.mark.parametrize("step", PASSES, ids=_type)
def test_every_pass_says_what_it_does_in_one_line(step: type[Pass]) -> None:
    first = (step.__doc__ or "").strip().splitlines()[0]
    assert first.endswith(".")


FORBIDDEN = re.compile(
    r"\b(group_?size|maxq|prune_?[nm]|ch_sparsity|pruning_ratio|modifier|utils?|helpers?|manager|handler|misc)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_words_that_the_glossary_replaces_do_not_appear(path: Path) -> None:
    text = re.sub(r"importlib\.util|nn\.utils", "", path.read_text(encoding="utf-8"))  # names of others
    assert [line for line in text.splitlines() if FORBIDDEN.search(line)] == []
    assert not FORBIDDEN.search(path.stem)


def test_the_passes_are_pinned() -> None:
    assert {"simplify", "prune_magnitude", "quantize_dynamic", "quantize_static"} <= set(map(_type, PASSES))


REPORT = {
    Report: {
        "reference",
        "result",
        "passes",
        "fidelity",
        "accuracy",
        "latency",
        "gates",
        "warnings",
        "environment",
        "receipt",
    },
    Change: {"weight", "layer", "detail", "relative_error", "bytes_before", "bytes_after", "zeros"},
    Skip: {"weight", "layer", "reason"},
    Measurement: {"path", "file_bytes", "parameters", "zeros", "macs", "latency_ms", "latency_p95_ms", "kernels"},
}


@pytest.mark.parametrize("kind", REPORT, ids=lambda kind: kind.__name__)
def test_fields_of_the_json_report_are_pinned(kind: type) -> None:
    assert set(kind.__dataclass_fields__) >= REPORT[kind]  # type: ignore[attr-defined]

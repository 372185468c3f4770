"""A recipe that is written loads to the same recipe; the schema describes what loads."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from compressor.recipe import dump, load
from compressor.recipe.load import validate
from compressor.recipe.tree import Plain, Tree
from tests.cli import tiny
from tests.cli.calling import Values, done

REPOSITORY = Path(__file__).resolve().parents[2]

FULL = """\
version: 1
model: model.onnx
seed: 5
data:
  calibration: {source: images, path: images, samples: 7, resize: [9, 8], crop: 8, mean: [0.5], std: [1, 2, 3]}
  evaluation: {source: arrays, path: data.npz, inputs: {x: a}, labels: {y: b}, metric: mse, scale: 0.00392156862745098}
passes:
  - {type: simplify}
  - {type: prune_magnitude, threshold: 1.0e-07, ignore: [second]}
  - {type: quantize_dynamic, granularity: per_tensor, embeddings: false}
verify: {cosine: -1, batches: 2}
runtime: {threads: 2, seconds: 0.5}
gates: {compression_ratio: {min: 1, max: 9}, file_bytes: {max: 1000000}}
output: {model: out/small.onnx, report: [r.md, out/r.json]}
"""
SOURCES = (
    "{source: random, shapes: {x: [1, 8]}, values: {x: [-1, 1]}}",
    "{source: python, function: 'feeds:samples', samples: 3}",
    "{source: arrays, path: data.npz}",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=tiny.normal(40, 8))
    (tmp_path / "images").mkdir()
    return tmp_path


def _assert_survives(folder: Path, text: str) -> None:
    """Written into the same folder and loaded again, a recipe is equal, its paths resolved."""
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe, _ = load(folder / "recipe.yaml")
    (folder / "again.yaml").write_text(dump(recipe, folder), encoding="utf-8")
    assert load(folder / "again.yaml")[0] == recipe


def test_a_recipe_with_everything_survives_writing(folder: Path) -> None:
    _assert_survives(folder, FULL)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_survives_writing(folder: Path, source: str) -> None:
    _assert_survives(folder, yaml.safe_dump(yaml.safe_load(FULL) | {"data": {"calibration": yaml.safe_load(source)}}))


NAMES = [
    "2:4",
    "on",
    "~",
    "null",
    "true",
    "1_000",
    "0o7",
    "0x1f",
    "1e5",
    "08",
    "1.",
    "é",
    "a: b",
    "# c",
    "- d",
    " e ",
    "'",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_name_survives_writing(folder: Path, name: str) -> None:
    quoted = json.dumps(name, ensure_ascii=False)
    _assert_survives(folder, FULL.replace("ignore: [second]", f"ignore: [{quoted}]"))


def test_a_recipe_written_elsewhere_names_the_same_files(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(FULL)
    recipe, _ = load(folder / "recipe.yaml")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "again.yaml").write_text(dump(recipe, folder / "deep" / "er"))
    again, _ = load(folder / "deep" / "er" / "again.yaml")
    assert again.model.resolve() == recipe.model.resolve()
    assert again.output.model.resolve() == recipe.output.model.resolve()
    assert [p.resolve() for p in again.output.report] == [p.resolve() for p in recipe.output.report]


def test_defaults_are_left_out(folder: Path) -> None:
    minimal: dict[str, Plain] = {
        "version": 1,
        "model": str(folder / "model.onnx"),
        "passes": [{"type": "simplify"}],
        "output": {"model": str(folder / "out.onnx")},
    }
    shown = yaml.safe_load(dump(validate(Tree(minimal, {})), folder))
    assert shown == minimal | {"model": "model.onnx", "output": {"model": "out.onnx"}}


def test_an_override_that_goes_back_to_a_default_is_kept(folder: Path) -> None:
    overrides = [{"targets": ["first"], "bits": 8}]
    step = {"type": "quantize_static", "scheme": "w4a8", "overrides": overrides}
    text = FULL.replace("{type: quantize_dynamic, granularity: per_tensor, embeddings: false}", json.dumps(step))
    (folder / "recipe.yaml").write_text(text)
    shown = yaml.safe_load(dump(load(folder / "recipe.yaml")[0], folder))
    assert shown["passes"][2]["overrides"] == overrides


def _schema(folder: Path) -> Values:
    return done(folder, "schema").record()


def _part(whole: Values, reference: str) -> Values:
    part: object = whole
    for key in reference.removeprefix("#/").split("/"):
        assert isinstance(part, dict)
        part = part[key]
    assert isinstance(part, dict)
    return part


_TYPES: dict[object, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _faults(value: object, part: Values, whole: Values, place: str) -> Iterator[str]:
    """Where `value` breaks the keywords of JSON Schema that ours uses; what a variable stands for is not known."""
    if isinstance(value, str) and value.startswith("${"):
        return
    if "$ref" in part:
        yield from _faults(value, _part(whole, str(part["$ref"])), whole, place)
    for keyword in ("anyOf", "oneOf"):
        options = part.get(keyword)
        if isinstance(options, list) and all(list(_faults(value, option, whole, place)) for option in options):
            yield f"{place}: {value!r} is none of {len(options)}"
    kinds = _TYPES.get(part.get("type"), (object,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and object not in kinds):
        yield f"{place}: {value!r} is no {part['type']}"
    if "const" in part and value != part["const"]:
        yield f"{place}: {value!r} is not {part['const']!r}"
    choices = part.get("enum")
    if isinstance(choices, list) and value not in choices:
        yield f"{place}: {value!r} is not in {choices}"
    if isinstance(value, dict):
        yield from _faults_of_mapping(value, part, whole, place)
    items = part.get("items")
    if isinstance(value, list) and isinstance(items, dict):
        for index, item in enumerate(value):
            yield from _faults(item, items, whole, f"{place}.{index}")


def _faults_of_mapping(value: Values, part: Values, whole: Values, place: str) -> Iterator[str]:
    known, required = part.get("properties", {}), part.get("required", [])
    assert isinstance(known, dict)
    assert isinstance(required, list)
    yield from (f"{place}: {name} is missing" for name in required if name not in value)
    for name, item in value.items():
        if name in known:
            yield from _faults(item, known[name], whole, f"{place}.{name}")
        elif part.get("additionalProperties") is False:
            yield f"{place}: {name} is not known"


def test_the_schema_is_closed_and_every_reference_in_it_leads_somewhere(tmp_path: Path) -> None:
    schema = _schema(tmp_path)
    definitions = {f"#/$defs/{name}" for name in _part(schema, "#/$defs")}
    references = {entry["$ref"] for entry in _mappings(schema) if "$ref" in entry}
    assert str(schema["$schema"]).startswith("https://json-schema.org/")
    assert references <= definitions
    for part in (schema, *(_part(schema, name) for name in definitions)):
        assert part.get("additionalProperties") is False


def _mappings(value: object) -> Iterator[dict[str, str]]:
    match value:
        case dict():
            yield value
            for item in value.values():
                yield from _mappings(item)
        case list():
            for item in value:
                yield from _mappings(item)


def test_the_schema_describes_every_field(tmp_path: Path) -> None:
    schema = _schema(tmp_path)
    for name in _part(schema, "#/$defs"):
        for field in _part(schema, f"#/$defs/{name}/properties").keys() - {"type", "source"}:
            assert _part(schema, f"#/$defs/{name}/properties/{field}").get("description"), f"{name}.{field}"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_accepts_every_example(tmp_path: Path, path: Path) -> None:
    schema = _schema(tmp_path)
    assert not list(_faults(yaml.safe_load(path.read_text()), schema, schema, "recipe"))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"output": {"model": "o.onnx", "report": "r.md"}},
        {"passes": [{"type": "prune_magnitude", "targets": "Gemm", "sparsity": 0.5}]},
        {"data": {"calibration": {"source": "arrays", "path": "d.npz", "mean": 0.5, "std": [1, 2]}}},
        {"data": {"calibration": {"source": "images", "path": "d", "resize": 8, "crop": [8, 9], "mean": [1]}}},
        {"vars": {"share": 1}},
    ],
)
def test_the_schema_accepts_what_loads(folder: Path, changed: Values) -> None:
    recipe: Values = {
        "version": 1,
        "model": "model.onnx",
        "passes": [{"type": "simplify"}],
        "output": {"model": "o.onnx"},
    }
    (folder / "d").mkdir()
    (folder / "d.npz").write_bytes((folder / "data.npz").read_bytes())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | changed))
    load(folder / "recipe.yaml")
    schema = _schema(folder)
    assert not list(_faults(recipe | changed, schema, schema, "recipe"))


def test_the_schema_accepts_a_recipe_that_extends_another(folder: Path) -> None:
    (folder / "base.yaml").write_text(FULL)
    (folder / "recipe.yaml").write_text("extends: base.yaml\nseed: 2\n")
    load(folder / "recipe.yaml")
    schema = _schema(folder)
    assert not list(_faults({"extends": "base.yaml", "seed": 2}, schema, schema, "recipe"))


@pytest.mark.parametrize(
    "changed",
    [{"sede": 1}, {"version": 2}, {"passes": [{"type": "simplifi"}]}, {"gates": {"ratio": {"min": 1}}}, {"seed": "a"}],
)
def test_the_schema_refuses_what_does_not_load(tmp_path: Path, changed: Values) -> None:
    recipe: Values = {"version": 1, "model": "m.onnx", "passes": [{"type": "simplify"}], "output": {"model": "o.onnx"}}
    schema = _schema(tmp_path)
    assert list(_faults(recipe | changed, schema, schema, "recipe"))

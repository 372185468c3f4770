"""Text on the command line and in recipes: the tokenizer is found, figures come in their own units."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import helper

from compressor.recipe import dump, load
from tests.cli import tiny
from tests.cli.calling import Values, done, ran, refused, write_recipe
from tests.words import tokenizer

LINES = [" ".join(f"w{(3 * i + j) % 90}" for j in range(2 + i % 5)) for i in range(30)]


def _language_model(path: Path) -> Path:
    """input_ids (batch, tokens) → Gather (100, 8) → MatMul → logits (batch, tokens, 100); it counts upwards."""
    table = tiny.normal(100, 8)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["h"], "embedding"),
        helper.make_node("MatMul", ["h", "w"], ["logits"], "head"),
    ]
    inputs = [tiny.value("input_ids", ["batch", "tokens"], tiny.INT64)]
    outputs = [tiny.value("logits", ["batch", "tokens", 100])]
    return tiny.write(path, nodes, inputs, outputs, {"table": table, "w": np.roll(table, 1, axis=0).T})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a language model, its tokenizer, and text elsewhere."""
    (tmp_path / "texts").mkdir()
    _language_model(tmp_path / "model.onnx")
    tokenizer(tmp_path / "tokenizer.json", "llama")
    (tmp_path / "texts" / "data.txt").write_text("\n".join(LINES))
    return tmp_path


TEXT: Values = {"source": "text", "path": "texts/data.txt", "tokenizer": "tokenizer.json"}
WINDOWS = TEXT | {"unit": "window", "max_length": 12, "metric": "perplexity"}


def test_the_tokenizer_beside_the_model_reads_the_text(folder: Path) -> None:
    options = ("--data", "texts/data.txt", "--set", "metric=perplexity", "--json", "-")
    found = done(folder, "compare", "model.onnx", "model.onnx", *options).record()
    assert isinstance(accuracy := found["accuracy"], dict)
    assert accuracy["reference"] == accuracy["result"] > 1
    assert accuracy["samples"] == 30


def test_or_else_the_one_beside_the_text(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "texts" / "tokenizer.json")
    done(folder, "bench", "model.onnx", "--data", "texts/data.txt", "--seconds", "0.1")


def test_without_one_the_way_out_is_told(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (line,) = refused(folder, 2, "compress", "model.onnx", "--data", "texts/data.txt", says=("tokenizer.json",))
    assert "put it there, or name it in a recipe as source: text" in line


def test_compress_writes_a_recipe_that_reads_the_same_text(folder: Path) -> None:
    done(folder, "compress", "model.onnx", "--preset", "int8-dynamic", "--data", "texts/data.txt", "-o", "a.onnx", "-q")
    written = yaml.safe_load((folder / "a.yaml").read_text())
    assert written["data"]["calibration"] == TEXT
    assert done(folder, "check", "a.yaml").err.endswith("ok\n")


@pytest.mark.parametrize("missing", ["path", "tokenizer"])
def test_a_file_that_is_not_there_is_named_by_its_own_field(folder: Path, missing: str) -> None:
    recipe = write_recipe(folder, data={"evaluation": TEXT | {missing: "gone"}})
    refused(folder, 2, "check", recipe, says=(f"data.evaluation.{missing}: ", "gone does not exist"))


def test_a_recipe_with_text_survives_writing(folder: Path) -> None:
    full = TEXT | {"columns": "text", "labels": {"logits": "a"}, "classes": ["x", "y"], "max_length": 9, "pad": "<s>"}
    write_recipe(folder, data={"calibration": WINDOWS, "evaluation": full | {"inputs": {"input_ids": "input_ids"}}})
    recipe, _ = load(folder / "recipe.yaml")
    (folder / "sub").mkdir()
    (folder / "sub" / "again.yaml").write_text(dump(recipe, folder / "sub"))
    again, _ = load(folder / "sub" / "again.yaml")
    assert again.data.calibration is not None
    assert again.data.calibration.identity(()) == (folder / "texts" / "data.txt").resolve()
    assert dump(again, folder) == dump(recipe, folder)


def test_perplexity_is_a_plain_number_and_its_rise_a_loss(folder: Path) -> None:
    prune = [{"type": "prune_magnitude", "sparsity": 0.7}]
    recipe = write_recipe(folder, passes=prune, data={"evaluation": WINDOWS}, verify={"cosine": -1})
    shown = done(folder, "run", recipe, "--json", "report.json").out
    (line,) = [line for line in shown.splitlines() if line.split()[:1] == ["perplexity"]]
    reference, result, loss = map(float, line.split()[1:])
    assert "%" not in line
    assert loss > 0
    assert loss == pytest.approx(result - reference, rel=1e-2)
    write_recipe(folder, passes=prune, data={"evaluation": WINDOWS}, verify={"cosine": -1}, gates=_gate(loss * 1.01))
    done(folder, "run", "recipe.yaml", "--overwrite")


def _gate(most: float) -> Values:
    return {"accuracy_drop": {"max": most}}


def test_calibration_and_evaluation_on_one_text_share_no_window(folder: Path) -> None:
    report = ran(folder, data={"calibration": WINDOWS | {"metric": None}, "evaluation": WINDOWS})
    assert isinstance(fidelity := report["fidelity"], dict)
    assert fidelity["data"] == "data.txt, held out"
    tokens = sum(len(line.split()) for line in LINES)
    windows = (tokens - 12) // 11 + 1
    assert fidelity["samples"] == windows - max(1, windows - -(-windows // 5))


def test_token_ids_in_an_array_are_their_own_labels(folder: Path) -> None:
    np.save(folder / "ids.npy", np.random.default_rng(0).integers(0, 100, (6, 9)))
    perplexities = []
    for batch in (1, 4, 6):
        data = {"evaluation": {"source": "arrays", "path": "ids.npy", "batch": batch, "metric": "perplexity"}}
        write_recipe(folder, data=data)
        found = done(folder, "run", "recipe.yaml", "--overwrite", "--json", "-").record()["accuracy"]
        assert isinstance(found, dict)
        perplexities.append(found["reference"])
    assert perplexities[0] > 1
    assert perplexities == pytest.approx([perplexities[0]] * 3)


def test_init_proposes_text_for_a_model_that_reads_tokens(folder: Path) -> None:
    done(folder, "init", "model.onnx", "-o", "start.yaml")
    (folder / "texts.txt").write_text("\n".join(LINES))
    recipe, _ = load(folder / "start.yaml")
    assert recipe.data.calibration is not None
    assert recipe.data.calibration.source == "text"
    assert done(folder, "run", "start.yaml", "--set", "runtime.seconds=0.1").out


def test_init_proposes_no_text_for_other_models(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    assert "source: text" not in done(tmp_path, "init", "model.onnx", "-o", "-").out


def test_the_schema_knows_text_and_metrics_of_ones_own(tmp_path: Path) -> None:
    schema = done(tmp_path, "schema").record()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    metric = definitions["TextSource"]["properties"]["metric"]
    assert "perplexity" in str(metric)
    assert "pattern" in str(metric)

"""What the documents show is true: recipes are valid, links lead somewhere, code does what is said of it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper
from onnx.reference import ReferenceEvaluator
from pydantic import TypeAdapter

from compressor.passes import AnyPass
from compressor.recipe.schema import DataSection
from tests.cli import tiny
from tests.cli.calling import CHEAP, done, write_recipe

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
QUANTIZATION, FILE_FORMAT = (REPOSITORY / "docs" / name for name in ("quantization.md", "file-format.md"))


def _blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def _fragments() -> Iterator[dict[str, object]]:
    for document in DOCUMENTS:
        for block in _blocks(document, "yaml"):
            yield yaml.safe_load(block)


def _defined(document: Path, name: str) -> Any:
    """What the code of a document calls so."""
    names: dict[str, object] = {}
    exec("\n".join(_blocks(document, "python")), names)
    return names[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_training_shown_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert len(_defined(REPOSITORY / "docs" / "torch.md", "changed")) > 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    prose = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert not missing


def test_every_recipe_shown_is_valid() -> None:
    found = list(_fragments())
    assert len(found) > 3
    for fragment in found:
        TypeAdapter(list[AnyPass]).validate_python(fragment.get("passes", []))
        DataSection.model_validate(fragment.get("data", {}))


def test_the_metric_shown_is_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text(_blocks(QUANTIZATION, "python")[0])
    tiny.mlp(tmp_path / "model.onnx")
    inputs = tiny.normal(6, 8)
    wanted = ReferenceEvaluator(onnx.load(tmp_path / "model.onnx")).run(None, {"x": inputs})[0]
    np.savez(tmp_path / "data.npz", x=inputs, labels=wanted + np.float32([0.09, 0.11, -0.09, 1]))
    data = {"source": "arrays", "path": "data.npz", "labels": "labels", "metric": "metrics:WithinTenth"}
    recipe = write_recipe(tmp_path, data={"evaluation": data})
    found = done(tmp_path, "run", recipe, "--json", "-").record()["accuracy"]
    assert isinstance(found, dict)
    assert found["reference"] == 0.5


@pytest.fixture(params=[3, 2, "ternary", "binary"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> onnx.ModelProto:
    """A model whose weights are packed by functions, with blocks and without, in both layouts."""
    tiny.cnn(tmp_path / "model.onnx")
    passes = [{"type": "quantize_weights", "bits": request.param, "block": 4}]
    done(tmp_path, "run", write_recipe(tmp_path, passes=passes, verify={"cosine": -1}, runtime=CHEAP))
    return onnx.load(tmp_path / "out.onnx")


def test_packed_weights_are_read_by_the_code_shown(packed: onnx.ModelProto) -> None:
    unpack: Callable[..., np.ndarray] = _defined(FILE_FORMAT, "unpack")
    values = {array.name: onnx.numpy_helper.to_array(array) for array in packed.graph.initializer}
    calls = [node for node in packed.graph.node if node.domain == "compressor"]
    assert {"Multiply"} < {node.op_type for node in calls}
    for node in calls:
        arrays = [values[name] for name in node.input]
        found = values[node.output[0]] = unpack(node.op_type, *arrays)
        assert np.array_equal(found, _computed(packed, node, arrays))


def _computed(model: onnx.ModelProto, node: onnx.NodeProto, arrays: list[np.ndarray]) -> np.ndarray:
    """What the model's own function makes of these arrays."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(node.input, arrays, strict=True)
    ]
    output = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT8, None)
    graph = helper.make_graph([node], "one", inputs, [output])
    alone = helper.make_model(graph, functions=model.functions, opset_imports=model.opset_import)
    return ReferenceEvaluator(alone).run(None, dict(zip(node.input, arrays, strict=True)))[0]

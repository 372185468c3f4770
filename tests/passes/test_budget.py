"""A budget is kept, and what it led to is written down so that it need not be found again."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.packing import DOMAIN
from compressor.passes import Context, QuantizeWeights
from compressor.progress import Silent
from compressor.report import Change, Finding
from tests.cli import tiny
from tests.cli.calling import Values, refused, write_recipe
from tests.models import Floats, decibels, floats, graph, load, outputs, run
from tests.passes.findings import entries, passed, record

WEIGHTS: Values = {"type": "quantize_weights"}
UNBOUND = {"cosine": -1}
BUDGETS: dict[str, Values] = {"mean": {"bits_per_weight": 5.1}, "bytes": {"bytes": 5300}, "drift": {"drift": 0.02}}
X = floats(np.random.default_rng(1), 64, 64)


def _proto() -> onnx.ModelProto:
    """Two layers side by side, one of whose outputs has 100 times the power."""
    rng = np.random.default_rng(2)
    body = "[loud] a = MatMul(x, u)  [quiet] b = MatMul(x, v)  y = Add(a, b)"
    arrays = {"u": 10 * floats(rng, 64, 64), "v": floats(rng, 64, 64)}
    return graph("float[N,64] x => float[N,64] y", body, **arrays)


def _context(model: Model, folder: Path, x: Floats = X) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 16})
    return Context(model.copy(), source.open(model, "data", 0), 0, folder, Silent(), 1)


def _step(**settings: object) -> QuantizeWeights:
    return QuantizeWeights.model_validate({**WEIGHTS, **settings})


def _applied(step: QuantizeWeights, folder: Path, proto: onnx.ModelProto | None = None) -> tuple[Model, list[Finding]]:
    model = load(proto or _proto(), folder)
    return model, list(step.apply(model, _context(model, folder)))


def _bits(findings: list[Finding]) -> dict[str, object]:
    return {finding.weight: finding.bits for finding in findings if isinstance(finding, Change)}


def _written(model: Model, folder: Path) -> bytes:
    model.save(folder / "saved.onnx")
    return (folder / "saved.onnx").read_bytes()


SETTINGS: dict[str, Values] = {
    "plain": {},
    "nearest": {"rounding": "nearest"},
    "override of rounding": {"overrides": [{"targets": "quiet", "rounding": "nearest"}]},
    "override of block": {"overrides": [{"targets": "MatMul", "block": 8}]},
    "override of bits": {"overrides": [{"targets": "quiet", "bits": 3}]},
    "float": {"compute": "float"},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("goal", BUDGETS)
def test_the_settled_pass_does_the_same_without_a_budget(goal: str, name: str, tmp_path: Path) -> None:
    widths: Values = {"widths": [8, 4]} if name == "float" else {}
    step = _step(budget=BUDGETS[goal] | widths, **SETTINGS[name])
    model, findings = _applied(step, tmp_path)
    settled = step.settled(findings)
    assert isinstance(settled, QuantizeWeights)
    assert settled.budget is None
    again, same = _applied(
        QuantizeWeights.model_validate(settled.model_dump(mode="json", exclude_unset=True)), tmp_path
    )
    assert _bits(same) == _bits(findings)
    assert _written(again, tmp_path) == _written(model, tmp_path)


def test_without_a_budget_a_pass_is_settled_as_it_is(tmp_path: Path) -> None:
    step = _step(bits=3)
    assert step.settled(_applied(step, tmp_path)[1]) is step


@pytest.mark.parametrize("goal", BUDGETS)
def test_the_budget_is_kept(goal: str, tmp_path: Path) -> None:
    model, findings = _applied(_step(budget=BUDGETS[goal]), tmp_path)
    nbytes = sum(finding.bytes_after for finding in findings if isinstance(finding, Change))
    found, expected = outputs(model, {"x": X}, tmp_path)["y"], run(_proto(), {"x": X})["y"]
    noise = np.square(found - expected).sum() / np.square(expected).sum()
    assert nbytes <= {"mean": 2 * 64 * 64 * 5.1 / 8, "bytes": 5300, "drift": np.inf}[goal]
    assert noise <= (0.02 * 1.1 if goal == "drift" else 1)


def test_the_report_says_what_was_chosen(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(_proto().SerializeToString())
    data = {"calibration": {"source": "random"}}
    report = passed(tmp_path, WEIGHTS | {"budget": {"bits_per_weight": 4.5}}, data=data, verify=UNBOUND)
    settings = record(report)["settings"]
    assert isinstance(settings, dict)
    assert settings["budget"] is None
    chosen = {name: override["bits"] for override in settings["overrides"] for name in override["targets"]}
    assert chosen == {name: change["bits"] for name, change in entries(report, "changes").items()}
    assert chosen.keys() == {"loud", "quiet"}
    widths = (8, 4, 3, 2, "ternary")
    assert widths.index(chosen["loud"]) < widths.index(chosen["quiet"])


REFUSED: dict[str, tuple[Values, str]] = {
    "bits": ({"bits": 4, "budget": {"drift": 0.1}}, "give bits or budget, not both"),
    "no goal": ({"budget": {}}, "give one of bits_per_weight, bytes and drift"),
    "two goals": ({"budget": {"drift": 0.1, "bytes": 9}}, "give one of bits_per_weight, bytes and drift"),
    "one width": ({"budget": {"drift": 0.1, "widths": [4]}}, "widths"),
    "no kernel": ({"compute": "float", "budget": {"drift": 0.1, "widths": [8, 3]}}, "kernel"),
    "scaling first": ({"rounding": "activation_aware", "budget": {"drift": 0.1}}, "a budget goes with rounding"),
    "scheme": ({"scheme": "w4", "budget": {"drift": 0.1}}, "scheme"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(_proto().SerializeToString())
    settings, says = REFUSED[name]
    recipe = write_recipe(
        tmp_path, passes=[WEIGHTS | settings], data={"calibration": {"source": "random"}}, verify=UNBOUND
    )
    assert len(refused(tmp_path, 2, "run", recipe, says=(says,))) == 1


def test_a_budget_needs_samples(tmp_path: Path) -> None:
    model = load(_proto(), tmp_path)
    context = Context(model.copy(), None, 0, tmp_path, Silent(), 1)
    with pytest.raises(PassError, match=r"judges its changes on sample data; give data\.calibration"):
        list(_step(budget={"drift": 0.1}).apply(model, context))


@pytest.mark.parametrize("compute", ["int8", "float"])
def test_activation_aware_rounding_is_no_worse_than_nearest(compute: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    x = floats(rng, 64, 64) @ (np.eye(64, dtype=np.float32) + floats(rng, 64, 64) / 16)
    x[:, [5, 50]] *= 15
    found = {}
    for rounding in ("nearest", "activation_aware"):
        model = load(_proto(), tmp_path)
        context = _context(model, tmp_path, x)
        findings = list(_step(compute=compute, rounding=rounding, bits=4).apply(model, context))
        assert _bits(findings) == {"loud": 4, "quiet": 4}
        found[rounding] = decibels(run(_proto(), {"x": x})["y"], outputs(model, {"x": x}, tmp_path)["y"])
    assert found["activation_aware"] >= found["nearest"]


def test_lookup_tables_in_3_bits_stay_packed(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Gather", ["table", "ids"], ["y"], "embedding")]
    sides = [tiny.value("ids", ["batch", 3], tiny.INT64)], [tiny.value("y", ["batch", 3, 128])]
    tiny.write(tmp_path / "model.onnx", nodes, *sides, {"table": tiny.normal(40, 128)})
    report = passed(tmp_path, WEIGHTS | {"embeddings": 3}, verify=UNBOUND)
    (change,) = entries(report, "changes").values()
    made = onnx.load(tmp_path / "out.onnx")
    assert change["bits"] == 3
    assert [(node.op_type, node.domain) for node in made.graph.node] == [("LookUp3", DOMAIN)]
    onnx.checker.check_model(made, full_check=True)
    ids = {"ids": np.arange(39).reshape(13, 3)}
    (expected,), (found,) = (tiny.execute(tmp_path / name, ids) for name in ("model.onnx", "out.onnx"))
    assert decibels(expected, found) > 12

"""prune_channels: as narrow as asked for, tied layers together, the outputs repaired, and every refusal said."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli import tiny
from tests.cli.calling import Values, call, refused, write_recipe
from tests.models import floats, graph, write
from tests.passes.findings import entries, passed, reasons

LOOSE = {"cosine": -1}


def _network(folder: Path, opset: int = 21) -> None:
    """Two residual stages of 16 channels with 24 in between, and a head."""
    rng = np.random.default_rng(0)
    body = """[stem] a = Conv<pads=[1,1,1,1]>(x, w0, b0)  r0 = Relu(a)
    [one] b = Conv<pads=[1,1,1,1]>(r0, w1, b1)  r1 = Relu(b)  [two] c = Conv<pads=[1,1,1,1]>(r1, w2, b2)  s = Add(r0, c)
    r2 = Relu(s)  p = GlobalAveragePool(r2)  f = Flatten(p)  [head] y = Gemm<transB=1>(f, w3, b3)"""
    arrays = {"w0": floats(rng, 16, 3, 3, 3) / 5, "b0": floats(rng, 16), "w1": floats(rng, 24, 16, 3, 3) / 12}
    arrays |= {"b1": floats(rng, 24), "w2": floats(rng, 16, 24, 3, 3) / 15, "b2": floats(rng, 16)}
    arrays |= {"w3": floats(rng, 5, 16), "b3": floats(rng, 5)}
    write(graph("float[N,3,8,8] x => float[N,5] y", body, opset=opset, **arrays), folder / "model.onnx")
    np.savez(folder / "x.npz", x=floats(rng, 128, 3, 8, 8))


DATA = {"calibration": {"source": "arrays", "path": "x.npz", "inputs": {"x": "x"}, "samples": 96}}


def _run(folder: Path, **fields: object) -> Values:
    _network(folder)
    (folder / "out.onnx").unlink(missing_ok=True)
    return passed(folder, {"type": "prune_channels", **fields}, data=DATA, verify=LOOSE)


def _widths(report: Values) -> dict[str, tuple[int, int]]:
    return {n: tuple(e["widths"]) for n, e in entries(report, "changes").items()}  # type: ignore[misc, arg-type]


def _macs(report: Values) -> float:
    before, after = (report[name]["macs"] for name in ("reference", "result"))  # type: ignore[index, call-overload]
    return float(after) / float(before)


@pytest.mark.parametrize("share", [0.8, 0.6, 0.4])
def test_the_multiply_accumulates_asked_for_are_left(tmp_path: Path, share: float) -> None:
    assert 0.7 * share < _macs(_run(tmp_path, macs=share, round_to=1)) <= 1.006 * share


def test_the_parameters_asked_for_are_left(tmp_path: Path) -> None:
    report = _run(tmp_path, parameters=0.5, round_to=1)
    before, after = (report[name]["parameters"] for name in ("reference", "result"))  # type: ignore[index, call-overload]
    assert 0.4 * before < after <= 0.503 * before


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_share_of_units_asked_for_goes(tmp_path: Path, scope: str) -> None:
    widths = _widths(_run(tmp_path, sparsity=0.5, scope=scope, round_to=1)).values()
    assert sum(before - after for before, after in widths) == pytest.approx(20, abs=1)


def test_layers_that_are_tied_are_cut_together_and_named(tmp_path: Path) -> None:
    report = _run(tmp_path, sparsity=0.5, scope="layer", round_to=4)
    assert _widths(report) == {"stem": (16, 8), "one": (24, 12)}
    assert entries(report, "changes")["stem"]["tied"] == ["stem", "two", "one", "head"]
    arrays = tiny.arrays_of(tmp_path / "out.onnx")
    shapes = {name: array.shape for name, array in arrays.items()}
    assert [shapes[n] for n in ("w0", "w1", "w2", "w3")] == [(8, 3, 3, 3), (12, 8, 3, 3), (8, 12, 3, 3), (5, 8)]


def test_outputs_of_the_model_are_not_cut_and_the_reason_is_said(tmp_path: Path) -> None:
    assert reasons(_run(tmp_path, macs=0.6))["head"] == "y is an output of the model"


@pytest.mark.parametrize("round_to", [4, 8])
def test_widths_are_multiples(tmp_path: Path, round_to: int) -> None:
    widths = _widths(_run(tmp_path, macs=0.5, round_to=round_to))
    assert all(after % round_to == 0 for _, after in widths.values())


def _fidelity(report: Values) -> float:
    outputs = report["fidelity"]["outputs"]  # type: ignore[index, call-overload]
    return float(outputs[0]["sqnr_db"])


def test_repair_brings_the_outputs_back(tmp_path: Path) -> None:
    fields = {"sparsity": 0.5, "scope": "layer", "round_to": 4}
    assert _fidelity(_run(tmp_path, **fields)) > _fidelity(_run(tmp_path, **fields, repair=False)) + 3


def test_second_order_is_nearer_to_the_reference_than_magnitude(tmp_path: Path) -> None:
    found = [_fidelity(_run(tmp_path, macs=0.5, round_to=2, importance=how)) for how in ("second_order", "magnitude")]
    assert found[0] > found[1] - 0.5


def test_magnitude_without_repair_needs_no_data(tmp_path: Path) -> None:
    _network(tmp_path)
    step: Values = {"type": "prune_channels", "macs": 0.6, "importance": "magnitude", "repair": False}
    assert _macs(passed(tmp_path, step, verify=LOOSE)) <= 0.604


@pytest.mark.parametrize("fields", [{}, {"importance": "magnitude"}])
def test_without_data_it_is_refused_before_a_model_is_opened(tmp_path: Path, fields: Values) -> None:
    _network(tmp_path)
    recipe = write_recipe(tmp_path, passes=[{"type": "prune_channels", "macs": 0.6, **fields}])
    refused(tmp_path, 2, "check", recipe, says=("passes.0", "data.calibration"))


@pytest.mark.parametrize(("field", "value"), [("ignore", ["one"]), ("targets", ["stem"])])
def test_layers_can_be_left_out(tmp_path: Path, field: str, value: list[str]) -> None:
    report = _run(tmp_path, sparsity=0.5, scope="layer", round_to=4, **{field: value})
    assert _widths(report) == {"stem": (16, 8)}
    assert field in reasons(report)["one"]


def test_a_kind_that_is_not_named_stays(tmp_path: Path) -> None:
    _network(tmp_path)
    step: Values = {"type": "prune_channels", "macs": 0.6, "structure": ["neurons"]}
    recipe = write_recipe(tmp_path, passes=[step], data=DATA)
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "structure does not name channels"))


NONSENSE: list[tuple[Values, str]] = [
    ({}, "give one of macs, parameters, latency and sparsity"),
    ({"macs": 0.5, "latency": 0.5}, "give one of macs"),
    ({"macs": 1.5}, "less than 1"),
    ({"macs": 0.5, "structure": ["filters"]}, "channels"),
    ({"macs": 0.5, "structure": []}, "structure"),
    ({"macs": 0.5, "round_to": 0}, "round_to"),
    ({"macs": 0.5, "importance": "fisher"}, "second_order"),
]


@pytest.mark.parametrize(("fields", "says"), NONSENSE, ids=str)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, fields: Values, says: str) -> None:
    recipe = write_recipe(tmp_path, passes=[{"type": "prune_channels", **fields}], data=DATA)
    refused(tmp_path, 2, "check", recipe, says=("passes.0", says))


def test_a_budget_out_of_reach_says_what_is_within(tmp_path: Path) -> None:
    _network(tmp_path)
    step: Values = {"type": "prune_channels", "macs": 0.01}
    recipe = write_recipe(tmp_path, passes=[step], data=DATA, verify=LOOSE)
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "1% of the cost", "min_width"))


@pytest.mark.parametrize("body", ["e = Div(r, s)", "q = Mul(r, s)  e = Log(q)"])
def test_a_channel_that_divides_does_not_confuse_the_budget(tmp_path: Path, body: str) -> None:
    rng = np.random.default_rng(0)
    text = f"""[one] a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Softplus(a)  {body}
    [two] c = Conv<pads=[1,1,1,1]>(e, w2)  d = Relu(c)  [three] y = Conv(d, w3)"""
    arrays = {"w1": floats(rng, 16, 3, 3, 3) / 5, "b1": floats(rng, 16), "w2": floats(rng, 16, 16, 3, 3) / 12}
    arrays |= {"w3": floats(rng, 2, 16, 1, 1), "s": rng.uniform(0.5, 2, (16, 1, 1)).astype(np.float32)}
    write(graph("float[N,3,8,8] x => float[N,2,p,q] y", text, **arrays), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=floats(rng, 128, 3, 8, 8))
    report = passed(tmp_path, {"type": "prune_channels", "macs": 0.6, "round_to": 1}, data=DATA, verify=LOOSE)
    assert 0.5 < _macs(report) <= 0.603


def test_what_the_narrowest_widths_give_can_be_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    body = "[one] a = Conv(x, w1)  r = Relu(a)  [two] y = Conv(r, w2)"
    arrays = {"w1": floats(rng, 64, 3, 3, 3), "w2": floats(rng, 8, 64, 1, 1)}
    write(graph("float[N,3,8,8] x => float[N,8,6,6] y", body, **arrays), tmp_path / "model.onnx")
    step = {"type": "prune_channels", "macs": 0.125, "importance": "magnitude", "repair": False, "round_to": 8}
    assert _macs(passed(tmp_path, step, data={"calibration": {"source": "random"}}, verify=LOOSE)) == 0.125


def test_the_narrowest_width_is_offered_however_many_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    body = "[one] a = MatMul(x, w1)  r = Relu(a)  [two] y = MatMul(r, w2)"
    arrays = {"w1": floats(rng, 4, 2048), "w2": floats(rng, 2048, 4)}
    write(graph("float[N,4] x => float[N,4] y", body, **arrays), tmp_path / "model.onnx")
    step = {"type": "prune_channels", "macs": 0.126, "importance": "magnitude", "repair": False}
    report = passed(tmp_path, step, data={"calibration": {"source": "random"}}, verify=LOOSE)
    assert _widths(report) == {"one": (2048, 256)}


def test_layers_whose_weights_are_computed_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    body = "[one] a = MatMul(x, w1)  t = Transpose(w2)  [two] b = MatMul(a, t)  [three] y = MatMul(b, w3)"
    arrays = {"w1": floats(rng, 4, 32), "w2": floats(rng, 32, 32), "w3": floats(rng, 32, 4)}
    write(graph("float[N,4] x => float[N,4] y", body, **arrays), tmp_path / "model.onnx")
    step = {"type": "prune_channels", "macs": 0.7, "importance": "magnitude", "repair": False}
    report = passed(tmp_path, step, data={"calibration": {"source": "random"}}, verify=LOOSE)
    assert "put simplify before this pass" in reasons(report)["two"]


@pytest.mark.alone
@pytest.mark.slow
def test_a_latency_is_met_as_measured(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    arrays = {"w1": floats(rng, 1024, 512) / 22, "w2": floats(rng, 2048, 1024) / 32, "w3": floats(rng, 8, 2048) / 45}
    body = """[one] a = Gemm<transB=1>(x, w1)  r = Relu(a)  [two] b = Gemm<transB=1>(r, w2)  q = Relu(b)
    [three] y = Gemm<transB=1>(q, w3)"""
    write(graph("float[N,512] x => float[N,8] y", body, **arrays), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=floats(rng, 64, 512))
    data = {"calibration": {"source": "arrays", "path": "x.npz", "inputs": {"x": "x"}, "samples": 48}}
    step: Values = {"type": "prune_channels", "latency": 0.6, "importance": "magnitude", "repair": False}
    report = passed(tmp_path, step, data=data, verify=LOOSE)
    assert _macs(report) < 0.75


def test_pruning_and_quantizing_in_one_recipe_count_both(tmp_path: Path) -> None:
    _network(tmp_path)
    steps: list[Values] = [{"type": "prune_channels", "macs": 0.6}, {"type": "quantize_static"}]
    report = passed(tmp_path, *steps, data=DATA, verify=LOOSE)
    assert _macs(report) <= 0.604
    assert report["result"]["kernels"]["Conv"] == [3, 3]  # type: ignore[index, call-overload]


def test_the_groups_of_a_model_are_shown_before_anything_is_pruned(tmp_path: Path) -> None:
    _network(tmp_path)
    found = call(tmp_path, "inspect", "model.onnx", "--groups", "--json", "-").record()["groups"]
    assert isinstance(found, list)
    assert {g["name"]: (g["kind"], g["width"], g["reason"]) for g in found} == {
        "stem": ("channels", 16, ""),
        "one": ("channels", 24, ""),
        "head": ("neurons", 5, "y is an output of the model"),
    }
    text = call(tmp_path, "inspect", "model.onnx", "--groups").out
    assert "Groups that can be pruned" in text
    assert "y is an output of the model" in text


def test_vectors_that_are_stored_once_are_so_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    body = """[one] a = Gemm<transB=1>(x, w1, b)  r = Relu(a)  [two] c = Gemm<transB=1>(r, w2, b)  q = Relu(c)
    [three] y = Gemm<transB=1>(q, w3)"""
    arrays = {
        "w1": floats(rng, 16, 6),
        "w2": floats(rng, 16, 16),
        "w3": floats(rng, 3, 16),
        "b": np.zeros(16, np.float32),
    }
    write(graph("float[N,6] x => float[N,3] y", body, **arrays), tmp_path / "model.onnx")
    step: Values = {
        "type": "prune_channels",
        "sparsity": 0.5,
        "scope": "layer",
        "importance": "magnitude",
        "repair": False,
    }
    report = passed(tmp_path, step, verify=LOOSE)
    assert _widths(report) == {"one": (16, 8), "two": (16, 8)}
    assert sorted(array.shape for array in tiny.arrays_of(tmp_path / "out.onnx").values()) == [
        (3, 8),
        (8,),
        (8, 6),
        (8, 8),
    ]


def test_bytes_are_those_of_the_stored_type(tmp_path: Path) -> None:
    _network(tmp_path)
    step: Values = {"type": "prune_channels", "sparsity": 0.5, "scope": "layer", "round_to": 4, "repair": False}
    report = passed(tmp_path, step | {"importance": "magnitude"}, verify=LOOSE)
    one = entries(report, "changes")["one"]
    assert (one["bytes_before"], one["bytes_after"]) == (4 * 24 * (16 * 9 + 1 + 16 * 9), 4 * 12 * (16 * 9 + 1 + 16 * 9))

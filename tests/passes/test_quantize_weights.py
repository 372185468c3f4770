"""quantize_weights: every layer gets the form it runs best in, in the bits that were asked for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.recipe import dump, load
from tests.cli import tiny
from tests.cli.calling import Values, done, refused, write_recipe
from tests.models import floats, graph, write
from tests.passes.findings import entries, passed, reasons

WEIGHTS: Values = {"type": "quantize_weights"}
UNBOUND = {"cosine": -1}
"""`verify:` that lets everything finite through."""


def _products(path: Path, inputs: int = 64, hidden: int = 48, outputs: int = 40) -> Path:
    """x → Gemm, Relu, MatMul → y; some inputs are much larger than others."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    arrays = {"w1": tiny.normal(hidden, inputs, seed=1) / 8, "b1": tiny.normal(hidden, seed=2)}
    shapes = [tiny.value("x", ["batch", inputs])], [tiny.value("y", ["batch", outputs])]
    return tiny.write(path, nodes, *shapes, arrays | {"w2": tiny.normal(hidden, outputs, seed=3) / 7})


def _layers(path: Path) -> Path:
    """One of every layer, large enough for it to be worth while."""
    nodes = [
        helper.make_node("Conv", ["image", "wc"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["image", "wt"], ["b"], "up", group=2),
        helper.make_node("Gather", ["we", "ids"], ["c"], "embedding"),
        helper.make_node("GRU", ["series", "wg", "rg"], ["d"], "gru", hidden_size=12),
        helper.make_node("MatMul", ["c", "wm"], ["e"], "product"),
        helper.make_node("MatMul", ["stack", "wb"], ["f"], "batch"),
        helper.make_node("MatMul", ["c", "ws"], ["g"], "small"),
        helper.make_node("Conv", ["image", "wi"], ["i"], "tiny_conv"),
    ]
    inputs = [
        tiny.value("image", [1, 8, 5, 5]),
        tiny.value("ids", [3], tiny.INT64),
        tiny.value("series", [4, 1, 8]),
        tiny.value("stack", [2, 3, 16]),
    ]
    shapes = {"a": [1, 8, 5, 5], "b": [1, 16, 6, 6], "d": [4, 1, 1, 12], "e": [3, 16], "f": [2, 3, 16], "g": [3, 2]}
    arrays = {
        "wc": tiny.normal(8, 8, 3, 3, seed=1),
        "wt": tiny.normal(8, 8, 2, 2, seed=2),
        "we": tiny.normal(20, 32, seed=3),
        "wg": tiny.normal(1, 36, 8, seed=4),
        "rg": tiny.normal(1, 36, 12, seed=5),
        "wm": tiny.normal(32, 16, seed=6),
        "wb": tiny.normal(2, 16, 16, seed=7),
        "ws": tiny.normal(32, 2, seed=8),
        "wi": tiny.normal(2, 8, 1, 1, seed=9),
    }
    found = [tiny.value(name, shape) for name, shape in (shapes | {"i": [1, 2, 5, 5]}).items()]
    return tiny.write(path, nodes, inputs, found, arrays)


def _samples(folder: Path, count: int = 64, inputs: int = 64) -> Values:
    """Data whose inputs move together, eight directions and some noise."""
    x = tiny.normal(count, 8, seed=5) @ tiny.normal(8, inputs, seed=6) + 0.1 * tiny.normal(count, inputs, seed=7)
    np.savez(folder / "data.npz", x=x)
    return {"calibration": {"source": "arrays", "path": "data.npz"}, "evaluation": {"source": "random", "samples": 4}}


def _noise(folder: Path) -> float:
    """Of the outputs on the calibration data, over their power."""
    x = np.load(folder / "data.npz")["x"]
    expected, found = (tiny.execute(folder / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    return float(np.square(found - expected).sum() / np.square(expected).sum())


def _types(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def _kernels(report: Values) -> object:
    result = report["result"]
    assert isinstance(result, dict)
    return result["kernels"]


FORMS = {
    "conv": ("Conv", "8 bits, per_channel, nearest"),
    "up": ("ConvTranspose", "8 bits, per_channel, nearest"),
    "gru.W": ("GRU", "8 bits, per_channel, nearest"),
    "gru.R": ("GRU", "8 bits, per_channel, nearest"),
    "product": ("MatMul", "8 bits, per_channel, nearest"),
    "small": ("MatMul", "8 bits, per_channel, nearest"),
    "batch": ("MatMul", "8 bits, per_channel, nearest"),
}


@pytest.mark.parametrize("bits", [8, 4, 3, 2, "ternary", "binary"])
def test_every_layer_gets_its_form(bits: int | str, tmp_path: Path) -> None:
    _layers(tmp_path / "model.onnx")
    step = WEIGHTS | {"bits": bits, "block": 8}
    report = passed(tmp_path, step, verify=UNBOUND)
    assert {n: e["layer"] for n, e in entries(report, "changes").items() if n != "embedding"} == {
        name: layer for name, (layer, _) in FORMS.items()
    }
    assert entries(report, "changes")["embedding"]["layer"] == "Gather"
    assert reasons(report).keys() == {"tiny_conv"}
    assert "only 16 weights" in reasons(report)["tiny_conv"]
    types = _types(tmp_path / "out.onnx")
    assert types.count("DynamicQuantizeLinear") == 1  # product and small read the same tensor
    assert types.count("MatMulInteger") == 2
    assert {"Conv", "ConvTranspose", "GRU", "MatMul"} <= set(types)
    assert _kernels(report) == {"Conv": [0, 2], "ConvTranspose": [0, 1], "MatMul": [2, 3], "recurrent": [0, 1]}
    assert tiny.signature(tmp_path / "out.onnx") == tiny.signature(tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


@pytest.mark.parametrize("bits", [8, 4, 3, 2, "ternary", "binary"])
def test_products_run_in_int8_whatever_the_bits(bits: int | str, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    report = passed(tmp_path, WEIGHTS | {"bits": bits, "block": 16}, verify=UNBOUND)
    assert _kernels(report) == {"MatMul": [2, 2]}


@pytest.mark.parametrize(
    ("bits", "form", "symmetric"),
    [(8, "matmul_nbits", True), (4, "matmul_nbits", False), (2, "matmul_nbits", True), (2, "matmul_nbits", False)],
)
def test_computed_in_float_the_codes_stay_packed(bits: int, form: str, symmetric: bool, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    step = WEIGHTS | {"bits": bits, "compute": "float", "format": form, "symmetric": symmetric}
    report = passed(tmp_path, step, verify=UNBOUND)
    assert _types(tmp_path / "out.onnx").count("MatMulNBits") == 2
    assert _kernels(report) == {"MatMul": [2, 2]}


def test_the_standard_form_has_no_operators_of_others(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    passed(tmp_path, WEIGHTS | {"bits": 4, "compute": "float", "format": "standard"})
    assert {o.domain for o in onnx.load(tmp_path / "out.onnx").opset_import if o.domain} <= {"com.microsoft"}
    assert set(_types(tmp_path / "out.onnx")) == {"DequantizeLinear", "MatMul", "Add", "Relu"}


@pytest.mark.parametrize("bits", [8, 4])
def test_the_reported_error_is_that_of_the_stored_weight(bits: int, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    report = passed(tmp_path, WEIGHTS | {"bits": bits, "compute": "float", "format": "standard", "symmetric": False})
    arrays, weight = tiny.arrays_of(tmp_path / "out.onnx"), tiny.arrays_of(tmp_path / "model.onnx")["w2"]
    codes, scale, zero = (arrays[f"w2_{name}"].astype(np.float32) for name in ("quantized", "scale", "zero_point"))
    rounded = (codes - np.repeat(zero, 32, axis=0)[:48]) * np.repeat(scale, 32, axis=0)[:48]
    error = np.linalg.norm(rounded - weight) / np.linalg.norm(weight)
    assert entries(report, "changes")["second"]["relative_error"] == pytest.approx(error, rel=1e-3)


def test_reported_bytes_are_those_in_the_file(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    report = passed(tmp_path, WEIGHTS | {"bits": 2, "compute": "float"}, verify=UNBOUND)
    stored = sum(array.nbytes for name, array in tiny.arrays_of(tmp_path / "out.onnx").items() if "bias" not in name)
    changes = entries(report, "changes").values()
    assert sum(int(str(entry["bytes_after"])) for entry in changes) == stored
    assert sum(int(str(entry["bytes_before"])) for entry in changes) == 4 * (64 * 48 + 48 * 40)


@pytest.mark.parametrize(("bits", "share"), [(4, 0.16), (3, 0.13), (2, 0.1), ("ternary", 0.09), ("binary", 0.07)])
def test_the_file_shrinks_with_the_bits(bits: int | str, share: float, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx", 256, 256, 256)
    report = passed(tmp_path, WEIGHTS | {"bits": bits}, verify=UNBOUND)
    result = report["result"]
    assert isinstance(result, dict)
    assert result["file_bytes"] < share * (tmp_path / "model.onnx").stat().st_size


def test_without_data_weights_are_rounded_to_nearest_and_with_data_in_second_order(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    details = []
    for data in (None, _samples(tmp_path)):
        recipe = write_recipe(tmp_path, passes=[WEIGHTS], data=data)
        report = done(tmp_path, "run", recipe, "--overwrite", "--json", "-").record()
        details.append({str(entry["detail"]) for entry in entries(report, "changes").values()})
    assert details == [{"4 bits, blocks of 32, nearest"}, {"4 bits, blocks of 32, second_order"}]


@pytest.mark.parametrize(
    "settings",
    [{"bits": 3}, {"bits": 2, "block": 16}, {"bits": 4, "compute": "float"}, {"bits": "ternary"}],
    ids=str,
)
def test_second_order_makes_less_noise_on_data_like_that_it_has_seen(settings: Values, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    data, noise = _samples(tmp_path), {}
    for rounding in ("nearest", "second_order"):
        done(
            tmp_path,
            "run",
            write_recipe(tmp_path, passes=[WEIGHTS | settings | {"rounding": rounding}], data=data, verify=UNBOUND),
            "--overwrite",
        )
        noise[rounding] = _noise(tmp_path)
    assert noise["second_order"] < 0.7 * noise["nearest"]


@pytest.mark.parametrize("symmetric", [True, False])
def test_half_quadratic_steps_need_no_data(symmetric: bool, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    step = WEIGHTS | {"compute": "float", "rounding": "half_quadratic", "symmetric": symmetric}
    report = passed(tmp_path, step)
    assert {str(entry["detail"]) for entry in entries(report, "changes").values()} == {
        "4 bits, blocks of 32, half_quadratic"
    }


@pytest.mark.parametrize("compute", ["int8", "float"])
def test_what_only_can_be_stored_is_stored_however_products_are_computed(compute: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], "scaled", alpha=0.5),
        helper.make_node("MatMul", ["w2", "h"], ["g"], "left"),
        helper.make_node("MatMul", ["g", "w3"], ["y"], "batch"),
    ]
    arrays = {"w1": tiny.normal(20, 20), "w2": tiny.normal(20, 20, seed=1), "w3": tiny.normal(2, 20, 20, seed=2)}
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", [20, 20])], [tiny.value("y", [2, 20, 20])], arrays)
    report = passed(tmp_path, WEIGHTS | {"bits": 8, "compute": compute})
    assert entries(report, "changes").keys() == {"scaled", "left", "batch"}
    x = tiny.normal(20, 20, seed=4)
    expected, found = (tiny.execute(tmp_path / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    assert _kernels(report) == {"MatMul": [0, 3]}


def test_an_embedding_and_the_product_that_reads_it_are_both_coded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embedding"),
        helper.make_node("MatMul", ["e", "w"], ["y"], "product"),
    ]
    arrays = {"table": tiny.normal(30, 48), "w": tiny.normal(48, 40, seed=1)}
    inputs, results = [tiny.value("ids", ["n", 3], tiny.INT64)], [tiny.value("y", ["n", 3, 40])]
    tiny.write(tmp_path / "model.onnx", nodes, inputs, results, arrays)
    report = passed(tmp_path, WEIGHTS, data={"calibration": {"source": "random"}})
    details = {name: str(entry["detail"]) for name, entry in entries(report, "changes").items()}
    assert details == {"embedding": "4 bits, blocks of 16, nearest", "product": "4 bits, blocks of 32, second_order"}
    ids = np.array([[0, 29, 7]])
    expected, found = (tiny.execute(tmp_path / name, {"ids": ids})[0] for name in ("model.onnx", "out.onnx"))
    assert np.linalg.norm(found - expected) < 0.25 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"bits": 8}, "8 bits, blocks of 32"),
        ({"bits": 4}, "4 bits, blocks of 32"),
        ({"bits": "ternary"}, "2 bits, blocks of 32"),
        ({"bits": 3, "block": 16}, "3 bits, blocks of 16"),  # packed by standard operators; there is no kernel
        ({"bits": 3, "block": 24}, "4 bits, blocks of 32"),
        ({"bits": 2, "embeddings": 8}, "8 bits, blocks of 32"),
        ({"bits": 2, "embeddings": 4, "embedding_block": 16}, "4 bits, blocks of 16"),
        ({"overrides": [{"targets": "embedding", "bits": 2}]}, "2 bits, blocks of 32"),
    ],
    ids=str,
)
def test_lookup_tables_have_bits_of_their_own(settings: Values, detail: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], "embedding")]
    inputs, results = [tiny.value("ids", ["n"], tiny.INT64)], [tiny.value("y", ["n", 32])]
    table = tiny.normal(40, 32)
    tiny.write(tmp_path / "model.onnx", nodes, inputs, results, {"table": table})
    report = passed(tmp_path, WEIGHTS | settings, verify=UNBOUND)
    assert str(entries(report, "changes")["embedding"]["detail"]).startswith(detail)
    ids = np.array([0, 39, 7])
    found = tiny.execute(tmp_path / "out.onnx", {"ids": ids})[0]
    assert found.shape == (3, 32)
    assert np.linalg.norm(found - table[ids]) < 0.75 * np.linalg.norm(table[ids])


SKIPPED: dict[str, tuple[tuple[int, ...], type[np.floating], str]] = {
    "rows of a table that are no whole bytes": ((40, 30), np.float32, "multiples of 4"),
    "a table of three axes": ((40, 4, 8), np.float32, "3 axes"),
    "half": ((40, 32), np.float16, "float16"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_a_table_that_cannot_be_packed_says_why(case: str, tmp_path: Path) -> None:
    shape, dtype, reason = SKIPPED[case]
    kind = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], "embedding")]
    inputs, results = [tiny.value("ids", ["n"], tiny.INT64)], [tiny.value("y", ["n", *shape[1:]], kind)]
    tiny.write(tmp_path / "model.onnx", nodes, inputs, results, {"table": tiny.normal(*shape).astype(dtype)})
    refused(tmp_path, 4, "run", write_recipe(tmp_path, passes=[WEIGHTS]), says=("1 × Gather", reason))


def test_the_first_override_that_selects_a_layer_counts(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    overrides = [{"targets": ["first"], "bits": 8}, {"targets": "*", "bits": 2, "block": 8}]
    report = passed(tmp_path, WEIGHTS | {"bits": 4, "block": 16, "overrides": overrides}, verify=UNBOUND)
    details = {name: str(entry["detail"]) for name, entry in entries(report, "changes").items()}
    assert details == {"first": "8 bits, per_channel, nearest", "second": "2 bits, blocks of 8, nearest"}


def test_what_an_override_leaves_out_is_as_for_all(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    step = WEIGHTS | {"bits": 3, "block": 8, "overrides": [{"targets": "MatMul", "bits": 4}]}
    report = passed(tmp_path, step, verify=UNBOUND)
    assert entries(report, "changes")["second"]["detail"] == "4 bits, blocks of 8, nearest"


def test_ignored_layers_stay_float(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    report = passed(tmp_path, WEIGHTS | {"ignore": ["first"]})
    assert entries(report, "changes").keys() == {"second"}
    before, after = (tiny.arrays_of(tmp_path / name)["w1"] for name in ("model.onnx", "out.onnx"))
    assert np.array_equal(before, after)


UNKNOWN = [{"targets": ["frist", "second"], "bits": 8}]


@pytest.mark.parametrize("step", ["quantize_weights", "quantize_static"])
def test_an_override_of_nothing_is_refused_with_its_place_and_what_is_near(step: str, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    passes = [{"type": "simplify"}, {"type": step, "overrides": [{"targets": "first", "bits": 8}, *UNKNOWN]}]
    recipe = write_recipe(tmp_path, passes=passes, data=_samples(tmp_path))
    for command in ("check", "run"):
        (line,) = refused(tmp_path, 2, command, recipe, says=('"frist"', "near are first"))
        assert "passes.1.overrides.1.targets" in line
        number = 1 + recipe.read_text()[: recipe.read_text().index("frist")].count("\n")
        assert f"recipe.yaml:{number}:" in line


WRONG: dict[str, tuple[Values, tuple[str, ...]]] = {
    "half quadratic in int8": ({"rounding": "half_quadratic"}, ("half_quadratic", "compute: float")),
    "zero points in int8": ({"symmetric": False}, ("symmetric: false", "compute: float")),
    "no kernel for 3 bits": ({"compute": "float", "bits": 3}, ("no kernel for 3 bits", "compute: int8 takes any")),
    "no kernel for ternary": ({"compute": "float", "bits": "ternary"}, ("no kernel for ternary",)),
    "no kernel for binary": ({"compute": "float", "bits": "binary"}, ("no kernel for binary",)),
    "no kernel for the block": ({"compute": "float", "block": 24}, ("blocks of 24", "16, 32, 64, 128, 256")),
    "no kernel for 2 bits by 16": ({"compute": "float", "bits": 2, "block": 16}, ("2 bits in blocks of 16",)),
    "2 bits in the standard form": ({"compute": "float", "format": "standard", "bits": 2}, ("format: standard",)),
    "an override without kernel": (
        {"compute": "float", "overrides": [{"targets": "first", "bits": 3}]},
        ("no kernel for 3 bits",),
    ),
    "an override without compute float": (
        {"overrides": [{"targets": "first", "rounding": "half_quadratic"}]},
        ("half_quadratic",),
    ),
    "an override of nothing": ({"overrides": [{"bits": 3}]}, ("overrides.0.targets", "missing")),
    "bits there are none of": ({"bits": 5}, ("bits", "5")),
    "a block too small": ({"block": 2}, ("block", "greater than or equal to 4")),
    "a block too large": ({"block": 2048}, ("block", "less than or equal to 1024")),
    "a table in 3.5 bits": ({"embeddings": 16}, ("embeddings",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_one_clear_line_before_anything_runs(case: str, tmp_path: Path) -> None:
    settings, says = WRONG[case]
    _products(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[WEIGHTS | settings])
    for command in ("check", "run"):
        assert len(refused(tmp_path, 2, command, recipe, says=("passes.0", *says))) == 1


def test_second_order_without_data_is_refused(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[WEIGHTS | {"rounding": "second_order"}])
    assert len(refused(tmp_path, 4, "run", recipe, says=("passes.0", "second_order", "data.calibration"))) == 1


SECOND_TIME: dict[str, tuple[Values, str]] = {
    "int8": ({"bits": "ternary"}, "quantize_weights"),
    "packed": ({"compute": "float"}, "quantize_dynamic"),
    "standard": ({"compute": "float", "format": "standard"}, "quantize_static"),
}


@pytest.mark.parametrize("case", SECOND_TIME)
def test_what_is_quantized_is_not_quantized_again(case: str, tmp_path: Path) -> None:
    settings, again = SECOND_TIME[case]
    _products(tmp_path / "float.onnx")
    recipe = write_recipe(tmp_path, model="float.onnx", passes=[WEIGHTS | settings], verify=UNBOUND)
    done(tmp_path, "run", recipe)
    (tmp_path / "out.onnx").rename(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[{"type": again}], data={"calibration": {"source": "random"}})
    (line,) = refused(tmp_path, 4, "run", recipe, says=("passes.0", "quantized already"))
    assert line.count("2 × ") == 1


def test_what_is_stored_in_codes_is_not_quantized_again(tmp_path: Path) -> None:
    _layers(tmp_path / "float.onnx")
    passes = [WEIGHTS | {"bits": 2, "ignore": ["tiny_conv"]}]
    done(tmp_path, "run", write_recipe(tmp_path, model="float.onnx", passes=passes, verify=UNBOUND))
    (tmp_path / "out.onnx").rename(tmp_path / "model.onnx")
    refused(tmp_path, 4, "run", write_recipe(tmp_path, passes=passes), says=("passes.0", "quantized already"))


def test_a_branch_is_coded_without_samples_of_its_inside(tmp_path: Path) -> None:
    graphs = {}
    for name, weight in (("then", "v"), ("else", "w")):
        inner = [
            helper.make_node("Neg", ["x"], [f"n_{name}"]),
            helper.make_node("MatMul", [f"n_{name}", weight], [f"in_{name}"], f"{name}_layer"),
        ]
        graphs[f"{name}_branch"] = helper.make_graph(inner, name, [], [tiny.value(f"in_{name}", [4, 32])])
    nodes = [helper.make_node("If", ["flag"], ["y"], "choice", **graphs)]
    inputs = [tiny.value("flag", [], TensorProto.BOOL), tiny.value("x", [4, 32])]
    arrays = {"v": tiny.normal(32, 32), "w": tiny.normal(32, 32, seed=1)}
    tiny.write(tmp_path / "model.onnx", nodes, inputs, [tiny.value("y", [4, 32])], arrays)
    report = passed(tmp_path, WEIGHTS, data={"calibration": {"source": "random"}}, verify=UNBOUND)
    assert {str(entry["detail"]) for entry in entries(report, "changes").values()} == {"4 bits, blocks of 32, nearest"}
    for flag in (True, False):
        feeds = {"x": tiny.normal(4, 32, seed=3), "flag": np.array(flag)}
        expected, found = (tiny.execute(tmp_path / name, feeds)[0] for name in ("model.onnx", "out.onnx"))
        assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)


def test_a_shared_weight_is_coded_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "a"), helper.make_node("MatMul", ["h", "w"], ["y"], "b")]
    arrays = {"w": tiny.normal(32, 32) / 6}
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", [1, 32])], [tiny.value("y", [1, 32])], arrays)
    for compute in ("int8", "float"):
        recipe = write_recipe(tmp_path, passes=[WEIGHTS | {"compute": compute}])
        report = done(tmp_path, "run", recipe, "--overwrite", "--json", "-").record()
        assert list(entries(report, "changes")) == ["a"]
        stored = [a for name, a in tiny.arrays_of(tmp_path / "out.onnx").items() if "codes" in name or "packed" in name]
        assert len(stored) == 1


def test_settings_and_overrides_survive_writing(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    step = WEIGHTS | {"bits": "ternary", "block": 8, "overrides": [{"targets": ["first"], "bits": 8}]}
    recipe, _ = load(write_recipe(tmp_path, passes=[step]))
    (tmp_path / "again.yaml").write_text(dump(recipe, tmp_path))
    assert load(tmp_path / "again.yaml")[0] == recipe


@pytest.mark.parametrize(
    "settings",
    [{"bits": 2}, {"bits": 2, "compute": "float"}, {"bits": 4, "compute": "float", "format": "standard"}],
    ids=str,
)
def test_thin_products_beside_make_up_for_what_codes_lose(settings: Values, tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    data, noise, sizes = _samples(tmp_path), [], []
    for rank in (0, 4, 16):
        step = WEIGHTS | settings | {"compensate_rank": rank}
        recipe = write_recipe(tmp_path, passes=[step], data=data, verify=UNBOUND)
        report = done(tmp_path, "run", recipe, "--overwrite", "--json", "-").record()
        noise.append(_noise(tmp_path))
        sizes.append(int(str(entries(report, "changes")["second"]["bytes_after"])))
    assert noise[2] < noise[1] < noise[0]
    assert noise[2] < 0.7 * noise[0]
    assert sizes[1] - sizes[0] == 4 * 4 * (48 + 40)


def test_products_beside_that_make_a_weight_larger_than_floats_are_left_out(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    step = WEIGHTS | {"bits": 4, "compensate_rank": 1024}
    recipe = write_recipe(tmp_path, passes=[step], data=_samples(tmp_path), verify=UNBOUND)
    changes = entries(done(tmp_path, "run", recipe, "--json", "-").record(), "changes")
    assert all("left out: no smaller than floats" in str(change["detail"]) for change in changes.values())
    assert all(int(str(c["bytes_after"])) < int(str(c["bytes_before"])) for c in changes.values())


def test_a_budget_does_not_count_products_beside(tmp_path: Path) -> None:
    _products(tmp_path / "model.onnx")
    step = WEIGHTS | {"budget": {"bytes": 4000}, "compensate_rank": 4}
    step.pop("bits", None)
    recipe = write_recipe(tmp_path, passes=[step], data=_samples(tmp_path))
    refused(tmp_path, 2, "check", recipe, says=("passes.0", "compensate_rank goes with bits"))


@pytest.mark.parametrize("opset", [21, 22, 23, 24, 25])
@pytest.mark.parametrize("bits", [4, 3, 2, "ternary", "binary"])
def test_every_opset_can_be_packed_into(tmp_path: Path, bits: int | str, opset: int) -> None:
    rng = np.random.default_rng(0)
    body = "g = Gather(t, i)  h = MatMul(g, w)  r = Relu(h)  y = MatMul(r, v)"
    arrays = {"t": floats(rng, 40, 32), "w": floats(rng, 32, 32), "v": floats(rng, 32, 32)}
    ir_version = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13}[opset]
    proto = graph("int64[N] i => float[N,32] y", body, opset=opset, ir_version=ir_version, **arrays)
    write(proto, tmp_path / "model.onnx")
    passed(tmp_path, {"type": "quantize_weights", "bits": bits, "embedding_block": 16}, verify=UNBOUND)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


@pytest.mark.parametrize("shape", [(), (6,), (1, 6)])
def test_tables_of_three_bits_may_be_read_at_constant_places(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    body = "g = Gather(w, places)  z = Gather(v, x)  y = Add(g, z)"
    arrays = {"w": floats(rng, 40, 32), "v": floats(rng, 40, 32), "places": np.full(shape, 5, np.int64)}
    write(graph("int64[N,6] x => float[N,6,32] y", body, **arrays), tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "quantize_weights", "bits": 3, "block": 8}, verify=UNBOUND)
    assert report["result"]["parameters"] == pytest.approx(2 * 40 * 32, rel=0.1)  # type: ignore[index, call-overload]

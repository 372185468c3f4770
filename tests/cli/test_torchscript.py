"""TorchScript at the command line: taken like ONNX once it is trusted, refused in one line before."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.cli.calling import Values, call, done, ran, refused, write_recipe
from tests.graph.torchscript import modules
from tests.models import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(2)


class _Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 64), torch.nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module, example = _Mlp().eval(), torch.randn(2, 16)
    modules.traced(module, [example], tmp_path / "model.pt")
    modules.scripted(module, tmp_path / "script.pt")
    torch.onnx.export(
        module,
        (example,),
        tmp_path / "twin.onnx",
        dynamo=False,
        opset_version=20,
        input_names=["x"],
        output_names=["output"],
        dynamic_axes={"x": {0: "batch"}},
    )
    np.savez(tmp_path / "data.npz", x=RNG.standard_normal((32, 16), dtype=np.float32))
    return tmp_path


DATA: Values = {"calibration": {"source": "arrays", "path": "data.npz"}}
PASSES = [{"type": "simplify"}, {"type": "quantize_static"}]


def test_the_result_is_that_of_the_onnx_twin(folder: Path) -> None:
    common: Values = {"passes": PASSES, "data": DATA}
    script = ran(folder, model="model.pt", trust=True, output={"model": "one.onnx"}, **common)
    ran(folder, model="twin.onnx", output={"model": "two.onnx"}, **common)
    feeds = {"x": RNG.standard_normal((5, 16), dtype=np.float32)}
    (one,), (two,) = run(folder / "one.onnx", feeds).values(), run(folder / "two.onnx", feeds).values()
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    sizes = [(folder / name).stat().st_size for name in ("one.onnx", "two.onnx")]
    assert abs(sizes[0] - sizes[1]) < 200  # the receipts name other files
    reference = script["reference"]
    assert isinstance(reference, dict)
    assert reference["path"].endswith("model.pt")
    assert reference["file_bytes"] == (folder / "model.pt").stat().st_size
    assert any("model.pt was converted to ONNX" in note for note in script["notes"])  # type: ignore[attr-defined]


def test_the_receipt_names_the_torchscript_file(folder: Path) -> None:
    ran(folder, model="model.pt", trust=True, passes=PASSES, data=DATA)
    receipt = done(folder, "explain", "out.onnx", "--json", "-").record()
    assert receipt["source"]["name"] == "model.pt"  # type: ignore[index]
    assert receipt["recipe"]["trust"] is True  # type: ignore[index]


def test_without_trust_no_command_loads_it(folder: Path) -> None:
    for command in (
        ("inspect", "model.pt"),
        ("bench", "model.pt"),
        ("init", "model.pt"),
        ("compare", "twin.onnx", "model.pt"),
        ("compress", "model.pt", "-o", "out.onnx"),
    ):
        (line,) = refused(folder, 3, *command, says=("model.pt: is TorchScript", "--trust"))
        assert len(line) < 250
    recipe = write_recipe(folder, model="model.pt")
    refused(folder, 3, "run", recipe, says=("trust: true",))
    refused(folder, 3, "check", recipe, says=("trust: true",))


def test_inputs_come_from_the_option_and_from_the_recipe(folder: Path) -> None:
    refused(folder, 3, "inspect", "script.pt", "--trust", says=("script.pt: does not say", "--input name:"))
    found = done(folder, "inspect", "script.pt", "--trust", "--input", "x:float32[1,16]", "--json", "-").record()
    assert found["inputs"] == ["x: float32[batch, 16]"]
    report = ran(folder, model="script.pt", trust=True, inputs="x:float32[1,16]", passes=PASSES, data=DATA)
    assert report["passes"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspect", "script.pt", "--trust", "--input", "x:float[1]"), "--input x:float[1]: float is no type"),
        (("inspect", "twin.onnx", "--input", "x:float32[1,16]"), "leave out --input"),
    ],
)
def test_wrong_inputs_are_usage_errors(arguments: tuple[str, ...], says: str, folder: Path) -> None:
    refused(folder, 2, *arguments, says=(says,))


def test_wrong_inputs_in_a_recipe_have_their_place(folder: Path) -> None:
    recipe = write_recipe(folder, model="script.pt", trust=True, inputs=["x:float32[a]"])
    (line,) = refused(folder, 2, "check", recipe, says=("inputs", "whole numbers"))
    assert "recipe.yaml:" in line


def test_compress_writes_a_recipe_that_runs_again(folder: Path) -> None:
    done(folder, "compress", "model.pt", "--trust", "--preset", "int8-dynamic", "-o", "small.onnx", "-q")
    recipe = yaml.safe_load((folder / "small.yaml").read_text())
    assert recipe["trust"] is True
    before = run(folder / "small.onnx", {"x": np.ones((2, 16), np.float32)})
    done(folder, "run", "small.yaml", "--overwrite", "-q")
    after = run(folder / "small.onnx", {"x": np.ones((2, 16), np.float32)})
    np.testing.assert_array_equal(*before.values(), *after.values())


@pytest.mark.parametrize("name", ["out.pt", "out.pt2"])
def test_the_result_is_written_for_torch_with_its_receipt(name: str, folder: Path) -> None:
    common: Values = {"passes": PASSES, "data": DATA, "model": "twin.onnx"}
    ran(folder, output={"model": "out.onnx"}, **common)
    report = ran(folder, output={"model": name}, **common)
    result = report["result"]
    assert isinstance(result, dict)
    assert result["file_bytes"] == (folder / name).stat().st_size
    assert done(folder, "explain", name, "--json", "-").record()["compressor"]
    x = RNG.standard_normal((6, 16), dtype=np.float32)
    module = torch.jit.load(folder / name) if name == "out.pt" else torch.export.load(folder / name).module()
    with torch.no_grad():
        found = module(torch.from_numpy(x)).numpy()
    (wanted,) = run(folder / "out.onnx", {"x": x}).values()
    assert np.square(found - wanted).mean() < 1e-4 * np.square(wanted).mean()


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"model": "out.bin"}, "out.bin: the model is written as .onnx, or for torch as .pt, .ts, .jit, .pt2"),
        ({"model": "out.onnx", "format": "pt2"}, "out.onnx: pt2 is written as .pt2"),
        ({"model": "out.pt", "format": "torch"}, "output.format"),
    ],
)
def test_a_format_must_fit_its_suffix(output: Values, says: str, folder: Path) -> None:
    refused(folder, 2, "check", write_recipe(folder, model="twin.onnx", output=output), says=(says,))


def test_a_model_that_branches_on_its_data_is_not_written_for_torch(folder: Path) -> None:
    modules.scripted(modules.Branch(), folder / "branch.pt")
    done(folder, "compress", "branch.pt", "--trust", "--input", "x:float32[2,3]", "-o", "a.onnx", "-q", *_BRANCHED)
    command = ("compress", "branch.pt", "--trust", "--input", "x:float32[2,3]", "-o", "a.pt", *_BRANCHED)
    finished = call(folder, *command)
    assert finished.code == 4
    assert "If) is decided by the data" in finished.err
    assert not (folder / "a.pt").exists()


_BRANCHED = ("--preset", "int8-dynamic", "--overwrite")


def test_checkpoints_and_exported_programs_say_what_to_do(folder: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder / "weights.pt")
    program = torch.export.export(_Mlp().eval(), (torch.zeros(2, 16),))
    torch.export.save(program, folder / "program.pt2")
    refused(folder, 3, "inspect", "weights.pt", says=("a checkpoint", "torch.onnx.export"))
    refused(folder, 3, "inspect", "program.pt2", says=("an exported program", "torch.onnx.export"))

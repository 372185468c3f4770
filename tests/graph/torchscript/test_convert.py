"""Conversions: the written model against the module itself, in this process, at sizes and values not seen there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.graph.model import Model
from compressor.graph.torchscript import Conversion, convert
from tests.graph.torchscript import modules
from tests.models import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(5)


def _normal(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True)
class Case:
    """How a module is saved, with which inputs it is converted, and on which it is judged."""

    save: Callable[[Path], Path]
    inputs: tuple[str, ...]
    judged: Sequence[tuple[Tensor, ...]]


def _traced_slowly(path: Path) -> Path:
    """With gradients on, torch records the parts of the encoder, without them its fused kernel."""
    return modules.traced(modules.Encoder(), [_normal(2, 5, 8)], path)


def _traced_fast(path: Path) -> Path:
    with torch.no_grad():
        return modules.traced(modules.Encoder(), [_normal(2, 5, 8)], path)


IMAGES = [(_normal(1, 3, 8, 8),), (_normal(5, 3, 8, 8),)]
SERIES = [(_normal(1, 6, 3),), (_normal(4, 9, 3),)]
TOKENS = [(_normal(2, 5, 8),), (_normal(3, 7, 8),)]

CASES = {
    "traced cnn": Case(lambda p: modules.traced(modules.Convolutional(), IMAGES[0], p), (), IMAGES),
    "scripted cnn": Case(lambda p: modules.scripted(modules.Convolutional(), p), ("x:float32[1,3,8,8]",), IMAGES),
    "traced lstm": Case(lambda p: modules.traced(modules.Recurrent(nn.LSTM), SERIES[0], p), (), SERIES),
    "scripted lstm": Case(lambda p: modules.scripted(modules.Recurrent(nn.LSTM), p), ("x:float32[1,6,3]",), SERIES),
    "traced gru": Case(lambda p: modules.traced(modules.Recurrent(nn.GRU), SERIES[0], p), (), SERIES),
    "scripted gru": Case(lambda p: modules.scripted(modules.Recurrent(nn.GRU), p), ("x:float32[1,6,3]",), SERIES),
    "traced encoder": Case(_traced_slowly, (), TOKENS),
    "traced fused encoder": Case(_traced_fast, (), TOKENS),
    "scripted encoder": Case(lambda p: modules.scripted(modules.Encoder(), p), ("x:float32[2,5,8]",), TOKENS),
    "branch": Case(
        lambda p: modules.scripted(modules.Branch(), p),
        ("x:float32[2,3]",),
        [(torch.ones(2, 3),), (-torch.ones(2, 3),), (torch.ones(4, 3),)],
    ),
    "loop": Case(
        lambda p: modules.scripted(modules.Loop(), p),
        ("x:float32[2,3]", "n:int64[]"),
        [(_normal(2, 3), torch.tensor(0)), (_normal(2, 3), torch.tensor(5)), (_normal(3, 3), torch.tensor(2))],
    ),
    "dictionary": Case(
        lambda p: modules.scripted(modules.Dictionary(), p), ("x:float32[2,3]",), [(_normal(2, 3),), (_normal(6, 3),)]
    ),
    "number and optional": Case(
        lambda p: modules.scripted(modules.Optional(), p),
        ("x:float32[2,3]", "power=2"),
        [(_normal(2, 3),), (_normal(6, 3),)],
    ),
}


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def _judge(
    path: Path, converted: Conversion, judged: Sequence[tuple[Tensor, ...]], numbers: Sequence[int] = ()
) -> None:
    module = modules.loaded(path).eval()
    names = [spec.name for spec in Model.read(converted.file).inputs()]
    for inputs in judged:
        with torch.no_grad():
            wanted = module(*inputs, *numbers)
        results = run(converted.file, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        flat = wanted if isinstance(wanted, dict) else dict(zip(results, [wanted], strict=True))
        assert flat.keys() == results.keys()
        for name, value in flat.items():
            np.testing.assert_allclose(results[name], value.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_computes_the_same_at_other_sizes_too(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    path = case.save(tmp_path / "m.pt")
    converted = convert(path, _folder(tmp_path), True, case.inputs)
    onnx.checker.check_model(str(converted.file), full_check=True)
    assert "batch" in converted.open
    _judge(path, converted, case.judged, [2] if "power=2" in case.inputs else [])


@pytest.mark.parametrize("name", ["scripted lstm", "scripted encoder"])
def test_parameters_keep_their_names(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    converted = convert(case.save(tmp_path / "m.pt"), _folder(tmp_path), True, case.inputs)
    own = {i.name for i in onnx.load(converted.file).graph.initializer}
    kept = {"head.weight", "head.bias"} if "lstm" in name else {"layers.layers.0.norm1.weight"}
    assert kept <= own


def test_dimensions_that_are_named_stay_open_and_no_others(tmp_path: Path) -> None:
    path = modules.scripted(modules.Convolutional(), tmp_path / "m.pt")
    converted = convert(path, _folder(tmp_path), True, ("image:float32[1,3,rows=8,8]",))
    (spec,) = Model.read(converted.file).inputs()
    assert str(spec) == "image: float32[1, 3, rows, 8]"
    _judge(path, converted, [(_normal(1, 3, 12, 8),)])


def test_nothing_is_loaded_without_trust(tmp_path: Path) -> None:
    path = modules.traced(modules.Dictionary(), [_normal(2, 3)], tmp_path / "m.pt")
    folder = _folder(tmp_path)
    with pytest.raises(ModelError, match="--trust"):
        convert(path, folder, False)
    assert not list(folder.iterdir())


def test_a_hostile_archive_is_caught_before_it_writes(tmp_path: Path) -> None:
    target = tmp_path / "written"
    path = modules.scripted(modules.Writing(target), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"is not loaded: .*save \("):
        convert(path, _folder(tmp_path), True, ("x:float32[2]",))
    assert not target.exists()
    modules.loaded(path)
    assert target.exists(), "the archive is not hostile at all"


def test_should_the_scan_miss_it_the_process_cannot_write_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.graph.torchscript import archive

    target = tmp_path / "written"
    path = modules.scripted(modules.Writing(target), tmp_path / "m.pt")
    monkeypatch.setattr(archive, "_FILES", ())
    try:
        converted = convert(path, _folder(tmp_path), True, ("x:float32[2]",))
    except ModelError:
        pass
    else:
        if any("confine" in note for note in converted.notes):
            pytest.skip("this system cannot confine a process fully")
    assert not target.exists()


REFUSALS = {
    "no inputs": (modules.Dictionary(), (), "does not say what its inputs are"),
    "wrong size": (modules.Dictionary(), ("x:float32[2,4]",), "does not run on inputs"),
    "too few": (modules.Loop(), ("x:float32[2,3]",), "argument n"),
    "too many": (modules.Dictionary(), ("x:float32[2,3]", "y:float32[2]"), "2 inputs are given"),
    "a number is missing": (modules.Optional(), ("x:float32[2,3]", "power:int64[]"), "give a number"),
    "no such argument": (modules.Dictionary(), ("x:float32[2,3]", "rate=3"), "rate: forward has no such argument"),
    "state": (modules.Remembering(), ("x:float32[2]",), "keeps state between calls"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_converted_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    module, inputs, says = REFUSALS[name]
    path = modules.scripted(module, tmp_path / "m.pt")
    with pytest.raises(ModelError) as refused:
        convert(path, _folder(tmp_path), True, inputs)
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_module_that_never_ends_is_one_line(tmp_path: Path) -> None:
    path = modules.scripted(modules.Endless(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match="it took more than 6 s"):
        convert(path, _folder(tmp_path), True, ("x:float32[2]",), seconds=6)

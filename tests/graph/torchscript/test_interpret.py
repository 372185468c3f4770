"""The interpreter of TorchScript graphs computes what torch computes, and keeps names."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.graph.torchscript.errors import UnusableError
from compressor.graph.torchscript.interpret import Interpreter
from tests.graph.torchscript import modules

pytestmark = pytest.mark.filterwarnings("ignore")

CASES: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "convolutional": (modules.Convolutional(), (torch.randn(2, 3, 6, 6),)),
    "lstm": (modules.Recurrent(nn.LSTM), (torch.randn(2, 5, 3),)),
    "encoder": (modules.Encoder(), (torch.randn(2, 5, 8),)),
    "branch up": (modules.Branch(), (torch.ones(2, 3),)),
    "branch down": (modules.Branch(), (-torch.ones(2, 3),)),
    "loop": (modules.Loop(), (torch.randn(2, 3), torch.tensor(4))),
    "numbers": (modules.Numbers(), (torch.randn(3, 6),)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_it_computes_what_the_module_computes(case: str, how: str, tmp_path: Path) -> None:
    module, inputs = CASES[case]
    path = tmp_path / "m.pt"
    made = modules.scripted(module, path) if how == "scripted" else modules.traced(module, inputs, path)
    loaded = modules.loaded(made).eval()
    interpreter = Interpreter(loaded)
    with torch.no_grad():
        torch.testing.assert_close(interpreter(*inputs), loaded(*inputs), rtol=1e-5, atol=1e-6)
    assert dict(interpreter.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert dict(interpreter.named_buffers()).keys() == dict(module.named_buffers()).keys()


def test_packed_weights_become_floats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, torch.qint8)
    loaded = modules.loaded(modules.scripted(packed, tmp_path / "m.pt"))
    interpreter = Interpreter(loaded)
    x = torch.randn(5, 8)
    with torch.no_grad():
        found = interpreter(x)
    weights = [p for p in interpreter.parameters() if p.dim() == 2]
    for weight, layer in zip(weights, (plain[0], plain[2]), strict=True):
        step = layer.weight.abs().max() / 127
        assert (weight - layer.weight).abs().max() <= step  # an eighth bit is not used on some machines
    torch.testing.assert_close(found, plain(x), rtol=0.1, atol=0.05)


def test_what_the_module_itself_refuses_is_said(tmp_path: Path) -> None:
    class Refusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.size(0) != 2:
                raise ValueError("two rows only")
            return x

    interpreter = Interpreter(modules.loaded(modules.scripted(Refusing(), tmp_path / "m.pt")))
    assert interpreter(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(UnusableError, match="two rows only"):
        interpreter(torch.ones(3))

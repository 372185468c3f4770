"""Networks of both exporters are pruned wherever their form allows it, and compute what zeros would."""

from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="the architectures are torch modules")

from benchmarks.architectures import ARCHITECTURES, Exporter, build, export
from compressor.graph.channels import ChannelGroup, Channels, prepare
from compressor.graph.model import Model
from compressor.graph.simplify import simplify
from compressor.runtime.shapes import observe_shapes
from tests.models import Array, outputs, run

EXPORTS = [
    pytest.param(name, exporter, marks=[pytest.mark.slow] if exporter == "dynamo" else [])
    for name in ARCHITECTURES
    for exporter in ("torchscript", "dynamo")
]
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnext50": 25_028_904,
    "mobilenetv2": 3_504_872,
    "densenet": 7_978_856,
    "vit": 5_717_416,
}
"""As published; of ViT-Tiny/16 at 224 × 224."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_full_networks_have_the_published_number_of_parameters(name: str) -> None:
    assert sum(parameter.numel() for parameter in build(name, narrow=False).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_half_of_every_group_can_be_cut_from_an_export(tmp_path: Path, name: str, exporter: Exporter) -> None:
    file = tmp_path / "export.onnx"
    feeds: dict[str, Array] = {key: tensor.numpy() for key, tensor in export(name, exporter, file, narrow=True).items()}
    model = Model.load(file)
    list(simplify(model))
    prepare(model, observe_shapes(model, feeds, tmp_path))
    shapes = observe_shapes(model, feeds, tmp_path)
    channels = Channels.of(model, shapes)
    assert all(_belongs_outside(group) for group in channels.frozen), [g.reason for g in channels.frozen]
    _cuts_like_zeros(model, shapes, [g for g in channels.groups if not g.relaxed], feeds, tmp_path)
    before = model.parameters()
    channels.drop([unit for group in channels.groups for unit in _half(group)])
    found = outputs(model, feeds, tmp_path)
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)
    assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in run(file, feeds).items()}
    assert model.parameters() < 0.62 * before


def _belongs_outside(group: ChannelGroup) -> bool:
    """Whether its units are outputs of the model, or the three parts of a product of queries, keys and values."""
    return "is an output of the model" in group.reason or "singles it out" in group.reason


def _half(group: ChannelGroup) -> tuple[int, ...]:
    return group.units[: group.width // 2]


def _cuts_like_zeros(
    model: Model, shapes: dict[str, tuple[int, ...]], groups: list[ChannelGroup], feeds: dict[str, Array], folder: Path
) -> None:
    dropped = [unit for group in groups for unit in _half(group)]
    masked, cut = model.copy(), model.copy()
    Channels.of(masked, shapes).mask(masked, dropped)
    Channels.of(cut, shapes).drop(dropped)
    (expected,), (found,) = (list(outputs(m, feeds, folder).values()) for m in (masked, cut))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))

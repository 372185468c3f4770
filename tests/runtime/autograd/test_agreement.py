"""Whole models: what torch computes is what ONNX Runtime computes."""

from pathlib import Path

import pytest

from benchmarks.bridge import ROOT, agreement, float_models

pytestmark = pytest.mark.slow

ASSETS = ROOT.parent / "shared" / "assets"
HALF = ("squeezenet_fp16.onnx",)
RANDOM = ("mlagents_3dball.onnx",)


@pytest.mark.parametrize("path", float_models(ASSETS), ids=lambda path: path.name)
def test_every_float_model_agrees_with_onnx_runtime(path: Path) -> None:
    found = agreement(path)
    if path.name in RANDOM:
        assert found is None
        return
    assert found is not None
    error, trained = found
    assert error < (5e-3 if path.name in HALF else 1e-4)
    assert trained > 0


def test_without_the_assets_the_sample_models_are_still_compared(tmp_path: Path) -> None:
    assert len(float_models(tmp_path)) == len(list((ROOT / "sample_models").glob("*.onnx"))) > 0

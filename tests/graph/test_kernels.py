"""Layers are counted by the arithmetic they run in."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.kernels import Kernels, count_kernels
from compressor.graph.model import Model
from compressor.passes.base import Context
from compressor.passes.quantize_dynamic import QuantizeDynamic
from compressor.progress import Silent
from compressor.runtime.ort import Session
from tests.models import cnn, graph, load, mlp, write


def _counted(path: Path) -> dict[str, tuple[int, int]]:
    Session(path, optimized=path.with_suffix(".optimized"))
    return {k.family: (k.integer, k.total) for k in count_kernels(path.with_suffix(".optimized"))}


def test_a_float_model_has_no_integer_layer(tmp_path: Path, rng: np.random.Generator) -> None:
    assert _counted(write(cnn(rng), tmp_path / "model.onnx")) == {"Conv": (0, 2), "MatMul": (0, 1)}


def test_products_ranged_at_run_time_are_counted_as_integers(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(mlp(rng), tmp_path)
    list(QuantizeDynamic(ignore=("second",)).apply(model, _context(model, tmp_path)))
    model.save(tmp_path / "quantized.onnx")
    assert _counted(tmp_path / "quantized.onnx") == {"MatMul": (1, 2)}


def _context(model: Model, folder: Path) -> Context:
    return Context(model.copy(), None, 0, folder, Silent(), 1)


def test_a_model_without_layers_counts_none(tmp_path: Path) -> None:
    assert _counted(write(graph("float[2] x => float[2] y", "y = Relu(x)"), tmp_path / "model.onnx")) == {}


@pytest.mark.parametrize(("integer", "total", "words"), [(1, 3, "1 of 3 Conv in int8"), (0, 2, "0 of 2 Conv in int8")])
def test_the_words_are_those_of_the_numbers(integer: int, total: int, words: str) -> None:
    assert str(Kernels("Conv", integer, total)) == words

"""What is in a model, without changing or judging it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compressor.data import RandomSource
from compressor.errors import CompressorError
from compressor.graph.model import Model
from compressor.graph.refusals import already_quantized
from compressor.pipeline.measuring import kernels
from compressor.pipeline.workspace import scratch_folder
from compressor.runtime.macs import count_macs
from compressor.runtime.ort import Session


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One weight.

    Attributes:
        name: of the layer.
        layer: its operator type.
        shape: of the array.
        dtype: of the array.
        nbytes: of the array.
        macs: multiply-accumulates of the layer; None when not counted.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model, looked at.

    Attributes:
        path: of the file.
        file_bytes: with external data.
        opset: of the standard operators, as in the file.
        producer: what wrote the file.
        inputs: name, type and shape of each.
        outputs: the same.
        nodes: operator type -> count, as in the file.
        parameters: entries of learned arrays.
        layers: one entry per weight.
        kernels: family -> (layers in integer kernels, layers).
        quantized: layers that are quantized already.
        note: why something could not be counted; empty when all could.
    """

    path: str
    file_bytes: int
    opset: int
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: Mapping[str, int]
    parameters: int
    layers: tuple[LayerInfo, ...]
    kernels: Mapping[str, tuple[int, int]]
    quantized: int
    note: str


def inspect_model(path: Path) -> Inspection:
    """Look at a model file.

    Raises:
        ModelError: it cannot be read, or ONNX Runtime cannot run it.
    """
    stored, model = Model.read(path), Model.load(path)
    Session(path)
    with scratch_folder(Path.cwd()) as scratch:
        macs, note = _macs(model, scratch)
        executed = kernels(path, stored.file_bytes, scratch)
    layers = tuple(LayerInfo(w.name, w.layer, w.shape, w.dtype, w.nbytes, macs.get(w.name)) for w in model.weights())
    return Inspection(
        path=str(path),
        file_bytes=stored.file_bytes,
        opset=stored.opset,
        producer=stored.producer,
        inputs=tuple(map(str, stored.inputs())),
        outputs=tuple(map(str, stored.outputs())),
        nodes=dict(stored.node_counts().most_common()),
        parameters=model.parameters(),
        layers=layers,
        kernels=executed,
        quantized=sum(1 for _ in already_quantized(model)),
        note=note,
    )


def _macs(model: Model, scratch: Path) -> tuple[dict[str, int], str]:
    """Per layer, on one random sample; and why not, where that fails."""
    try:
        feeds = RandomSource(samples=1).open(model, "random input", 0).first().feeds
        return count_macs(model, feeds, scratch), ""
    except CompressorError as error:
        return {}, str(error)

"""What is in a model, without changing or judging it."""

from pathlib import Path
from tempfile import gettempdir

from compressor.data import RandomSource
from compressor.errors import CompressorError
from compressor.graph.model import Model
from compressor.graph.refusals import already_quantized
from compressor.graph.weights import Weight
from compressor.pipeline.measuring import kernels
from compressor.pipeline.workspace import scratch_folder
from compressor.report import Inspection, LayerInfo
from compressor.runtime.macs import count_macs
from compressor.runtime.ort import Session


def inspect_model(path: Path) -> Inspection:
    """Look at a model file.

    Raises:
        ModelError: it cannot be read, or ONNX Runtime cannot run it.
    """
    stored, model = Model.read(path), Model.load(path)
    Session(path)
    with scratch_folder(Path(gettempdir())) as scratch:
        macs, note = _macs(model, scratch)
        executed = kernels(path, stored.source_bytes, scratch)
    total = sum(macs.values()) if macs else None
    layers = tuple(LayerInfo(w.name, w.layer, w.shape, w.dtype, w.nbytes, _of(w, macs)) for w in model.weights())
    return Inspection(
        path=str(path),
        file_bytes=stored.source_bytes,
        opset=stored.opset,
        producer=stored.producer,
        inputs=tuple(map(str, stored.inputs())),
        outputs=tuple(map(str, stored.outputs())),
        nodes=dict(stored.node_counts().most_common()),
        parameters=model.parameters(),
        layers=layers,
        macs=total,
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


def _of(weight: Weight, macs: dict[str, int]) -> int | None:
    """Of the layers that use a weight; those of a layer with two weights go to the first."""
    names = {use.node.name or "" for use in weight.uses if use.idx == 1 or len(use.node.inputs) == 2}
    found = [macs.pop(name) for name in names if name in macs]
    return sum(found) if found else None

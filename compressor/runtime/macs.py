"""Multiply-accumulates of one execution, counted on the shapes that really occur."""

from pathlib import Path

from compressor.graph.cost import costed_layers
from compressor.graph.model import Model
from compressor.graph.observe import SHAPE, with_shapes
from compressor.runtime.ort import Feeds, Session


def count_macs(model: Model, feeds: Feeds, scratch: Path) -> dict[str, int]:
    """Layer -> multiply-accumulates on this input; subgraphs are left out.

    Args:
        model: any; it is not changed.
        feeds: one batch.
        scratch: folder for the observed model.
    """
    layers = costed_layers(model)
    if not layers:
        return {}
    names = tuple(dict.fromkeys(name for layer in layers for name in layer.tensors))
    file = scratch / "shapes.onnx"
    with_shapes(model, names).save(file)
    outputs = Session(file).run(feeds)
    file.unlink()
    shapes = {name: tuple(int(n) for n in outputs[SHAPE + name].tolist()) for name in names}
    return {layer.name: layer.macs(shapes) for layer in layers}

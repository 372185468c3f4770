"""Multiply-accumulates of one execution, counted on the shapes that really occur."""

from pathlib import Path

from compressor.graph.cost import costed_layers
from compressor.graph.model import Model
from compressor.runtime.ort import Feeds
from compressor.runtime.shapes import observe_shapes


def count_macs(model: Model, feeds: Feeds, scratch: Path) -> dict[str, int]:
    """Layer -> multiply-accumulates on this input; subgraphs are left out, those without a name come together.

    Args:
        model: any; it is not changed.
        feeds: one batch.
        scratch: folder for the observed model.
    """
    layers = costed_layers(model)
    if not layers:
        return {}
    shapes = observe_shapes(model, feeds, scratch, [name for layer in layers for name in layer.tensors])
    found: dict[str, int] = {}
    for layer in layers:
        found[layer.name] = found.get(layer.name, 0) + layer.macs(shapes)
    return found

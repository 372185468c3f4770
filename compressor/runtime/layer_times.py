"""How long layers take on this machine, one at a time and at any size: what a model would cost before there is one."""

from pathlib import Path

import numpy as np

from compressor.graph.cost import CostedLayer, Shape, alone
from compressor.runtime.latency import measure

_SECONDS = 0.05
"""Per layer and size; eleven runs at least."""


class LayerTimes:
    """Measures each layer once for every size, and layers that are alike together.

    Args:
        scratch: folder for models of one layer.
        threads: threads inside one operator.
    """

    def __init__(self, scratch: Path, threads: int) -> None:
        self._scratch, self._threads = scratch, threads
        self._known: dict[tuple[object, ...], float | None] = {}

    def milliseconds(self, layer: CostedLayer, shapes: dict[str, Shape]) -> float | None:
        """Of one execution at these sizes; None for layers that cannot be taken out of their model."""
        settings = tuple((name, str(value.value)) for name, value in layer.node.attributes.items() if name != "group")
        key = (layer.layer, settings, *(shapes[name] for name in layer.tensors))
        if key not in self._known:
            self._known[key] = self._measured(layer, shapes)
        return self._known[key]

    def _measured(self, layer: CostedLayer, shapes: dict[str, Shape]) -> float | None:
        model = alone(layer, shapes)
        if model is None:
            return None
        file = self._scratch / "layer.onnx"
        model.save(file)
        rng = np.random.default_rng(0)
        feeds = {
            spec.name: rng.standard_normal([n for n in spec.shape or () if isinstance(n, int)]).astype(np.float32)
            for spec in model.inputs()
        }
        found = measure(file, feeds, self._threads, _SECONDS).median_ms
        file.unlink()
        return found

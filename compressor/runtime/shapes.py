"""The shapes that tensors really have in one execution."""

from collections.abc import Iterable
from pathlib import Path

from compressor.graph.model import Model
from compressor.graph.observe import SHAPE, shaped, with_shapes
from compressor.runtime.ort import Feeds, Session

Shape = tuple[int, ...]


def observe_shapes(model: Model, feeds: Feeds, scratch: Path, names: Iterable[str] | None = None) -> dict[str, Shape]:
    """Tensor -> shape on this input.

    Args:
        model: any; it is not changed.
        feeds: one batch.
        scratch: folder for the observed model.
        names: of tensors of the main graph; all that have a shape, when left out.
    """
    wanted = tuple(dict.fromkeys(shaped(model) if names is None else names))
    if not wanted:
        return {}
    file = scratch / "shapes.onnx"
    with_shapes(model, wanted).save(file)
    outputs = Session(file).run(feeds)
    file.unlink()
    return {name: tuple(int(n) for n in outputs[SHAPE + name].tolist()) for name in wanted}

"""What is in a model, without changing or judging it."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

from compressor.data import RandomSource
from compressor.errors import CompressorError
from compressor.graph.channels import Channels, prepare
from compressor.graph.factors import factor_refusal
from compressor.graph.model import Model
from compressor.graph.opening import ModelSource, opened
from compressor.graph.refusals import already_quantized
from compressor.graph.weights import Weight, attribute
from compressor.numerics.low_rank import spectrum
from compressor.pipeline.measuring import kernels
from compressor.pipeline.workspace import scratch_folder
from compressor.report import GroupInfo, Inspection, LayerInfo, SpectrumInfo
from compressor.runtime.macs import count_macs
from compressor.runtime.ort import Session
from compressor.runtime.shapes import observe_shapes


def inspect_model(source: ModelSource, groups: bool = False, spectra: bool = False) -> Inspection:
    """Look at a model file.

    Args:
        source: the file.
        groups: whether to find out which channels go together.
        spectra: whether to find out which weights are near to ones of low rank.

    Raises:
        ModelError: it cannot be read, or ONNX Runtime cannot run it.
    """
    with opened(source) as given, scratch_folder(Path(gettempdir())) as scratch:
        stored, model = given.read(), given.load()
        Session(given.file)
        macs, note = _macs(model, scratch)
        found = tuple(_groups(model, scratch)) if groups else ()
        executed = kernels(given.file, stored.source_bytes, scratch)
    total = sum(macs.values()) if macs else None
    layers = tuple(LayerInfo(w.name, w.layer, w.shape, w.dtype, w.nbytes, _of(w, macs)) for w in model.weights())
    return Inspection(
        path=str(source.path),
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
        groups=found,
        spectrum=tuple(_spectra(model)) if spectra else (),
        note=note,
        notes=given.notes,
    )


def _macs(model: Model, scratch: Path) -> tuple[dict[str, int], str]:
    """Per layer, on one random sample; and why not, where that fails."""
    try:
        feeds = RandomSource(samples=1).open(model, "random input", 0).first().feeds
        return count_macs(model, feeds, scratch), ""
    except CompressorError as error:
        return {}, str(error)


def _groups(model: Model, scratch: Path) -> Iterator[GroupInfo]:
    """Those that may be pruned, then those that must stay; the model itself is not changed."""
    feeds = RandomSource(samples=1).open(model, "random input", 0).first().feeds
    copy = model.copy()
    prepare(copy, observe_shapes(copy, feeds, scratch))
    channels = Channels.of(copy, observe_shapes(copy, feeds, scratch))
    for group in (*channels.groups, *channels.frozen):
        makers, readers = (
            tuple(dict.fromkeys(place.weight.name for place in places)) for places in (group.makers, group.readers)
        )
        yield GroupInfo(group.name, group.kind, group.width, makers, readers, group.entries, group.reason)


def _spectra(model: Model) -> Iterator[SpectrumInfo]:
    """Of all layers that could become two, in order."""
    for weight in model.weights():
        if factor_refusal(weight) is not None:
            continue
        groups = attribute(weight.uses[0].node, "group", 1)
        matrix = weight.matrix()
        rows, columns = len(matrix) // groups, matrix.shape[1]
        errors = spectrum(matrix.reshape(groups, rows, columns)).errors()
        full = len(errors) - 1
        quarter, half, most = (float(1 - errors[-(-full * part // 4)]) for part in (1, 2, 3))
        pays = groups * (rows * columns // (rows + columns))
        yield SpectrumInfo(weight.name, weight.layer, groups * full, (quarter, half, most), pays)


def _of(weight: Weight, macs: dict[str, int]) -> int | None:
    """Of the layers that use a weight; those of a layer with two weights go to the first."""
    names = {use.node.name or "" for use in weight.uses if use.idx == 1 or len(use.node.inputs) == 2}
    found = [macs.pop(name) for name in names if name in macs]
    return sum(found) if found else None

"""From bytes to a graph that passes can edit."""

import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from compressor.errors import ModelError
from compressor.graph.packing import DOMAIN

OLDEST_OPSET, NEWEST_OPSET = 7, 25
WORKING_OPSET = 21
"""Older models are raised to this one: it has per-channel and 4-bit quantization, and ONNX Runtime
runs every operator of it."""

_IR_VERSION = 10
_OPSET_OF_COORDINATES = 11  # before it, Upsample and Resize knew one way only, which the converter forgets
_OPSET_OF_HARDMAX = 13


def read(path: Path) -> ir.Model:
    """Parse the file lazily: external data is checked for place and size, not read.

    Raises:
        ModelError: see `Model.read`.
    """
    _quiet_libraries()
    proto = _parse(path)
    for opset in proto.opset_import:
        opset.domain = "" if opset.domain == "ai.onnx" else opset.domain
    _refuse_unknown(proto, path)
    try:
        model: ir.Model = ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        reason = str(_root_cause(error)).splitlines()[0].split(". Please")[0]
        raise ModelError(f"{path}: cannot be represented: {reason}") from error
    base = path.resolve().parent
    for graph in model.graphs():
        ir.external_data.set_base_dir(graph, base)
    _refuse_unknown_operators(model, path)
    _check_arrays(model, path, base)
    for graph in model.graphs():
        graph.sort()
    _name_nodes(model)
    return model


def prepare(model: ir.Model, path: Path) -> None:
    """Bring the graph into the one form that passes expect; see `Model.load`.

    Raises:
        ModelError: the opset converter failed.
    """
    from onnx_ir.passes import common  # slow to import

    with keeping_outputs(model):
        if model.functions:
            common.InlinePass(lambda function: function.domain != DOMAIN)(model)
        common.RemoveInitializersFromInputsPass()(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        if model.graph.opset_imports[""] < WORKING_OPSET:
            _raise_opset(model, path)
        model.ir_version = max(model.ir_version, _IR_VERSION)


@contextmanager
def keeping_outputs(model: ir.Model) -> Iterator[None]:
    """Give the outputs back the names, types and dimensions they had, whatever inference found out.

    An output that is an input stays that input.
    """
    graph = model.graph
    signature = [(v.name, v.type, None if v.shape is None else v.shape.copy()) for v in graph.outputs]
    inputs = [v.name for v in graph.inputs]
    passed = {index: graph.inputs.index(v) for index, v in enumerate(graph.outputs) if v in graph.inputs}
    yield
    for index, number in passed.items():
        graph.outputs[index].name = None if graph.outputs[index] is not graph.inputs[number] else inputs[number]
        graph.outputs[index] = graph.inputs[number]
        graph.inputs[number].name = inputs[number]
    for output, (name, kind, shape) in zip(model.graph.outputs, signature, strict=True):
        output.name, output.type, output.shape = name, kind, shape


def stored_bytes(model: ir.Model, path: Path) -> int:
    """Size of a model's file together with its external data."""
    return path.stat().st_size + sum(file.stat().st_size for file in external_files(model))


def external_files(model: ir.Model) -> set[Path]:
    """Where arrays lie that are not in the model's own file."""
    return {Path(t.path) for t in _arrays(model) if isinstance(t, ir.ExternalTensor)}


def _quiet_libraries() -> None:
    """Keep the converter, the optimizer and the writer from logging what concerns their own authors only."""
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """All constant arrays, those of subgraphs included."""
    for graph in model.graphs():
        yield from graph.initializers.values()


def _parse(path: Path) -> onnx.ModelProto:
    if not os.path.exists(path):
        raise ModelError(f"{path}: no such file; give the path of an .onnx model")
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; give the path of an .onnx model")
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty (0 bytes)")
    if zipfile.is_zipfile(path):
        raise ModelError(f"{path}: {_about_archive(path)}")
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except PermissionError as error:
        raise ModelError(f"{path}: no permission to read it") from error
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX model, or is cut short; export or download it again") from error
    if not proto.ir_version or not proto.graph.node:
        raise ModelError(f"{path}: is not an ONNX model, or has no nodes")
    return proto


def _about_archive(path: Path) -> str:
    """What an archive is instead of ONNX, and what to do about it."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name for name in names):
        return "is TorchScript, not ONNX; only a command that takes a model to work on converts it"
    if any(name.endswith("/archive_format") or name == "serialized_exported_program.json" for name in names):
        return "is an exported program of torch, not ONNX; write it with torch.onnx.export(torch.export.load(…))"
    if any(name.endswith("data.pkl") for name in names):
        return "holds weights without a model (a checkpoint of torch); export the model with torch.onnx.export"
    return "is a zip archive, not ONNX"


def _refuse_unknown(proto: onnx.ModelProto, path: Path) -> None:
    opset = max((o.version for o in proto.opset_import if not o.domain), default=None)
    if opset is None:
        raise ModelError(f"{path}: names no version of the standard operators (opset); export it again")
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ModelError(
            f"{path}: uses opset {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are understood, "
            "so export it again with one of those"
        )
    sparse = next(_sparse(proto.graph), None)
    if sparse is not None:
        raise ModelError(f"{path}: {sparse} is a sparse initializer; store it dense, sparse ones are not understood")


def _sparse(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of what onnx_ir would drop without a word, in branches of If and bodies of Loop too."""
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor.values.name or attribute.name
        for subgraph in (attribute.g, *attribute.graphs):
            yield from _sparse(subgraph)


def _name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own; named ones keep theirs, the others count by operator type."""
    taken = {node.name for graph in model.graphs() for node in graph if node.name}
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for node in (node for graph in model.graphs() for node in graph):
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        stem = node.name or node.op_type
        while (name := f"{stem}_{counts[stem]}") in taken:
            counts[stem] += 1
        taken.add(name)
        seen.add(name)
        node.name = name


def _refuse_unknown_operators(model: ir.Model, path: Path) -> None:
    """Those of other domains are ONNX Runtime's to judge."""
    own = {(function.domain, function.name) for function in model.functions.values()}
    for node in (node for graph in model.graphs() for node in graph):
        if node.domain == "" and not onnx.defs.has(node.op_type) and ("", node.op_type) not in own:
            raise ModelError(f"{path}: node {node.name or '(no name)'}: {node.op_type} is no operator of ONNX")


def _check_arrays(model: ir.Model, path: Path, base: Path) -> None:
    """Arrays must be as long as their shape says; external ones must lie in the model's folder."""
    for tensor in _arrays(model):
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor, path, base)
            continue
        try:
            tensor.numpy()
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path}: {tensor.name}: its bytes do not fit its shape {tensor.shape}") from error


def _arrays(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Of initializers and Constant nodes."""
    yield from (v.const_value for v in initializers(model) if v.const_value is not None)
    for node in (node for graph in model.graphs() for node in graph if node.op_type == "Constant"):
        yield from (a.as_tensor() for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR)


def _check_external(tensor: ir.ExternalTensor, path: Path, base: Path) -> None:
    file, place = (base / tensor.location).resolve(), f"{path}: {tensor.name}: external data {tensor.location}"
    if not file.is_relative_to(base):
        raise ModelError(f"{place} lies outside the model's folder")
    if not file.is_file():
        raise ModelError(f"{place} is missing; put it beside the model")
    end = (tensor.offset or 0) + tensor.nbytes
    if file.stat().st_size < end:
        raise ModelError(f"{place} is cut short: {file.stat().st_size} bytes, {end} needed")


def _raise_opset(model: ir.Model, path: Path) -> None:
    from onnx_ir.passes import common
    from onnxscript import version_converter  # slow to import

    before = model.graph.opset_imports[""]
    if before < _OPSET_OF_HARDMAX and any(n.op_type == "Hardmax" for g in model.graphs() for n in g):
        raise ModelError(_not_raised(path, before, f"Hardmax flattens its input before opset {_OPSET_OF_HARDMAX}"))
    if any(n.op_type == "GroupNormalization" for g in model.graphs() for n in g):
        common.ShapeInferencePass()(model)  # else scale and bias stay one number per group
    try:
        version_converter.convert_version(model, WORKING_OPSET, fallback=True)
    except (ValueError, RuntimeError, TypeError, ir.passes.PassError) as error:
        raise ModelError(_not_raised(path, before, str(_root_cause(error)))) from error
    if model.graph.opset_imports[""] != WORKING_OPSET:
        raise ModelError(_not_raised(path, before, "the converter refused it"))
    if before < _OPSET_OF_COORDINATES:
        for node in (n for g in model.graphs() for n in g if n.op_type == "Resize"):
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def _not_raised(path: Path, opset: int, reason: str) -> str:
    return (
        f"{path}: opset {opset} cannot be raised to {WORKING_OPSET}: {reason.splitlines()[0]}; "
        f"export the model with opset {WORKING_OPSET}"
    )


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error

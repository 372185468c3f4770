"""Export a trained network to ONNX and check the file against torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]
import torch
from torch import nn

from datasets import Array, Labels

OPSET = 18
NEWEST_IR_VERSION = 10
CHECKED_BATCHES = (1, 7)
TOLERANCE = 1e-5

# What the inputs of a node are called when its constants carry only a number from the exporter.
CONSTANT_NAMES = {"MatMul": ("left", "weight"), "LSTM": ("sequence", "W", "R", "B")}


def export_onnx(
    network: nn.Module,
    path: Path,
    example: Array,
    input_name: str,
    output_names: tuple[str, ...],
) -> None:
    """Write `network` in evaluation mode to `path`, with a dynamic first dimension called `batch`.

    The TorchScript exporter is used because it names every node after the module it came from
    (`/stage1/first/convolution/Conv`). TrainingMode.PRESERVE with a network in evaluation mode keeps
    BatchNormalization as inference nodes of their own instead of folding them into the convolutions.
    """
    names = (input_name, *output_names)
    with warnings.catch_warnings():
        # The exporter warns that it is deprecated, that weights are folded, and about batch-first LSTMs.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.from_numpy(example),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=True,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_axes={name: {0: "batch"} for name in names},
        )
    model = onnx.load(path)
    model.graph.name = path.stem
    rename_numbered_constants(model.graph)
    onnx.save(model, path)


def rename_numbered_constants(graph: onnx.GraphProto) -> None:
    """Rename folded weights such as `onnx::MatMul_60` after their node: `layers.0.expand.weight`."""
    numbered = {item.name: item for item in graph.initializer if item.name.startswith("onnx::")}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in numbered:
                scope = node.name.rpartition("/")[0].strip("/").replace("/", ".")
                node.input[position] = f"{scope}.{CONSTANT_NAMES[node.op_type][position]}"
                numbered[name].name = node.input[position]


def run_onnx(path: Path, inputs: npt.NDArray[np.float32]) -> Labels:
    """Run the model on the CPU and return its outputs by name."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: inputs}), strict=True))


def check_file(path: Path) -> None:
    """Raise SystemExit unless the file is valid ONNX for inference with a dynamic batch dimension."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    if model.ir_version > NEWEST_IR_VERSION or [item.version for item in model.opset_import] != [OPSET]:
        raise SystemExit(f"{path.name}: IR version {model.ir_version}, opsets {model.opset_import}")
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim[0].dim_param != "batch":
            raise SystemExit(f"{path.name}: the first dimension of {value.name} is not the dynamic `batch`")
    for node in model.graph.node:
        if node.op_type == "BatchNormalization" and trains(node):
            raise SystemExit(f"{path.name}: {node.name} is in training mode")


def trains(node: onnx.NodeProto) -> bool:
    """Whether a BatchNormalization node computes its statistics from the batch."""
    return any(item.name == "training_mode" and item.i != 0 for item in node.attribute)


def check_outputs(path: Path, network: nn.Module, inputs: npt.NDArray[np.float32]) -> None:
    """Raise SystemExit unless onnxruntime and torch agree for every batch size in CHECKED_BATCHES."""
    for batch in CHECKED_BATCHES:
        with torch.no_grad():
            result = network(torch.from_numpy(inputs[:batch]))
        expected = result if isinstance(result, tuple) else (result,)
        for (name, actual), tensor in zip(run_onnx(path, inputs[:batch]).items(), expected, strict=True):
            difference = float(np.abs(actual - tensor.numpy()).max())
            if actual.shape != tuple(tensor.shape) or difference > TOLERANCE:
                raise SystemExit(f"{path.name}: {name} differs from torch by {difference} at batch {batch}")

"""Whether a written file is a valid model that can stand in for the reference."""

from pathlib import Path

import onnx

from compressor.errors import VerificationError
from compressor.graph.model import Model, TensorSpec


def check_file(path: Path) -> None:
    """The ONNX checker's full check, shape inference included.

    Raises:
        VerificationError: what it refused.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise VerificationError(f"refused by onnx.checker: {' '.join(str(error).split())[:300]}") from error


def check_signature(reference: Model, result: Model, dimensions: bool = True) -> None:
    """Inputs and outputs must be those of the reference: names, order, types, dimensions.

    Args:
        reference: what is to be kept.
        result: what may have changed.
        dimensions: whether sizes and names of dimensions must be the same too.

    Raises:
        VerificationError: the first difference.
    """
    for kind, before, after in (
        ("inputs", reference.inputs(), result.inputs()),
        ("outputs", reference.outputs(), result.outputs()),
    ):
        same = before == after if dimensions else _loosely(before) == _loosely(after)
        if not same:
            raise VerificationError(f"{kind} changed from {_listed(before)} to {_listed(after)}")


def _loosely(specs: tuple[TensorSpec, ...]) -> list[tuple[str, str]]:
    return [(spec.name, spec.dtype) for spec in specs]


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(map(str, specs)) or "none"

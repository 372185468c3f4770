"""The three ways from a TorchScript module to an ONNX file; each works where the others do not.

The legacy exporter keeps branches, loops and names, but not transformers in their fused form. The converter to
an exported program keeps names and open sizes. Exporting a run of the module covers the rest.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._export.converter import TS2EPConverter
from torch.onnx import OperatorExportTypes

from compressor.graph.torchscript.binding import Adapter, Bound
from compressor.graph.torchscript.interpret import Interpreter

_OPSET = 20
_OLDER_OPSET = 17

Feeds = Mapping[str, NDArray[Any]]
Open = Mapping[str, Mapping[int, str]]
"""Input -> axis -> name of the dimension that stays open."""

Route = Callable[[Bound, Feeds, Open, Path], None]


def legacy(bound: Bound, feeds: Feeds, opened: Open, path: Path) -> None:
    """torch's exporter for TorchScript."""
    _legacy(bound, feeds, opened, path, _OPSET)


def legacy_older(bound: Bound, feeds: Feeds, opened: Open, path: Path) -> None:
    """The same with an older opset, for which it knows more operators by heart."""
    _legacy(bound, feeds, opened, path, _OLDER_OPSET)


def _legacy(bound: Bound, feeds: Feeds, opened: Open, path: Path, opset: int) -> None:
    example = bound.tensors(feeds)
    module = bound.module if bound.plain else torch.jit.trace(bound.adapter, example, check_trace=False)
    written = io.BytesIO()
    torch.onnx.export(
        module,
        example,
        written,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=opset,
        input_names=list(bound.inputs),
        output_names=list(bound.outputs),
        dynamic_axes={name: dict(axes) for name, axes in opened.items()},
        operator_export_type=OperatorExportTypes.ONNX,
    )
    path.write_bytes(written.getvalue())


def converter(bound: Bound, feeds: Feeds, opened: Open, path: Path) -> None:
    """TorchScript to an exported program, and that to ONNX."""
    example = bound.tensors(feeds)
    module = bound.script if bound.plain else torch.jit.trace(bound.adapter, example, check_trace=False)
    _write(TS2EPConverter(module, example).convert(), bound, path)


def recorded(bound: Bound, feeds: Feeds, opened: Open, path: Path) -> None:
    """A run of the module's graph, exported: branches are those that the example takes."""
    example = bound.tensors(feeds)
    dims = tuple(dict.fromkeys(opened.get(name, {}), torch.export.Dim.AUTO) for name in bound.inputs)
    inside = bound.module if isinstance(bound.module, Interpreter) else Interpreter(bound.script)
    module = Adapter(inside, bound.arguments)
    with torch.enable_grad():  # without, torch takes fused kernels that no exporter knows
        program = torch.export.export(module, example, dynamic_shapes=(dims,), strict=False)
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._convolution.default:
            node.target = torch.ops.aten.convolution.default
            node.args = node.args[:9]
    table = torch.export.default_decompositions()
    table[torch.ops.aten._transformer_encoder_layer_fwd.default] = _encoder_layer
    _write(program.run_decompositions(table), bound, path)


ROUTES: tuple[Route, ...] = (legacy, legacy_older, converter, recorded)


def _write(program: Any, bound: Bound, path: Path) -> None:
    torch.onnx.export(
        program,
        (),
        str(path),
        dynamo=True,
        external_data=False,
        opset_version=_OPSET,
        input_names=list(bound.inputs),
        output_names=list(bound.outputs),
        verbose=False,
    )


def _encoder_layer(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """What the fused kernel of nn.TransformerEncoderLayer computes, in the operators it is made of.

    `mask_type` is 0 for (L, L), 1 for keys (N, L), 2 for (N, heads, L, L); True is masked out.
    """
    x = src
    functional = torch.nn.functional

    def attend(y: Tensor) -> Tensor:
        batch, length, _ = y.shape
        split = functional.linear(y, qkv_weight, qkv_bias).reshape(batch, length, 3, num_heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.matmul(query, key.transpose(-1, -2)) * (embed_dim // num_heads) ** -0.5
        if mask is not None:
            wide = mask[:, None, None, :] if mask_type == 1 else mask
            scores = scores.masked_fill(wide, float("-inf")) if wide.dtype == torch.bool else scores + wide
        mixed = torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2).reshape(batch, length, embed_dim)
        return functional.linear(mixed, proj_weight, proj_bias)

    def feed_forward(y: Tensor) -> Tensor:
        inner = functional.linear(y, ffn_weight_1, ffn_bias_1)
        inner = functional.gelu(inner) if use_gelu else functional.relu(inner)
        return functional.linear(inner, ffn_weight_2, ffn_bias_2)

    def norm(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(y, (embed_dim,), weight, bias, eps)

    if norm_first:
        x = x + attend(norm(x, norm_weight_1, norm_bias_1))
        return x + feed_forward(norm(x, norm_weight_2, norm_bias_2))
    x = norm(x + attend(x), norm_weight_1, norm_bias_1)
    return norm(x + feed_forward(x), norm_weight_2, norm_bias_2)

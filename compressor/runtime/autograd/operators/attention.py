"""Attention and rotary positions as single operators."""

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import DTYPES


def _heads(x: Tensor, count: int) -> Tensor:
    """(batch, sequence, heads × size) -> (batch, heads, sequence, size)."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


@operator("Attention")
def _attention(node: Node) -> Run:
    """Scores are scaled on both sides, capped, masked, then weighted (opset 23)."""
    given, q_heads, kv_heads = node.real("scale", 0.0), node.integer("q_num_heads"), node.integer("kv_num_heads")
    causal, cap, mode = node.integer("is_causal"), node.real("softcap", 0.0), node.integer("qk_matmul_output_mode")
    precision = ir.DataType(node.integer("softmax_precision")) if node.integer("softmax_precision") else None

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Any = None, past_k: Any = None, past_v: Any = None, lengths: Any = None
    ) -> tuple[Tensor, ...]:
        flat = q.dim() == 3
        if flat:
            q, k, v = _heads(q, q_heads), _heads(k, kv_heads), _heads(v, kv_heads)
        if past_k is not None:
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        held_k, held_v = k, v
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) if x.shape[1] != q.shape[1] else x for x in (k, v))
        root = (given or q.shape[-1] ** -0.5) ** 0.5
        scores = torch.matmul(q * root, (k * root).transpose(-1, -2))
        bias = _bias(q, k, mask, bool(causal), lengths, past_k)
        capped = cap * torch.tanh(scores / cap) if cap else scores
        masked = capped if bias is None else capped + bias
        stages = {0: scores, 1: capped, 2: masked}
        wide = masked if precision is None else masked.to(DTYPES[precision])
        weights = _weights(wide).to(q.dtype)
        made = torch.matmul(weights, v)
        made = made.transpose(1, 2).reshape(made.shape[0], made.shape[2], -1) if flat else made
        return made, held_k, held_v, stages.get(mode, weights)

    return attend


def _weights(scores: Tensor) -> Tensor:
    """Rows that may see nothing give zeros."""
    blind = (scores == -float("inf")).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)


def _bias(
    q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, lengths: Tensor | None, past: Tensor | None
) -> Tensor | None:
    """What is added to the scores: the mask, and minus infinity where nothing may be seen."""
    if mask is None and not causal and lengths is None:
        return None
    rows, columns = q.shape[2], k.shape[2]
    bias = torch.zeros(rows, columns, dtype=q.dtype)
    if mask is not None:
        added = (
            torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -float("inf"))
            if mask.dtype == torch.bool
            else mask
        )
        if added.shape[-1] < columns:
            added = torch.nn.functional.pad(added, (0, columns - added.shape[-1]), value=-float("inf"))
        bias = bias + added
    if causal:
        shift = 0 if past is None else past.shape[2]
        hidden = torch.ones(rows, columns, dtype=torch.bool).triu(1 + shift)
        bias = bias.masked_fill(hidden, -float("inf"))
    if lengths is not None:
        padding = torch.arange(columns) >= lengths.reshape(-1, 1, 1, 1)
        bias = bias.masked_fill(padding, -float("inf"))
    return bias


@operator("RotaryEmbedding")
def _rotary(node: Node) -> Run:
    """Pairs of entries turned by the angle of their position (Su et al. 2021)."""
    heads, turned_size, interleaved = (
        node.integer("num_heads"),
        node.integer("rotary_embedding_dim"),
        node.integer("interleaved"),
    )

    def rotate(x: Tensor, cosine: Tensor, sine: Tensor, places: Tensor | None = None) -> Tensor:
        flat = x.dim() == 3
        rows = _heads(x, heads) if flat else x
        size = turned_size or rows.shape[-1]
        turned, rest = rows[..., :size], rows[..., size:]
        cosine, sine = ((t if places is None else t[places]).unsqueeze(1)[..., : size // 2] for t in (cosine, sine))
        left, right = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
        real, imaginary = cosine * left - sine * right, sine * left + cosine * right
        made = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
        whole = torch.cat([made, rest], -1)
        return whole.transpose(1, 2).reshape(x.shape) if flat else whole

    return rotate

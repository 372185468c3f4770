"""Normalizations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator


@operator("BatchNormalization")
def _batch_norm(node: Node) -> Run:
    """In training the statistics are those of the batch, and the stored ones follow them."""
    epsilon, momentum = node.real("epsilon", 1e-5), node.real("momentum", 0.9)
    forced, mode = bool(node.integer("training_mode")), node.network

    def normalize(
        x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        if forced:
            axes = [0, *range(2, x.dim())]
            spread, middle = torch.var_mean(x, axes, correction=0)
            made = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
            return made, mean * momentum + middle * (1 - momentum), variance * momentum + spread * (1 - momentum)
        scale, bias = scale.to(mean.dtype), bias.to(mean.dtype)
        if not mode.training or x.numel() == x.shape[1]:  # a single value has no spread
            return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
        return F.batch_norm(x, mean, variance, scale, bias, True, 1 - momentum, epsilon)

    return normalize


@operator("InstanceNormalization")
def _instance_norm(node: Node) -> Run:
    epsilon = node.real("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@operator("GroupNormalization")
def _group_norm(node: Node) -> Run:
    """One scale for each channel since opset 21, for each group before."""
    epsilon, groups, by_channel = node.real("epsilon", 1e-5), node.integer("num_groups"), node.opset >= 21

    def normalize(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if not by_channel:
            scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
        return F.group_norm(x, groups, scale, bias, epsilon)

    return normalize


@operator("LayerNormalization")
def _layer_norm(node: Node) -> Run:
    axis, epsilon, extra = node.integer("axis", -1), node.real("epsilon", 1e-5), node.wants(1) or node.wants(2)

    def normalize(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        first = axis % x.dim()
        shape = x.shape[first:]
        if not extra and scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        wide = x.float() if x.dtype != torch.float64 else x
        variance, mean = torch.var_mean(wide, list(range(first, x.dim())), correction=0, keepdim=True)
        inverse = torch.rsqrt(variance + epsilon)
        made = ((wide - mean) * inverse).to(x.dtype) * scale
        return made if bias is None else made + bias, mean, inverse

    return normalize


@operator("RMSNormalization")
def _rms_norm(node: Node) -> Run:
    axis, epsilon = node.integer("axis", -1), node.real("epsilon", 1e-5)

    def normalize(x: Tensor, scale: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = torch.mean(wide * wide, list(range(axis % x.dim(), x.dim())), keepdim=True)
        return (wide * torch.rsqrt(mean + epsilon)).to(x.dtype) * scale

    return normalize


@operator("SimplifiedLayerNormalization")
def _simplified_layer_norm(node: Node) -> Run:
    return _rms_norm(node)  # type: ignore[return-value]


@operator("SkipLayerNormalization", domain="com.microsoft")
def _skip_layer_norm(node: Node) -> Run:
    epsilon = node.real("epsilon", 1e-12)

    def normalize(
        x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor | None = None, bias: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        total = x + skip if bias is None else x + skip + bias
        return F.layer_norm(total, total.shape[-1:], gamma, beta, epsilon), None, None, total

    return normalize


@operator("LRN")
def _lrn(node: Node) -> Run:
    alpha, beta, bias = node.real("alpha", 1e-4), node.real("beta", 0.75), node.real("bias", 1.0)
    size = node.integer("size")

    def normalize(x: Tensor) -> Tensor:
        before = (size - 1) // 2
        rows = F.pad(x.flatten(2).square(), (0, 0, before, size - 1 - before))
        total = rows.unfold(1, size, 1).sum(-1).reshape(x.shape)
        return x / (bias + alpha / size * total) ** beta

    return normalize

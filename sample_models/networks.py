"""The four sample networks, written in plain torch so that the exported graphs stay easy to read."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvolutionNorm(nn.Module):
    """A 3x3 or 1x1 convolution without bias, followed by batch normalisation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """Map [batch, channels_in, h, w] to [batch, channels_out, h / stride, w / stride]."""
        normalised: Tensor = self.norm(self.convolution(features))
        return normalised


class Residual(nn.Module):
    """Two 3x3 convolutions with a skip connection: relu(x + second(relu(first(x))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvolutionNorm(channels, channels, 3)
        self.second = ConvolutionNorm(channels, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Map [batch, channels, h, w] to the same shape."""
        return torch.relu(features + self.second(torch.relu(self.first(features))))


class DigitsCnn(nn.Module):
    """Digit classifier: residual stages of 32 and 64 channels, a depthwise-separable layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvolutionNorm(1, 32, 3)
        self.stage1 = Residual(32)
        self.down = ConvolutionNorm(32, 64, 3, stride=2)
        self.stage2 = Residual(64)
        self.depthwise = ConvolutionNorm(64, 64, 3, groups=64)
        self.pointwise = ConvolutionNorm(64, 64, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map normalised images [batch, 1, 16, 16] to logits [batch, 10]."""
        features = self.stage1(torch.relu(self.stem(image)))
        features = self.stage2(torch.relu(self.down(features)))
        features = torch.relu(self.pointwise(torch.relu(self.depthwise(features))))
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return logits


class SelfAttention(nn.Module):
    """Multi-head self-attention spelled out as matmul and softmax: softmax(q k^T / sqrt(width / heads)) v."""

    def __init__(self, tokens: int, width: int, heads: int):
        super().__init__()
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))
        self.split_shape = (-1, tokens, heads, width // heads)
        self.merged_shape = (-1, tokens, width)
        self.scale = (width // heads) ** -0.5

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [batch, tokens, width] to the same shape."""
        query = self.query(tokens).reshape(self.split_shape).permute(0, 2, 1, 3)
        key = self.key(tokens).reshape(self.split_shape).permute(0, 2, 3, 1)
        value = self.value(tokens).reshape(self.split_shape).permute(0, 2, 1, 3)
        weights = torch.softmax(query @ key * self.scale, dim=-1)
        mixed = (weights @ value).permute(0, 2, 1, 3).reshape(self.merged_shape)
        merged: Tensor = self.merge(mixed)
        return merged


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer: attention and a GELU feed-forward network, each with a residual."""

    def __init__(self, tokens: int, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(tokens, width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [batch, tokens, width] to the same shape."""
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens)))
        hidden = nn.functional.gelu(self.expand(self.feed_norm(tokens)))
        encoded: Tensor = tokens + self.dropout(self.contract(hidden))
        return encoded


class DigitsTransformer(nn.Module):
    """Digit classifier over the rows of an image: two encoder layers, mean pooling, a linear head."""

    def __init__(self, tokens: int = 8, features: int = 8, width: int = 64, heads: int = 4):
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.position = nn.Parameter(0.1 * torch.randn(tokens, width))
        self.layers = nn.ModuleList(EncoderLayer(tokens, width, heads, dropout=0.1) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map pixel rows [batch, 8, 8] in 0..1 to logits [batch, 10]."""
        encoded = self.embed(tokens) + self.position
        for layer in self.layers:
            encoded = layer(encoded)
        logits: Tensor = self.head(self.norm(encoded).mean(dim=1))
        return logits


class ConditionScore(nn.Module):
    """Health of three machine components from raw sensor readings, and their minimum as overall score.

    The readings arrive in physical units; the network standardises them itself with the channel mean and
    standard deviation [12] given at construction.
    """

    channel_mean: Tensor
    channel_std: Tensor

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        self.register_buffer("channel_mean", mean)
        self.register_buffer("channel_std", std)
        self.trunk1 = nn.Linear(len(mean), 128)
        self.trunk2 = nn.Linear(128, 128)
        self.trunk3 = nn.Linear(128, 64)
        self.bearing = nn.Linear(64, 1)
        self.cooling = nn.Linear(64, 1)
        self.drive = nn.Linear(64, 1)

    def forward(self, sensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map readings [batch, 12] to bearing, cooling, drive health and their minimum, each [batch, 1]."""
        hidden = (sensors - self.channel_mean) / self.channel_std
        for layer in (self.trunk1, self.trunk2, self.trunk3):
            hidden = torch.relu(layer(hidden))
        bearing = torch.sigmoid(self.bearing(hidden))
        cooling = torch.sigmoid(self.cooling(hidden))
        drive = torch.sigmoid(self.drive(hidden))
        return bearing, cooling, drive, torch.minimum(torch.minimum(bearing, cooling), drive)


class SensorLstm(nn.Module):
    """Fault classifier for vibration windows: one LSTM layer, its last hidden state, a linear head."""

    def __init__(self, channels: int = 4, width: int = 96, classes: int = 5):
        super().__init__()
        self.lstm = nn.LSTM(channels, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, window: Tensor) -> Tensor:
        """Map windows [batch, 32, 4] in g to logits [batch, 5]."""
        _, (hidden, _) = self.lstm(window)
        logits: Tensor = self.head(hidden.squeeze(0))
        return logits

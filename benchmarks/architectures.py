"""Networks in the shapes that people export, with random weights: what structural passes must find their way in.

All are written here, small enough to read; `narrow` ones have the same form with odd widths and export in a second.
"""

import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d, relu

Exporter = Literal["torchscript", "dynamo"]


class Residual(nn.Module):
    """Two or three convolutions and a shortcut, as in ResNet; grouped, as in ResNeXt."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, bottleneck: bool, groups: int = 1) -> None:
        super().__init__()
        if bottleneck:
            parts = [
                _conv(inputs, inner, 1),
                _conv(inner, inner, 3, stride, groups),
                _conv(inner, outputs, 1, act=False),
            ]
        else:
            parts = [_conv(inputs, inner, 3, stride), _conv(inner, outputs, 3, act=False)]
        self.body = nn.Sequential(*parts)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _conv(inputs, outputs, 1, stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum, rectified."""
        return relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet and ResNeXt."""

    def __init__(
        self, blocks: list[int], widths: list[int], bottleneck: bool, groups: int = 1, classes: int = 1000
    ) -> None:
        super().__init__()
        last = widths[0]
        layers: list[nn.Module] = [_conv(3, last, 7, 2), nn.MaxPool2d(3, 2, 1)]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            outputs = width * 4 if bottleneck else width
            inner = width * 2 if groups > 1 else width
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(Residual(last, inner, outputs, stride, bottleneck, groups))
                last = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(x).mean((2, 3)))


class Inverted(nn.Module):
    """Expand, depthwise, project, as in MobileNetV2; with squeeze-and-excite and h-swish, as in V3."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, excite: bool) -> None:
        super().__init__()
        act = nn.Hardswish if excite else nn.ReLU6
        self.expand = _conv(inputs, inner, 1, act=act) if inner > inputs else nn.Identity()
        self.depthwise = _conv(inner, inner, 3, stride, inner, act=act)
        gate = nn.Conv2d(inner, inner // 4, 1), nn.ReLU(), nn.Conv2d(inner // 4, inner, 1), nn.Hardsigmoid()
        self.squeeze = nn.Sequential(*gate) if excite else None
        self.project = _conv(inner, outputs, 1, act=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """With the input added where the shapes allow it."""
        y = self.depthwise(self.expand(x))
        if self.squeeze is not None:
            y = y * self.squeeze(y.mean((2, 3), keepdim=True))
        y = self.project(y)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """MobileNetV2 or V3 in form."""

    def __init__(self, plan: list[tuple[int, int, int]], stem: int, last: int, excite: bool, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, stem, 3, 2)]
        for factor, outputs, stride in plan:
            layers.append(Inverted(stem, stem * factor, outputs, stride, excite))
            stem = outputs
        self.features = nn.Sequential(*layers, _conv(stem, last, 1))
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class DenseNet(nn.Module):
    """Every layer reads all before it; normalization comes first, so that it cannot be folded."""

    def __init__(self, blocks: list[int], growth: int, stem: int, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _conv(3, stem, 7, 2)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for number, count in enumerate(blocks):
            layers = [_preactivated(stem + i * growth, 4 * growth, growth) for i in range(count)]
            self.blocks.append(nn.ModuleList(layers))
            stem += count * growth
            if number + 1 < len(blocks):
                halve = nn.Sequential(
                    nn.BatchNorm2d(stem), nn.ReLU(), nn.Conv2d(stem, stem // 2, 1, bias=False), nn.AvgPool2d(2)
                )
                self.transitions.append(halve)
                stem //= 2
        self.norm, self.head = nn.BatchNorm2d(stem), nn.Linear(stem, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleList)
            for layer in block:
                x = torch.cat([x, layer(x)], 1)
            if number < len(self.transitions):
                x = self.transitions[number](x)
        return self.head(relu(self.norm(x)).mean((2, 3)))


class UNet(nn.Module):
    """Down and up again, joined at every level; up by transposed convolution or by interpolation."""

    def __init__(self, widths: list[int], interpolate: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(i, o) for i, o in zip([3, *widths[:-1]], widths, strict=True))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(a, b, 1))
            if interpolate
            else nn.ConvTranspose2d(a, b, 2, 2)
            for a, b in pairs
        )
        self.join = nn.ModuleList(_twice(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A map of two classes."""
        kept = []
        for number, level in enumerate(self.down):
            x = level(max_pool2d(x, 2) if number else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class Shuffle(nn.Module):
    """A unit of ShuffleNetV2: half of the channels pass by, then both halves are dealt out in turn."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        read = inputs if stride > 1 else half
        self.main = nn.Sequential(
            _conv(read, half, 1), _conv(half, half, 3, stride, half, act=False), _conv(half, half, 1)
        )
        side = _conv(inputs, inputs, 3, stride, inputs, act=False), _conv(inputs, half, 1)
        self.side = nn.Sequential(*side) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Shuffled."""
        if self.side is None:
            first, second = x.chunk(2, 1)
            x = torch.cat([first, self.main(second)], 1)
        else:
            x = torch.cat([self.side(x), self.main(x)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleNet(nn.Module):
    """ShuffleNetV2."""

    def __init__(self, widths: list[int], repeats: list[int], last: int, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 24, 3, 2)]
        inputs = 24
        for width, count in zip(widths, repeats, strict=True):
            layers += [Shuffle(inputs, width, 2), *(Shuffle(width, width, 1) for _ in range(count - 1))]
            inputs = width
        self.features = nn.Sequential(*layers, _conv(inputs, last, 1))
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(x).mean((2, 3)))


class Attention(nn.Module):
    """Heads from one product for all three, or from three."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv = nn.Linear(width, 3 * width) if fused else nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As wide as the input."""
        n, s, w = x.shape
        if self.fused:
            q, k, v = self.qkv(x).reshape(n, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            assert isinstance(self.qkv, nn.ModuleList)
            q, k, v = (part(x).view(n, s, self.heads, w // self.heads).transpose(1, 2) for part in self.qkv)
        scores = q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5
        weights = (scores if mask is None else scores + mask).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, s, w))


class Encoder(nn.Module):
    """A layer with the normalization in front (ViT) or behind (BERT)."""

    def __init__(self, width: int, heads: int, inner: int, first: bool) -> None:
        super().__init__()
        self.attention, self.first = Attention(width, heads, first), first
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.inner = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As wide as the input."""
        one, two = self.norms
        if self.first:
            x = x + self.attention(one(x), mask)
            return x + self.inner(two(x))
        x = one(x + self.attention(x, mask))
        return two(x + self.inner(x))


class ViT(nn.Module):
    """Vision transformer."""

    def __init__(self, size: int, patch: int, width: int, heads: int, layers: int, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width))
        self.layers = nn.ModuleList(Encoder(width, heads, 4 * width, True) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x[:, 0]))


class Bert(nn.Module):
    """Encoder of text with a mask, and a pooler."""

    def __init__(self, words: int, width: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(64, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Encoder(width, heads, inner, False) for _ in range(layers))
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of two classes."""
        hidden = (1 - mask[:, None, None, :].float()) * -1e4
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(torch.tanh(self.pooler(x[:, 0])))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network to be built and exported.

    Attributes:
        build: the network; narrow or in its true size.
        inputs: example inputs by name; narrow or not.
    """

    build: Callable[[bool], nn.Module]
    inputs: Callable[[bool], dict[str, Tensor]]


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: object = nn.ReLU
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act()] if isinstance(act, type) else []))


def _preactivated(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    one, two = nn.Conv2d(inputs, inner, 1, bias=False), nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), one, nn.BatchNorm2d(inner), nn.ReLU(), two)


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, 3), _conv(outputs, outputs, 3))


def _image(full: int, narrow: int) -> Callable[[bool], dict[str, Tensor]]:
    return lambda small: {"image": torch.randn(2, 3, narrow if small else full, narrow if small else full)}


def _text(small: bool) -> dict[str, Tensor]:
    ids = torch.randint(0, 50, (2, 7 if small else 32))
    return {"ids": ids, "mask": torch.ones_like(ids)}


_V2 = [
    (1, 16, 1),
    (6, 24, 2),
    (6, 24, 1),
    (6, 32, 2),
    *[(6, 32, 1)] * 2,
    (6, 64, 2),
    *[(6, 64, 1)] * 3,
    *[(6, 96, 1)] * 3,
]
_V2 += [(6, 160, 2), *[(6, 160, 1)] * 2, (6, 320, 1)]
_NARROW = [(2, 12, 2), (3, 12, 1), (2, 20, 2)]

_LEVELS = {True: [6, 10, 14], False: [64, 128, 256, 512]}

ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(
        lambda s: ResNet([1, 2], [10, 14], False, classes=6) if s else ResNet([2] * 4, [64, 128, 256, 512], False),
        _image(224, 32),
    ),
    "resnet50": Architecture(
        lambda s: ResNet([1, 2], [5, 7], True, classes=6) if s else ResNet([3, 4, 6, 3], [64, 128, 256, 512], True),
        _image(224, 32),
    ),
    "resnext50": Architecture(
        lambda s: ResNet([1, 2], [6, 9], True, 3, 6) if s else ResNet([3, 4, 6, 3], [64, 128, 256, 512], True, 32),
        _image(224, 32),
    ),
    "mobilenetv2": Architecture(
        lambda s: MobileNet(_NARROW, 9, 22, False, 6) if s else MobileNet(_V2, 32, 1280, False, 1000), _image(224, 32)
    ),
    "mobilenetv3": Architecture(
        lambda s: MobileNet(_NARROW, 8, 22, True, 6) if s else MobileNet(_V2, 16, 960, True, 1000), _image(224, 32)
    ),
    "densenet": Architecture(
        lambda s: DenseNet([2, 3], 5, 8, 6) if s else DenseNet([6, 12, 24, 16], 32, 64), _image(224, 32)
    ),
    "unet": Architecture(lambda s: UNet([6, 10, 14] if s else [64, 128, 256, 512], False), _image(128, 16)),
    "unet, interpolated": Architecture(
        lambda s: UNet([6, 10, 14] if s else [64, 128, 256, 512], True), _image(128, 16)
    ),
    "shufflenet": Architecture(
        lambda s: ShuffleNet([20, 28], [2, 2], 18, 6) if s else ShuffleNet([116, 232, 464], [4, 8, 4], 1024),
        _image(224, 32),
    ),
    "vit": Architecture(lambda s: ViT(16, 8, 30, 3, 2, 6) if s else ViT(224, 16, 192, 3, 12), _image(224, 16)),
    "bert": Architecture(lambda s: Bert(50, 20, 4, 33, 2) if s else Bert(30522, 768, 12, 3072, 12), _text),
}


def build(name: str, narrow: bool) -> nn.Module:
    """A network with random weights and statistics, ready for inference."""
    torch.manual_seed(0)
    network = ARCHITECTURES[name].build(narrow).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
    return network


def export(name: str, exporter: Exporter, path: Path, narrow: bool) -> dict[str, Tensor]:
    """Write a network; any batch will do. Returns the example inputs."""
    network, inputs = build(name, narrow), ARCHITECTURES[name].inputs(narrow)
    write(network, inputs, exporter, path)
    return inputs


def write(network: nn.Module, inputs: dict[str, Tensor], exporter: Exporter, path: Path) -> None:
    """As a file of ONNX that takes any batch; inputs by name are examples."""
    axes = {key: {0: "batch"} for key in inputs}
    if exporter == "torchscript":
        settings: dict[str, object] = {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
    else:
        shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
        settings = {"dynamo": True, "opset_version": 20, "dynamic_shapes": shapes, "verbose": False}
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(  # type: ignore[call-overload]
            network, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=["out"], **settings
        )

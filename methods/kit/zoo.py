"""Small networks as other people write them, each with a habit that a method may stumble over; of torch's own layers alone.

They are what every method is tried on (`smallprint networks`): a method works on a network, or refuses it by a layer's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets

CLASSES = 10


class Animal(NamedTuple):
    """A network of the zoo. `image` is (C, H, W); `outputs` finds the logits in what it answers."""

    habit: str
    build: Callable[[], nn.Module]
    image: tuple[int, int, int] = (3, 32, 32)
    outputs: Callable[[Any], Tensor] | None = None
    dtype: torch.dtype = torch.float32


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1, self.a1 = nn.Conv2d(3, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU()
        self.c2, self.b2, self.a2 = nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU()
        self.p1, self.p2 = nn.MaxPool2d(2), nn.MaxPool2d(4)
        self.f1, self.a3, self.f2 = nn.Linear(32 * 4 * 4, 48), nn.ReLU(), nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.p1(self.a1(self.b1(self.c1(x))))
        x = self.p2(self.a2(self.b2(self.c2(x))))
        return self.f2(self.a3(self.f1(x.view(x.size(0), -1))))


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, last in ((3, 16, True), (16, 32, False), (32, 32, True), (32, 32, True)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if last else []
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(128, 64), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class Block(nn.Module):
    """A residual block whose one ReLU runs twice, in place; `inner` is the width between, `groups` those of its 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, inner: int = 0, groups: int = 1) -> None:
        super().__init__()
        wide = inner or outputs
        self.conv1 = nn.Conv2d(inputs, wide, 1, bias=False) if inner else nn.Conv2d(inputs, wide, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(wide), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(wide, wide, 3, stride if inner else 1, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)) if inner else None
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.conv3 is not None:
            y = self.conv3(self.relu(y))
        y += shortcut
        return self.relu(y)


def stem(width: int = 16, colours: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(colours, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def resnet() -> nn.Module:
    return nn.Sequential(stem(), Block(16, 16), Block(16, 32, 2), head(32))


def resnext() -> nn.Module:
    return nn.Sequential(stem(), Block(16, 32, 2, inner=16, groups=4), Block(32, 32, 1, inner=16, groups=4), head(32))


def depthwise() -> nn.Module:
    """A few plain convolutions, then depthwise ones."""
    layers: list[nn.Module] = [stem(), nets.conv_bn(16, 32, stride=2), nets.conv_bn(32, 32), nets.conv_bn(32, 32)]
    for stride in (1, 2):
        layers += [nets.conv_bn(32, 32, stride=stride, groups=32), nets.conv_bn(32, 32, kernel=1)]
    return nn.Sequential(*layers, head(32))


class PreActivated(nn.Module):
    """Norm and activation stand before the convolution that they serve."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


def preactivated() -> nn.Module:
    first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    return nn.Sequential(first, PreActivated(16), PreActivated(16), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), head(16))


class DenseBlock(nn.Module):
    """Every layer reads all that came before it, put side by side."""

    def __init__(self, inputs: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inputs + k * growth), nn.ReLU(), nn.Conv2d(inputs + k * growth, growth, 3, padding=1, bias=False))
            for k in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> nn.Module:
    transition = nn.Sequential(nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 24, 1, bias=False), nn.AvgPool2d(2))
    return nn.Sequential(stem(), DenseBlock(16, 8, 3), transition, DenseBlock(24, 8, 2), nn.BatchNorm2d(40), nn.ReLU(), head(40))


class Inverted(nn.Module):
    """MobileNetV2's block: wide between, narrow and linear at its ends."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int = 4) -> None:
        super().__init__()
        wide = factor * inputs
        self.same = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


def inverted() -> nn.Module:
    return nn.Sequential(stem(), Inverted(16, 16, 1), Inverted(16, 24, 2), nn.Dropout(0.2), head(24))


class Squeezed(nn.Module):
    """Channels that are weighed by what all of them say (squeeze and excitation), with hard activations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.Hardswish()
        self.down, self.up, self.gate = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(self.conv(x)))
        return x + y * self.gate(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))


def squeezed() -> nn.Module:
    return nn.Sequential(stem(), Squeezed(16), nn.MaxPool2d(2), Squeezed(16), head(16))


class Shuffled(nn.Module):
    """Half of the channels passes by, and both halves are shuffled together (ShuffleNetV2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        stay, go = x.chunk(2, 1)
        y = torch.cat((stay, self.branch(go)), 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffled() -> nn.Module:
    return nn.Sequential(stem(), Shuffled(16), nn.MaxPool2d(2), Shuffled(16), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), head(32))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    """ConvNeXt's block: a wide depthwise kernel, dense layers over the channels, a scale of its own for each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(self.act(self.up(y)))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(3, 16, 4, 4), ChannelNorm(16))
    between = nn.Sequential(ChannelNorm(16), nn.Conv2d(16, 24, 2, 2))
    return nn.Sequential(first, NextBlock(16), between, NextBlock(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES))


class Attention(nn.Module):
    """Attention over tokens (N, T, F), its products by torch's fused function."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, f = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, f // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, f))


class ViT(nn.Module):
    """A class token, a table of positions, and blocks of attention and dense layers; `torch_own` takes torch's own encoder."""

    def __init__(self, width: int = 32, *, torch_own: bool = False) -> None:
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, width, 8, 8), nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks: nn.Module
        if torch_own:
            layer = nn.TransformerEncoderLayer(width, 4, 2 * width, activation="gelu", batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        else:
            self.blocks = nn.Sequential(*(ViTBlock(width) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class ViTBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, 4), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Mixer(nn.Module):
    """Dense layers over the tokens, then over the features; batch norm over tokens in between."""

    def __init__(self, width: int = 32, tokens: int = 16) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, width, 8, 8), nn.BatchNorm1d(tokens)
        self.tokens, self.features, self.head = nn.Linear(tokens, tokens), nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patch(x).flatten(2).transpose(1, 2))
        x = x + F.gelu(self.tokens(x.transpose(1, 2))).transpose(1, 2)
        return self.head((x + F.gelu(self.features(x))).mean(1))


class Inception(nn.Module):
    """Branches side by side, and a head of its own that only training reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.b1, self.b3, self.b5 = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 5, padding=2)
        self.bn, self.last, self.fc = nn.BatchNorm2d(32), nn.Conv2d(32, 32, 3, padding=1), head(32)
        self.auxiliary = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, CLASSES))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = F.relu(self.bn(torch.cat([self.b1(x), self.b3(x), self.b5(x)], 1)))
        y = self.fc(F.relu(self.last(F.max_pool2d(x, 2))))
        return (y, self.auxiliary(x)) if self.training else y


class UNet(nn.Module):
    """Down and up again with a transposed convolution, joined to what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = stem(), nn.Sequential(nn.MaxPool2d(2), *stem(32, 16))
        self.up, self.last, self.fc = nn.ConvTranspose2d(32, 16, 2, 2), nn.Sequential(*stem(16, 32)), head(16)

    def forward(self, x: Tensor) -> Tensor:
        before = self.down1(x)
        return self.fc(self.last(torch.cat([before, self.up(self.down2(before))], 1)))


class Gated(nn.Module):
    """One half of a map opens and shuts the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.bn = stem(), nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.last, self.fc = nn.Conv2d(16, 16, 3, padding=1), head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.last(F.glu(self.bn(self.conv(self.stem(x))), 1))))


def group_normed() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"), nn.GroupNorm(4, outputs), nn.PReLU(outputs)]
    return nn.Sequential(*layers, nn.AvgPool2d(2), head(32))


class Named(nn.Module):
    """What comes out is a dictionary, as in most model libraries; a scale of its own is a buffer that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(stem(), Block(16, 24, 2)), nn.Linear(24, CLASSES)
        self.register_buffer("scale", torch.full((24, 1, 1), 2.0), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = (self.body(x) * self.get_buffer("scale")).mean((2, 3))
        return {"features": features, "logits": self.head(features)}


def one_colour() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 24), (24, 24), (24, 24)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs, affine=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), head(24))


def convolutions() -> nn.Module:
    """Convolutions alone, and no norm: the last one has a channel a class."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 16, 1), (16, 24, 2), (24, 32, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Conv2d(32, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Raw(nn.Module):
    """A kernel that belongs to no layer, and one layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.bn = stem(), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(32)
        self.kernel, self.last, self.fc = nn.Parameter(0.1 * torch.randn(32, 16, 3, 3)), nn.Conv2d(32, 24, 3, padding=1), head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.twice(self.stem(x)))))
        x = F.relu(self.bn(F.conv2d(x, self.kernel, padding=1)))
        return self.fc(F.relu(self.last(F.max_pool2d(x, 2))))


class Tied(nn.Module):
    """Two layers that share one kernel, and a third that is registered first and runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.stem = nn.Conv2d(24, 24, 3, padding=1), stem(24)
        self.a, self.b = (nn.Conv2d(24, 24, 3, padding=1, bias=False) for _ in range(2))
        self.b.weight = self.a.weight
        self.na, self.nb, self.fc = nn.BatchNorm2d(24), nn.BatchNorm2d(24), head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.nb(self.b(F.relu(self.na(self.a(self.stem(x)))))))
        return self.fc(F.relu(self.late(F.max_pool2d(x, 2))))


class Dense(nn.Linear):
    """A layer of a library's own that computes what torch's does."""


class Convolution(nn.Conv2d):
    """The same of a convolution."""


def subclassed() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
        layers += [Convolution(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), Dense(128, 32), nn.SiLU(), Dense(32, CLASSES))


def first(answer: Any) -> Tensor:
    found: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return found


ZOO: dict[str, Animal] = {
    "lenet": Animal("flattens with view", LeNet),
    "vgg": Animal("dense layers behind a flattened map, dropout", VGG),
    "resnet": Animal("shortcuts, one ReLU for two places, sums in place", resnet),
    "depthwise": Animal("depthwise convolutions", depthwise),
    "resnext": Animal("bottlenecks, grouped convolutions", resnext),
    "preactivated": Animal("norm and ReLU before the convolution; activations that are no modules", preactivated),
    "densenet": Animal("everything is read by all that follows", densenet),
    "inverted": Animal("inverted bottlenecks, ReLU6", inverted),
    "squeezed": Animal("squeeze and excitation, hard activations", squeezed),
    "shuffled": Animal("halves that pass by, shuffled channels", shuffled),
    "convnext": Animal("LayerNorm, dense layers over channels, layer scale", convnext),
    "vit": Animal("class token, fused attention", ViT),
    "encoder": Animal("torch's own transformer encoder", lambda: ViT(torch_own=True)),
    "mixer": Animal("dense layers over tokens, batch norm over tokens", Mixer),
    "inception": Animal("branches, a second head that only training reads", Inception, outputs=first),
    "unet": Animal("a transposed convolution, joined maps", UNet),
    "gated": Animal("one half of a map gates the other", Gated),
    "group_normed": Animal("GroupNorm, PReLU, reflecting borders", group_normed),
    "named": Animal("answers with a dictionary, a buffer that is not saved", Named, outputs=lambda y: y["logits"]),
    "one_colour": Animal("one colour, 28x28, batch norm without scale", one_colour, (1, 28, 28)),
    "convolutions": Animal("convolutions alone, no norm", convolutions),
    "raw": Animal("a kernel of no layer, a layer that runs twice", Raw),
    "tied": Animal("one kernel for two layers, registered out of order", Tied),
    "subclassed": Animal("layers of a subclass, SiLU", subclassed),
    "doubles": Animal("numbers of double width", lambda: resnet().double(), dtype=torch.float64),
}  # fmt: skip

"""MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., CVPR 2018).

A residual block turned inside out: shortcuts join narrow layers that have no non-linearity, and inside the block the
width is expanded, filtered channel by channel and projected back.

Departures: the CIFAR-sized network has four rows of Table 2's kind on 32x32 images instead of seven on 224x224, a stem of
16 and a last layer of 256 channels instead of 32 and 1280, and no dropout. It is trained with the kit's SGD (weight decay
5e-4, one cosine) instead of RMSProp. The ImageNet networks are built to be counted, not trained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from methods.kit import nets
from methods.kit.measure import multiply_adds
from methods.kit.nets import conv_bn, head, on_meta
from methods.kit.task import Task, classes_of, on_copies
from methods.kit.train import fit

Rows = Sequence[tuple[int, int, int, int]]  # expansion t, channels c, repeats n, first stride s
IMAGENET: Rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # Table 2
CIFAR: Rows = ((1, 16, 1, 1), (6, 24, 1, 2), (6, 32, 2, 1), (6, 64, 2, 2))


@dataclass(frozen=True)
class Config:
    width: float = 1.0  # multiplier of every layer's channels, below 1 of all but the last convolution's, §4
    lr: float = 0.1  # from random weights


def rounded(channels: float) -> int:
    """To a multiple of 8, never below 90% of what was asked for (the authors' code)."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class InvertedResidual(nn.Module):
    """Expand t times with 1x1, filter each channel with 3x3, project with 1x1 and no non-linearity (Table 1, Figure 3b)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, bottleneck: type[nn.Module] | None = None) -> None:
        super().__init__()
        wide = expansion * inputs
        self.expand = nn.Identity() if expansion == 1 else conv_bn(inputs, wide, 1, act=nn.ReLU6)
        self.filter = conv_bn(wide, wide, 3, stride, groups=wide, act=nn.ReLU6)
        self.project = conv_bn(wide, outputs, 1, act=bottleneck)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.shortcut else y


def mobilenet_v2(
    rows: Rows, width: float, classes: int, colours: int = 3, stem: int = 32, last: int = 1280, bottleneck: type[nn.Module] | None = None
) -> nn.Sequential:
    """Stem with stride 2, inverted residuals by rows, a last 1x1 convolution that the width never thins, classifier."""
    inputs, final = rounded(stem * width), rounded(last * max(1.0, width))
    layers: list[tuple[str, nn.Module]] = [("stem", conv_bn(colours, inputs, 3, 2, act=nn.ReLU6))]
    for row, (expansion, channels, repeats, first) in enumerate(rows, 1):
        for repeat in range(repeats):
            outputs = rounded(channels * width)
            stride = first if repeat == 0 else 1
            layers.append((f"row{row}_{repeat}", InvertedResidual(inputs, outputs, stride, expansion, bottleneck)))
            inputs = outputs
    layers.append(("last", conv_bn(inputs, final, 1, act=nn.ReLU6)))
    return nn.Sequential(OrderedDict(layers + head(final, classes)))


def build(variant: str) -> nn.Module:
    """The paper's ImageNet network at a width multiplier such as "1.4"."""
    return mobilenet_v2(IMAGENET, float(variant), classes=1000)


def small(config: Config, classes: int, colours: int, bottleneck: type[nn.Module] | None = None) -> nn.Module:
    return mobilenet_v2(CIFAR, config.width, classes, colours, stem=16, last=256, bottleneck=bottleneck)


def trained(build: Callable[..., nn.Module], model: nn.Module, task: Task, config: Config) -> nn.Module:
    """What is built for the classes of the network that it replaces and the task's images, trained from scratch."""
    image = task.train.first(1).images
    return fit(build(classes=classes_of(model, task), colours=image.shape[1]).to(image), task, lr=config.lr)


def reference(task: Task) -> nn.Module:
    """The ordinary network that it replaces."""
    return nets.trained("resnet20", task.name)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """The compact network in place of `model`, trained from scratch."""
    return trained(partial(small, config), model, task, config)


@on_copies
def control_nonlinear_bottleneck(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same network with a ReLU6 behind every projection (Figure 6a)."""
    return trained(partial(small, config, bottleneck=nn.ReLU6), model, task, config)


def plain(width: int, classes: int, colours: int) -> nn.Sequential:
    """Ordinary 3x3 convolutions with the same strides and the same number of spatial filters, and no shortcuts."""
    layers: list[nn.Module] = [conv_bn(colours, width, stride=2)]
    for channels, stride in ((1, 1), (1, 2), (2, 1), (2, 1), (4, 2), (4, 1)):
        layers.append(conv_bn(layers[-1].conv.out_channels, channels * width, stride=stride))
    return nn.Sequential(*layers, nn.Sequential(OrderedDict(head(4 * width, classes))))


@on_copies
def control_plain(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Ordinary convolutions at the width whose multiply-adds come closest."""
    image = task.train.first(1).images.float().to("meta")
    shape = {"classes": classes_of(model, task), "colours": image.shape[1]}
    goal = multiply_adds(on_meta(lambda: small(config, **shape)), image)
    width = min(range(4, 64), key=lambda w: abs(multiply_adds(on_meta(lambda: plain(w, **shape)), image) - goal))
    return trained(partial(plain, width), model, task, config)

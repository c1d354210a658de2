"""The networks that methods start from, and the reference weights that are committed for some of them.

Every convolution is followed by batch norm and has no bias, every non-linearity is a module, so that a method can
find the layers it works on. Sources: CIFAR ResNets from He et al., CVPR 2016, §4.2; VGG from Simonyan and
Zisserman, ICLR 2015, in the CIFAR form of Liu et al., ICCV 2017 (batch norm, one linear layer); depthwise-separable
nets from Howard et al., arXiv 1704.04861, Table 1.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("weights")


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch norm and (unless `act` is None) non-linearity; keeps the map's size at stride 1."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        bn=nn.BatchNorm2d(outputs),
    )
    if act is not None:
        layers["act"] = act()
    return nn.Sequential(layers)


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes (He et al., option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and inputs == outputs
        self.first = conv_bn(inputs, outputs, stride=stride)
        self.second = conv_bn(outputs, outputs, act=None)
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, act=None)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.first(x)) + self.shortcut(x))


def head(channels: int, classes: int) -> list[tuple[str, nn.Module]]:
    """Global average pooling and the linear classifier."""
    return [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(channels, classes))]


def resnet(depth: int, classes: int = 10, width: int = 16, colours: int = 3) -> nn.Sequential:
    """CIFAR ResNet of 6n + 2 layers: three stages of n blocks with `width`, 2 `width` and 4 `width` channels."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"resnet: depth must be 6n + 2 with n >= 1, got {depth}")
    layers: list[tuple[str, nn.Module]] = [("stem", conv_bn(colours, width))]
    inputs = width
    for stage, outputs in enumerate((width, 2 * width, 4 * width), 1):
        for block in range(blocks):
            layers.append((f"stage{stage}_{block}", Residual(inputs, outputs, 2 if stage > 1 and block == 0 else 1)))
            inputs = outputs
    return nn.Sequential(OrderedDict(layers + head(inputs, classes)))


Plan = Sequence[int | str]
VGG_WIDE: Plan = [32, "pool", 128, "pool", 128, 128, "pool", 128, 128]
VGG16: Plan = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512]
VGG19: Plan = [64, 64, "pool", 128, 128, "pool", *[256] * 4, "pool", *[512] * 4, "pool", *[512] * 4]


def vgg(plan: Plan, classes: int = 10, colours: int = 3) -> nn.Sequential:
    """VGG with batch norm: a number is a 3x3 convolution with so many channels, "pool" halves the map."""
    layers: list[tuple[str, nn.Module]] = []
    inputs = colours
    for place, step in enumerate(plan, 1):
        if isinstance(step, str):
            layers.append((f"{step}{place}", nn.MaxPool2d(2)))
        else:
            layers.append((f"conv{place}", conv_bn(inputs, step)))
            inputs = step
    return nn.Sequential(OrderedDict(layers + head(inputs, classes)))


SMALL_PLAN = [(64, 2), (128, 1), (128, 2), (256, 1), (256, 1)]
MOBILENET_PLAN = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), *[(512, 2)], *[(512, 1)] * 5, (1024, 2), (1024, 1)]


def separable(plan: Sequence[tuple[int, int]], classes: int = 10, stem_stride: int = 1) -> nn.Sequential:
    """Depthwise-separable net: each (channels, stride) is a 3x3 depthwise and a 1x1 convolution, both with batch norm.

    `separable(MOBILENET_PLAN, 1000, 2)` is MobileNet 1.0 for 224x224 images.
    """
    layers: list[tuple[str, nn.Module]] = [("stem", conv_bn(3, 32, stride=stem_stride))]
    inputs = 32
    for place, (outputs, stride) in enumerate(plan, 1):
        layers.append((f"depthwise{place}", conv_bn(inputs, inputs, stride=stride, groups=inputs)))
        layers.append((f"pointwise{place}", conv_bn(inputs, outputs, kernel=1)))
        inputs = outputs
    return nn.Sequential(OrderedDict(layers + head(inputs, classes)))


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": lambda: resnet(8),
    "resnet20": lambda: resnet(20),
    "resnet56": lambda: resnet(56),
    "vgg_wide": lambda: vgg(VGG_WIDE),
    "vgg16": lambda: vgg(VGG16),
    "vgg19": lambda: vgg(VGG19),
    "depthwise": lambda: separable(SMALL_PLAN),
}


class WeightsError(ValueError):
    """A committed weight file is missing, damaged or of another network; the message says which file and the cure."""


def family(data: str) -> str:
    """Which set of reference weights serves the data: every copy of CIFAR-10 shares the set "cifar10"."""
    return data.split("-")[0]


def trained(name: str, data: str) -> nn.Module:
    """The network `name` with its committed reference weights for `data` ("standin", "cifar10-jpeg75", ...).

    Raises `WeightsError` when there are none or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = WEIGHTS / f"{name}-{family(data)}.safetensors"
    cure = "restore it with `git checkout` or train it again with `python -m scripts.running.train`"
    if not path.exists():
        raise WeightsError(f"{path}: there are no reference weights of {name} for {data}; {cure}")
    model = NETS[name]()
    try:
        model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()})
    except (SafetensorError, RuntimeError, OSError) as problem:
        reason = str(problem).splitlines()[0]
        raise WeightsError(f"{path}: not the weights of {name} ({reason}); {cure}") from problem
    return model.eval()


def recipe(name: str, data: str) -> dict[str, object]:
    """What is recorded beside the weights: accuracy, data and its digest, and the training recipe."""
    return dict(json.loads((WEIGHTS / "weights.json").read_text())[f"{name}-{family(data)}"])


def count(model: nn.Module) -> int:
    """Number of trainable numbers; works on the meta device."""
    return sum(p.numel() for p in model.parameters())


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network without memory, to count it."""
    with torch.device("meta"):
        return build()

"""Methods on what people bring: strides, a shortcut, a grouped convolution, linear layers; refusals name layer and reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods.architecture import mobilenet_v2
from methods.distillation import (
    conditional_adversarial_distillation,
    fitnets,
    hinton_distillation,
    quantized_distillation,
    semi_supervised_adaptive_distillation,
)
from methods.kit import nets
from methods.kit.surgery import widths
from methods.kit.task import Split, Task
from methods.pruning import network_slimming, pruning_filters
from tests.helpers import Mixed


@pytest.fixture
def task() -> Task:
    g = torch.Generator().manual_seed(0)
    part = Split(torch.randn(64, 3, 16, 16, generator=g), torch.arange(64) % 5)
    return Task("own", part, part, part, steps=4, batch=16, augmented=False)


def test_network_slimming_thins_what_is_free(task: Task) -> None:
    thin = network_slimming.compress(Mixed(), task, network_slimming.Config(cut=0.5))
    before, after = widths(Mixed()), widths(thin)
    assert sum(after.values()) == sum(before.values()) - 24  # half of the 48 channels of stem, block.first and wide
    assert all(after[name] == before[name] for name in ("block.second.conv", "block.shortcut.conv", "grouped.conv"))
    assert thin(task.test.images[:2]).shape == (2, 5)


def test_network_slimming_refuses_by_name(task: Task) -> None:
    bare = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5))
    with pytest.raises(ValueError, match="0: no batch norm behind it that scales"):
        network_slimming.compress(bare, task, network_slimming.Config())


def test_filter_pruning_thins_what_can_be_spared(task: Task) -> None:
    thin = pruning_filters.compress(Mixed(), task, pruning_filters.Config(sensitive=1.0))
    before, after = widths(Mixed()), widths(thin)
    assert {name for name in before if after[name] < before[name]} == {"stem.conv", "block.first.conv", "wide.conv"}
    assert pruning_filters.control_random(Mixed(), task, pruning_filters.Config(), thin)(task.test.images[:2]).shape == (2, 5)


def test_filter_pruning_refuses_by_name(task: Task) -> None:
    with pytest.raises(ValueError, match=r"grouped.conv: a grouped convolution.*stem.conv: too sensitive, or too narrow, to lose 25%"):
        pruning_filters.compress(Mixed(), task, pruning_filters.Config(sensitive=-1.0))


def test_any_student_learns_from_any_teacher(task: Task) -> None:
    learner = hinton_distillation.distil(Mixed(), Mixed(), task, hinton_distillation.Config())
    assert learner(task.test.images[:2]).shape == (2, 5)


def test_mobilenet_takes_the_network_s_classes_and_the_task_s_colours(task: Task) -> None:
    grey, model = Split(task.train.images[:, :1], task.train.labels), Mixed()
    model.fc2 = nn.Linear(12, 7)  # two classes more than there are labels
    for own in (task, replace(task, train=grey, validation=grey, test=grey)):
        model.stem = nets.conv_bn(own.train.images.shape[1], 8)
        small = mobilenet_v2.compress(model, own, mobilenet_v2.Config(width=0.5))
        assert small(own.test.images[:2]).shape == (2, 7)


class Tokens(nn.Module):
    """A small vision transformer, whose non-linearity is a module or none."""

    def __init__(self, activation: nn.Module | str) -> None:
        super().__init__()
        self.patch, self.place = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 16, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, activation, batch_first=True)  # type: ignore[arg-type]
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(self.block(self.patch(x).flatten(2).transpose(1, 2) + self.place).mean(1))
        return answer


@pytest.mark.parametrize(
    ("activation", "said"),
    [("relu", "Tokens: no maps behind a non-linearity module"), (nn.GELU(), "block.activation: answers without maps")],
)
def test_transformers_teach_but_give_no_hints(activation: nn.Module | str, said: str, task: Task) -> None:
    teacher = Tokens(activation)
    quick = replace(task, steps=1)
    for method, config in (
        (hinton_distillation, hinton_distillation.Config()), (quantized_distillation, quantized_distillation.Config()),
        (conditional_adversarial_distillation, conditional_adversarial_distillation.Config()), (mobilenet_v2, mobilenet_v2.Config()),
    ):  # fmt: skip
        assert method.compress(teacher, quick, config)(task.test.images[:2]).shape == (2, 5)
    with pytest.raises(ValueError, match=said):
        fitnets.compress(teacher, quick, fitnets.Config())


def test_a_network_that_cannot_run_on_the_images_is_told_so(task: Task) -> None:
    with pytest.raises(ValueError, match=r"Tokens: does not run on images \(1, 3, 32, 32\) \(The size of tensor a"):
        semi_supervised_adaptive_distillation.compress(
            Tokens("relu"), semi_supervised_adaptive_distillation.prepare(task), semi_supervised_adaptive_distillation.Config()
        )


def test_a_classifier_is_no_teacher_of_detectors(task: Task) -> None:
    method = semi_supervised_adaptive_distillation
    few = nn.Sequential(nets.conv_bn(3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="teacher: answers 3 numbers a place"):
        method.compress(few, method.prepare(task), method.Config())

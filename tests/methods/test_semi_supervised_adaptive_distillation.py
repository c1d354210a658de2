"""Adaptive distillation on detectors and images of one's own: what is refused, what comes back, what the controls get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from methods.distillation.semi_supervised_adaptive_distillation import (
    Config,
    compress,
    control_alone,
    control_plain,
    labelled,
    prepare,
)
from methods.kit import nets
from methods.kit.detection import average_precision
from methods.kit.task import Split, Task
from tests.helpers import Mixed, noise


class Own(nn.Module):
    """A detector with a stride, a shortcut, a grouped convolution and a linear layer applied at every place."""

    def __init__(self, stride: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.stem = nets.conv_bn(3, 8, stride=stride)
        self.block = nets.Residual(8, 16, stride=2)
        self.grouped = nets.conv_bn(16, 16, groups=4)
        self.fc = nn.Linear(16, classes + 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.grouped(self.block(self.stem(x))).movedim(1, 3)).movedim(3, 1)


@pytest.fixture
def task() -> Task:
    return prepare(noise(steps=3))


def test_a_detector_of_ones_own_teaches(task: Task) -> None:
    small = compress(Own(), task, Config())
    assert small(task.test.images[:2]).shape == (2, 9, 6, 6)
    assert not small.training
    assert 0 <= average_precision(small, task.test) <= 1


def test_exports(task: Task) -> None:
    small, images = compress(Own(), task, Config()), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (Mixed(), r"fc2: answers \(1, 5\), but a teacher must answer \(1, 5, 6, 6\)"),
        (Own(stride=1), r"fc: answers \(1, 9, 12, 12\), but a teacher must answer \(1, 9, 6, 6\)"),
    ],
)
def test_refuses_a_teacher_that_answers_otherwise(teacher: nn.Module, said: str, task: Task) -> None:
    with pytest.raises(ValueError, match=said):
        compress(teacher, task, Config())


def test_refuses_a_task_without_objects(task: Task) -> None:
    plain = replace(task, train=Split(task.train.images, torch.arange(len(task.train))))
    with pytest.raises(ValueError, match="train: no label says what is where"):
        compress(Own(), plain, Config())


def test_the_controls_get_the_same_start_and_steps(task: Task) -> None:
    asked = list[int]()

    class Counted(Task):
        def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in super().batches(share):
                asked.append(len(x))
                yield x, y

    counted = Counted(**{field.name: getattr(task, field.name) for field in fields(task)})
    teacher, still, networks = Own(), Config(lr=0.0), []
    for build in (lambda *given: compress(*given[:3]), control_alone, control_plain):
        torch.manual_seed(0)
        networks.append(build(teacher, counted, still, teacher))
    assert asked == 9 * [1]
    for other in networks[1:]:
        assert all(torch.equal(a, b) for a, b in zip(networks[0].parameters(), other.parameters(), strict=True))


def test_a_student_learns_nothing_from_labels_that_it_may_not_see(task: Task) -> None:
    assert len(labelled(task).train) == len(task.train) // 2
    assert bool((task.train.labels[len(task.train) // 2 :] == -1).all())

"""Adversarial distillation with networks of one's own: who may play, what each gets, what is left in the end."""

from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.distillation.conditional_adversarial_distillation import (
    Config,
    compress,
    control_alone,
    control_hinton,
    discriminator,
    distil,
    play,
    student,
)
from methods.kit import nets
from methods.kit.task import Split, Task
from methods.kit.train import fit
from tests.helpers import Mixed, noise


@pytest.fixture
def task() -> Task:
    return noise(steps=3)


def with_dropout(network: Mixed, share: float = 0.3) -> Mixed:
    network.block.first.append(nn.Dropout(share))
    return network


def test_a_student_of_ones_own_learns_from_any_teacher(task: Task) -> None:
    torch.manual_seed(0)
    learner = with_dropout(Mixed())
    before = [p.detach().clone() for p in learner.parameters()]
    taught = distil(learner, nets.resnet(8, 5), task, Config())
    assert taught is learner
    assert not any(layer.training for layer in taught.modules())
    assert not any(torch.equal(p, q) for p, q in zip(taught.parameters(), before, strict=True))


def test_a_teacher_of_ones_own_is_only_asked(task: Task) -> None:
    torch.manual_seed(0)
    teacher = Mixed()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    small = compress(teacher, task, Config())
    assert small(task.test.images[:2]).shape == (2, 5)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_what_comes_back_is_a_plain_network(task: Task) -> None:
    torch.manual_seed(0)
    small, images = compress(Mixed(), task, Config()), task.test.images[:2]
    assert nets.count(small) == nets.count(nets.resnet(8, 5))
    assert torch.equal(small(images), small(images))
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_both_players_move_and_the_discriminator_keeps_training(task: Task) -> None:
    torch.manual_seed(0)
    judge, modes = discriminator(5, Config()), list[bool]()
    before = [p.detach().clone() for p in judge.parameters()]
    judge.register_forward_hook(lambda layer, inputs, output: modes.append(layer.training and inputs[0].dtype == torch.float32))
    play(student(task, Config(), 5), Mixed(), judge, task, Config())
    assert modes == [True] * 4 * task.steps  # teacher's and student's logits, in either turn
    assert not any(torch.equal(p, q) for p, q in zip(judge.parameters(), before, strict=True))


def test_controls_get_the_same_start_and_the_same_batches(task: Task) -> None:
    seen: list[list[float]] = []

    class Counted(Task):
        def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
            seen.append([])
            for x, y in super().batches(share):
                seen[-1].append(float(x.sum()))
                yield x, y

    counted = Counted(**{field.name: getattr(task, field.name) for field in fields(task)})
    teacher, still = Mixed(), Config(lr=0.0, judge_lr=0.0)
    networks = []
    for build in (
        lambda: compress(teacher, counted, still),
        *(lambda c=c: c(teacher, counted, still, teacher) for c in (control_hinton, control_alone)),
    ):
        torch.manual_seed(0)
        networks.append(build())
    assert len(seen[0]) == task.steps
    assert seen[0] == seen[1] == seen[2]
    for network in networks[1:]:
        assert all(torch.equal(p, q) for p, q in zip(network.parameters(), networks[0].parameters(), strict=True))


def test_the_control_has_a_fixed_distance(task: Task) -> None:
    teacher = Mixed().eval()

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        z = network(x).float()
        p, q = (teacher(x).float() / 5).log_softmax(1), (z / 5).log_softmax(1)
        return F.cross_entropy(z, y) / 2 + 25 * (p.exp() * (p - q)).sum(1).mean()  # Eq. 4 at T = 5

    networks = []
    for build in (lambda: control_hinton(teacher, task, Config(), teacher), lambda: fit(student(task, Config(), 5), task, loss, lr=0.1)):
        torch.manual_seed(0)
        networks.append(build())
    for p, q in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.allclose(p, q, atol=1e-3)


def test_a_student_may_start_from_labels(task: Task) -> None:
    wide = Task("standin", task.train, task.validation, task.test, steps=1)
    learned = nets.trained("resnet8", "standin")
    assert torch.equal(student(wide, Config(student="labels"), 10).fc.weight, learned.fc.weight)


@pytest.mark.parametrize(
    ("learner", "labels", "word"),
    [
        (Mixed(), 5, "student: no dropout in any layer up to fc2"),
        (with_dropout(Mixed(), 0.0), 5, "student: no dropout in any layer up to fc2"),
        (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(432, 4)), 4, "student: 2 tells 4 classes apart, the teacher 5"),
        (with_dropout(Mixed()), 7, "teacher: tells 5 classes apart, but there are labels up to 6"),
    ],
)
def test_refuses_by_name(learner: nn.Module, labels: int, word: str, task: Task) -> None:
    own = replace(task, train=Split(task.train.images, torch.arange(len(task.train)) % labels))
    with pytest.raises(ValueError, match=word):
        distil(learner, Mixed(), own, Config())

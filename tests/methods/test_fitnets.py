"""FitNets with teachers and students of one's own: which layers pair up, what is refused and why, what the controls get."""

from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.distillation import fitnets
from methods.distillation.fitnets import Config, compress, distil, follow_hints, frozen, layers, middle
from methods.kit import nets
from methods.kit.task import Split, Task
from tests.helpers import Mixed, noise


@pytest.fixture
def task() -> Task:
    return noise(steps=4)


@pytest.fixture
def teacher() -> Mixed:
    torch.manual_seed(0)
    return Mixed()


def test_teaches_from_a_residual_network_with_strides_groups_and_dense_layers(teacher: Mixed, task: Task) -> None:
    image = task.train.images[:1]
    assert middle(teacher, image)[0] == "block"  # behind its shortcut
    small = compress(teacher, task, Config())
    assert small(task.test.images[:2]).shape == (2, 5)
    assert not small.training
    assert nets.count(small) == nets.count(fitnets.student(5))


def test_any_student_follows_any_teacher(teacher: Mixed, task: Task) -> None:
    learner = Mixed()
    regressor = follow_hints(learner, frozen(teacher, task), task, Config(hint="grouped", guided="stem"))
    assert [tuple(p.shape) for p in regressor.parameters()] == [(16, 8, 7, 7), (16,)]  # 12 - 7 + 1 = 6
    taught = distil(learner, teacher, task, Config(hint="wide", guided="block"))
    assert taught is learner
    assert taught(task.test.images[:2]).shape == (2, 5)


def test_learns_at_every_step(teacher: Mixed, task: Task) -> None:
    assert all(p.isfinite().all() for p in compress(teacher, task.with_steps(1), Config()).parameters())


def test_pooling_belongs_to_the_layer_before() -> None:
    found, depth = layers(nets.vgg([4, "pool", 6, "pool", 8]).eval(), torch.zeros(1, 3, 16, 16))
    assert depth == 4
    assert {name: tuple(layer.shape) for name, layer in found.items() if "." not in name} == {
        "conv1": (4, 16, 16), "pool2": (4, 8, 8), "conv3": (6, 8, 8), "pool4": (6, 4, 4), "conv5": (8, 4, 4), "pool": (8, 1, 1),
    }  # fmt: skip


def test_exports(teacher: Mixed, task: Task) -> None:
    small, images = compress(teacher, task, Config()), task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)


def test_controls_get_the_same_steps_and_start(teacher: Mixed, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, starts = [], []

    class Counted(Task):
        def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().batches(share):
                steps.append(share)
                yield batch

    def student(classes: int, colours: int) -> nn.Module:
        starts.append(nets.vgg(fitnets.THIN, classes, colours))
        starts[-1].begin = [p.detach().clone() for p in starts[-1].parameters()]
        return starts[-1]

    monkeypatch.setattr(fitnets, "student", student)
    counted = Counted(**{field.name: getattr(task, field.name) for field in fields(task)})
    for make in (
        compress,
        *(lambda m, t, c, make=make: make(m, t, c, m) for make in (fitnets.control_distillation, fitnets.control_alone)),
    ):
        torch.manual_seed(3)
        steps.clear()
        make(teacher, counted, Config())
        assert len(steps) == task.steps
    for start in starts[1:]:
        assert all(map(torch.equal, start.begin, starts[0].begin))


def test_the_control_learns_from_its_teacher(teacher: Mixed, task: Task) -> None:
    networks = []
    for build in (
        lambda: fitnets.control_distillation(teacher, task, Config(), teacher),
        lambda: fitnets.follow_outputs(fitnets.student(5), fitnets.frozen(teacher, task), task, Config()),
        lambda: fitnets.control_alone(teacher, task, Config(), teacher),
    ):
        torch.manual_seed(3)
        networks.append(list(build().parameters()))
    assert all(map(torch.equal, networks[0], networks[1]))
    assert not any(map(torch.equal, networks[0], networks[2]))


class Functional(nn.Module):
    """Non-linearities that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "config", "word"),
    [
        (Functional(), Config(), r"a hint layer, there is none \(Functional: no maps behind a non-linearity module"),
        (nn.Sequential(nn.Flatten(), nn.Linear(432, 9), nn.ReLU(), nn.Linear(9, 5)), Config(), "2: answers without maps"),
        (Mixed(), Config(hint="fc1"), "fc1: no maps behind a non-linearity module"),
        (Mixed(), Config(hint="stem.conv"), "stem.conv: no maps"),
        (Mixed(), Config(hint="nowhere"), "nowhere: no maps"),
        (Mixed(), Config(hint="block.first"), "block.first: a shortcut leads past it"),
        (Mixed(), Config(guided="nowhere"), "a guided layer, there is none .nowhere: no maps"),
        (Mixed(), Config(guided="pool8"), r"pool8: maps of \(3, 3\) are smaller than the hint's \(6, 6\)"),
    ],
)
def test_refuses_by_name(net: nn.Module, config: Config, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(net, task, config)


def test_refuses_a_student_of_smaller_maps(teacher: Mixed, task: Task) -> None:
    learner = nn.Sequential(nets.conv_bn(3, 4, stride=4), nn.Flatten(), nn.Linear(36, 5))
    with pytest.raises(ValueError, match=r"0: maps of \(3, 3\) are smaller"):
        distil(learner, teacher, task, Config())


def test_takes_images_of_other_colours_with_a_student_of_ones_own(task: Task) -> None:
    grey = Split(task.train.images[:, :1], task.train.labels)
    own = replace(task, train=grey, validation=grey, test=grey)
    nets_ = [nn.Sequential(nets.conv_bn(1, c), nets.conv_bn(c, c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5)) for c in (8, 3)]
    assert distil(nets_[1], nets_[0], own, Config())(grey.images[:2]).shape == (2, 5)

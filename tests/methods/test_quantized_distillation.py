"""Quantized distillation on networks of one's own: what comes back in few bits, what stays, what is refused."""

from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from methods.distillation.quantized_distillation import (
    ALGORITHMS,
    Config,
    LookUp,
    compress,
    control_afterwards,
    control_alone,
    distil,
    points_of,
    quantizable,
)
from methods.kit import nets
from methods.kit.measure import measure
from methods.kit.task import Task
from tests.helpers import Mixed, noise

FEW = Config(bits=2, bucket=32, lr=0.02)


class Counted(Task):
    """Counts the steps it is asked for."""

    taken: list[int] = []

    def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().batches(share):
            self.taken.append(1)
            yield batch


@pytest.fixture
def task() -> Task:
    return noise(steps=4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_teaches_a_residual_network(algorithm: str, task: Task) -> None:
    torch.manual_seed(0)
    learner, teacher = Mixed(), Mixed()
    small = distil(learner, teacher, task, replace(FEW, algorithm=algorithm))
    stored = {name for name, layer in small.named_modules() if isinstance(layer, LookUp)}
    assert stored == set(quantizable(Mixed()))
    assert {"grouped.conv", "block.shortcut.conv", "fc2"} <= stored
    assert not small.training
    images = task.test.images[:2]
    exported = torch.export.export(small, (images,)).module()
    assert torch.allclose(exported(images), small(images), atol=1e-5)
    stats = measure(small, task)
    whole = measure(learner, task)
    assert stats.bits < 7  # two bits, and for so small layers as much again for scales and points
    assert stats.file_bytes < 0.4 * whole.file_bytes
    assert stats.multiply_adds == whole.multiply_adds


@pytest.mark.parametrize("make", [control_alone, control_afterwards])
def test_controls_start_and_train_alike(make: object, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Tensor] = []

    def small(task: Task, config: Config, classes: int) -> nn.Module:
        starts.append(torch.rand(3))
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, classes))

    monkeypatch.setattr("methods.distillation.quantized_distillation.student", small)
    counted = Counted(**{field.name: getattr(task, field.name) for field in fields(task)})
    teacher = nets.resnet(8, 5)
    for build in (compress, make):
        Counted.taken.clear()
        torch.manual_seed(0)
        network = build(teacher, counted, FEW, teacher) if build is make else build(teacher, counted, FEW)  # type: ignore[operator]
        assert len(Counted.taken) == task.steps
        assert {type(layer) for layer in network.children()} == {LookUp, nn.Flatten}
    assert torch.equal(*starts)


def test_a_shared_layer_stays_shared(task: Task) -> None:
    shared = nn.Conv2d(8, 8, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), shared, nn.ReLU(), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    small = distil(net, nets.resnet(8, 5), task, FEW)
    assert small[1] is small[3]
    assert isinstance(small[1], LookUp)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_other_precisions_stay(kind: torch.dtype, algorithm: str) -> None:
    task = noise(steps=2)
    split = replace(task.train, images=task.train.images.to(kind))
    task = replace(task, train=split, test=split, validation=split)
    net, teacher = (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 5)).to(kind) for _ in range(2))
    assert distil(net, teacher, task, replace(FEW, algorithm=algorithm))(split.images[:1]).dtype == kind


def test_more_points_than_a_byte_tells_apart(task: Task) -> None:
    torch.manual_seed(0)
    net = Mixed()
    config = Config("points", bits=8, lr=0.02)
    counts = [len(p) for p in points_of(net, task, config).values()]
    assert max(counts) > 256
    small = distil(net, Mixed(), task, config)
    assert any(layer.weight.dtype == torch.int16 for layer in small.modules() if isinstance(layer, LookUp))


def test_refuses_a_network_without_layers(task: Task) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="Sequential: quantized distillation needs a Conv2d or Linear layer, there is none"):
        distil(net, nets.resnet(8, 5), task, FEW)

"""Integer layers in a network of one's own: what computes in bytes, what stays in floats and says so."""

import pytest
import torch
from torch import Tensor, nn

from methods.frameworks.gemmlowp import Config, Integer, compress, control_truncating, suited
from methods.kit.measure import measure
from methods.kit.nets import Residual
from methods.kit.task import Task


@pytest.fixture
def task() -> Task:
    chance = torch.Generator().manual_seed(0)

    def batches(count: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.randn(16, 3, 12, 12, generator=chance), torch.randint(5, (16,), generator=chance)) for _ in range(count)]

    return Task.from_loaders(batches(3), batches(1), batches(1), steps=2, batch=16)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Residual(16, 32, 2), nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@torch.no_grad()
def test_a_residual_network_in_bytes_is_close_to_floats(task: Task) -> None:
    model, images = network(), task.train.images[:16]
    wanted = model(images)
    small = compress(model, task, Config())
    assert sum(isinstance(layer, Integer) for layer in small.modules()) == 6
    assert all(layer.weight.dtype == torch.uint8 for layer in small.modules() if isinstance(layer, Integer))
    assert (small(images) - wanted).norm() < 0.05 * wanted.norm()
    assert not torch.equal(control_truncating(model, task, Config(), small)(images), small(images))


def test_what_is_measured(task: Task) -> None:
    before = measure(network(), task)
    after = measure(compress(network(), task, Config()), task)
    assert after.bits == 8
    assert after.multiply_adds == before.multiply_adds
    assert after.bit_operations <= 64 * after.multiply_adds
    assert after.file_bytes < 0.4 * before.file_bytes


@torch.no_grad()
def test_a_dense_layer_takes_any_leading_dimensions(task: Task) -> None:
    layer = nn.Linear(7, 4)
    x = torch.rand(2, 3, 5, 7)
    ranges = [0.0, 1.0, *(float(v) for v in layer(x).aminmax())]
    assert (Integer(layer, ranges)(x) - layer(x)).abs().max() < 0.02


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Flatten(), "no layer with weights"),
        (nn.ConvTranspose2d(3, 6, 3), "0: no plain Conv2d or Linear but ConvTranspose2d"),
        (nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), "0: pads with reflect"),
    ],
)
def test_refuses_by_name(layer: nn.Module, word: str, task: Task) -> None:
    with pytest.raises(ValueError, match=word):
        compress(nn.Sequential(layer), task, Config())


def test_sums_that_would_overflow_stay_in_floats() -> None:
    with torch.device("meta"):
        names, kept = suited(nn.Sequential(nn.Linear(40_000, 2), nn.Linear(33_024, 2)))
    assert names == ["1"]
    assert "overflow" in kept["0"]

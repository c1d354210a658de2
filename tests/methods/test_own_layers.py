"""What every method that replaces or quantizes layers does with layers of a user's own: excluded, tied, reparametrized, subclassed ones."""

from __future__ import annotations

import copy
import importlib
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from methods.kit import layers
from methods.kit.task import Task
from methods.low_rank import denton_linear_structure, filter_group_approximation, zhang_nonlinear
from tests.helpers import noise

SETTINGS: dict[str, dict[str, Any]] = {
    "quantization.adaround": {"images": 8, "iterations": 3, "batch": 4},
    "quantization.data_free_quantization": {},
    "frameworks.gemmlowp": {"batches": 1},
    "low_rank.adaptive_mixture_low_rank": {"components": 2},
    "low_rank.denton_linear_structure": {"images": 8, "metric": "covariance"},
    "low_rank.efficient_network_compression": {"images": 8, "budget": 0.8, "profile": (0.1, 0.3), "best": 2, "margin": 0.1},
    "low_rank.filter_group_approximation": {"images": 8, "groups": (4,)},
    "low_rank.jaderberg_low_rank": {"speedup": 2, "images": 8, "iterations": 3, "batch": 4},
    "low_rank.kim_tucker": {},
    "low_rank.lebedev_cp": {"speedup": 2, "iterations": 2},
    "low_rank.musco": {"stages": 1, "floor": 2},
    "low_rank.t_net": {},
    "low_rank.ultimate_tensorization": {"rank": 3, "dense_rank": 3, "batch": 8},
    "low_rank.zhang_nonlinear": {"speedup": 2, "images": 8, "penalties": ()},
}


class Named(nn.Conv2d):
    """A subclass that computes what torch's does."""


class Net(nn.Module):
    """Registers its first convolution last; planted low ranks, so that every method finds something to do."""

    def __init__(self) -> None:
        super().__init__()
        convs = [nn.Conv2d(24, 24, 3, padding=1), Named(24, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)]
        self.left, self.named, self.last = convs
        self.norms = nn.ModuleList(nn.BatchNorm2d(24) for _ in convs)
        self.dense, self.fc = nn.Linear(24, 40), nn.Linear(40, 5)
        self.stem, self.norm = nn.Conv2d(3, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24)
        for layer in (*convs, self.dense):
            rows = torch.randn(3, layer.weight[0].numel() if layer is self.dense else 3 * 9)
            inward = rows if layer is self.dense else torch.einsum("rkd,ki->rid", rows.view(3, 3, 9), torch.randn(3, 24)).flatten(1)
            planted = torch.randn(len(layer.weight), 3) @ inward
            layer.weight.data = (planted / planted.std() / 10 + 0.003 * torch.randn_like(planted)).view_as(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        for layer, norm in zip((self.left, self.named, self.last), self.norms, strict=True):
            x = norm(layer(x)).relu()
        return self.fc(self.dense(x.mean((2, 3))).relu())


@pytest.fixture(params=list(SETTINGS))
def method(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    module = importlib.import_module(f"methods.{request.param}")
    return module, replace(module.Config(), **SETTINGS[request.param])


@pytest.fixture
def task() -> Task:
    return noise(steps=2)


@pytest.fixture
def model(task: Task) -> Net:
    torch.manual_seed(0)
    net = Net()
    net.fc.bias.data[task.validation.labels[0]] += 10  # right about some image
    return net


def same_kind(one: nn.Module, other: nn.Module) -> bool:
    return type(one) is type(other) and one.weight.shape == other.weight.shape  # type: ignore[union-attr]


def test_excluded_layers_stay_and_the_argument_too(
    method: tuple[Any, Any], model: Net, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    module, config = method
    before = copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.INFO):
        small = module.compress(model, replace(task, exclude=("left", "f?")), config)
    assert small(task.test.images).shape == (8, 5)
    assert not small.training
    inner = small.net if hasattr(small, "net") else small
    for name in ("left", "fc"):
        kept = inner.get_submodule(name)
        assert same_kind(kept, model.get_submodule(name))
        assert f"{name}: excluded" in caplog.text
        if config.__class__.__module__.split(".")[1] in ("quantization", "frameworks"):
            assert torch.equal(kept.weight, before[f"{name}.weight"])
            assert torch.equal(kept.bias, before[f"{name}.bias"])
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_subclass_is_worked_on_like_its_base(method: tuple[Any, Any], model: Net, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    module, config = method
    with caplog.at_level(logging.INFO):
        small = module.compress(model, task, config)
    assert "named: " not in caplog.text
    assert small(task.test.images).shape == (8, 5)


def test_tied_layers_stay_tied(method: tuple[Any, Any], model: Net, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    module, config = method
    model.named.weight = model.left.weight
    if module.__name__.endswith("t_net"):  # only one kernel of its shape is left
        with pytest.raises(ValueError, match="left: shares a weight with named"):
            module.compress(model, task, config)
        return
    with caplog.at_level(logging.INFO):
        small = module.compress(model, task, config)
    assert small.get_submodule("named").weight is small.get_submodule("left").weight
    assert "left: shares a weight with named" in caplog.text


def test_weights_computed_in_every_pass_are_refused(method: tuple[Any, Any], model: Net, task: Task) -> None:
    module, config = method
    parametrizations.weight_norm(model.last)
    with pytest.raises(ValueError, match=r"last: its weight is parametrized .*remove_parametrizations\(model.get_submodule\(.last.\)"):
        module.compress(model, task, config)


def test_images_in_parts_give_the_same(model: Net, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of parts of the images add up to those of all."""
    whole = {
        "covariance": denton_linear_structure.covariance(model.last, model, task, denton_linear_structure.Config(images=24))[0],
        "responses": filter_group_approximation.from_responses(model, {"left": 2, "last": 4}, task.train.images)(task.test.images),
    }
    sizes = list[int]()
    monkeypatch.setattr(layers, "MOST_BYTES", 8 * 5 * 4 * 2 * 24 * 36)
    model.left.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    assert torch.allclose(
        denton_linear_structure.covariance(model.last, model, task, denton_linear_structure.Config(images=24))[0],
        whole["covariance"],
        atol=1e-4,
    )
    small = filter_group_approximation.from_responses(model, {"left": 2, "last": 4}, task.train.images)
    assert torch.allclose(small(task.test.images), whole["responses"], atol=1e-3)
    assert max(sizes) == 5
    zhang = zhang_nonlinear.compress(model, task, zhang_nonlinear.Config(speedup=2, images=24, places=8, penalties=()))
    assert zhang(task.test.images).shape == (8, 5)


class Tokens(nn.Module):
    """Dense layers on tokens (N, T, C) and on maps (N, H, W, C), batch norm over tokens behind one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.mix, self.norm = nn.Conv2d(3, 32, 2, 2), nn.Linear(32, 48), nn.BatchNorm1d(36)
        self.back, self.wide, self.fc = nn.Linear(48, 32), nn.Linear(32, 40), nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        y = self.norm(self.mix(x.flatten(1, 2))).relu()
        x = x + self.back(y.unflatten(1, (6, 6)))
        return self.fc(self.wide(x.mean((1, 2))).relu())


@pytest.mark.parametrize("name", ["low_rank.adaptive_mixture_low_rank", "low_rank.ultimate_tensorization", "frameworks.gemmlowp"])
def test_dense_layers_on_tokens(name: str, task: Task) -> None:
    torch.manual_seed(0)
    module, model = importlib.import_module(f"methods.{name}"), Tokens()
    small = module.compress(model, task, replace(module.Config(), **SETTINGS[name]))
    assert small(task.test.images).shape == (8, 5)
    assert not any(same_kind(small.get_submodule(layer), model.get_submodule(layer)) for layer in ("mix", "back", "wide"))

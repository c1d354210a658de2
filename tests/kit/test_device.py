"""The kit on every device that this machine has: on one with an accelerator, there too."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from methods.kit import quant
from methods.kit.lab import Lab
from methods.kit.layers import output_error, replaceable, responses, truncated_svd
from methods.kit.measure import measure
from methods.kit.surgery import free_channels, remove_channels
from methods.kit.task import Task, accuracy
from methods.kit.train import fit
from methods.pruning import network_slimming
from tests.helpers import Mixed, noise

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def task(request: pytest.FixtureRequest) -> Task:
    return replace(noise(2), device=request.param)


@pytest.fixture
def model(task: Task) -> Mixed:
    torch.manual_seed(0)
    return Mixed().to(task.device).eval()


def test_training_judging_and_measuring(model: Mixed, task: Task) -> None:
    before = copy.deepcopy(model)
    assert 0 <= accuracy(model, task.test) <= 1
    learned = fit(model, task)
    assert {p.device for p in learned.parameters()} == {torch.device(task.device)}
    stats = measure(learned, task, before)
    assert stats.parameters == sum(p.numel() for p in before.parameters())
    assert stats.latency > 0


def test_surgery(model: Mixed, task: Task) -> None:
    image = task.train.first(1).images.to(task.device)
    free, _ = free_channels(model, image)
    thin = remove_channels(model, image, {"wide.conv": [0, 3]}, free)
    assert thin(image).device == torch.device(task.device)
    assert thin.get_submodule("wide.conv").out_channels == 22


def test_replacing_and_quantizing(model: Mixed, task: Task) -> None:
    images = task.train.first(4).images.to(task.device)
    chosen, _ = replaceable(model, lambda layer, first: "", image=images[:1])
    part = truncated_svd(chosen["wide.conv"], 8)
    assert part(responses(model, images, ["grouped"])["grouped"]).device == torch.device(task.device)
    folded, _ = quant.fold_batch_norm(model, image=images[:1])
    assert output_error(folded, model, images) < 1e-4
    grid = quant.min_max_grid(images.min(), images.max(), 4)
    assert len(grid.nearest(images).unique()) <= 16


def test_a_method_from_end_to_end(model: Mixed, task: Task) -> None:
    lab = Lab(network_slimming, lambda: task, network_slimming.Config(cut=0.3))
    lab.__dict__["reference"] = model
    assert lab.after.parameters < lab.before.parameters
    assert lab.control("random").parameters == lab.after.parameters

"""The stand-in must be hard enough that damage to a network, and its recovery, can be seen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from methods.kit import nets
from methods.kit.standin import SHAPES, draw, standin
from methods.kit.surgery import free_channels, remove_channels
from methods.kit.task import Task, accuracy


@pytest.fixture(scope="module")
def task() -> Task:
    return standin(train=3000, steps=1)


def test_the_same_seed_draws_the_same_images() -> None:
    (images, labels), (again, same), (other, _) = draw(40, 1), draw(40, 1), draw(40, 2)
    assert np.array_equal(images, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(images, other)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [4] * len(SHAPES)


def test_train_and_test_share_no_image(task: Task) -> None:
    seen = {row.numpy().tobytes() for row in task.train.images}
    assert not any(row.numpy().tobytes() in seen for row in task.test.images)


def test_a_linear_probe_on_pixels_fails(task: Task) -> None:
    from sklearn.linear_model import RidgeClassifier

    probe = RidgeClassifier(alpha=1e4).fit(task.train.images.flatten(1).numpy(), task.train.labels.numpy())
    assert probe.score(task.test.images.flatten(1).numpy(), task.test.labels.numpy()) <= 0.5


def test_resnet8_learns_it(task: Task) -> None:
    assert 0.85 <= accuracy(nets.trained("resnet8", "standin"), task.test) <= 0.95


def test_losing_half_of_the_channels_hurts(task: Task) -> None:
    model, image = nets.trained("resnet8", "standin"), task.test.images[:1]
    free, _ = free_channels(model, image)
    chance = torch.Generator().manual_seed(0)
    half = remove_channels(model, image, {n: torch.randperm(c, generator=chance)[: c // 2].tolist() for n, c in free.items()})
    assert accuracy(model, task.test) - accuracy(half, task.test) >= 0.2


def test_nearest_rounding_to_four_bits_hurts(task: Task) -> None:
    model = nets.trained("resnet8", "standin")
    rounded = copy.deepcopy(model)
    for layer in rounded.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            scale = layer.weight.detach().abs().max() / 7
            layer.weight.data = (layer.weight.detach() / scale).round() * scale
    assert accuracy(model, task.test) - accuracy(rounded, task.test) >= 0.05

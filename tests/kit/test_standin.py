"""The stand-in must be hard enough that damage to a network, and its recovery, can be seen."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from methods.kit import nets
from methods.kit import standin as drawing
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


def test_a_later_block_leaves_the_first_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reference networks were judged on four thousand test images; the fifth thousand is drawn apart."""
    monkeypatch.setattr(drawing, "user_cache_path", lambda name: tmp_path)
    before, after = (("test", 30),), (("test", 30), ("test", 10))
    monkeypatch.setattr(drawing, "BLOCKS", before)
    first = drawing._cached()["test_images"]
    monkeypatch.setattr(drawing, "BLOCKS", after)
    assert np.array_equal(drawing._cached()["test_images"][:30], first)


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


# The cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a small stand-in, drawn and kept."""
    monkeypatch.setattr(drawing, "BLOCKS", (("train", 40), ("validation", 20), ("test", 20), ("test", 10)))
    monkeypatch.setattr(drawing, "user_cache_path", lambda name: tmp_path)
    drawing._cached()
    (path,) = tmp_path.iterdir()
    return path


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def compressed_and_flipped(path: Path) -> None:
    with np.load(path) as stored:
        np.savez_compressed(path, **stored)
    flipped(path)


def changed(name: str, change: Callable[[drawing.Array], drawing.Array]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path) as stored:
            arrays = dict(stored)
        np.savez(path, **{**arrays, name: change(arrays[name])})

    return damage


def gone(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "truncated": truncated,
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": flipped,
    "a flipped bit, compressed": compressed_and_flipped,
    "no archive": lambda path: path.write_text("text"),
    "a shape": changed("train_images", lambda images: images[:-1]),
    "a type": changed("test_images", lambda images: images.astype(np.int16)),
    "labels": changed("test_labels", lambda labels: labels[::-1].copy()),
    "labels' type": changed("train_labels", lambda labels: labels.astype(np.float32)),
    "labels' number": changed("train_labels", lambda labels: labels[:-1]),
    "a pipe": gone,
}


@contextmanager
def never(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(drawing, "draw", None)
        yield


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_cache_is_drawn_anew(cache: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]) -> None:
    with never(monkeypatch):
        good = drawing._cached()
    damage(cache)
    assert all(np.array_equal(array, good[name]) for name, array in drawing._cached().items())
    with never(monkeypatch):
        assert all(np.array_equal(array, good[name]) for name, array in drawing._cached().items())
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_a_cache_that_cannot_be_kept_is_drawn_each_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, **arrays: drawing.Array) -> None:
        raise OSError(28, "No space left on device")

    cache.unlink()
    monkeypatch.setattr(np, "savez", full)
    assert len(drawing._cached()["train_labels"]) == 40
    assert not list(cache.parent.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="has other processes")
def test_what_killed_processes_left_is_removed(cache: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    cache.rename(cache.with_name(f"{cache.stem}.{ended.pid}.part"))
    mine = cache.with_name(f"{cache.stem}.{os.getppid()}.part")
    mine.write_text("")
    drawing._cached()
    assert {path.name for path in cache.parent.iterdir()} == {cache.name, mine.name}

"""The embedded stand-in for CIFAR-10: ten kinds of shapes, drawn from a seed in seconds and cached.

Each 32x32 image shows one shape at any place, size, angle and colour over a rippled background, whose hue and
ripple hint at the class in some images, with a stroke and specks of other colours as clutter, and noise. It is no
benchmark; it is hard enough that damage to a network and its recovery show (tests/test_standin.py holds the figures).
Whatever was measured on it says `standin`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path

from methods.kit.task import Split, Task, normalise, slice_name

CONTRAST = 0.6  # of the shape against the paper it lies on
NOISE = 0.06  # deviation per pixel and colour, of 1
HUE_TELLS = 0.4  # share of images whose background has its class's usual hue, as ships lie on blue in photographs
HUE_SPREAD = 0.4  # radians around the usual hue
RIPPLE_TELLS = 0.5  # share of images whose background ripples at its class's usual pace, a texture to learn first
_THIRDS = (2 * np.pi / 3 * np.arange(3, dtype=np.float32)).reshape(1, 3, 1, 1)
Array = np.ndarray[Any, Any]
SIZE = 32
SEED = 2017
BLOCKS = (("train", 10_000), ("validation", 2_000), ("test", 4_000), ("test", 1_000))  # each of a seed of its own: more leave these
COUNTS = {split: sum(count for other, count in BLOCKS if other == split) for split, _ in BLOCKS}


def _polygon(sides: int) -> Callable[[Array, Array], Array]:
    """Regular polygon of circumradius 1: negative inside."""

    def level(u: Array, v: Array) -> Array:
        sector = 2 * np.pi / sides
        angle = np.mod(np.arctan2(v, u), sector) - sector / 2
        return np.hypot(u, v) * np.cos(angle) - np.cos(sector / 2)

    return level


def _star(points: int, depth: float) -> Callable[[Array, Array], Array]:
    """A rounded star whose radius swings by `depth` around 1 - depth."""
    return lambda u, v: np.hypot(u, v) - (1 - depth) - depth * np.cos(points * np.arctan2(v, u))


def _crescent(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v) - 1, 0.75 - np.hypot(u - 0.5, v))


def _half_disc(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v) - 1, u - 0.1)


def _bars(u: Array, v: Array) -> Array:
    return np.maximum(abs(abs(u) - 0.5) - 0.25, abs(v) - 0.9)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.75) - 0.22,
    "triangle": _polygon(3),
    "square": _polygon(4),
    "hexagon": _polygon(6),
    "star": _star(5, 0.3),
    "clover": _star(4, 0.3),
    "crescent": _crescent,
    "half disc": _half_disc,
    "bars": _bars,
}


def _colour_of(rng: np.random.Generator, count: int) -> Array:
    return rng.random((count, 3, 1, 1), np.float32)


def _labels(count: int, rng: np.random.Generator) -> Array:
    return rng.permutation(np.arange(count) % len(SHAPES)).astype(np.int64)


def draw(count: int, seed: int) -> tuple[Array, Array]:
    """`count` images (N, 3, 32, 32) uint8 with labels (N,) int64 in equal shares, in an order drawn from `seed`."""
    rng = np.random.default_rng(seed)
    labels = _labels(count, rng)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)

    def number(low: float, high: float) -> Array:
        return (low + (high - low) * rng.random((count, 1, 1), np.float32)).astype(np.float32)

    def frame(spread: float, low: float, high: float) -> tuple[Array, Array, Array]:
        """Coordinates turned by any angle about any place, in units of a size, which is the third value."""
        angle, size = number(0, 2 * np.pi), number(low, high)
        x = columns - SIZE / 2 + 0.5 - number(-spread, spread)
        y = rows - SIZE / 2 + 0.5 - number(-spread, spread)
        return (x * np.cos(angle) + y * np.sin(angle)) / size, (y * np.cos(angle) - x * np.sin(angle)) / size, size

    def cover(level: Array, size: Array) -> Array:
        """How much of each pixel lies inside: (N, 1, 32, 32), edges one pixel soft."""
        return np.clip(0.5 - level * size, 0, 1)[:, None]

    along, across, _ = frame(0, SIZE, SIZE)
    usual = 2 * np.pi * labels[:, None, None] / len(SHAPES) + HUE_SPREAD * rng.standard_normal((count, 1, 1), np.float32)
    hue = np.where(number(0, 1) < HUE_TELLS, usual, number(0, 2 * np.pi))[:, None]
    paper = 0.7 * (0.5 + 0.5 * np.cos(hue - _THIRDS)) + 0.3 * _colour_of(rng, count)
    shade = _colour_of(rng, count) - 0.5
    usual = 3 + 2.5 * labels[:, None, None] + number(-0.5, 0.5)
    waves = np.where(number(0, 1) < RIPPLE_TELLS, usual, number(2, 28))
    ripple = 0.15 * np.sin(along * waves + number(0, 6))[:, None]
    images = 0.25 + 0.5 * paper + 0.6 * shade * across[:, None] + ripple

    u, v, size = frame(16, 8, 20)
    stroke = cover(np.maximum(abs(v) - 0.08, abs(u) - 1), size)
    images += stroke * (_colour_of(rng, count) - images)

    u, v, size = frame(6, 7, 12)
    level = np.empty((count, SIZE, SIZE), np.float32)
    for kind, shape in enumerate(SHAPES.values()):
        chosen = labels == kind
        level[chosen] = shape(u[chosen], v[chosen])
    ink = paper + CONTRAST * np.sign(_colour_of(rng, count) - 0.5) * (0.6 + 0.4 * _colour_of(rng, count))
    images += cover(level, size) * (0.25 + 0.5 * ink - images)

    for _ in range(2):
        u, v, size = frame(15, 1.5, 3.5)
        images += cover(np.hypot(u, v) - 0.8, size) * (_colour_of(rng, count) - images)
    images += NOISE * rng.standard_normal(images.shape, np.float32)
    return (np.clip(images, 0, 1) * 255).astype(np.uint8), labels


def _cached() -> dict[str, Array]:
    """All three splits, from the cache or drawn now (and cached where the folder can be written)."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = user_cache_path("smallprint") / f"standin-{version}.npz"
    if (arrays := _read(path)) is not None:
        return arrays
    arrays = {}
    for split in dict(BLOCKS):
        drawn = [draw(count, seed) for count, seed in blocks(split)]
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    with suppress(OSError):  # without a cache it is drawn again next time
        _keep(path, arrays)
    return arrays


def blocks(split: str) -> list[tuple[int, int]]:
    """How many images each block of a split has, and the seed that it is drawn from."""
    return [(count, SEED + place) for place, (other, count) in enumerate(BLOCKS) if other == split]


def _read(path: Path) -> dict[str, Array] | None:
    """What is cached; None where there is nothing, or something else than was drawn."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file, np.load(file) as stored:
            arrays = {key: stored[key] for key in stored.files}
        for split in dict(BLOCKS):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            drawn = np.concatenate([_labels(count, np.random.default_rng(seed)) for count, seed in blocks(split)])
            if (images.shape, images.dtype, labels.dtype) != ((len(drawn), 3, SIZE, SIZE), np.uint8, np.int64) or (labels != drawn).any():
                return None
    except Exception:  # a damaged archive raises a dozen kinds of errors
        return None
    return arrays


def _keep(path: Path, arrays: dict[str, Array]) -> None:
    """Cache whole or not at all, and remove what processes left that were killed meanwhile. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("standin-*.part"):
        process = left.suffixes[0].removeprefix(".")
        if os.name == "posix" and process.isdecimal() and len(process) < 10:  # elsewhere to ask for a process is to end it
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def standin(
    *,
    train: int = COUNTS["train"],
    validation: int = COUNTS["validation"],
    test: int = COUNTS["test"],
    steps: int,
    seed: int = 0,
    test_from: int = 0,
) -> Task:
    """The stand-in as a task: the first images of each split, as many as asked for; of `test` those from the place `test_from`."""
    arrays = _cached()
    summary = hashlib.sha256(slice_name(train, validation, test, test_from))
    splits = []
    for split, start, count in (("train", 0, train), ("validation", 0, validation), ("test", test_from, test)):
        images, labels = (arrays[f"{split}_{what}"][start : start + count] for what in ("images", "labels"))
        summary.update(images.tobytes() + labels.tobytes())
        splits.append(Split(normalise(images), torch.from_numpy(labels)))
    return Task("standin", splits[0], splits[1], splits[2], steps=steps, seed=seed, digest=summary.hexdigest()[:16])

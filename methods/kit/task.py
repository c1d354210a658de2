"""A task: the images of one run, its training budget and its seed. CIFAR-10 or a user's own data."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit.batches import BATCHES, CURE, DataError, find
from methods.kit.layout import laid_out

MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's training images, per colour
STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as normalised floats, with labels (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        return Split(self.images[:count], self.labels[:count])

    def chunks(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.images.split(size), self.labels.split(size), strict=True)


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of images whose largest logit is the label's, in evaluation mode; the model's mode is put back."""
    mode, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    with torch.no_grad(), laid_out(model, split.images[:1].to(device)) as layout:
        right = sum(int((model(x.to(device, memory_format=layout)).argmax(1).cpu() == y).sum()) for x, y in split.chunks())
    model.train(mode)
    return right / len(split)


@dataclass(frozen=True)
class Task:
    """What a method may learn from and how long: `steps` optimiser steps of `batch` images are the whole budget.

    Methods that search look at `validation`, never at `test`. `digest` identifies the images and the slice.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    steps: int
    batch: int = 128
    seed: int = 0
    device: str = "cpu"
    digest: str = ""
    augmented: bool = True
    exclude: tuple[str, ...] = ()  # patterns (fnmatch) of layer names to leave alone: they are not replaced, cut or quantized
    score: Callable[[nn.Module, Split], float] = field(default=accuracy, compare=False)

    @property
    def classes(self) -> int:
        return int(self.train.labels.max()) + 1

    def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """A `share` of the budget: shuffled, mirrored and shifted batches (batch, C, H, W), (batch,). Same seed, same batches."""
        generator = torch.Generator().manual_seed(self.seed)
        size = min(self.batch, len(self.train))
        order = torch.empty(0, dtype=torch.long)
        for _ in range(max(1, round(share * self.steps))):
            if len(order) < size:
                order = torch.randperm(len(self.train), generator=generator)
            pick, order = order[:size], order[size:]
            images = self.train.images[pick]
            if self.augmented:
                images = augment(images, generator)
            yield images.to(self.device).contiguous(), self.train.labels[pick].to(self.device)

    def with_steps(self, steps: int) -> Task:
        return replace(self, steps=steps)

    @classmethod
    def from_loaders(
        cls,
        train: Iterable[tuple[Tensor, Tensor]],
        validation: Iterable[tuple[Tensor, Tensor]],
        test: Iterable[tuple[Tensor, Tensor]],
        *,
        steps: int,
        name: str = "own",
        **settings: Any,
    ) -> Task:
        """A task from any iterables of (images, labels) batches, a `DataLoader` for instance. Images are used as they come."""
        splits = [gather(part, which) for part, which in ((train, "train"), (validation, "validation"), (test, "test"))]
        settings.setdefault("augmented", False)
        return cls(name, splits[0], splits[1], splits[2], steps=steps, digest=digest(*splits), **settings)


def gather(batches: Iterable[tuple[Tensor, Tensor]], which: str) -> Split:
    """All batches of one loader in memory; raises `DataError` when there are none or they are no images and labels."""
    images, labels = [], []
    for x, y in batches:
        if x.ndim != 4 or y.shape != x.shape[:1]:
            raise DataError(f"{which}: wants images (N, C, H, W) and labels (N,), got {tuple(x.shape)} and {tuple(y.shape)}")
        images.append(x.float())
        labels.append(y.long())
    if not images:
        raise DataError(f"{which}: the loader gave no batch")
    return Split(torch.cat(images), torch.cat(labels))


def augment(images: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Mirror half of the images (N, C, H, W) and shift each by up to `pad` pixels, zeros moving in."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, [pad] * 4)
    rows = torch.randint(2 * pad + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(2 * pad + 1, (count, 1), generator=generator) + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    picked = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def normalise(pixels: np.ndarray[Any, Any]) -> Tensor:
    """uint8 images (N, 3, H, W) to zero-mean, unit-deviation floats."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (torch.from_numpy(pixels).float().div_(255).sub_(mean)).div_(std)


def digest(*splits: Split) -> str:
    """Sixteen hexadecimal digits that identify images and labels."""
    summary = hashlib.sha256()
    for split in splits:
        summary.update(split.images.contiguous().numpy().tobytes())
        summary.update(split.labels.numpy().tobytes())
    return summary.hexdigest()[:16]


class _ArraysOnly(pickle.Unpickler):
    """A batch holds numpy arrays, lists and bytes; anything else in a pickle could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in {"_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar"}:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")


def read_batch(path: Path) -> tuple[np.ndarray[Any, Any], Tensor, str]:
    """One official python batch: uint8 images (10000, 3, 32, 32), labels and its label text. Raises `DataError`."""
    try:
        raw = path.read_bytes()
        batch = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"], np.uint8), torch.tensor(batch[b"labels"], dtype=torch.long)
        if data.shape != (len(labels), 3072) or not len(labels) or int(labels.max()) > 9 or int(labels.min()) < 0:
            raise ValueError(f"{len(labels)} labels for data of shape {data.shape}")
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}); {CURE}") from problem
    except Exception as problem:
        raise DataError(f"{path}: truncated or not a CIFAR-10 batch ({problem}); {CURE}") from problem
    return data.reshape(-1, 3, 32, 32), labels, bytes(batch.get(b"batch_label", b"")).decode(errors="replace")


TEST = 10_000  # test images
HELD_OUT = 5_000  # the last training images are validation: no reference network has seen them


def slice_name(train: int, validation: int, test: int, test_from: int) -> bytes:
    """What a digest knows of a slice beside its images."""
    return f"{train} {validation} {test}{f' from {test_from}' if test_from else ''}".encode()


def cifar10(
    root: str | Path,
    *,
    train: int = 45_000,
    validation: int = HELD_OUT,
    test: int = TEST,
    steps: int,
    seed: int = 0,
    test_from: int = 0,
) -> Task:
    """CIFAR-10 from the official python batches: the first `train`, the first `validation` of the last 5,000, `test` from `test_from` on.

    Only the batches that the slice needs are read. A copy recompressed as JPEG says so in its batch labels
    and is called `cifar10-jpeg75`. Raises `DataError`.
    """
    folder = find(Path(root))
    summary = hashlib.sha256(slice_name(train, validation, test, test_from))

    def load(names: list[str], start: int, count: int) -> tuple[Split, str]:
        parts = [read_batch(folder / name) for name in names]
        pixels = np.concatenate([p[0] for p in parts])[start : start + count]
        labels = torch.cat([p[1] for p in parts])[start : start + count]
        if len(labels) < count:
            raise DataError(f"{folder}: {', '.join(names)} hold too few images ({len(labels)} of {count}); {CURE}")
        summary.update(pixels.tobytes() + labels.numpy().tobytes())
        return Split(normalise(pixels), labels), parts[0][2]

    learn, _ = load(BATCHES[: -(-train // 10_000)], 0, train)
    hold, _ = load(["data_batch_5"], 10_000 - HELD_OUT, validation)
    judge, label = load(["test_batch"], test_from, test)
    name = "cifar10-jpeg75" if "JPEG q75" in label else "cifar10"
    return Task(name, learn, hold, judge, steps=steps, seed=seed, digest=summary.hexdigest()[:16])

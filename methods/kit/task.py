"""A task: the images of one run, its training budget and its seed. CIFAR-10 or a user's own data."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial, wraps
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit.batches import BATCHES, CURE, DataError, find
from methods.kit.layout import copied, evaluating, laid_out, suited
from methods.kit.progress import told
from methods.kit.watch import unseen, watcher

MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's training images, per colour
STD = (0.2470, 0.2435, 0.2616)


Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as normalised floats, with labels (N,), or (N, ...) where the task has a loss and a score of its own."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        return Split(self.images[:count], self.labels[:count])

    def sample(self, count: int, seed: int) -> Split:
        """So many images, drawn without repetition; all where there are fewer."""
        pick = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Split(self.images[pick], self.labels[pick])

    def chunks(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.images.split(size), self.labels.split(size), strict=True)

    def endless(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of that size, or of all images where there are fewer, each image once an epoch but for an incomplete last batch."""
        size, order = min(size, len(self)), torch.empty(0, dtype=torch.long)
        while True:
            if len(order) < size:
                order = torch.randperm(len(self), generator=generator)
            pick, order = order[:size], order[size:]
            yield self.images[pick], self.labels[pick]

    def to(self, kind: torch.dtype) -> Split:
        """With images of this floating type; the same tensors where they have it."""
        return Split(self.images.to(kind), self.labels)


@dataclass(frozen=True)
class Stream:
    """Batches that are read anew from their loader whenever they are needed; no more than one is held, and what was asked for."""

    loader: Batches
    which: str = "train"
    kind: torch.dtype | None = None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Once through the loader, each batch checked as `gather` does. Raises `DataError`, too, where nothing comes."""
        some = False
        for x, y in self.loader:
            images, labels = checked(x, y, self.which)
            some = True
            yield images.to(self.kind or images.dtype), labels
        if not some:
            raise DataError(f"{self.which}: the loader gave no batch")

    def first(self, count: int) -> Split:
        held, have = list[tuple[Tensor, Tensor]](), 0
        for x, y in self.batches():
            held.append((x[: count - have], y[: count - have]))
            have += len(x)
            if have >= count:
                break
        return joined(held)

    def sample(self, count: int, seed: int) -> Split:
        """So many images, drawn without repetition in one pass through the loader; all where there are fewer."""
        chance, keys, held = torch.Generator().manual_seed(seed), torch.empty(0), list[tuple[Tensor, Tensor]]()
        for batch in self.batches():
            keys = torch.cat([keys, torch.rand(len(batch[0]), generator=chance)])
            some = joined([*held, batch])
            keys, pick = keys.topk(min(count, len(keys)))
            held = [(some.images[pick], some.labels[pick])]
        return joined(held)

    def chunks(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.batches():
            yield from zip(x.split(size), y.split(size), strict=True)

    def endless(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's own batches, in its order, from the beginning again when it ends."""
        while True:
            yield from self.batches()

    def to(self, kind: torch.dtype) -> Stream:
        return replace(self, kind=kind)

    def __len__(self) -> int:
        raise self._unknown("how many images there are")

    @property
    def images(self) -> Tensor:
        raise self._unknown("all images at once")

    @property
    def labels(self) -> Tensor:
        raise self._unknown("all labels at once")

    def _unknown(self, what: str) -> DataError:
        return DataError(
            f"{self.which}: a stream does not tell {what}; ask for first(count) or sample(count, seed), or leave out stream=True"
        )


def as_it_is(answer: Any) -> Any:
    return answer


def numbers(answer: Any, outputs: Callable[[Any], Tensor] = as_it_is) -> Tensor:
    """The tensor of a network's answer, in no less than float32: a tensor is taken as it is, `outputs` reads anything else.

    Raises TypeError where `outputs` finds none.
    """
    if isinstance(answer, Tensor):
        return answer.to(torch.promote_types(answer.dtype, torch.float32))
    try:
        found = outputs(answer)
    except (LookupError, AttributeError, TypeError) as problem:
        raise TypeError(f"outputs= cannot read a {type(answer).__name__} ({type(problem).__name__}: {problem})") from problem
    if isinstance(found, Tensor):
        return numbers(found)
    raise TypeError(
        f"the network answers with a {type(answer).__name__}, no tensor: say which part counts, Task.from_loaders(..., "
        f"outputs=lambda y: {part_of(answer)})"
    )


def part_of(answer: Any) -> str:
    """How one would read the logits in an answer: by the name "logits", or else what comes first."""
    if isinstance(answer, Mapping):
        return f"y[{'logits' if 'logits' in answer else next(iter(answer), 'logits')!r}]"
    named = [item.name for item in fields(answer)] if is_dataclass(answer) else list(getattr(answer, "_fields", ()))
    if named or not isinstance(answer, tuple | list):
        return f"y.{'logits' if 'logits' in named or not named else named[0]}"
    return "y[0]"


def accuracy(model: nn.Module, split: Split | Stream, outputs: Callable[[Any], Tensor] = as_it_is) -> float:
    """Share of images whose largest logit is the label's, in evaluation mode; the model's mode is put back."""
    right = count = 0
    with torch.no_grad(), evaluating(model), laid_out(model, suited(model, split.first(1).images)) as layout:
        for x, y in told(split.chunks(), "accuracy"):
            logits = numbers(model(suited(model, x).to(memory_format=layout)), outputs)
            right += int((logits.argmax(1).cpu() == y).sum())
            count += len(y)
    return right / count


@dataclass(frozen=True)
class Task:
    """What a method may learn from and how long: `steps` optimiser steps of `batch` images are the whole budget.

    Methods that search look at `validation`, never at `test`. `digest` identifies the images and the slice. All that learns, is
    calibrated or is judged does so on `device`, "cpu" or "cuda:0" for instance; images wait on the processor until they are used.
    `loss(logits, labels)` is what training makes smaller, `score(model, split)` what is measured and searched for, the larger
    the better. Where a network answers with something else than a tensor, `outputs` says how its logits come out.
    """

    name: str
    train: Split | Stream
    validation: Split | Stream
    test: Split | Stream
    steps: int
    batch: int = 128
    seed: int = 0
    device: str = "cpu"
    digest: str = ""
    augmented: bool = True
    exclude: tuple[str, ...] = ()  # patterns of layer names to leave alone: they are not replaced, cut or quantized
    multiple: int = 1  # of which the channels that stay of a thinner layer are to be a multiple; 8 suits fast kernels
    outputs: Callable[[Any], Tensor] = field(default=as_it_is, compare=False)
    loss: Callable[[Tensor, Tensor], Tensor] = field(default=F.cross_entropy, compare=False)
    score: Callable[[nn.Module, Any], float] = field(default=accuracy, compare=False)

    def __post_init__(self) -> None:
        if self.score is accuracy and self.outputs is not as_it_is:
            object.__setattr__(self, "score", partial(accuracy, outputs=self.outputs))

    def logits(self, answer: Any) -> Tensor:
        """What `outputs` reads in a network's answer, in no less than float32. Raises TypeError where it is no tensor."""
        return numbers(answer, self.outputs)

    def loss_of(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The task's own loss of a network on a batch."""
        return self.loss(self.logits(model(x)), y)

    def labels_needed(self, whose: str) -> None:
        """Raises ValueError, beginning with `whose`, unless every image has a class for its label."""
        if not are_classes(labels := self.train.first(1).labels):
            raise ValueError(f"{whose} needs class labels (N,), those of the task are {described(labels)}")

    def batches(self, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """A `share` of the budget: shuffled, mirrored and shifted batches (batch, C, H, W), (batch,). Same seed, same batches.

        Of a stream they are the loader's own batches.
        """
        generator = torch.Generator().manual_seed(self.seed)
        total = max(1, round(share * self.steps))
        for images, labels in islice(self.train.endless(self.batch, generator), total):
            if self.augmented:
                images = watcher().handed_on(partial(augment, generator=generator), images)
            yield images.to(self.device).contiguous(), labels.to(self.device)

    def with_steps(self, steps: int) -> Task:
        return replace(self, steps=steps)

    def to(self, kind: torch.dtype) -> Task:
        """The task with images of this floating type; where they have another, they are all held in both, unless they are streamed."""
        return replace(self, train=self.train.to(kind), validation=self.validation.to(kind), test=self.test.to(kind))

    @classmethod
    def from_loaders(
        cls, train: Batches, validation: Batches, test: Batches, *, steps: int, name: str = "own", stream: bool = False, **settings: Any
    ) -> Task:
        """A task from any iterables of (images, labels) batches, a `DataLoader` for instance. Images are used as they come.

        Images of a floating type keep it, others become float32; networks get them in their own. They are held in memory, 4 C H W
        bytes each in float32, unless `stream` is set: then the loaders are read whenever images are needed and only a batch is held,
        shuffling and batch size are the loaders' business. `settings` are fields of the task, such as `batch`, `device`, `outputs`,
        `exclude`, `multiple`. Labels that are no classes (N,) need a `loss` and a `score` of one's own. Raises `DataError`.
        """
        parts = {"train": train, "validation": validation, "test": test}
        for which, loader in parts.items():
            if stream and isinstance(loader, Iterator):
                raise DataError(f"{which}: can be read only once; a stream wants what can be read again and again, a DataLoader or a list")
        splits = [Stream(part, which) if stream else gather(part, which) for which, part in parts.items()]
        heads = [split.first(64) if isinstance(split, Stream) else split for split in splits]  # what the digest knows of a stream
        missing = [f"{key}=" for key in ("loss", "score") if key not in settings]
        if missing and not are_classes(labels := heads[0].labels):
            raise DataError(f"train: labels are {described(labels)}, no classes (N,): say {' and '.join(missing)} of your own")
        settings.setdefault("augmented", False)
        return cls(name, splits[0], splits[1], splits[2], steps=steps, digest=digest(*heads), **settings)


def are_classes(labels: Tensor) -> bool:
    return labels.ndim == 1 and not labels.is_floating_point()


def described(labels: Tensor) -> str:
    sides = ", ".join(["N", *map(str, labels.shape[1:])])
    return f"{str(labels.dtype).removeprefix('torch.')} ({sides}{',' * (labels.ndim == 1)})"


def checked(x: Tensor, y: Tensor, which: str) -> tuple[Tensor, Tensor]:
    """One batch on the processor: images of a floating type, whole labels as int64. Raises `DataError` where they are none."""
    if x.ndim != 4 or y.shape[:1] != x.shape[:1]:
        raise DataError(f"{which}: wants images (N, C, H, W) and labels (N, ...), got {tuple(x.shape)} and {tuple(y.shape)}")
    return (x if x.is_floating_point() else x.float()).cpu(), (y if y.is_floating_point() else y.long()).cpu()


def joined(batches: list[tuple[Tensor, Tensor]]) -> Split:
    return Split(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))


def gather(batches: Batches, which: str) -> Split:
    """All batches of one loader in memory; raises `DataError` when there are none or they are no images and labels."""
    return joined(list(Stream(batches, which).batches()))


@torch.no_grad()
def classes_of(model: nn.Module, task: Task) -> int:
    """How many classes a network tells apart: the size of its output, whatever labels there are. Its mode is put back.

    Raises ValueError where it answers with less than a number for each class of each image.
    """
    with evaluating(model), unseen():
        shape = task.logits(model(suited(model, task.train.first(1).images))).shape
    if len(shape) < 2:
        last = [name for name, _ in model.named_modules()][-1]
        raise ValueError(f"{last or type(model).__name__}: answers {tuple(shape)} to one image, classes want (N, classes)")
    return shape[1]


Build = Callable[..., nn.Module]


def on_copies(build: Build) -> Build:
    """For `compress` and controls: they get copies, which they may change, of the networks that they are given.

    The copies are on the task's device and in evaluation mode, and images have the first one's floating type. Raises TypeError
    where torch cannot do in that type what the method wants, ValueError where the network does not run on the task's images.
    """

    @wraps(build)
    def apart(model: nn.Module, task: Task, config: Any, like: nn.Module | None = None) -> nn.Module:
        mine, *others = (copied(network).to(task.device).eval() for network in (model, like) if network is not None)
        kind = next((p.dtype for p in chain(mine.parameters(), mine.buffers()) if p.is_floating_point()), torch.float32)
        try:
            return build(mine, task.to(kind), config, *others)
        except RuntimeError as problem:
            try:
                with evaluating(model), torch.no_grad():
                    model(image := suited(model, task.train.first(1).images))
            except RuntimeError as cause:
                raise ValueError(f"{type(model).__name__}: does not run on images {tuple(image.shape)} ({line_of(cause)})") from cause
            if kind == torch.float32:
                raise
            method = f"{build.__module__.rpartition('.')[2]}.{build.__name__}"
            raise TypeError(f"{method}: cannot be done in {kind} ({line_of(problem)}); give it model.float()") from problem

    return apart


def line_of(problem: Exception) -> str:
    return str(problem).strip().partition("\n")[0]


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
        for part in (split.images, split.labels):
            summary.update(part.contiguous().view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
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

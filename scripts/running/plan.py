"""What methods would do to a network: compressed in rehearsal, that is with a few random images and without any training."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catalog import Record
from methods.kit.changes import changes, grouped, noted
from methods.kit.measure import counted, multiply_adds, weight_bits
from methods.kit.nets import count
from methods.kit.task import Split, Task
from methods.kit.watch import rehearsal
from scripts.running.plans import Plan, PlanError

IMAGES = (8, 8, 8)  # of train, validation and test


def build(where: str) -> nn.Module:
    """The network that a function makes, given as FILE.py:FUNCTION. Raises `PlanError`."""
    file, _, name = where.rpartition(":")
    path = Path(file)
    if not name or path.suffix != ".py" or not path.is_file():
        raise PlanError(f"{where}: must be FILE.py:FUNCTION, a file that is there and a function in it that returns a network")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name)()
    except AttributeError as problem:
        raise PlanError(f"{where}: {problem}") from problem
    except Exception as problem:
        raise PlanError(f"{where}: {type(problem).__name__}: {problem}") from problem
    if not isinstance(made, nn.Module):
        raise PlanError(f"{where}: returned {type(made).__name__}, no network")
    return made.eval()


def random_task(model: nn.Module, shape: tuple[int, ...], asked: list[None]) -> Task:
    """Images of this shape (C, H, W) that mean nothing, so that nothing is judged by them: every network is as good. Raises `PlanError`."""
    generator = torch.Generator().manual_seed(0)
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def split(number: int) -> Split:
        images = torch.randn(number, *shape, generator=generator).to(kind)
        try:
            with torch.no_grad():
                answer = model(images)
        except Exception as problem:
            size = "x".join(map(str, shape))
            said = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
            raise PlanError(f"the network does not run on an image of {size}: {said}; give --input C,H,W") from problem
        if not isinstance(answer, torch.Tensor) or answer.ndim != 2:
            what = f"{tuple(answer.shape)}" if isinstance(answer, torch.Tensor) else type(answer).__name__
            raise PlanError(f"the network answers with {what}; let the function return one that answers with logits (N, classes)")
        return Split(images, answer.argmax(1))

    def score(network: nn.Module, images: Split) -> float:
        asked.append(None)
        return 1.0

    train, validation, test = (split(number) for number in IMAGES)
    return Task("own", train, validation, test, steps=1, batch=8, augmented=False, digest="own", score=score)


def plan(record: Record, model: nn.Module, shape: tuple[int, ...]) -> Plan:
    """Rehearse one method."""
    method, found, started = importlib.import_module(f"methods.{record.family}.{record.id}"), Plan(record.id), time.monotonic()
    image = torch.zeros(1, *shape, dtype=next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32))
    try:
        asked = list[None]()  # once for every time that a score was wanted
        with noted() as kept, rehearsal() as trained:
            small = method.compress(copy.deepcopy(model), random_task(model, shape, asked), method.Config())
        found.parameters = stored(model), stored(small)
        same = found.parameters[1] > 0.9 * found.parameters[0]  # or it is not fewer bits that make it smaller
        found.bits = weight_bits(small) if same else math.nan
        found.multiply_adds = multiply_adds(model, image), multiply_adds(small, image)
        found.layers, found.kept = grouped(changes(model, small)), kept
        found.trained = bool(asked) or trained[:1] == [count(model)] != [count(small)]
    except PlanError:
        raise
    except Exception as problem:
        kind = "" if isinstance(problem, ValueError) else f"{type(problem).__name__}: "
        found.problem = f"{kind}{' '.join(str(problem).split())}"
    found.seconds = time.monotonic() - started
    return found


def stored(model: nn.Module) -> int:
    return sum(number.numel() for number, _ in counted(model))


def rehearse(send: Callable[[Any], None], record: Record, where: str, shape: tuple[int, ...]) -> None:
    """Send the plan of one method for the network that FILE.py:FUNCTION makes, or the `PlanError`."""
    warnings.simplefilter("ignore")
    try:
        send(plan(record, build(where), shape))
    except PlanError as problem:
        send(problem)

"""Every method on every network of the zoo: it works, or it refuses by name."""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from catalog import Record
from methods.kit import export as exporting
from methods.kit.measure import Stats, measure
from methods.kit.task import Split, Task
from methods.kit.watch import rehearsal
from methods.kit.zoo import CLASSES, ZOO, Animal
from scripts.evidence.networks import FAILS, REFUSED, WORKS, Tried

IMAGES, STEPS, BATCH = (48, 32, 32), 4, 8  # of train, validation and test; optimiser steps, and images in one
EXPORTED = ("vgg", "resnet", "densenet")  # the first that the method works on
OWN_NETWORKS = ("distillation", "architecture")  # what they return has a size of its own, whatever they are given
LONGEST = 300  # letters of what is said


def task_for(animal: Animal) -> Task:
    """A tiny task of images that fit: each class is a pattern under noise, and no two splits share an image."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, *animal.image, generator=generator, dtype=animal.dtype)

    def split(count: int) -> Split:
        labels = torch.arange(count) % CLASSES
        return Split(patterns[labels] + torch.randn(count, *animal.image, generator=generator, dtype=animal.dtype), labels)

    train, validation, test = (split(count) for count in IMAGES)
    task = Task("own", train, validation, test, steps=STEPS, batch=BATCH, augmented=False, digest="zoo")
    return replace(task, outputs=animal.outputs) if animal.outputs else task


def network(animal: Animal) -> nn.Module:
    """The network as if it had learned: its weights of low rank under noise, its batch norms having seen a few images."""
    torch.manual_seed(0)
    model = animal.build()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(of_low_rank(weight))
        for _ in range(3):
            model.train()(torch.randn(16, *animal.image, dtype=animal.dtype))
    return model.eval()


def of_low_rank(weight: Tensor, noise: float = 0.1) -> Tensor:
    """As many numbers (outputs, inputs, ...) of the same size, but of a quarter of the rank in outputs and in inputs, under noise."""
    outputs, inputs = weight.shape[:2]
    u, v = (torch.randn(count, max(1, count // 4), dtype=weight.dtype) for count in (outputs, inputs))
    core = torch.randn(u.shape[1], v.shape[1], *weight.shape[2:], dtype=weight.dtype)
    signal = torch.einsum("or,rs...,is->oi...", u, core, v)
    return weight.std() * (signal / signal.std() + noise * torch.randn_like(signal))


def attempt(method: ModuleType, record: Record, name: str, animal: Animal) -> Tried:
    """Compress the network and measure what came back. An error that names a layer, or the network, is a refusal.

    At the settings of a smoke run, which are short; where these are refused, at the published ones, which are often milder.
    """
    tried = Tried(name, record.family, record.id, FAILS, "")
    for config in points(method):
        model, task = network(animal), task_for(animal)
        task = method.prepare(task) if hasattr(method, "prepare") else task
        torch.manual_seed(0)
        try:
            wrong = promised(record, model, method.compress(copy.deepcopy(model), task, config), task)
        except ValueError as refusal:
            said = " ".join(str(refusal).split())
            tried = tried._replace(outcome=REFUSED if names_a_layer(said, model) else FAILS, said=said[:LONGEST])
            continue
        except Exception as problem:
            return tried._replace(outcome=FAILS, said=f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:LONGEST])
        return tried._replace(outcome=FAILS if wrong else WORKS, said=wrong)
    return tried


def points(method: ModuleType) -> list[Any]:
    """The Config of a smoke run and the published one. A student learns from the start: there are no weights for these data."""
    point, published = getattr(method, "SMOKE", None) or method.Config(), method.Config()
    config = point[0] if isinstance(point, tuple) else point
    smoke = replace(config, student=published.student) if hasattr(config, "student") else config
    return [smoke] if smoke == published else [smoke, published]


def names_a_layer(said: str, model: nn.Module) -> bool:
    """Whether a message says which layer, or which network, it speaks of."""
    names = {name for name, _ in model.named_modules() if name} | {name for name, _ in model.named_parameters()}
    words = {word.strip(".,:;()'\"") for word in said.split()}
    return bool(words & names) or type(model).__name__ in words


def promised(record: Record, model: nn.Module, small: nn.Module, task: Task) -> str:
    """What is wrong with a result, "" where nothing is: it answers as the network did, and is smaller where the entry says so."""
    images = task.test.images[:4]
    with torch.no_grad():
        ours, theirs = (task.logits(network.eval()(images)) for network in (small, model))
    if ours.shape != theirs.shape:
        return f"answers {tuple(ours.shape)} where the network answered {tuple(theirs.shape)}"
    if not ours.isfinite().all():
        return "answers something that is not finite"
    before, after = measure(model, task), measure(small, task)
    returns = record.executable.returns if record.executable else None
    if returns == "smaller" and record.family not in OWN_NETWORKS and not any(cost(after) < cost(before) for cost in COSTS):
        return "is smaller neither in parameters, nor in bits, bytes or multiply-adds"
    return ""


COSTS: tuple[Callable[[Stats], float], ...] = (
    lambda stats: stats.parameters,
    lambda stats: stats.file_bytes,
    lambda stats: stats.bits,
    lambda stats: stats.multiply_adds,
)


def try_networks(send: Callable[[Any], None], record: Record, export: bool) -> None:
    """Send how a method does on each network, and perhaps how what it returns is exported."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("error")
    method = importlib.import_module(f"methods.{record.family}.{record.id}")
    for name, animal in ZOO.items():
        send(attempt(method, record, name, animal))
    if export:
        send(handed_on(method, record))


def handed_on(method: ModuleType, record: Record) -> Tried:
    """Whether what the method makes of a network goes through torch.export, ONNX and onnxruntime, and is pickled as torch's own.

    A network that consists of torch's own layers alone must; another may say why it cannot.
    """
    tried = Tried("export", record.family, record.id, FAILS, "")
    for name, config in product(EXPORTED, points(method)):
        model, task = network(ZOO[name]), task_for(ZOO[name])
        task = method.prepare(task) if hasattr(method, "prepare") else task
        try:
            with rehearsal():
                small = method.compress(copy.deepcopy(model), task, config).eval()
            break
        except ValueError as refusal:
            tried = tried._replace(said=str(refusal)[:LONGEST])
    else:
        return tried._replace(outcome=REFUSED)
    images = task.test.images[:8]
    with torch.no_grad():
        wanted = small(images)
    rounds = any(not type(part).__module__.startswith("torch.") for part in small.modules())
    try:
        answers = {
            "torch.export": exporting.program(small, images).module()(images).detach(),
            "onnxruntime": exporting.run_onnx(exporting.onnx(small, images), images),
        }
        strange = exporting.needs(small) - {"torch", "numpy"}
    except exporting.ExportError as problem:
        return tried._replace(outcome=REFUSED if rounds else FAILS, said=str(problem)[:LONGEST])
    for where, answer in answers.items():
        off = float((answer - wanted).abs().max() / wanted.abs().max())
        same = float((answer.argmax(1) == wanted.argmax(1)).float().mean())
        if off > 1e-5 and not (rounds and same > 0.999):
            return tried._replace(said=f"{where} answers otherwise, by {off:.1e} of the largest")
    if strange and not rounds:
        return tried._replace(said=f"to load it needs {', '.join(sorted(strange))}")
    return tried._replace(outcome=WORKS)

"""The bench a claim is measured on: reference, method and controls are built when first asked for, once each."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from methods.kit.layout import evaluating, suited
from methods.kit.ledger import Known, Ledger, blind, kept, watched
from methods.kit.measure import Stats, measured
from methods.kit.nets import trained
from methods.kit.task import Split, Task


class ReturnError(TypeError):
    """What `compress` or a control returned is no network; the message names the function and the cure."""


class Lab:
    """One method on one task, under `config`: a Config, or a pair of a Config and a number of steps; the method's SMOKE if not given.

    `method` is a module of `methods/<family>/`; `make_task` is called when something first needs data, so exact claims
    run without any. `lab.after` and `lab.control(name)` are `Stats`; the networks are `lab.compressed` and
    `lab.controlled(name)`; what they took, `lab.ledger(subject)` and `lab.trace(subject)` of "reference", "method" or "control_<name>".
    Nobody but the bench sees the test images: a network is judged by `lab.score(model)`. Same task, same seed, same numbers.
    """

    def __init__(self, method: ModuleType, make_task: Callable[[], Task], config: Any = None) -> None:
        self.method = method
        point = config if config is not None else getattr(method, "SMOKE", None) or method.Config()
        self.config, self._steps = point if isinstance(point, tuple) else (point, None)
        self._make_task = make_task
        self._networks: dict[str, nn.Module] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._stats: dict[str, Stats] = {}

    @cached_property
    def task(self) -> Task:
        """The method's task: the data, as `prepare` changes it where the paper's task is another. Its test raises `LeakError`."""
        return blind(self._whole)

    @cached_property
    def _whole(self) -> Task:
        task = self._make_task()
        task = task.with_steps(self._steps or task.steps)
        return self.method.prepare(task) if hasattr(self.method, "prepare") else task

    @cached_property
    def reference(self) -> nn.Module:
        """The network that the method starts from: its own `reference(task)`, else the kit's trained ResNet-8."""
        build = getattr(self.method, "reference", None)
        torch.manual_seed(self.task.seed)
        with torch.enable_grad(), kept({}) as self._ledgers["reference"]:
            model: nn.Module = build(watched(self.task)) if build else trained("resnet8", self.task.name)
        return model.to(self.task.device).eval()

    def at(self, config: Any) -> Lab:
        """The same method on the same task from the same network at another point: a Config, or a pair of it and a number of steps."""
        other = Lab(self.method, self._make_task, config)
        self._measured("reference", self.reference)
        other.__dict__["reference"], other._stats["reference"] = self.reference, self.before
        other._ledgers["reference"] = self._ledgers["reference"]
        return other

    @property
    def compressed(self) -> nn.Module:
        """What the method returns."""
        return self._network("method", lambda model, task: self.method.compress(model, task, self.config))

    def controlled(self, name: str) -> nn.Module:
        """What the control `name` returns; it may look at what the method returned to match its size."""
        build, like = getattr(self.method, f"control_{name}"), self.compressed
        known = {"what the method returned": like}
        return self._network(f"control_{name}", lambda model, task: build(model, task, self.config, like), known)

    @property
    def before(self) -> Stats:
        return self._measured("reference", self.reference)

    @property
    def after(self) -> Stats:
        return self._measured("method", self.compressed)

    def control(self, name: str) -> Stats:
        return self._measured(f"control_{name}", self.controlled(name))

    def score(self, model: nn.Module) -> float:
        """A network's score on the test images."""
        return self._whole.score(model, self._whole.test)

    def held_out(self, count: int) -> Split:
        """The first test images, for a claim that compares what finished networks answer; nothing is made with them."""
        return self._whole.test.first(count)

    def ledger(self, subject: str) -> Ledger:
        """What it took to make the reference, what the method returned, or a control."""
        self.built(subject)
        return self._ledgers[subject]

    def account(self, subject: str) -> dict[str, float]:
        """What it took and what it costs: the numbers that a control and the method are to have in common."""
        stats = self._measured(subject, self.built(subject))
        return {**self.ledger(subject).numbers(), "multiply_adds": stats.multiply_adds, "file_bytes": stats.file_bytes}

    def trace(self, subject: str) -> list[str]:
        """What was done to make it, an event a line, in order."""
        network = self.built(subject)
        return self._ledgers[subject].trace(network)

    @torch.no_grad()
    def answers(self, subject: str) -> Tensor:
        """Its logits for a few validation images."""
        model = self.built(subject)
        with evaluating(model):
            return self.task.logits(model(suited(model, self.task.validation.first(16).images)))

    def built(self, subject: str) -> nn.Module:
        """The network of "reference", "method" or "control_<name>"."""
        if subject in ("reference", "method"):
            return self.reference if subject == "reference" else self.compressed
        return self.controlled(subject.removeprefix("control_"))

    def _network(self, name: str, build: Callable[[nn.Module, Task], nn.Module], known: Known | None = None) -> nn.Module:
        if name not in self._networks:
            given = copy.deepcopy(self.reference)
            torch.manual_seed(self.task.seed)
            with torch.enable_grad(), kept({"the given network": self.reference, **(known or {})}) as self._ledgers[name]:
                network = build(given, watched(self.task))  # the claim that asks first may run without gradients
            if not isinstance(network, nn.Module):
                verb = inspect.unwrap(getattr(self.method, "compress" if name == "method" else name))
                place = f"{verb.__code__.co_filename}:{verb.__code__.co_firstlineno}"
                raise ReturnError(f"{place}: {verb.__name__} returned {type(network).__name__}, no network; return the one that ships")
            self._networks[name] = network.eval()
        return self._networks[name]

    def _measured(self, name: str, model: nn.Module) -> Stats:
        if name not in self._stats:
            files = {verb: getattr(self.method, verb) for verb in ("pack", "unpack") if hasattr(self.method, verb)}
            reference = None if name == "reference" else self.reference
            self._stats[name] = measured(model, self._whole, reference, **(files if name == "method" else {}))
        return self._stats[name]

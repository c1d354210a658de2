"""The bench a claim is measured on: reference, method and controls are built when first asked for, once each."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import nn

from methods.kit.measure import Stats, measured
from methods.kit.nets import trained
from methods.kit.task import Task


class ReturnError(TypeError):
    """What `compress` or a control returned is no network; the message names the function and the cure."""


class Lab:
    """One method on one task, under `config`: a Config, or a pair of a Config and a number of steps; the method's SMOKE if not given.

    `method` is a module of `methods/<family>/`; `make_task` is called when something first needs data, so exact claims
    run without any. `lab.after` and `lab.control(name)` are `Stats`; the networks are `lab.compressed` and
    `lab.controlled(name)`. Same task, same seed, same numbers.
    """

    def __init__(self, method: ModuleType, make_task: Callable[[], Task], config: Any = None) -> None:
        self.method = method
        point = config if config is not None else getattr(method, "SMOKE", None) or method.Config()
        self.config, self._steps = point if isinstance(point, tuple) else (point, None)
        self._make_task = make_task
        self._networks: dict[str, nn.Module] = {}
        self._stats: dict[str, Stats] = {}

    @cached_property
    def task(self) -> Task:
        """The method's task: the data, as `prepare` changes it where the paper's task is another."""
        task = self._make_task()
        task = task.with_steps(self._steps or task.steps)
        return self.method.prepare(task) if hasattr(self.method, "prepare") else task

    @cached_property
    def reference(self) -> nn.Module:
        """The network that the method starts from: its own `reference(task)`, else the kit's trained ResNet-8."""
        build = getattr(self.method, "reference", None)
        torch.manual_seed(self.task.seed)
        with torch.enable_grad():
            model: nn.Module = build(self.task) if build else trained("resnet8", self.task.name)
        return model.to(self.task.device).eval()

    @property
    def compressed(self) -> nn.Module:
        """What the method returns."""
        return self._network("method", lambda model: self.method.compress(model, self.task, self.config))

    def controlled(self, name: str) -> nn.Module:
        """What the control `name` returns; it may look at what the method returned to match its size."""
        build, like = getattr(self.method, f"control_{name}"), self.compressed
        return self._network(name, lambda model: build(model, self.task, self.config, like))

    @property
    def before(self) -> Stats:
        return self._measured("reference", self.reference)

    @property
    def after(self) -> Stats:
        return self._measured("method", self.compressed)

    def control(self, name: str) -> Stats:
        return self._measured(f"control_{name}", self.controlled(name))

    def _network(self, name: str, build: Callable[[nn.Module], nn.Module]) -> nn.Module:
        if name not in self._networks:
            like = copy.deepcopy(self.reference)
            torch.manual_seed(self.task.seed)
            with torch.enable_grad():  # the claim that asks first may run without
                network = build(like)
            if not isinstance(network, nn.Module):
                verb = inspect.unwrap(getattr(self.method, "compress" if name == "method" else f"control_{name}"))
                place = f"{verb.__code__.co_filename}:{verb.__code__.co_firstlineno}"
                raise ReturnError(f"{place}: {verb.__name__} returned {type(network).__name__}, no network; return the one that ships")
            self._networks[name] = network.eval()
        return self._networks[name]

    def _measured(self, name: str, model: nn.Module) -> Stats:
        if name not in self._stats:
            files = {verb: getattr(self.method, verb) for verb in ("pack", "unpack") if hasattr(self.method, verb)}
            reference = None if name == "reference" else self.reference
            self._stats[name] = measured(model, self.task, reference, **(files if name == "method" else {}))
        return self._stats[name]

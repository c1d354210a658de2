"""What training and searching tell to whoever watches how a network is made; by default nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch import Tensor


class Watcher:
    """Hears of everything and does nothing about it."""

    def note(self, *, steps: int = 0, iterations: int = 0, rate: float = 0.0) -> None:
        """Steps of an optimiser or iterations of a solver, at a learning rate."""

    def during(self, what: str, network: Any = None, **details: Any) -> AbstractContextManager[None]:
        """What happens meanwhile is one event, of this network."""
        return nullcontext()

    def handed_on(self, make: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What is made of images without looking at them, such as their mirrored copies."""
        return make(images)


_watcher: ContextVar[Watcher] = ContextVar("watcher", default=Watcher())  # noqa: B039  # it holds nothing


def watcher() -> Watcher:
    return _watcher.get()


_rehearsed: ContextVar[list[int] | None] = ContextVar("rehearsed", default=None)


@contextmanager
def rehearsal() -> Iterator[list[int]]:
    """Meanwhile nothing is trained and solvers stop after an iteration: to see what a method would do.

    Yields the sizes of the networks that would have been trained.
    """
    sizes = list[int]()
    token = _rehearsed.set(sizes)
    try:
        yield sizes
    finally:
        _rehearsed.reset(token)


def rehearsed() -> list[int] | None:
    """The sizes that a rehearsal collects, where there is one."""
    return _rehearsed.get()


def iterations(most: int) -> Iterator[int]:
    """0, 1, ... of a solver's loop, as far as it goes: each is told. One, where it is rehearsed."""
    for turn in range(most if rehearsed() is None else min(most, 1)):
        watcher().note(iterations=1)
        yield turn


@contextmanager
def watched_by(new: Watcher) -> Iterator[None]:
    token = _watcher.set(new)
    try:
        yield
    finally:
        _watcher.reset(token)


def unseen() -> AbstractContextManager[None]:
    """Meanwhile nobody watches: for a pass that only asks in which shape or layout numbers come."""
    return watched_by(Watcher())

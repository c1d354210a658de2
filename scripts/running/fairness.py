"""What method and controls took and cost, as rows, and what of it is unfair."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType

import torch

from methods.kit.lab import Lab
from methods.kit.ledger import unfair
from methods.kit.measure import milliseconds

PREFIX = "ledger_"
BATCHES = (1, 64)  # images whose latency is recorded


def controls(method: ModuleType) -> list[str]:
    """The names of its controls, as functions."""
    return [name for name in vars(method) if name.startswith("control_")]


def ledgers(lab: Lab) -> Iterator[tuple[str, str, float]]:
    """What each network took, as (subject, quantity, value)."""
    for subject in ("reference", "method", *controls(lab.method)):
        for quantity, value in lab.ledger(subject).numbers().items():
            yield subject, PREFIX + quantity, value


def latencies(lab: Lab) -> Iterator[tuple[str, str, float]]:
    """Milliseconds of each network for a batch, on one thread, in turn with the reference."""
    for batch in BATCHES:
        images = lab.held_out(batch).images
        for subject in ("reference", "method", *controls(lab.method)):
            yield subject, f"milliseconds_{batch}", milliseconds(lab.built(subject), lab.reference, images)


def faults(root: Path, lab: Lab) -> list[str]:
    """What is wrong with a method's controls: where, which, by how much and what to do."""
    found, names = [], controls(lab.method)
    for name in names:
        place = _place(root, lab.method, name)
        found += [f"{place}: {fault}" for fault in unfair(getattr(lab.method, name).__doc__, lab.account("method"), lab.account(name))]
    answers = {name: lab.answers(name) for name in names}
    for one, other in combinations(names, 2):
        if answers[one].shape == answers[other].shape and torch.equal(answers[one], answers[other]):
            cure = "two controls that are equal are one: let them differ, or leave one out"
            found.append(f"{_place(root, lab.method, other)}: answers exactly as {one}; {cure}")
    return found


def _place(root: Path, method: ModuleType, name: str) -> str:
    code = inspect.unwrap(getattr(method, name)).__code__
    file = Path(code.co_filename)
    return f"{file.relative_to(root) if file.is_relative_to(root) else file}:{code.co_firstlineno}: {name}"


def weighed(id: str, found: list[str], owed: set[str]) -> tuple[list[str], list[str]]:
    """Faults that turn a run red, and those that the method owes, which are only named."""
    if "ledger" not in owed:
        return found, []
    if not found:
        return [f"catalog/owed.yaml: {id} no longer owes `ledger`: take it off the list"], []
    return [], [f"owed: {fault}" for fault in found]

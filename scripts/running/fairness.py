"""What method and controls took and cost, as rows, and what of it is unfair."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from types import ModuleType

import torch

from methods.kit.lab import Lab
from methods.kit.ledger import FEW
from methods.kit.measure import milliseconds

PREFIX = "ledger_"
BATCHES = (1, 64)  # images whose latency is recorded

SLACK = 0.05  # what method and control may differ by
SAID = {"multiply-adds": "multiply_adds", "bytes": "file_bytes"}
COMPARED = {**{name: name for name in ("steps", "iterations", "images", "labelled", "validation", "evaluations")}, **SAID}
DIFFERS = re.compile(r"Differs: *((?:.|\n(?! *\n))*)")  # to the end of the paragraph
PART = re.compile(r"(?P<quantities>[\w-]+(?:, [\w-]+)*) x(?P<factor>[\d.]+|inf) \((?P<reason>.+)\)")


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
    answers = {name: lab.answers(name) for name in ("method", *names)}
    for one, other in combinations(answers, 2):
        if answers[one].shape == answers[other].shape and torch.equal(answers[one], answers[other]):
            cure = "two that are equal are one: let them differ, or leave one out"
            told = "the method" if one == "method" else one
            found.append(f"{_place(root, lab.method, other)}: answers exactly as {told}; {cure}")
    return found


def _place(root: Path, method: ModuleType, name: str) -> str:
    code = inspect.unwrap(getattr(method, name)).__code__
    file = Path(code.co_filename)
    return f"{file.relative_to(root) if file.is_relative_to(root) else file}:{code.co_firstlineno}: {name}"


def weighed(id: str, found: list[str], owed: set[str], data: str) -> tuple[list[str], list[str]]:
    """Faults that turn a run red, and those that the method owes, which are only named.

    What is owed shows on the stand-in, which everybody has; on other data a method may find other widths, and owe nothing there.
    """
    if "ledger" not in owed:
        return found, []
    if not found and data == "standin":
        return [f"catalog/owed.yaml: {id} no longer owes `ledger`: take it off the list"], []
    return [], [f"owed: {fault}" for fault in found]


def factors(method: Mapping[str, float], control: Mapping[str, float]) -> dict[str, float]:
    """How many times the method's numbers a control's are, of those that differ by more than is allowed.

    Iterations are compared where both solve something: a control may do without.
    """
    found = {}
    for name, key in COMPARED.items():
        ours, theirs = (numbers.get(key, 0.0) for numbers in (method, control))
        if name == "iterations" and not (ours and theirs):
            continue
        if name in ("images", "labelled", "validation") and abs(ours - theirs) <= FEW:
            continue
        if abs(ours - theirs) > SLACK * ours:
            found[name] = theirs / ours if ours else float("inf")
    return found


def unfair(docstring: str | None, method: Mapping[str, float], control: Mapping[str, float]) -> list[str]:
    """What of a control's ledger and cost differs from the method's and is not said in its docstring, or is said and is not so."""
    said, faults = dict[str, float](), list[str]()
    for part in (part.strip() for text in DIFFERS.findall(docstring or "") for part in " ".join(text.split()).rstrip(".").split(";")):
        match = PART.fullmatch(part)
        quantities = match["quantities"].split(", ") if match else []
        if match is None or not set(quantities) <= set(COMPARED):
            faults.append(f"`Differs: {part}` is not understood; write `Differs: steps x2 (why)`, of {', '.join(COMPARED)}")
        else:
            said |= dict.fromkeys(quantities, float(match["factor"]))
    found = factors(method, control)
    if unsaid := [f"{name} x{factor:.3g}" for name, factor in found.items() if name not in said]:
        cure = f"give it as much, or say `Differs: {' (why); '.join(unsaid)} (why)` in its docstring"
        faults.append(f"differs from the method by {', '.join(unsaid)}; {cure}")
    for name, factor in found.items():
        if name in said and said[name] != factor and not abs(said[name] - factor) <= SLACK * factor:
            faults.append(f"differs from the method by {name} x{factor:.3g}, its docstring says x{said[name]:g}; correct it")
    faults += [f"its docstring says that {name} differ, they do not; strike it out" for name in said if name not in found]
    return faults

"""Plant faults in a method's source and see whether its claims notice: a claim that no fault can break says nothing."""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import json
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from catalog import Problem, Record
from scripts.evidence import files, source
from scripts.evidence.definitions import Codes
from scripts.evidence.outcome import blanks
from scripts.running.processes import Ended, Job, side_by_side

ROOTS = {"compress", "build", "pack", "unpack", "prepare"}  # what these reach is the method; the rest serves claims and controls
EQUIVALENT = re.compile(r"# equivalent: (.+)$")  # a comment that says why a fault on this line changes nothing


@dataclass(frozen=True)
class Fault:
    """One planted fault: the line, what was done to it, and the source with it."""

    line: int
    what: str
    code: str


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    killed_by: str  # the claim that noticed, or ""
    equivalent: str = ""  # why the fault changes nothing, from the source
    died: str = ""  # how its process did, where it died or took too long


def reachable(tree: ast.Module, roots: set[str]) -> list[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of a module that the roots use, by name; the Config dataclass is data, not code."""
    known = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    todo = [name for name in known if name in roots]
    while todo:
        name = todo.pop()
        if name in found or name == "Config":
            continue
        found[name] = known[name]
        todo += [n.id for n in ast.walk(known[name]) if isinstance(n, ast.Name) and n.id in known]
    return sorted(found.values(), key=lambda node: node.lineno)


FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OTHER: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
SWAP = """

_real = compress
def compress(model, task, config):
    import copy
    return {control}(model, task, config, _real(copy.deepcopy(model), task, config))
"""


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What may be put in an expression's or statement's place, with words; None deletes a statement."""
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Add | ast.Sub):
            yield f"drop the term {ast.unparse(node.right)}", node.left
            yield f"drop the term {ast.unparse(node.left)}", node.right
        if type(node.op) in OTHER:
            other = copy.deepcopy(node)
            other.op = OTHER[type(node.op)]()
            yield f"write {ast.unparse(other)}", other
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIPPED:
        other_compare = copy.deepcopy(node)
        other_compare.ops = [FLIPPED[type(node.ops[0])]()]
        yield f"compare {ast.unparse(other_compare)}", other_compare
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield f"drop the sign of {ast.unparse(node)}", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"write {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        value = node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0
        yield f"write {value} for {node.value}", ast.Constant(value)
    elif isinstance(node, ast.Call):
        positional = [a for a in node.args if not isinstance(a, ast.Starred)]
        if len(positional) >= 2 and len(positional) == len(node.args) and ast.dump(node.args[0]) != ast.dump(node.args[1]):
            swapped = copy.deepcopy(node)
            swapped.args[0], swapped.args[1] = swapped.args[1], swapped.args[0]
            yield f"swap the arguments of {ast.unparse(node.func)}", swapped
        if isinstance(node.func, ast.Name) and positional:
            yield f"skip the call of {ast.unparse(node.func)}", node.args[0]
        elif isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            yield f"skip the call of .{node.func.attr}", node.func.value
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"skip {ast.unparse(node.value)}", ast.Pass()
    elif isinstance(node, ast.AugAssign):
        yield f"skip {ast.unparse(node)}", ast.Pass()


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"torch", "F", "nn", "np", "math", "nets", "copy", "tensorly", "scipy"}


def _sites(function: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """(parent, field, index, child) of everything that runs: no docstrings, annotations or refusals."""
    for parent in _running(function):
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "decorator_list", "bases") or (name == "body" and refuses(parent)):
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST):
                    yield parent, name, index, child


def _running(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr) or is_wording(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "bases") and not (name == "body" and refuses(node)):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _running(child)


def is_wording(node: ast.AST) -> bool:
    """Docstrings, log messages, and the `strict` of a zip: nothing that a method computes."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or ast.unparse(node.value).startswith("logging.")
    return isinstance(node, ast.keyword) and node.arg == "strict"


def refuses(node: ast.AST) -> bool:
    """An `if` that ends in an error: what it does on the way there is wording."""
    return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)


def faults(text: str) -> list[Fault]:
    """Every fault that is planted in a method's source, first the two that replace the whole method."""
    tree = ast.parse(text)
    compress = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "compress")
    planted = [Fault(compress.lineno, "return the model unchanged", text + "\n\ndef compress(model, task, config):\n    return model\n")]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("control_"):
            planted.append(Fault(compress.lineno, f"return {node.name}", text + SWAP.format(control=node.name)))
    for function in reachable(tree, ROOTS):
        for parent, name, index, child in list(_sites(function)):
            if isinstance(child, ast.Raise) or is_wording(child):
                continue
            for what, replacement in variants(child):
                _put(parent, name, index, replacement)
                code = ast.unparse(ast.fix_missing_locations(tree))
                planted.append(Fault(getattr(child, "lineno", function.lineno), what, code))
                _put(parent, name, index, child)
    seen: set[str] = set()
    return [fault for fault in planted if not (fault.code in seen or seen.add(fault.code))]  # type: ignore[func-returns-value]


def _put(parent: ast.AST, name: str, index: int | None, child: ast.AST | None) -> None:
    if index is None:
        setattr(parent, name, child)
    else:
        getattr(parent, name)[index] = child


def load(code: str, record: Record, path: Path) -> ModuleType:
    """A method module from changed source, in the place of the healthy one for whatever imports it."""
    import sys

    package = importlib.import_module(f"methods.{record.family}")
    module = ModuleType(f"{package.__name__}.{record.id}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    setattr(package, record.id, module)
    exec(compile(code, str(path), "exec"), module.__dict__)
    return module


Verdicts = dict[str, str]  # subject -> what it did


def verdicts(root: Path, record: Record, code: str, path: Path, tiers: tuple[str, ...], data: Path | None) -> Iterator[tuple[str, str]]:
    """(subject, verdict by its bound) of each claim as it is measured, exact ones first."""
    from methods.kit.lab import Lab
    from scripts.running import smoke

    module, claims = load(code, record, path), importlib.import_module(f"methods.{record.family}.claims.{record.id}")
    start = (record.executable.start if record.executable else None) or "trained"
    for tier in tiers:
        lab = Lab(module, lambda: smoke.make_task("smoke", start, data, 0))
        for name, claim in smoke.claims_of(record, (tier,)):
            for verdict in smoke.judge(root, claims, name, claim, lab, 0):
                yield verdict.subject, verdict.error or ("meets" if verdict.meets else "misses")


def _healthy(send: Callable[[Verdicts], None], *arguments: Any) -> None:
    """Send the verdicts of the method as it is."""
    send(dict(verdicts(*arguments)))


def _planted(send: Callable[[str], None], expected: Verdicts, *arguments: Any) -> None:
    """Send the first claim whose verdict is not the healthy method's; "" when all agree."""
    warnings.simplefilter("ignore")  # of what broken code may do
    try:
        send(next((subject for subject, verdict in verdicts(*arguments) if verdict != expected[subject]), ""))
    except Exception as problem:
        send(f"import ({type(problem).__name__})")


def bite(
    root: Path,
    record: Record,
    *,
    tiers: tuple[str, ...] = ("exact", "smoke"),
    data: Path | None = None,
    jobs: int = 2,
    most: int | None = None,
    resume: bool = False,
    heard: Callable[[int, int, Outcome], None] = lambda done, planted, outcome: None,
) -> tuple[list[Outcome], int]:
    """Plant every fault (or `most` of them, spread evenly), each in a process of its own; `heard` hears each outcome.

    Outcomes are kept as they come; with `resume` those that are known of the same code and data are not found out again.
    Returns the outcomes, and how many faults there are in all.
    Raises ValueError when the method as it is has a claim that cannot be measured, an unexpected exact verdict, or a process that dies.
    """
    method = source.read(root, root / record.program)
    if isinstance(method, Problem):
        raise ValueError(str(method))
    every = faults(method.text)
    planted = [every[i * len(every) // most] for i in range(most)] if most and most < len(every) else every
    same = (root, record, method.text, root / method.path, tiers, data)
    started = time.monotonic()
    expected = _as_it_is(record, Job(record.id, _healthy, same, 1))
    patience = 10 + 4 * (time.monotonic() - started)

    lines = method.text.splitlines()
    memory = Memory(root, record, Codes(root, method).whole, tiers, data, resume)
    outcomes: dict[int, Outcome] = {}

    def ended(number: int, killed_by: str, died: str) -> None:
        fault = planted[number]
        why = EQUIVALENT.search(lines[fault.line - 1]) if fault.line <= len(lines) else None
        equivalent = why.group(1) if why and not killed_by and not died else ""
        outcomes[number] = Outcome(fault, killed_by, equivalent, died)
        memory.keep(fault, killed_by, died)
        heard(len(outcomes), len(planted), outcomes[number])

    waiting = deque[Job]()
    for number, fault in enumerate(planted):
        if (known := memory.known(fault)) is not None:
            ended(number, *known)
        else:
            arguments = (expected, root, record, fault.code, root / method.path, tiers, data)
            waiting.append(Job(str(number), _planted, arguments, threads=1, patience=patience))
    found: dict[str, str] = {}
    try:
        with closing(side_by_side(waiting, jobs)) as events:
            for job, event in events:
                if isinstance(event, str):
                    found[job.name] = event
                elif isinstance(event, Ended):
                    ended(int(job.name), found.get(job.name, ""), "" if job.name in found else event.death)
    finally:
        memory.write()
    return [outcomes[number] for number in sorted(outcomes)], len(every)


def _as_it_is(record: Record, job: Job) -> Verdicts:
    """The healthy method's verdicts. Raises ValueError where they say that something is wrong with it."""
    found: Verdicts = {}
    death = ""
    with closing(side_by_side(deque([job]), 1)) as events:
        for _, event in events:
            if isinstance(event, dict):
                found = event
            elif isinstance(event, Ended):
                death = event.death
    cure = f"run `smallprint smoke {record.id}` first"
    if death or not found:
        raise ValueError(f"{record.id}: the method as it is, without a fault: {death or 'has no claims'}; {cure}")
    for claim in [*blanks(record, "exact"), *blanks(record, "smoke")]:
        right = "misses" if claim.bound.because else "meets"
        if found.get(claim.subject, right) not in ((right,) if claim.said.tier == "exact" else ("meets", "misses")):
            raise ValueError(f"{record.id}: the method as it is already surprises in {claim.subject}; {cure}")
    return found


class Memory:
    """What is known of faults from a run that was interrupted, in build/bite."""

    def __init__(self, root: Path, record: Record, code: str, tiers: tuple[str, ...], data: Path | None, resume: bool) -> None:
        self.path = root / "build/bite" / f"{record.id}.json"
        self.key = f"{code} {' '.join(tiers)} {data or 'standin'}"
        self.outcomes: dict[str, list[str]] = {}
        if resume:
            with suppress(OSError, ValueError):
                kept = json.loads(self.path.read_text())
                if kept.get("key") == self.key:
                    self.outcomes = kept["outcomes"]

    def known(self, fault: Fault) -> list[str] | None:
        return self.outcomes.get(_digest(fault))

    def keep(self, fault: Fault, killed_by: str, died: str) -> None:
        self.outcomes[_digest(fault)] = [killed_by, died]
        if len(self.outcomes) % 10 == 0:
            self.write()

    def write(self) -> None:
        with suppress(OSError):  # then the next run begins anew
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write(self.path, json.dumps({"key": self.key, "outcomes": self.outcomes}))


def _digest(fault: Fault) -> str:
    return hashlib.sha256(fault.code.encode()).hexdigest()[:16]


class Score(NamedTuple):
    """How many faults were noticed by a claim, change nothing, ended their process or took too long, and were planted."""

    killed: int
    equivalent: int
    died: int
    planted: int

    @property
    def share(self) -> float:
        return self.killed / max(1, self.planted - self.equivalent - self.died)


def score(outcomes: list[Outcome]) -> Score:
    killed, equivalent, died = (sum(bool(getattr(o, name)) for o in outcomes) for name in ("killed_by", "equivalent", "died"))
    return Score(killed, equivalent, died, len(outcomes))

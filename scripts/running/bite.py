"""Plant faults in a method's source and see whether anything notices: a claim that no fault can break says nothing."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import math
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from catalog import Problem, Record
from scripts.evidence import files, records, source
from scripts.evidence.definitions import Codes
from scripts.evidence.outcome import Verdict, known
from scripts.evidence.records import Row
from scripts.running import faults
from scripts.running.faults import CLASSES, Fault
from scripts.running.processes import Ended, Job, side_by_side

TOYS = ("resnet", "vgg", "lenet")  # networks of the zoo, of which the first that the method works on is its toy


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    killed_by: str  # what noticed, or ""
    equivalent: bool = False  # nothing noticed, and every network came out bit for bit the same
    died: str = ""  # how its process did, where it died or took too long


class Seen(NamedTuple):
    """One thing that a run of the method shows: a claim's value, whether it meets its bound, networks' digests, or what was refused."""

    what: str
    value: float = math.nan
    said: str = ""


# What a method shows, healthy or not


def load(code: str, record: Record, path: Path) -> ModuleType:
    """A method from changed source, in the place of the healthy one for whatever imports it, however it does so.

    Claims and other methods that hold the healthy one are forgotten, and imported again when they are needed.
    """
    for name in [name for name in sys.modules if name.startswith("methods.") and name.split(".")[1] != "kit" and name.count(".") > 1]:
        package, _, short = name.rpartition(".")
        del sys.modules[name]
        vars(sys.modules.get(package, sys)).pop(short, None)
    parent = importlib.import_module(f"methods.{record.family}")
    module = ModuleType(f"{parent.__name__}.{record.id}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    setattr(parent, record.id, module)
    exec(compile(code, str(path), "exec"), module.__dict__)
    return module


def shown(root: Path, record: Record, code: str, path: Path, tiers: tuple[str, ...], data: Path | None) -> Iterator[Seen]:
    """What the method shows, cheap things first: exact claims, the toy, smoke claims, whether its controls are fair, its networks."""
    from methods.kit.lab import Lab
    from scripts.running import fairness, smoke

    logging.disable(logging.WARNING)
    module = load(code, record, path)
    _, claims = smoke.modules(record)
    start = (record.executable.start if record.executable else None) or "trained"

    def verdicts(lab: Lab, tier: str) -> Iterator[Verdict]:
        for name, claim in smoke.claims_of(record, (tier,)):
            yield from smoke.judge(root, claims, name, claim, lab, 0)

    for verdict in verdicts(Lab(module, lambda: smoke.make_task("smoke", start, data, 0)), "exact"):
        yield Seen(verdict.subject, said=verdict.error.partition(":")[0] or ("meets" if verdict.meets else "misses"))
    yield from on_toy(record, module)
    if "smoke" in tiers:
        lab = Lab(module, lambda: smoke.make_task("smoke", start, data, 0))
        for verdict in verdicts(lab, "smoke"):
            yield Seen(verdict.subject, verdict.value, "error" if verdict.error else "")
        yield Seen("ledger", said="; ".join(_unplaced(fault) for fault in fairness.faults(root, lab)))
        for subject in ("method", *fairness.controls(module)):
            yield Seen(f"network {subject}", said=digest(lab.built(subject)))


def on_toy(record: Record, module: ModuleType) -> Iterator[Seen]:
    """Method and controls on a small network whose task has three splits that differ: what is refused, and what comes out."""
    from methods.kit.lab import Lab
    from methods.kit.ledger import LeakError
    from methods.kit.zoo import ZOO
    from scripts.running import fairness
    from scripts.running.networks import network, points, task_for

    for name in TOYS:
        reference = network(ZOO[name])
        lab = Lab(_with_reference(module, reference), partial(task_for, ZOO[name]), points(module)[0])
        try:
            lab.built("method")
        except LeakError:
            yield Seen("guard", said="LeakError")
            return
        except Exception:  # this network is refused, or a fault; a smoke run tells which
            continue
        subjects = ["method", *fairness.controls(module)]
        try:
            for subject in subjects[1:]:
                said = fairness.unfair(getattr(module, subject).__doc__, lab.account("method"), lab.account(subject))
                yield Seen(f"toy ledger {subject}", said="; ".join(said))
            for subject in subjects:
                yield Seen(f"network {subject} on {name}", said=digest(lab.built(subject)))
        except LeakError:
            yield Seen("guard", said="LeakError")
        except Exception as problem:
            yield Seen(f"toy {name}", said=type(problem).__name__)
        return


def _with_reference(module: ModuleType, reference: Any) -> ModuleType:
    """The module with another network to start from."""
    other = ModuleType(module.__name__)
    vars(other).update({**vars(module), "reference": lambda task: reference})
    return other


def _unplaced(fault: str) -> str:
    """A fault of a control without its line, which a planted fault may move."""
    return fault.partition(": ")[2]


def digest(network: Any) -> str:
    """Of a network's numbers and what it answers to a few images that it takes."""
    import torch

    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


# Planting


def bite(
    root: Path,
    record: Record,
    *,
    tiers: tuple[str, ...] = ("exact", "smoke"),
    data: Path | None = None,
    jobs: int = 2,
    most: int = faults.MOST,
    resume: bool = False,
    heard: Callable[[int, int, Outcome], None] = lambda done, planted, outcome: None,
) -> tuple[list[Outcome], list[Fault]]:
    """Plant every fault, or `most` of them, of each class as many, each in a process of its own; `heard` hears each outcome.

    Outcomes are kept as they come; with `resume` those that are known of the same code and data are not found out again.
    Returns the outcomes, and all faults that there are.
    Raises ValueError when the method as it is has a claim that cannot be measured, an exact claim that surprises, or a process that dies.
    """
    method = source.read(root, root / record.program)
    if isinstance(method, Problem):
        raise ValueError(str(method))
    every = faults.every(method.text)
    planted = faults.drawn(every, method.text, most)
    same = (root, record, method.text, root / method.path, tiers, data)
    started = time.monotonic()
    healthy = _as_it_is(root, record, Job(record.id, _healthy, same, 1))
    patience = 10 + 4 * (time.monotonic() - started)
    allowed = tolerances(root, record, healthy)
    memory = Memory(root, record, Codes(root, method).whole, tiers, data, resume)
    outcomes: dict[int, Outcome] = {}

    def ended(number: int, killed_by: str, equivalent: bool, died: str) -> None:
        outcomes[number] = Outcome(planted[number], killed_by, equivalent, died)
        memory.keep(planted[number], killed_by, equivalent, died)
        heard(len(outcomes), len(planted), outcomes[number])

    waiting = deque[Job]()
    for number, fault in enumerate(planted):
        if (kept := memory.known(fault)) is not None:
            ended(number, *kept)
        else:
            arguments = (healthy, allowed, root, record, fault.code, root / method.path, tiers, data)
            waiting.append(Job(str(number), _planted, arguments, threads=1, patience=patience))
    found: dict[str, tuple[str, bool]] = {}
    try:
        with closing(side_by_side(waiting, jobs)) as events:
            for job, event in events:
                if isinstance(event, tuple):
                    found[job.name] = event
                elif isinstance(event, Ended):
                    killed_by, equivalent = found.get(job.name, ("", False))
                    ended(int(job.name), killed_by, equivalent, "" if job.name in found else event.death)
    finally:
        memory.write()
    return [outcomes[number] for number in sorted(outcomes)], every


def _healthy(send: Callable[[list[Seen]], None], *arguments: Any) -> None:
    """Send what the method shows as it is."""
    send(list(shown(*arguments)))


def _planted(send: Callable[[tuple[str, bool]], None], healthy: list[Seen], allowed: dict[str, float], *arguments: Any) -> None:
    """Send what noticed the fault, "" where nothing did, and then whether all networks came out as they do without it."""
    warnings.simplefilter("ignore")  # of what broken code may do
    expected, same = {seen.what: seen for seen in healthy}, True
    try:
        for seen in shown(*arguments):
            as_ever = noticed(seen, expected.get(seen.what), allowed)
            if as_ever is None:
                same = same and seen.said == getattr(expected.get(seen.what), "said", "")
            elif not as_ever:
                send((seen.what, False))
                return
    except Exception as problem:
        send((type(problem).__name__, False))
        return
    send(("", same))


def noticed(seen: Seen, healthy: Seen | None, allowed: dict[str, float]) -> bool | None:
    """Whether something is as it is without the fault; None for what nobody would notice, a network's digits."""
    if seen.what.startswith("network "):
        return None
    if healthy is None:
        return False
    if seen.said != healthy.said:
        return False
    return math.isnan(healthy.value) or abs(seen.value - healthy.value) <= allowed[seen.what]


def tolerances(root: Path, record: Record, healthy: list[Seen]) -> dict[str, float]:
    """How far each smoke value may be from the healthy one, as in a run: what is recorded of processors, or what is allowed in any case."""
    rows = records.read(records.path_of(root, record.family, record.id))
    values = {seen.what: seen.value for seen in healthy if not math.isnan(seen.value)}
    now = [Row("smoke", what, "value", value, "now", "", 0, "", 1, "", "", "", "", "") for what, value in values.items()]
    floors = known(record, now, "smoke", "now")
    spreads = {
        subject: found.spread
        for data in ("standin", "cifar10-jpeg75", "cifar10")
        for subject, found in known(record, rows, "smoke", data).items()
    }
    return {what: 1.001 * max(floors[what].floor, spreads.get(what, 0.0)) for what in values}


def _as_it_is(root: Path, record: Record, job: Job) -> list[Seen]:
    """What the healthy method shows. Raises ValueError where that says that something is wrong with it."""
    found: list[Seen] = []
    death = ""
    with closing(side_by_side(deque([job]), 1)) as events:
        for _, event in events:
            if isinstance(event, list):
                found = event
            elif isinstance(event, Ended):
                death = event.death
    cure = f"run `smallprint smoke {record.id}` first"
    if death or not found:
        raise ValueError(f"{record.id}: the method as it is, without a fault: {death or 'has no claims'}; {cure}")
    for seen in found:
        if seen.what.startswith("claim_") and seen.said not in ("", "meets", "misses"):
            raise ValueError(f"{record.id}: the method as it is cannot measure {seen.what}; {cure}")
    return found


class Memory:
    """What is known of faults from a run that was interrupted, in build/bite."""

    def __init__(self, root: Path, record: Record, code: str, tiers: tuple[str, ...], data: Path | None, resume: bool) -> None:
        self.path = root / "build/bite" / f"{record.id}.json"
        self.key = f"{code} {' '.join(tiers)} {data or 'standin'}"
        self.outcomes: dict[str, tuple[str, bool, str]] = {}
        if resume:
            with suppress(OSError, ValueError):
                kept = json.loads(self.path.read_text())
                if kept.get("key") == self.key:
                    self.outcomes = {key: tuple(value) for key, value in kept["outcomes"].items()}

    def known(self, fault: Fault) -> tuple[str, bool, str] | None:
        return self.outcomes.get(_digest(fault))

    def keep(self, fault: Fault, killed_by: str, equivalent: bool, died: str) -> None:
        self.outcomes[_digest(fault)] = (killed_by, equivalent, died)
        if len(self.outcomes) % 10 == 0:
            self.write()

    def write(self) -> None:
        with suppress(OSError):  # then the next run begins anew
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write(self.path, json.dumps({"key": self.key, "outcomes": self.outcomes}))


def _digest(fault: Fault) -> str:
    return hashlib.sha256(fault.code.encode()).hexdigest()[:16]


class Score(NamedTuple):
    """Of the faults of a class: how many were noticed, change nothing, ended their process or took too long; planted, and possible."""

    killed: int
    equivalent: int
    died: int
    planted: int
    possible: int

    @property
    def judged(self) -> int:
        return self.planted - self.equivalent - self.died

    @property
    def share(self) -> float:
        return self.killed / max(1, self.judged)


def scores(outcomes: list[Outcome], every: list[Fault]) -> dict[str, Score]:
    """The score of each class of which there are faults."""
    found = {}
    for kind in CLASSES:
        mine = [outcome for outcome in outcomes if outcome.fault.kind == kind]
        if mine:
            counts = [sum(bool(getattr(outcome, name)) for outcome in mine) for name in ("killed_by", "equivalent", "died")]
            found[kind] = Score._make([*counts, len(mine), sum(fault.kind == kind for fault in every)])
    return found

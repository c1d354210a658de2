"""Run a method: reference, controls and method on a slice of data, then every claim of a tier, against its bound or its record."""

from __future__ import annotations

import importlib
import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from catalog import Record
from catalog.schema import Claim
from methods.kit.batches import DataError
from methods.kit.changes import changes, grouped, noted
from methods.kit.lab import Lab, ReturnError
from methods.kit.measure import QUANTITIES
from methods.kit.nets import WeightsError
from methods.kit.standin import COUNTS, standin
from methods.kit.task import TEST, Task, cifar10
from scripts.evidence import records
from scripts.evidence.outcome import ENOUGH, TIME, Report, Verdict, blanks, known
from scripts.evidence.owed import owed
from scripts.running import fairness
from scripts.running.stamp import Stamp, processor

PLAIN = (DataError, WeightsError, ReturnError, records.RecordError)  # their messages say what, where and the cure


@dataclass(frozen=True)
class Budget:
    """How much of the data a tier uses, and how many optimiser steps of how many images method and control each get."""

    train: int
    validation: int
    test: int
    steps: dict[str, tuple[int, int]]  # (steps, batch) by where the method starts: from a trained network or from scratch


BUDGETS = {
    "smoke": Budget(5_000, 1_000, 1_000, {"trained": (24, 64), "scratch": (80, 64)}),
    "long": Budget(45_000, 5_000, 10_000, {"trained": (700, 128), "scratch": (700, 128)}),  # 2 epochs
    "full": Budget(45_000, 5_000, 10_000, {"trained": (14_000, 128), "scratch": (56_000, 128)}),  # 40 and 160 epochs
}


def make_task(tier: str, start: str, data: Path | None, seed: int, device: str = "cpu") -> Task:
    """The slice that a tier works on: of the CIFAR-10 folder `data`, or of the stand-in.

    A smoke run of seed s is judged on the s-th thousand of the test images (as many as there are, then from the first again), so
    that what the images add to chance shows between seeds.
    """
    budget = BUDGETS["smoke" if tier == "exact" else tier]
    sizes = {"train": budget.train, "validation": budget.validation, "test": budget.test}
    steps, batch = budget.steps[start]
    if data is None:
        sizes = {split: min(size, COUNTS[split]) for split, size in sizes.items()}
    there = COUNTS["test"] if data is None else TEST
    settings: dict[str, int] = {**sizes, "steps": steps, "seed": seed, "test_from": sizes["test"] * (seed % (there // sizes["test"]))}
    task = standin(**settings) if data is None else cifar10(data, **settings)
    return replace(task, batch=batch, device=device)


def claims_of(record: Record, tiers: tuple[str, ...]) -> Iterator[tuple[str, Claim]]:
    entry = record.executable
    for name, claim in entry.claims.items() if entry else ():
        if claim.tier in tiers:
            yield name, claim


def call(module: ModuleType, name: str, claim: Claim, lab: Lab, seed: int) -> dict[str | None, float]:
    """The number of one claim, by case, from the file of claims; where it gives several, the worst."""
    function: Callable[..., Any] = getattr(module, f"claim_{name}")
    values = {}
    for case, bound in claim.bounds().items():
        torch.manual_seed(seed)
        found = function(lab) if case is None else function(lab, case)
        several = found if isinstance(found, list | tuple) else [found]
        values[case] = bound.worst([float(value) for value in several])
    return values


def modules(record: Record) -> tuple[ModuleType, ModuleType]:
    """A method, and the file of its claims."""
    package = f"methods.{record.family}"
    return importlib.import_module(f"{package}.{record.id}"), importlib.import_module(f"{package}.claims.{record.id}")


def judge(root: Path, module: ModuleType, name: str, claim: Claim, lab: Lab, seed: int) -> list[Verdict]:
    """A claim's numbers, one verdict a case. What a claim raises, or to leave the program, is an error verdict, not an end."""
    started = time.monotonic()
    values: dict[str | None, float] = {}
    error = ""
    try:
        values = call(module, name, claim, lab, seed)
    except (DataError, WeightsError):
        raise
    except (Exception, SystemExit) as problem:
        error = said(root, problem)
    spent = time.monotonic() - started
    found = {case: {seed: values[case]} if case in values else {} for case in claim.bounds()}
    return [Verdict(name, case, claim, bound, found[case], error, spent) for case, bound in claim.bounds().items()]


def said(root: Path, problem: BaseException) -> str:
    """An error in one line: where in the methods it was raised, and what it says."""
    if isinstance(problem, PLAIN):
        return str(problem)
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if Path(frame.filename).is_relative_to(root / "methods")]
    own = [frame for frame in frames if "kit" not in Path(frame.filename).relative_to(root).parts]
    place = next((f"{Path(f.filename).relative_to(root)}:{f.lineno}: {f.name}: " for f in reversed(own or frames)), "")
    if isinstance(problem, SystemExit):
        return f"{place}left the program with sys.exit({problem.code!r})"
    return f"{place}{type(problem).__name__}: {str(problem).strip() or 'no reason given'}"


def run(
    root: Path,
    record: Record,
    *,
    tiers: tuple[str, ...] = ("exact", "smoke"),
    data: Path | None = None,
    seeds: tuple[int, ...] = (0,),
    device: str = "cpu",
    record_rows: bool = False,
    resume: bool = False,
    trace: bool = False,
    report: Report | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run one method's claims of the given tiers. `report` is filled in as the run goes on, and `say` hears what is being done.

    With `record_rows` every finished seed is written to the results file at once; with `resume` seeds that the file already has, from
    the same code and data, are read from it instead of run. Else a smoke claim that departs from its record is measured with two
    more of the recorded seeds. What of the controls is unfair makes the report bad, unless the method owes it. With `trace` the report
    tells what was done to each network. Raises DataError, WeightsError, ReturnError and RecordError, whose messages name file and cure.
    """
    started = time.monotonic()
    upper = [tier for tier in tiers if tier != "exact"]
    report = report or Report(record.id, "")
    report.instructions, report.threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    report.tier, report.seeds = upper[-1] if upper else "exact", list(seeds)
    method, claims = modules(record)
    stamp = Stamp(root, record, name_of(device), torch.get_num_threads())
    rows = records.read(stamp.path)
    start = (record.executable.start if record.executable else None) or "trained"

    def doing(what: str, where: str = "") -> None:
        report.doing = what
        say(f"{where}{what}")

    if "exact" in tiers:
        lab = Lab(method, lambda: make_task("smoke", start, data, seeds[0], device))
        for name, claim in claims_of(record, ("exact",)):
            doing(f"measured claim_{name}")
            report.verdicts += judge(root, claims, name, claim, lab, 0)
        if record_rows:
            found = [(v.subject, "value", v.value) for v in report.verdicts if not v.error]
            found.append((*TIME, time.monotonic() - started))
            stamp.write([stamp.row("exact", *row, "none", "", 0) for row in found])

    def at_seed(tier: str, seed: int, where: str) -> dict[str, Verdict]:
        """The verdicts of one seed, by subject."""
        config = {"long": getattr(method, "LONG", None) or method.Config(), "full": method.Config()}.get(tier)
        lab = Lab(method, lambda: make_task(tier, start, data, seed, device), config)
        doing("read the data", where)
        began = time.monotonic()
        report.data, report.digests[seed] = lab.task.name, lab.task.digest
        blank = {v.subject: v for v in blanks(record, tier)}
        found = stamp.done(tier, lab.task.digest, seed) if resume else []
        if not found:
            if not report.layers:
                report.layers = became(lab, lambda subject: doing(f"measured {subject}", where))
            found = list(measured(lab, method, lambda subject: doing(f"measured {subject}", where)))
            for name, claim in claims_of(record, (tier,)):
                doing(f"measured claim_{name}", where)
                for v in judge(root, claims, name, claim, lab, seed):
                    blank[v.subject] = v
                    found += [] if v.error else [(v.subject, "value", v.value)]
            found += fairness.ledgers(lab)
            if tier == "smoke" and seed == seeds[0]:
                due = owed(root).get(record.id, set())
                wrong, named = fairness.weighed(record.id, fairness.faults(root, lab), due, lab.task.name)
                report.faults, report.notes = [*report.faults, *wrong], [*report.notes, *named]
            if trace:
                report.traces.update({subject: lab.trace(subject) for subject in ("reference", "method", *fairness.controls(method))})
            found.append((*TIME, time.monotonic() - began))
            if record_rows:
                found += fairness.latencies(lab)
                stamp.write([stamp.row(tier, *row, lab.task.name, lab.task.digest, seed) for row in found])
        for subject, quantity, value in found:
            if subject in blank:
                blank[subject] = replace(blank[subject], values={seed: value})
            elif subject != TIME[0]:
                report.numbers.setdefault(subject, {}).setdefault(quantity, []).append(value)
        return {subject: v for subject, v in blank.items() if v.values or v.error}

    for tier in upper:
        if tier != "smoke" and not list(claims_of(record, (tier,))):
            continue
        verdicts: dict[str, Verdict] = {}
        for count, seed in enumerate(seeds, 1):
            verdicts = merged(verdicts, at_seed(tier, seed, f"{tier}, seed {seed} ({count} of {len(seeds)}): "))

        def judged() -> dict[str, Verdict]:
            beside = known(record, rows, tier, report.data, report.digests) if not record_rows else {}
            return {name: replace(v, known=beside.get(name)) for name, v in verdicts.items()}

        odd = {name: v for name, v in judged().items() if v.departs and len(v.compared) < ENOUGH}
        for seed in (seed for seed in range(ENOUGH) if seed not in seeds and any(seed in v.known.values for v in odd.values() if v.known)):
            report.seeds.append(seed)
            again = at_seed(tier, seed, f"{tier}, seed {seed}, for {len(odd)} claims depart from their record: ")
            verdicts |= merged({name: verdicts[name] for name in odd}, {name: v for name, v in again.items() if name in odd})
        verdicts = judged()
        report.verdicts += verdicts.values()
        judges = {v.known.data for v in verdicts.values() if v.known} if not record_rows else {}
        if any(stamp.stale(row) for row in rows if (row.tier == tier and row.data in judges)):
            report.notes.append("the code has moved on since the record was made, which is stale and judges all the same")
    report.doing = ""
    report.seconds = time.monotonic() - started
    return report


def rounding(
    root: Path,
    record: Record,
    *,
    data: Path | None = None,
    seeds: tuple[int, ...] = (0,),
    resume: bool = False,
    report: Report | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Record the smoke claims once more, in a process that computes as another processor does: what the two differ by is tolerated."""
    report = report or Report(record.id, records.ROUNDING)
    method, claims = modules(record)
    stamp = Stamp(root, record, threads=torch.get_num_threads())
    start = (record.executable.start if record.executable else None) or "trained"
    for seed in seeds:
        lab = Lab(method, lambda seed=seed: make_task("smoke", start, data, seed))  # type: ignore[misc]
        if resume and stamp.done(records.ROUNDING, lab.task.digest, seed):
            continue
        found = list[Verdict]()
        for name, claim in claims_of(record, ("smoke",)):
            report.doing = f"measured claim_{name} on another instruction set"
            say(f"{records.ROUNDING}, seed {seed}: claim_{name}")
            found += judge(root, claims, name, claim, lab, seed)
        values = [(v.subject, "value", v.value) for v in found if not v.error]
        stamp.write([stamp.row(records.ROUNDING, *row, lab.task.name, lab.task.digest, seed) for row in values])
        report.verdicts += [v for v in found if v.error]
    return report


def became(lab: Lab, doing: Callable[[str], None]) -> list[str]:
    """What the method made of the reference's layers, and why it left others."""
    doing("reference")
    reference = lab.reference
    doing("method")
    with noted() as kept:
        return [*grouped(changes(reference, lab.compressed)), *kept]


def name_of(device: str) -> str:
    return processor() if device == "cpu" else torch.cuda.get_device_name(device)


def measured(lab: Lab, method: ModuleType, doing: Callable[[str], None]) -> Iterator[tuple[str, str, float]]:
    """Reference, method and controls, as (subject, quantity, value)."""
    controls = [name.removeprefix("control_") for name in fairness.controls(method)]
    steps: list[tuple[str, Callable[[], Any]]] = [("reference", lambda: lab.before), ("method", lambda: lab.after)]
    steps += [(f"control_{name}", lambda name=name: lab.control(name)) for name in controls]  # type: ignore[misc]
    for subject, build in steps:
        doing(subject)
        stats = build()
        for quantity in QUANTITIES:
            value = getattr(stats, quantity)
            if not math.isnan(value):
                yield subject, quantity, float(value)


def merged(one: dict[str, Verdict], other: dict[str, Verdict]) -> dict[str, Verdict]:
    """The same claims with the seeds of both; an error on any seed is the verdict."""
    whole = dict(one)
    for subject, v in other.items():
        mine = whole.get(subject, replace(v, values={}))
        whole[subject] = replace(mine, values=mine.values | v.values, error=mine.error or v.error)
    return whole

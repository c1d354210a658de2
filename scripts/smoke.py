"""Run a method: reference, controls and method on a slice of data, then every claim of a tier against its bound."""

from __future__ import annotations

import importlib
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from catalog import Record, load
from catalog.schema import Claim, Tier
from methods.kit.lab import Lab
from methods.kit.measure import QUANTITIES
from methods.kit.nets import WeightsError
from methods.kit.standin import COUNTS, standin
from methods.kit.task import TEST, DataError, Task, cifar10
from scripts import records, source
from scripts.outcome import TIME, Report, Verdict

TIERS: tuple[Tier, ...] = ("exact", "smoke", "long", "full")


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


def keeps_nan(choose: Callable[..., Any]) -> Callable[..., Any]:
    """`max` or `min`, but not a number where one of several floats is none: Python's drop it unless it comes first."""

    def chosen(*values: Any, **how: Any) -> Any:
        several = list(values[0]) if len(values) == 1 else values
        nan = next((value for value in several if isinstance(value, float) and math.isnan(value)), None)
        return choose(several, **how) if nan is None else nan

    return chosen


def call(module: ModuleType, name: str, claim: Claim, lab: Lab, seed: int) -> dict[str | None, float]:
    """The numbers of one claim, by case. A claim is often the worst of many numbers, among which a NaN must not get lost."""
    vars(module).update(max=keeps_nan(max), min=keeps_nan(min))
    function: Callable[..., float] = getattr(module, f"claim_{name}")
    values = {}
    for case in claim.bounds():
        torch.manual_seed(seed)
        values[case] = float(function(lab) if case is None else function(lab, case))
    return values


def judge(module: ModuleType, name: str, claim: Claim, labs: dict[int, Lab]) -> list[Verdict]:
    """A claim on every seed's lab. What a claim raises is an error verdict, not a crash."""
    started = time.monotonic()
    values: list[dict[str | None, float]] = []
    error = ""
    try:
        values = [call(module, name, claim, lab, seed) for seed, lab in labs.items()]
    except (DataError, WeightsError):
        raise
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    spent = time.monotonic() - started
    return [Verdict(name, case, claim, bound, [v[case] for v in values], error, spent) for case, bound in claim.bounds().items()]


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
    module: ModuleType | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run one method's claims of the given tiers. `say` hears what is being done.

    With `record_rows` every finished seed is written to the results file at once; with `resume` seeds that the file
    already has, from the same code and data, are read from it instead of run.
    Raises DataError, WeightsError and RecordError, whose messages name file and cure.
    """
    started = time.monotonic()
    method = module or importlib.import_module(f"methods.{record.family}.{record.id}")
    upper = [tier for tier in tiers if tier != "exact"]
    report = Report(record.id, upper[-1] if upper else "exact", seeds=list(seeds))
    stamp = Stamp(root, record, device) if record_rows or resume else None
    start = (record.executable.start if record.executable else None) or "trained"

    if "exact" in tiers:
        lab = Lab(method, lambda: make_task("smoke", start, data, seeds[0], device))
        for name, claim in claims_of(record, ("exact",)):
            say(f"exact claim {name}")
            report.verdicts += judge(method, name, claim, {0: lab})
        if stamp and record_rows:
            rows = [(v.subject, "value", v.value) for v in report.verdicts if not v.error]
            rows.append((*TIME, time.monotonic() - started))
            stamp.write([stamp.row("exact", *row, "none", "", 0) for row in rows])
    for tier in upper:
        claims = list(claims_of(record, (tier,)))
        if not claims and tier != "smoke":
            continue
        collected: dict[str, list[Verdict]] = {}
        for count, seed in enumerate(seeds, 1):
            config = {"long": getattr(method, "LONG", None) or method.Config(), "full": method.Config()}.get(tier)
            lab = Lab(method, lambda tier=tier, seed=seed: make_task(tier, start, data, seed, device), config)  # type: ignore[misc]
            where = f"{tier}, seed {seed} ({count} of {len(seeds)})"
            say(f"{where}: reading data")
            began = time.monotonic()
            report.data, report.data_digest = lab.task.name, lab.task.digest
            rows = stamp.done(tier, lab.task, seed) if stamp and resume else []
            if not rows:
                rows = list(measured(lab, method, where, say))
                for name, claim in claims:
                    say(f"{where}: claim {name}")
                    found = judge(method, name, claim, {seed: lab})
                    rows += [(v.subject, "value", v.value) for v in found if not v.error]
                    for v in found:
                        if v.error:
                            collected.setdefault(v.subject, []).append(v)
                rows.append((*TIME, time.monotonic() - began))
                if stamp and record_rows:
                    stamp.write([stamp.row(tier, *row, lab.task.name, lab.task.digest, seed) for row in rows])
            for subject, quantity, value in rows:
                if subject == TIME[0] or subject.startswith("claim_"):
                    continue
                report.numbers.setdefault(subject, {}).setdefault(quantity, []).append(value)
            values = {subject: value for subject, quantity, value in rows if quantity == "value"}
            for name, claim in claims:
                for case, bound in claim.bounds().items():
                    verdict = Verdict(name, case, claim, bound, [])
                    if verdict.subject in values:
                        collected.setdefault(verdict.subject, []).append(Verdict(name, case, claim, bound, [values[verdict.subject]]))
        report.verdicts += [merge(found) for found in collected.values()]
    report.seconds = time.monotonic() - started
    return report


def measured(lab: Lab, method: ModuleType, where: str, say: Callable[[str], None]) -> Iterator[tuple[str, str, float]]:
    """Reference, method and controls, as (subject, quantity, value)."""
    controls = [name.removeprefix("control_") for name in vars(method) if name.startswith("control_")]
    steps: list[tuple[str, Callable[[], Any]]] = [("reference", lambda: lab.before), ("method", lambda: lab.after)]
    steps += [(f"control_{name}", lambda name=name: lab.control(name)) for name in controls]  # type: ignore[misc]
    for subject, build in steps:
        say(f"{where}: {subject.replace('_', ' ')}")
        stats = build()
        for quantity in QUANTITIES:
            value = getattr(stats, quantity)
            if not math.isnan(value):
                yield subject, quantity, float(value)


def merge(found: list[Verdict]) -> Verdict:
    """The same claim on several seeds as one verdict; an error on any seed is the verdict."""
    first = found[0]
    errors = [v.error for v in found if v.error]
    return Verdict(first.claim, first.case, first.said, first.bound, [x for v in found for x in v.values], errors[0] if errors else "")


class Stamp:
    """What every recorded row of one run has in common."""

    def __init__(self, root: Path, record: Record, device: str) -> None:
        self.path = records.path_of(root, record.family, record.id)
        self.code = source.digest(root, source.methods(root)[record.id])
        self.device = device if device == "cpu" else torch.cuda.get_device_name(device)
        self.commit = commit(root)

    def row(self, tier: str, subject: str, metric: str, value: float, data: str, digest: str, seed: int) -> records.Row:
        return records.Row(
            tier, subject, metric, value, data, digest, seed, self.device, torch.get_num_threads(), platform.python_version(),
            torch.__version__.split("+")[0], self.commit, self.code, datetime.now(UTC).strftime("%Y-%m-%d"),
        )  # fmt: skip

    def write(self, rows: list[records.Row]) -> None:
        try:
            records.write(self.path, rows)
        except OSError as problem:
            cure = "make the folder writable, or run without --record"
            raise records.RecordError(f"{self.path}: cannot be written ({problem.strerror}); {cure}") from problem

    def done(self, tier: str, task: Task, seed: int) -> list[tuple[str, str, float]]:
        """Rows of a seed that was already measured with this code on this data."""
        same = [r for r in records.read(self.path) if (r.tier, r.seed, r.data_digest, r.code) == (tier, seed, task.digest, self.code)]
        return [(r.subject, r.metric, r.value) for r in same]


def commit(root: Path) -> str:
    """Short hash of HEAD; "+" behind it says that code had changed since."""
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "methods"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def run_many(
    root: Path,
    ids: list[str],
    jobs: int,
    options: dict[str, Any],
    heard: Callable[[str, Report | None], None],
    work: Callable[..., Report] = run,
) -> dict[str, Report]:
    """Do the work, `run` or the like, for methods side by side in `jobs` processes of one thread each.

    `heard(id, None)` when one starts, with the report when it ends.
    """
    reports: dict[str, Report] = {}
    if jobs < 2 or len(ids) < 2:
        for id in ids:
            heard(id, None)
            reports[id] = _worker(root, id, options, work)
            heard(id, reports[id])
        return reports
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_one_thread)
    waiting, running = list(ids), dict[Future[Report], str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                id = waiting.pop(0)
                heard(id, None)
                running[pool.submit(_worker, root, id, options, work)] = id
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                id = running.pop(future)
                reports[id] = future.result()
                heard(id, reports[id])
    finally:
        pool.shutdown(cancel_futures=True)
    return reports


def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def _worker(root: Path, id: str, options: dict[str, Any], work: Callable[..., Report]) -> Report:
    """One method in this process; what stops the run is the report's problem."""
    started = time.monotonic()
    try:
        return work(root, load(root / "catalog").entries[id], **options)
    except (DataError, WeightsError, records.RecordError) as problem:
        return Report(id, "smoke", problem=str(problem), seconds=time.monotonic() - started)
    except Exception as problem:
        return Report(id, "smoke", problem=f"{type(problem).__name__}: {problem}", seconds=time.monotonic() - started)

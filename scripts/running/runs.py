"""Runs of methods, each in a process of its own, begun and heard from without torch."""

from __future__ import annotations

import importlib
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from catalog import Record
from scripts.evidence.outcome import ENOUGH, Report
from scripts.running.processes import Ended, Job, Started, side_by_side

NETWORKS, PLAN = "scripts.running.networks.try_networks", "scripts.running.plan.rehearse"
SMOKE, SWEEP, ROUNDING = "scripts.running.smoke.run", "scripts.running.sweep.sweep", "scripts.running.smoke.rounding"
OTHER = {"AVX512": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}  # how to compute as a lesser processor does
OLDEST = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}


def stream(
    work: str, jobs: Iterable[tuple[str, tuple[Any, ...]]], at_once: int, patience: float = math.inf
) -> Generator[tuple[str, Any], None, None]:
    """What `work(send, *arguments)`, a function's full name, sends in a process of its own for each job: (the job's name, what).

    One that died is told by an `Ended` with its death.
    """
    waiting = deque(Job(name, _named, (work, *arguments), 1, patience=patience) for name, arguments in jobs)
    with closing(side_by_side(waiting, at_once)) as events:
        for job, event in events:
            if not isinstance(event, Started | Ended) or (isinstance(event, Ended) and event.death):
                yield job.name, event


def _named(send: Callable[[Any], None], work: str, *arguments: Any) -> None:
    module, _, function = work.rpartition(".")
    getattr(importlib.import_module(module), function)(send, *arguments)


def run_many(
    root: Path,
    entries: Iterable[Record],
    jobs: int,
    options: dict[str, Any],
    heard: Callable[[str, str | Report | None], None],
    work: str = SMOKE,
) -> dict[str, Report]:
    """Do the work, a function's full name, for methods side by side, `jobs` at a time and then with one thread each.

    `heard(id, None)` when one starts, with a text that says what it does, and with the report when it ends. What is recorded of smoke
    claims is followed by the same on another instruction set and another number of threads. Whatever happens to a method's process is
    its report's problem.
    """
    reports: dict[str, Report] = {}
    known = {record.id: record for record in entries}
    threads = 1 if jobs > 1 and len(known) > 1 else None
    waiting = deque(Job(id, _worker, (root, record, options, work), threads) for id, record in known.items())
    latest, begun = dict[Job, Report](), dict[Job, float]()
    with closing(side_by_side(waiting, jobs)) as events:
        for job, event in events:
            again = job.name in reports
            if isinstance(event, Started):
                begun[job], latest[job] = time.monotonic(), Report(job.name, "")
                if not again:
                    heard(job.name, None)
            elif not isinstance(event, Ended):
                text, latest[job] = event
                heard(job.name, text)
            else:
                report = latest.pop(job)
                if event.death and not report.problem:
                    report.problem = f"{event.death} while it {report.doing}"
                    report.seconds = time.monotonic() - begun[job]
                report.output = event.output
                if again:  # on the other instruction set: all that counts is whether it went well
                    reports[job.name].problem = report.problem or next((v.error for v in report.verdicts), "")
                    reports[job.name].output += report.output
                else:
                    reports[job.name] = report
                if not again and report.good and options.get("record_rows") and work == SMOKE and "smoke" in options["tiers"]:
                    waiting.appendleft(_twin(root, known[job.name], options, report))
                else:
                    heard(job.name, reports[job.name])
    return reports


def _twin(root: Path, record: Record, options: dict[str, Any], report: Report) -> Job:
    seeds = tuple(seed for seed in options["seeds"] if seed < ENOUGH)
    chosen = {"data": options["data"], "seeds": seeds, "resume": options["resume"]}
    settings, threads = OTHER.get(report.instructions, OLDEST), 2 if report.threads == 1 else 1
    return Job(record.id, _worker, (root, record, chosen, ROUNDING), threads, settings)


def _worker(send: Callable[[Any], None], root: Path, record: Record, options: dict[str, Any], work: str) -> None:
    """One method in this process; what stops the run is the report's problem."""
    from scripts.running.smoke import said

    started, report = time.monotonic(), Report(record.id, "")
    module, _, name = work.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)(root, record, report=report, say=lambda text: send((text, report)), **options)
    except BaseException as problem:  # to leave the program is no way out either
        if report.problem:
            raise
        report.problem = said(root, problem) + (f", while it {report.doing}" if report.doing else "")
    report.seconds = time.monotonic() - started
    send(("", report))

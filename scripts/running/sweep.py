"""A method and its controls at each of the method's operating points: what accuracy is left at which cost or after how many steps."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from catalog import Record
from methods.kit.lab import Lab
from methods.kit.layers import output_error
from methods.kit.task import Task
from scripts.evidence.outcome import Report
from scripts.running.smoke import make_task, measured, name_of
from scripts.running.stamp import Stamp

TIER = "sweep"


def sweep(
    root: Path,
    record: Record,
    *,
    data: Path | None = None,
    seeds: tuple[int, ...] = (0,),
    device: str = "cpu",
    record_rows: bool = False,
    resume: bool = False,
    report: Report | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure what `SWEEP` asks for on a smoke run's data: Configs, at a smoke run's budget, or pairs of a Config and a number of steps.

    Subjects are "method@0", "control_<name>@0" and so on: the number is the place in `SWEEP`. Beside a run's quantities there are
    `output_error`, against the reference, or `steps`. Finished seeds are recorded at once. Raises DataError, WeightsError and RecordError.
    """
    started = time.monotonic()
    report = report or Report(record.id, TIER)
    report.tier, report.seeds = TIER, list(seeds)
    method = importlib.import_module(f"methods.{record.family}.{record.id}")
    stamp = Stamp(root, record, name_of(device), torch.get_num_threads())
    start = (record.executable.start if record.executable else None) or "trained"
    for seed in seeds:
        task = make_task("smoke", start, data, seed, device)
        report.data, report.digests[seed] = task.name, task.digest
        rows = stamp.done(TIER, task.digest, seed) if resume else []
        if not rows:
            for place, point in enumerate(method.SWEEP):
                where = f"seed {seed}, point {place + 1} of {len(method.SWEEP)}"

                def doing(subject: str, where: str = where) -> None:
                    report.doing = f"measured {subject}"
                    say(f"{where}: {subject}")

                rows += [(f"{subject}@{place}", quantity, value) for subject, quantity, value in at_point(method, task, point, doing)]
            if record_rows:
                stamp.write([stamp.row(TIER, *row, task.name, task.digest, seed) for row in rows])
        for subject, quantity, value in rows:
            report.numbers.setdefault(subject, {}).setdefault(quantity, []).append(value)
    report.seconds = time.monotonic() - started
    return report


def at_point(method: ModuleType, task: Task, point: Any, doing: Callable[[str], None]) -> Iterator[tuple[str, str, float]]:
    """(subject, quantity, value) of reference, method and controls under one Config, or under a Config for so many steps."""
    lab, steps = Lab(method, lambda: task, point), point[1] if isinstance(point, tuple) else None
    subjects = []
    for subject, quantity, value in measured(lab, method, doing):
        subjects.append(subject)
        yield subject, quantity, value
    for subject in dict.fromkeys(subjects):
        if steps:
            yield subject, "steps", steps
        elif subject != "reference":
            network = lab.compressed if subject == "method" else lab.controlled(subject.removeprefix("control_"))
            yield subject, "output_error", output_error(network, lab.reference, lab.held_out(128).images.to(lab.task.device))

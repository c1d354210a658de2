"""Stale rows that are as good as new: the code moved on, and a run of seed 0 gives the same numbers again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from catalog import Record
from scripts.evidence import records
from scripts.evidence.outcome import TIME, Report
from scripts.evidence.records import ROUNDING, Row
from scripts.running.stamp import Stamp

CLOCK = {"latency", "seconds", "ledger_seconds", "milliseconds_1", "milliseconds_64"}  # quantities that no run gives twice


class Carried(NamedTuple):
    """How many rows were stale and are current again, and what of seed 0 did not come again: (subject and metric, recorded, now)."""

    rows: int
    others: list[tuple[str, float, float]]


def carry(root: Path, record: Record, report: Report) -> Carried:
    """Give today's digests to the rows of all seeds whose tier, data and subject came again at seed 0, to the recorded digits.

    `report` is of a run of that seed. What did not come again stays stale. Raises `RecordError`.
    """
    stamp = Stamp(root, record)
    rows = records.read(stamp.path)
    values = {(verdict.subject, "value"): verdict.values[0] for verdict in report.verdicts if 0 in verdict.values}
    values |= {(subject, metric): found[0] for subject, numbers in report.numbers.items() for metric, found in numbers.items()}
    stale = [row for row in rows if stamp.stale(row)]
    again, others = set[tuple[str, str, str]](), dict[tuple[str, str, str], list[tuple[str, float, float]]]()
    for row in rows:
        measured = row.tier == "exact" or (row.tier, row.data) == (report.tier, report.data)
        if not measured or row.seed or row.metric in CLOCK or (value := values.get((row.subject, row.metric))) is None:
            continue
        place = (row.tier, row.data, row.subject)
        again.add(place)
        if row not in stale or same(row.value, value):
            continue
        others.setdefault(place, []).append((f"{row.subject} {row.metric}" if row.metric != "value" else row.subject, row.value, value))
    again |= {(tier, data, TIME[0]) for tier, data, _ in again if not any(place[:2] == (tier, data) for place in others)}
    new = [row for row in stale if _place(row) in again - others.keys()]
    if new:
        stamp.write([row._replace(code=stamp.codes.of(row.tier, row.subject)) for row in new])
    return Carried(len(new), [other for found in others.values() for other in found])


def _place(row: Row) -> tuple[str, str, str]:
    """A claim that was measured on another instruction set stands and falls with the claim."""
    return ("smoke" if row.tier == ROUNDING else row.tier), row.data, row.subject


def same(recorded: float, value: float) -> bool:
    """Whether a value is what is recorded, to the digits of the record."""
    return f"{recorded:.6g}" == f"{value:.6g}" or (math.isnan(recorded) and math.isnan(value))

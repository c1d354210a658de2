"""A fresh run against the recorded numbers: what is stale, what differs, what was never recorded."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from catalog import Record
from scripts.evidence import records, source
from scripts.evidence.definitions import Codes
from scripts.evidence.outcome import COPIES, Report


@dataclass(frozen=True)
class Finding:
    text: str
    bad: bool = False


def compare(root: Path, record: Record, report: Report) -> list[Finding]:
    """The run's numbers against recorded rows of the same data, or of their copy, and the age of these. Latency is the machine's.

    A number differs when it is farther from the recorded mean than four recorded deviations and five points of accuracy (of
    other quantities five percent): seeds and machines move a smoke run that much, code that has not changed does not move it
    more. Changed code is *stale*, no error.
    """
    place = f"catalog/measured/{record.family}/{record.id}.csv"
    try:
        rows = records.read(records.path_of(root, record.family, record.id))
    except records.RecordError as problem:
        return [Finding(str(problem), bad=True)]
    if not rows:
        return [Finding(f"{record.id}: nothing recorded yet (`smallprint smoke {record.id} --record`)")]
    codes = Codes(root, source.methods(root)[record.id])
    stale = sorted({f"{row.tier} on {row.data}" for row in rows if row.code != codes.of(row.tier, row.subject)})
    findings = [Finding(f"{record.id}: stale, the code has moved on since {what} was recorded in {place}") for what in stale]
    data = report.data if any(row.data == report.data for row in rows) else COPIES.get(report.data)
    here = [row for row in rows if (row.tier, row.data) == (report.tier, data)]
    fresh = [row for row in here if row.code == codes.of(row.tier, row.subject)]
    if data == report.data and any(report.digests.get(row.seed, row.data_digest) != row.data_digest for row in fresh):
        return [*findings, Finding(f"{record.id}: recorded of other images than these of {data}")]
    compared = 0
    for subject, quantity in ((s, q) for s, numbers in report.numbers.items() for q in numbers if q != "latency"):
        known = [row.value for row in fresh if (row.subject, row.metric) == (subject, quantity)]
        if not known:
            continue
        compared += 1
        ours, theirs = statistics.fmean(report.numbers[subject][quantity]), statistics.fmean(known)
        usual = 0.05 if quantity == "accuracy" else 0.05 * abs(theirs)
        allowed = max(usual, 4 * (statistics.stdev(known) if len(known) > 1 else 0.0))
        if abs(ours - theirs) > allowed:
            words = f"{quantity.replace('_', ' ')} of {subject} is {ours:.6g}, recorded {theirs:.6g} ± {allowed:.2g}"
            findings.append(Finding(f"{record.id}: {words}", bad=True))
    return findings or [Finding(f"{record.id}: agrees with {compared or 'no'} recorded numbers")]

"""A fresh run against the recorded numbers: what is stale, what differs, what was never recorded."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from catalog import Record
from scripts import records, source
from scripts.smoke import Report


@dataclass(frozen=True)
class Finding:
    text: str
    bad: bool = False


def compare(root: Path, record: Record, report: Report) -> list[Finding]:
    """The run's accuracies against recorded rows of the same data, and the age of what is recorded.

    A number differs when it is farther from the recorded mean than five points and four recorded deviations: seeds and
    machines move a smoke run that much, code that has not changed does not move it more. Changed code is *stale*, no error.
    """
    place = f"catalog/measured/{record.family}/{record.id}.csv"
    try:
        rows = records.read(records.path_of(root, record.family, record.id))
    except records.RecordError as problem:
        return [Finding(str(problem), bad=True)]
    if not rows:
        return [Finding(f"{record.id}: nothing recorded yet (`smallprint smoke {record.id} --record`)")]
    digest = source.digest(root, source.methods(root)[record.id])
    stale = sorted({f"{row.tier} on {row.data}" for row in rows if row.code != digest})
    findings = [Finding(f"{record.id}: stale, the code has moved on since {what} was recorded in {place}") for what in stale]
    same = ("accuracy", report.tier, report.data_digest, digest)
    fresh = [r for r in rows if (r.metric, r.tier, r.data_digest, r.code) == same]
    for subject, numbers in report.numbers.items():
        known = [r.value for r in fresh if r.subject == subject]
        if not known or "accuracy" not in numbers:
            continue
        ours, theirs = statistics.fmean(numbers["accuracy"]), statistics.fmean(known)
        allowed = max(0.05, 4 * (statistics.stdev(known) if len(known) > 1 else 0.0))
        if abs(ours - theirs) > allowed:
            findings.append(Finding(f"{record.id}: accuracy of {subject} is {ours:.3f}, recorded {theirs:.3f} ± {allowed:.3f}", bad=True))
    return findings or [Finding(f"{record.id}: agrees with {len(fresh) or 'no'} recorded accuracies")]

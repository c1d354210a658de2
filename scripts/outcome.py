"""What one run of one method found; or what was recorded of it, so that a page can show what the terminal did."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from catalog import Record
from catalog.schema import Bound, Claim
from scripts.records import Row

TIME = ("run", "seconds")  # subject and metric of the row that says how long all others of a seed and tier took


@dataclass(frozen=True)
class Verdict:
    """One claim (or one case of it): the values over the seeds, and whether their mean meets the bound."""

    claim: str
    case: str | None
    said: Claim
    bound: Bound
    values: list[float]
    error: str = ""
    seconds: float = 0.0

    @property
    def subject(self) -> str:
        return f"claim_{self.claim}" + (f"[{self.case}]" if self.case else "")

    @property
    def value(self) -> float:
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def verdict(self) -> str:
        return "error" if self.error else "holds" if self.bound.admits(self.value) else "fails"

    @property
    def surprising(self) -> bool:
        return self.verdict != self.bound.expected


@dataclass
class Report:
    """What one run of one method found. `numbers` holds, by subject and quantity, one value a seed."""

    id: str
    tier: str
    data: str = "none"
    data_digest: str = ""
    seeds: list[int] = field(default_factory=list)
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""  # why nothing could be run

    @property
    def good(self) -> bool:
        return not self.problem and not any(v.surprising for v in self.verdicts)


def recorded(record: Record, rows: Iterable[Row], tier: str, data: str, seed: int = 0) -> Report:
    """The report of a run of exact claims and a tier with one seed, as far as it is recorded; its time is 0 where nobody took it."""
    rows = list(rows)
    mine = [row for row in rows if (row.tier, row.data, row.seed) == (tier, data, seed)]
    exact = [row for row in rows if row.tier == "exact"]
    times = [row.value for row in (*exact, *mine) if (row.subject, row.metric) == TIME]
    report = Report(record.id, tier, data, seeds=[seed], seconds=sum(times) if len(times) == 1 + bool(exact) else 0.0)
    for row in mine:
        if row.subject in ("reference", "method") or row.subject.startswith("control_"):
            report.numbers.setdefault(row.subject, {})[row.metric] = [row.value]
    claims = record.executable.claims.items() if record.executable else ()
    for at, found in (("exact", exact), (tier, mine)):
        values = {row.subject: row.value for row in found if row.metric == "value"}
        for name, claim in claims:
            verdicts = [Verdict(name, case, claim, bound, []) for case, bound in claim.bounds().items() if claim.tier == at]
            report.verdicts += [replace(v, values=[values[v.subject]]) for v in verdicts if v.subject in values]
    return report

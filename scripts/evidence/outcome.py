"""What one run of one method found, or what was recorded of it; and what a record, of all its seeds, says of a claim."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from catalog import Record
from catalog.schema import Bound, Claim
from scripts.evidence.records import ROUNDING, Row

TIME = ("run", "seconds")  # subject and metric of the row that says how long all others of a seed and tier took
IMAGES = 1_000  # that judge a smoke run
SLICES = {"smoke": IMAGES, "long": 10_000, "full": 10_000}  # test images that judge one seed
COUNTED = {"share of images": 1.0, "share of the accuracy": 0.25, "share of the loss": 0.25}  # units of images: of which part
FLOOR = 1e-3  # a tolerance is no smaller than this share of the number
WIDER = 0.02  # by how much another copy of the same photographs may move a share of images: nobody has measured it
COPIES = {"cifar10": "cifar10-jpeg75"}  # data without a record of its own is compared with the record of its copy
COSTS = {"multiply_adds": "multiply-adds", "parameters": "parameters", "file_bytes": "bytes"}
GROWN, SLOWER = 1.01, 1.25  # from how many times the reference's a cost, and the time, which varies, is said to be more
ENOUGH = 3  # seeds before a claim that departs from its record is red, and before a record says anything
CHANCE = 0.1  # share of CIFAR-10's images that a guess gets right
T_QUANTILES = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139)


@dataclass(frozen=True)
class Known:
    """What is recorded of one claim: the value of each seed, on which data, and how far from it one seed's value may be.

    `spread` is three times the deviation between the two processors that the method's claims of this unit were recorded on,
    `floor` what is allowed in any case.
    """

    data: str
    values: dict[int, float]
    spread: float
    floor: float

    @property
    def value(self) -> float:
        return statistics.fmean(self.values.values())

    def allowed(self, seeds: int) -> float:
        """How far the mean of so many seeds may be from the recorded mean of the same seeds."""
        return 1.001 * max(self.floor, self.spread / math.sqrt(seeds))  # what is just allowed must not depend on rounding


@dataclass(frozen=True)
class Verdict:
    """One claim (or one case of it): its values by seed, the bound, and what is recorded of it, if anything."""

    claim: str
    case: str | None
    said: Claim
    bound: Bound
    values: dict[int, float] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    known: Known | None = None

    @property
    def subject(self) -> str:
        return f"claim_{self.claim}" + (f"[{self.case}]" if self.case else "")

    @property
    def value(self) -> float:
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def meets(self) -> bool:
        """Whether the mean of the values meets the bound."""
        return self.bound.admits(self.value)

    @property
    def compared(self) -> list[int]:
        """The seeds that can be compared with the record."""
        return [seed for seed in self.values if self.known and seed in self.known.values] if self.said.tier != "exact" else []

    @property
    def departs(self) -> bool:
        """Whether the values are farther from what is recorded of the same seeds, in either direction, than processors differ by."""
        seeds = self.compared
        if not seeds or self.known is None:
            return False
        away = statistics.fmean(self.values[seed] - self.known.values[seed] for seed in seeds)
        return not abs(away) <= self.known.allowed(len(seeds))

    @property
    def verdict(self) -> str:
        if self.error or math.isnan(self.value):
            return "error"
        if self.compared:
            return "departs" if self.departs else "as recorded"
        if self.said.tier == "exact":
            return "holds" if self.meets else "fails"
        return "meets" if self.meets else "misses"

    @property
    def surprising(self) -> bool:
        """Whether a run with this verdict is red.

        An exact claim is red where it misses its bound and the entry does not say why, or meets it and says why it does not. What
        nobody has recorded is not, whether it meets its bound or misses it.
        """
        if self.said.tier == "exact":
            return self.verdict != ("fails" if self.bound.because else "holds")
        return self.verdict not in ("as recorded", "meets", "misses")


Word = Literal["holds", "fails", "level", "undecided"]


@dataclass(frozen=True)
class Judged:
    """What a record says of a claim: the mean of its seeds and half of its 95% interval, beside the bound."""

    verdict: Word
    mean: float
    half: float  # 0 for an exact claim; NaN where too few seeds tell
    too_small: bool = False  # level, and what could have been seen is more than what the paper prints


def judge(claim: Claim, bound: Bound, values: Sequence[float], images: int) -> Judged:
    """The verdict on a record, from one value a seed and the number of different test images that judged them.

    The interval is Student's t of the seeds, never narrower than the sampling error of the images (`sampling`): wholly inside the
    bound it holds, wholly outside it fails, across it nothing is decided. Exact claims are judged by their bound alone.
    """
    mean = statistics.fmean(values)
    if claim.tier == "exact":
        return Judged("holds" if bound.admits(mean) else "fails", mean, 0.0)
    if len(values) < ENOUGH:
        return Judged("undecided", mean, math.nan)
    if not all(map(math.isfinite, values)):
        return Judged("fails", mean, math.nan)
    seeds = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    half = max(seeds, T_NORMAL * sampling(claim, mean, images))
    low, high = mean - half, mean + half
    if bound.admits(low) and bound.admits(high):
        return Judged("holds", mean, half)
    if bound.admits(min(max(bound.limit, low), high)):  # the number of the interval that is nearest to the bound's own
        return Judged("level", mean, half, too_small=bound.paper is not None and half > abs(bound.paper))
    return Judged("fails", mean, half)


def sampling(claim: Claim, value: float, images: int) -> float:
    """Standard error that so many test images leave of a number that counts them; 0 of what is no count of images.

    A share p has p(1-p)/n. An effect is a difference d of two shares a and b: on the same images its variance is a(1-a) + b(1-b)
    less twice their covariance, which is not negative as an image that is hard for one network is hard for the other, and at most
    (1 - d^2)/2, whatever a and b are. A share of the accuracy is a difference over at least a quarter.
    """
    whole = counted(claim.unit)
    if not whole or not images:
        return 0.0
    share = min(abs(value) * whole, 1.0)
    variance = (1 - share**2) / 2 if claim.kind == "effect" else share * (1 - share)
    return math.sqrt(variance / images) / whole


def counted(unit: str | None) -> float:
    """The part of the test images that a unit counts in; 0 for what counts no images."""
    return next((part for begin, part in COUNTED.items() if (unit or "").startswith(begin)), 0.0)


T_NORMAL = statistics.NormalDist().inv_cdf(0.975)


def t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t: a table for ten degrees of freedom, beyond it Cornish and Fisher's expansion."""
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z, n = T_NORMAL, freedom
    first, second = z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z
    third = 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + first / (4 * n) + second / (96 * n**2) + third / (384 * n**3)


@dataclass
class Report:
    """What one run of one method found, also as far as it came. `numbers` holds, by subject and quantity, one value a seed."""

    id: str
    tier: str
    data: str = "none"
    digests: dict[int, str] = field(default_factory=dict)  # of the data, by seed
    seeds: list[int] = field(default_factory=list)
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0
    doing: str = "was imported"  # what it does, as the end of "while it ..."
    problem: str = ""  # why it did not come to its end
    instructions: str = ""  # the set that torch computes with, such as AVX512
    threads: int = 1
    output: str = ""  # what the method wrote to the terminal
    layers: list[str] = field(default_factory=list)  # what became of them, in the first run
    notes: list[str] = field(default_factory=list)  # what else to say, such as that the record is stale
    faults: list[str] = field(default_factory=list)  # why the controls are no fair comparison
    traces: dict[str, list[str]] = field(default_factory=dict)  # what was done to each network, by subject, where that was asked for

    @property
    def good(self) -> bool:
        return not self.problem and not self.faults and not any(v.surprising for v in self.verdicts)

    @property
    def compared(self) -> int:
        """How many claims could be compared with a record."""
        return sum(bool(v.compared) for v in self.verdicts)


def grown(record: Record, report: Report) -> str:
    """What of the method's network is more than the reference's, in words; nothing of a method whose nature it is to return larger ones."""
    if record.executable and record.executable.returns == "larger":
        return ""
    ours, theirs = (
        {cost: statistics.fmean(values) for cost, values in report.numbers.get(subject, {}).items()} for subject in ("method", "reference")
    )
    ratios = {name: ours[cost] / theirs[cost] for cost, name in COSTS.items() if cost in ours and theirs.get(cost)}
    more = {name: ratio for name, ratio in ratios.items() if ratio > GROWN}
    if (slower := ours.get("latency", 0.0)) > SLOWER:
        more["time"] = slower
    return ", ".join(f"{ratio:.2f} times the {name}" for name, ratio in more.items())


def known(record: Record, rows: Iterable[Row], tier: str, data: str, digests: Mapping[int, str] | None = None) -> dict[str, Known]:
    """What is recorded of a method's smoke claims on these data, or on their copy, by subject. A stale record counts.

    With `digests`, no seed whose images are known to be others; of a copy, all. Of other tiers nothing, for they never turn a run red.
    """
    if tier != "smoke":
        return {}
    rows = list(rows)
    mine = [row for row in rows if (row.tier, row.data, row.metric) == (tier, data, "value")]
    if copy := not mine and COPIES.get(data):
        mine = [row for row in rows if (row.tier, row.data, row.metric) == (tier, copy, "value")]
    elif digests is not None:
        mine = [row for row in mine if digests.get(row.seed, row.data_digest) == row.data_digest]
    units = {verdict.subject: verdict.said.unit for verdict in blanks(record, tier)}
    spreads = rounding(rows, mine, units)
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for row in mine:
        values[row.subject][row.seed] = row.value
    found = {}
    for verdict in blanks(record, tier):
        if not (by_seed := values.get(verdict.subject)):
            continue
        size = max([abs(verdict.bound.limit), *map(abs, by_seed.values())])
        whole = counted(verdict.said.unit)
        floor = max(2 / (whole * IMAGES) if whole else FLOOR * size, (WIDER / whole if whole else WIDER * size) if copy else 0.0)
        found[verdict.subject] = Known(copy or data, by_seed, spreads.get(verdict.said.unit, 0.0), floor)
    return found


def rounding(rows: Iterable[Row], mine: Iterable[Row], units: Mapping[str, str | None]) -> dict[str | None, float]:
    """Three times the deviation between two processors, by unit: of the same seeds, images and code recorded on both."""
    again = {(row.subject, row.seed, row.data, row.data_digest, row.code): row.value for row in rows if row.tier == ROUNDING}
    squares: dict[str | None, list[float]] = defaultdict(list)
    for row in mine:
        twin = again.get((row.subject, row.seed, row.data, row.data_digest, row.code))
        if twin is not None and row.subject in units:
            squares[units[row.subject]].append((row.value - twin) ** 2)
    return {unit: 3 * math.sqrt(statistics.fmean(found)) for unit, found in squares.items()}


def blanks(record: Record, tier: str) -> Iterator[Verdict]:
    """Every claim and case of a tier, without values."""
    for name, claim in record.executable.claims.items() if record.executable else ():
        if claim.tier == tier:
            yield from (Verdict(name, case, claim, bound) for case, bound in claim.bounds().items())


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
    beside = known(record, rows, tier, data)
    for at, found in (("exact", exact), (tier, mine)):
        values = {row.subject: row.value for row in found if row.metric == "value"}
        verdicts = [verdict for verdict in blanks(record, at) if verdict.subject in values]
        report.verdicts += [replace(v, values={seed: values[v.subject]}, known=beside.get(v.subject)) for v in verdicts]
    return report

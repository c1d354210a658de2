"""What the catalogue, the method files and the recorded rows say together. Reading is here; making pages of it is in `website`."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from catalog import Catalogue, Record, load
from catalog.schema import Bound, Claim, Result
from scripts.evidence import link_health, records
from scripts.evidence.definitions import Codes, Definitions
from scripts.evidence.history import Span, spans
from scripts.evidence.keys import keys
from scripts.evidence.outcome import SLICES, Judged, Word, judge
from scripts.evidence.records import ROUNDING, Row
from scripts.evidence.source import Source, methods

REAL_FIRST = ("cifar10", "cifar10-jpeg75", "standin", "none")
LONGEST_FIRST = ("full", "long", "smoke", "exact")


class FactsError(ValueError):
    """Files that no page can be made of; the message names each with its cure."""


class Condition(NamedTuple):
    """What must be the same for two numbers to be compared."""

    tier: str
    data: str

    @property
    def rank(self) -> tuple[int, int, str]:
        """Real data before drawn, long runs before short."""
        data = REAL_FIRST.index(self.data) if self.data in REAL_FIRST else 1
        tier = LONGEST_FIRST.index(self.tier) if self.tier in LONGEST_FIRST else len(LONGEST_FIRST)
        return data, tier, self.data


@dataclass(frozen=True)
class Sample:
    """One quantity, measured under one condition, over its seeds."""

    values: tuple[float, ...]
    stale: bool = False
    slices: int = 1  # different sets of test images, over all seeds

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The sample's standard deviation; None for one seed."""
        finite = len(self.values) > 1 and all(map(math.isfinite, self.values))
        return statistics.stdev(self.values) if finite else None


@dataclass(frozen=True)
class Finding:
    """A claim, or one case of it, met by a measurement, and judged by all its seeds together."""

    claim: str
    case: str | None
    said: Claim
    bound: Bound
    condition: Condition
    sample: Sample

    @property
    def evidence(self) -> bool:
        """Whether it says anything of the paper: the stand-in's drawn shapes do not."""
        return self.condition.data != "standin" or self.said.tier == "exact"

    @cached_property
    def judged(self) -> Judged:
        return judge(self.said, self.bound, self.sample.values, SLICES.get(self.condition.tier, 0) * self.sample.slices)

    @property
    def verdict(self) -> Word:
        return self.judged.verdict if self.evidence else "undecided"


class Standing(NamedTuple):
    """Accuracies, where they were measured. `control` is the subject whose accuracy is `best`."""

    control: str | None
    reference: Sample | None
    best: Sample | None
    method: Sample | None

    @property
    def gap(self) -> float | None:
        """Points by which the method keeps more than the best control."""
        return 100 * (self.method.mean - self.best.mean) if self.method and self.best else None

    @property
    def spread(self) -> float | None:
        """The gap's standard deviation over the seeds, which both share; None for one seed."""
        pairs = [] if self.method is None or self.best is None else list(zip(self.method.values, self.best.values, strict=False))
        return Sample(tuple(100 * (method - best) for method, best in pairs)).sd


@dataclass(frozen=True)
class Measured:
    """Everything recorded of one entry.

    `code_of(tier, subject)` is the digest of what a number rests on, today; None where there is no code.
    """

    rows: Sequence[Row] = ()
    code_of: Callable[[str, str], str] | None = None
    _groups: dict[tuple[Condition, str, str], list[Row]] = field(default_factory=lambda: defaultdict(list), compare=False, repr=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.tier == ROUNDING:  # says how exact the others are, and is no measurement of its own
                continue
            self._groups[Condition(row.tier, row.data), row.subject, row.metric].append(row)

    def stale(self, rows: Iterable[Row]) -> bool:
        """Whether the code that one of them rests on has moved on since it was recorded."""
        return any(self.code_of is None or row.code != self.code_of(row.tier, row.subject) for row in rows)

    def sample(self, condition: Condition, subject: str, metric: str) -> Sample | None:
        rows = self._groups.get((condition, subject, metric))
        if not rows:
            return None
        values = tuple(row.value for row in sorted(rows, key=lambda r: r.seed))
        return Sample(values, self.stale(rows), len({row.data_digest for row in rows}))

    @cached_property
    def conditions(self) -> list[Condition]:
        """Under which networks were measured; the most telling first."""
        return sorted({c for c, subject, _ in self._groups if subject in ("reference", "method")}, key=lambda c: c.rank)

    @cached_property
    def sweep(self) -> Condition | None:
        """Under which the method was measured at several operating points; the most telling."""
        return min((c for c, subject, _ in self._groups if subject.startswith("method@")), key=lambda c: c.rank, default=None)

    def sizes(self, condition: Condition) -> list[Size]:
        """What a sweep found at each operating point, from large to small or from few steps to many."""
        swept: dict[str, dict[str, dict[str, Sample]]] = defaultdict(lambda: defaultdict(dict))
        for c, subject, metric in self._groups:
            name, at, place = subject.rpartition("@")
            sample = self.sample(c, subject, metric) if at and c == condition else None
            if sample:
                swept[place][name][metric] = sample
        found = []
        for subjects in swept.values():
            subjects = {name: known for name, known in subjects.items() if {"accuracy", "multiply_adds", "parameters"} <= set(known)}
            if not {"reference", "method"} <= set(subjects):
                continue  # of an operating point that is half recorded nothing can be said
            reference, method = subjects.pop("reference"), subjects.pop("method")
            found.append(Size(reference, method, subjects))
        return sorted(found, key=lambda size: size.method["steps"].mean if "steps" in size.method else -size.method["multiply_adds"].mean)

    def subjects(self, condition: Condition) -> list[str]:
        """The reference, the controls, the method: those that were measured, in this order."""
        there = {subject for c, subject, _ in self._groups if c == condition}
        controls = sorted(subject for subject in there if subject.startswith("control_"))
        return [subject for subject in ("reference", *controls, "method") if subject in there]

    def standing(self, condition: Condition) -> Standing:
        """What accuracy is left of the reference, of the control that keeps the most of it, and of the method."""
        scores = {subject: sample for subject in self.subjects(condition) if (sample := self.sample(condition, subject, "accuracy"))}
        control = max((s for s in scores if s.startswith("control_")), key=lambda s: scores[s].mean, default=None)
        return Standing(control, scores.get("reference"), scores.get(control or ""), scores.get("method"))

    def ratio(self, condition: Condition, metric: str, subject: str = "method") -> float | None:
        """A quantity as a share of the reference's."""
        part, whole = (self.sample(condition, s, metric) for s in (subject, "reference"))
        return part.mean / whole.mean if part and whole and whole.mean else None

    def findings(self, claim: str, case: str | None, said: Claim, bound: Bound) -> list[Finding]:
        """One for each condition under which the claim was measured; the most telling first."""
        subject = f"claim_{claim}[{case}]" if case is not None else f"claim_{claim}"
        conditions = sorted((c for c, s, metric in self._groups if (s, metric) == (subject, "value")), key=lambda c: c.rank)
        samples = ((condition, self.sample(condition, subject, "value")) for condition in conditions)
        return [Finding(claim, case, said, bound, condition, sample) for condition, sample in samples if sample]

    @cached_property
    def bite(self) -> Bite | None:
        """The latest record of planted faults."""
        found: dict[str, Row] = {}
        for row in sorted((row for row in self.rows if row.subject == "bite"), key=lambda row: row.date):
            found[row.metric] = row
        numbers = {name: round(found[name].value) for name in Bite._fields if name in found}
        return Bite(**numbers) if {"killed", "equivalent", "planted", "possible"} <= numbers.keys() else None


class Size(NamedTuple):
    """One operating point of a sweep: what was measured of the reference, the method and the controls, by name."""

    reference: dict[str, Sample]
    method: dict[str, Sample]
    controls: dict[str, dict[str, Sample]]

    @property
    def best(self) -> str | None:
        """The control that keeps the most accuracy."""
        return max(self.controls, key=lambda name: self.controls[name]["accuracy"].mean, default=None)

    def share(self, metric: str, subject: dict[str, Sample] | None = None) -> float:
        """The method's part of the reference's, or another subject's."""
        return (subject or self.method)[metric].mean / self.reference[metric].mean


class Bite(NamedTuple):
    """Faults that the claims noticed, those that change nothing, all that were planted, all that could be, and those that no claim
    could judge because their process died or took too long."""

    killed: int
    equivalent: int
    planted: int
    possible: int
    died: int = 0

    @property
    def share(self) -> float:
        return self.killed / max(1, self.judged)

    @property
    def judged(self) -> int:
        return self.planted - self.equivalent - self.died


class Score(NamedTuple):
    """How many effects of an entry hold, are level, fail, and are open: not measured, or by too few seeds."""

    held: int
    level: int
    failed: int
    open: int

    @property
    def total(self) -> int:
        return sum(self)

    @property
    def judged(self) -> int:
        return self.total - self.open


@dataclass(frozen=True)
class Facts:
    """All that pages are made of. `templates` are the hand-written pages with places to fill in, by path."""

    catalogue: Catalogue
    sources: Mapping[str, Source] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, link_health.Health] = field(default_factory=dict)  # of links, by address
    history: Mapping[str, Span] = field(default_factory=dict)  # by id; empty where there is no git

    def of(self, id: str) -> Measured:
        return self.measured.get(id, NOTHING)

    def own_task(self, id: str) -> bool:
        """Whether a method prepares a task of its own, whose score, called accuracy, compares with no other method's."""
        return id in self.sources and "prepare" in self.sources[id].functions

    def findings(self, record: Record) -> list[Finding]:
        """The leading finding of every claim and case that was measured."""
        entry, measured = record.executable, self.of(record.id)
        claims = entry.claims.items() if entry else ()
        found = [measured.findings(name, case, claim, bound) for name, claim in claims for case, bound in claim.bounds().items()]
        return [findings[0] for findings in found if findings]

    def effects(self, record: Record) -> dict[str, list[Finding | None]]:
        """Every effect with the finding that judges it, one for each case: real data before drawn, then the longest tier."""
        entry = record.executable
        if entry is None:
            return {}
        found = {(finding.claim, finding.case): finding for finding in self.findings(record)}

        def leading(names: list[str], case: str | None) -> Finding | None:
            there = [found[name, case] for name in names if (name, case) in found]
            return min(there, key=lambda finding: finding.condition.rank, default=None)

        return {name: [leading(names, case) for case in entry.claims[name].bounds()] for name, names in entry.effects().items()}

    def score(self, record: Record) -> Score:
        """Effects, not cases: one with cases holds when all of them do, and is open until all of them are judged."""
        words = [word(findings) for findings in self.effects(record).values()]
        return Score(words.count("holds"), words.count("level"), words.count("fails"), words.count("undecided"))

    @cached_property
    def moved(self) -> dict[str, str]:
        """Old ids -> today's."""
        entries = self.catalogue.entries
        return {old: record.id for record in entries.values() for old in record.entry.formerly if old not in entries}

    @cached_property
    def printed(self) -> dict[tuple[str, str], list[tuple[Record, Result]]]:
        """Data set and network -> what papers printed of them, wherever two entries at least share them."""
        found: dict[tuple[str, str], list[tuple[Record, Result]]] = defaultdict(list)
        for record in self.catalogue.entries.values():
            for result in record.executable.results if record.executable else []:
                found[result.dataset, result.model].append((record, result))
        return {place: rows for place, rows in sorted(found.items()) if len({record.id for record, _ in rows}) > 1}

    @cached_property
    def citation_keys(self) -> dict[str, str]:
        """Id -> its BibTeX key, unique over the catalogue."""
        return keys(self.catalogue.entries.values())

    @cached_property
    def used_by(self) -> dict[str, list[str]]:
        """Id -> the ids of those that build on it."""
        return self._inverse(lambda record: record.entry.builds_on)

    @cached_property
    def compared_by(self) -> dict[str, list[str]]:
        """Id -> the ids of those that compare themselves with it."""
        return self._inverse(lambda record: record.entry.compared_with)

    @cached_property
    def covered_by(self) -> dict[str, list[str]]:
        """Id -> the overviews and frameworks that cover it."""

        def covered(record: Record) -> list[str]:
            techniques = getattr(record.entry, "techniques", [])
            return [*getattr(record.entry, "covers", []), *(t.entry for t in techniques if t.entry)]

        return self._inverse(covered)

    def _inverse(self, names: Callable[[Record], list[str]]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for record in self.catalogue.entries.values():
            for name in dict.fromkeys(self.moved.get(name, name) for name in names(record)):
                found[name].append(record.id)
        return found


def word(findings: Iterable[Finding | None]) -> Word:
    """One verdict for all cases: one that fails fails the whole."""
    verdicts = {finding.verdict if finding else "undecided" for finding in findings}
    return next(verdict for verdict in ("fails", "undecided", "level", "holds") if verdict in verdicts)


NOTHING = Measured()


def gather(root: Path, templates: Mapping[str, str] | None = None) -> Facts:
    """Read everything below `root`. Raises `FactsError` for what cannot be read, all of it at once."""
    catalogue = load(root / "catalog", numbered=False)
    problems = list(catalogue.problems)
    sources = methods(root, problems)
    said = [str(problem) for problem in sorted(problems)]
    measured, definitions = {}, Definitions(root)
    for record in catalogue.entries.values():
        path = records.path_of(root, record.family, record.id)
        try:
            rows = records.read(path)
        except (records.RecordError, OSError, UnicodeDecodeError) as problem:
            said.append(str(problem))
            continue
        if rows:
            source = sources.get(record.id)
            measured[record.id] = Measured(rows, Codes(root, source, definitions).of if source else None)
    health: dict[str, link_health.Health] = {}
    try:
        health = link_health.read(link_health.path_of(root))
    except link_health.LinksError as problem:
        said.append(str(problem))
    if said:
        raise FactsError("\n".join(said))
    return Facts(catalogue, sources, measured, templates or {}, health, spans(root, catalogue.entries.values()))

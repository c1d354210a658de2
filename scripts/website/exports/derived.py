"""What is derived of an entry: field by field, with its schema and how it is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from catalog import FAMILIES, Record
from scripts.curation import cite
from scripts.evidence.facts import Facts, Sample
from scripts.website.names import path_of

LICENCE = "CC-BY-4.0"


class Place(NamedTuple):
    """Where the site will be: its address with a slash at the end, if that is known, and whether pages are folders."""

    address: str = ""
    folders: bool = True

    def of(self, page: str) -> str:
        """Address of a page, of which the path of the Markdown file is given; from the site's root where no address is known."""
        name = page.removesuffix(".md")
        if name == "index" or name.endswith("/index"):
            return self.address + name.removesuffix("index") + ("" if self.folders else "index.html")
        return f"{self.address}{name}{'/' if self.folders else '.html'}"


NOWHERE = Place()


class Field(NamedTuple):
    """A field or column that is derived: its name, its JSON Schema, and how it is found. What it means is in the schema."""

    name: str
    schema: dict[str, Any]
    value: Callable[[Facts, Record, Place], Any]


def string(meaning: str) -> dict[str, Any]:
    return {"type": "string", "description": meaning}


def maybe(kind: str, meaning: str) -> dict[str, Any]:
    return {"type": [kind, "null"], "description": meaning}


def integer(meaning: str) -> dict[str, Any]:
    return {"type": "integer", "description": meaning}


def record_of(properties: Mapping[str, Any], meaning: str = "") -> dict[str, Any]:
    closed = {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}
    return {**closed, "description": meaning} if meaning else closed


def day_of(facts: Facts, record: Record, which: str) -> str | None:
    span = facts.history.get(record.id)
    at = getattr(span, which) if span else None
    return f"{at:%Y-%m-%d}" if at else None


def number(value: float | None) -> float | None:
    """As it is recorded: six digits. What is not finite has no place in JSON."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _score(facts: Facts, record: Record) -> dict[str, int]:
    score = facts.score(record)
    return {"total": score.total, "held": score.held, "level": score.level, "failed": score.failed, "open": score.open}


def leading(facts: Facts, record: Record) -> dict[str, Any] | None:
    """The numbers by which an entry is compared with others: those of its most telling condition."""
    measured = facts.of(record.id)
    if not measured.conditions:
        return None
    condition = measured.conditions[0]
    standing = measured.standing(condition)

    def mean(sample: Sample | None) -> float | None:
        return number(sample.mean) if sample else None

    return {
        "data": condition.data,
        "tier": condition.tier,
        "accuracy_reference": mean(standing.reference),
        "accuracy_control": mean(standing.best),
        "accuracy_method": mean(standing.method),
        "control": standing.control.removeprefix("control_") if standing.control else None,
        "bits": mean(measured.sample(condition, "method", "bits")),
        "parameters_kept": number(measured.ratio(condition, "parameters")),
        "multiply_adds_kept": number(measured.ratio(condition, "multiply_adds")),
        "file_kept": number(measured.ratio(condition, "file_bytes")),
        "time_kept": mean(measured.sample(condition, "method", "latency")),
    }


LEADING: dict[str, dict[str, Any]] = {
    "data": string("Data that the numbers were measured on: cifar10, cifar10-jpeg75 (a recompressed copy) or standin (drawn by a program)"),
    "tier": string("Length of the run: full, long or smoke"),
    "accuracy_reference": maybe("number", "Accuracy of the network before compression, as a share"),
    "accuracy_control": maybe("number", "Accuracy of the best control, the naive alternative of the same size"),
    "accuracy_method": maybe("number", "Accuracy of the method"),
    "control": maybe("string", "Which control that is"),
    "bits": maybe("number", "Bits stored per weight of the method's network, scales included"),
    "parameters_kept": maybe("number", "Parameters of the method's network as a share of the reference's"),
    "multiply_adds_kept": maybe(
        "number", "Multiply-adds (convolutions, dense layers, attention) for one image, as a share of the reference's"
    ),
    "file_kept": maybe("number", "Bytes of the file, as a share of the reference's"),
    "time_kept": maybe("number", "Time of one thread, as a share of the reference's"),
}


def findings(facts: Facts, record: Record) -> list[dict[str, Any]]:
    """Every claim and case that was measured, under every condition."""
    entry, measured = record.executable, facts.of(record.id)
    claims = entry.claims.items() if entry else ()
    found = [f for name, claim in claims for case, bound in claim.bounds().items() for f in measured.findings(name, case, claim, bound)]
    return [
        {"claim": f.claim, "case": f.case, "tier": f.condition.tier, "data": f.condition.data, **_sample(f.sample),
         "verdict": f.verdict, "half_interval": number(f.judged.half)}
        for f in found
    ]  # fmt: skip


def _sample(sample: Sample) -> dict[str, Any]:
    return {"mean": number(sample.mean), "sd": number(sample.sd), "seeds": len(sample.values), "stale": sample.stale}


FINDING: dict[str, dict[str, Any]] = {
    "claim": string("Name of the claim, as in `claims`"),
    "case": maybe("string", "Which of its cases; null where it has none"),
    "tier": string("Length of the run: full, long, smoke or exact"),
    "data": string("Data; none where the claim needs none"),
    "mean": maybe("number", "Our number, the mean over the seeds; null where it is not finite"),
    "sd": maybe("number", "Its standard deviation; null for one seed"),
    "seeds": {"type": "integer", "description": "How many seeds"},
    "stale": {"type": "boolean", "description": "Whether the code has changed since"},
    "verdict": {
        "enum": ["holds", "level", "fails", "undecided"],
        "description": "Whether the 95% interval of our number lies inside the bound of the claim, across it or outside; undecided by fewer"
        " than three seeds and on the stand-in, which is no evidence",
    },
    "half_interval": maybe("number", "Half of that interval; 0 for an exact claim, null where too few seeds tell"),
}
SCORE: dict[str, dict[str, Any]] = {
    "total": integer("Effects: what the paper says that it achieves"),
    "held": integer("Effects that hold, in every case"),
    "level": integer("Effects of which the seeds and images decide nothing"),
    "failed": integer("Effects that fail, in some case"),
    "open": integer("Effects that are not measured yet, or by too few seeds"),
}
FIELDS = (
    Field("id", string("Its name in addresses, commands and other entries"), lambda facts, record, place: record.id),
    Field("family", {"enum": list(FAMILIES), "description": "Family it belongs to"}, lambda facts, record, place: record.family),
    Field("page", string("Address of its page; from the site's root where the site knows no address"),
          lambda facts, record, place: place.of(path_of(record))),
    Field("citation_key", string("Its key in catalog.bib"), lambda facts, record, place: facts.citation_keys[record.id]),
    Field("citation", string("How to cite it, as a line of text"), lambda facts, record, place: cite.text(record.entry)),
    Field("method", maybe("string", "Path of its program in the repository; null where it has none"),
          lambda facts, record, place: facts.sources[record.id].path if record.id in facts.sources else None),
    Field("added", maybe("string", "Day on which it was added (UTC); null where git does not know"),
          lambda facts, record, place: day_of(facts, record, "added")),
    Field("changed", maybe("string", "Day on which its facts, program or numbers changed last (UTC); null where git does not know"),
          lambda facts, record, place: day_of(facts, record, "changed")),
    Field("score", record_of(SCORE, "How many of its effects hold, are level, fail and are open"),
          lambda facts, record, place: _score(facts, record)),
    Field("leading",
          {"anyOf": [record_of(LEADING), {"type": "null"}], "description": "Its numbers under the most telling condition; null before any"},
          lambda facts, record, place: leading(facts, record)),
    Field("findings",
          {"type": "array", "items": record_of(FINDING), "description": "Every claim and case that was measured, under every condition"},
          lambda facts, record, place: findings(facts, record)),
)  # fmt: skip


def exported(facts: Facts, record: Record, place: Place) -> dict[str, Any]:
    """An entry with what is derived of it. A field that is not known is left out."""
    derived = {field.name: field.value(facts, record, place) for field in FIELDS}
    return derived | record.entry.model_dump(mode="json", exclude_none=True)

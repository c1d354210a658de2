"""The catalogue as one table to search and narrow, the page that sets entries side by side, and the data that both scripts read.

The table is whole without a script. Its later part then is a second table, which a browser with scripts leaves unparsed until the
script asks: to lay out ten thousand rows takes it a minute. The data are scripts and no JSON, because a page opened as a file may
not fetch; names are one, and what is known of the entries comes in parts, of which a reader needs one or two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from catalog import Record
from scripts.curation import bibtex
from scripts.evidence.facts import Facts, word
from scripts.evidence.text import escape
from scripts.website.markup import hosted, inside, sortable
from scripts.website.names import FAMILIES, condition_name, front, path_of, subject_name
from scripts.website.numbers import NONE, percent, plural, quantity, signed, times

CATALOGUE, COMPARE = "catalogue.md", "compare.md"
NAMES, PARTS = "assets/names.js", "assets/entries"
PART = 200  # entries in a part
FIRST = 200  # rows in the first table, about what browse.js shows at once
COLUMNS = (  # id, heading, whether it holds numbers, whether it shows before the reader chooses
    ("name", "Name", False, True),
    ("verdict", "Claims", False, True),
    ("gap", "Gap to control", True, True),
    ("authors", "Authors", False, False),
    ("year", "Year", True, True),
    ("family", "Family", False, True),
    ("venue", "Venue", False, True),
    ("tags", "Tags", False, False),
    ("data", "Needs data", False, True),
    ("training", "Needs training", False, True),
    ("accuracy", "Accuracy", True, False),
    ("multiply_adds", "Multiply-adds", True, False),
    ("file_bytes", "File", True, False),
)


def data_needed(record: Record) -> str:
    """Which data a method needs, in words that the facet shows."""
    if record.executable is None or record.family == "frameworks":
        return ""
    tags = set(record.entry.tags)
    return "none" if "data_free" in tags else "a few images" if "calibration_data" in tags else "training data"


def training_needed(record: Record) -> str:
    """Which training a method needs, in words that the facet shows."""
    if record.executable is None or record.family == "frameworks":
        return ""
    tags = set(record.entry.tags)
    if record.executable.start == "scratch":
        return "from scratch"
    settled = "training_free" in tags or ("post_training" in tags and tags & {"data_free", "calibration_data"})
    return "none" if settled else "fine-tuning"


def verdict(facts: Facts, record: Record) -> str:
    """One word for all effects of an entry: they hold, hold partly, are level, do not reproduce, or wait."""
    score = facts.score(record)
    if record.id not in facts.sources:
        return "not reimplemented" if record.executable else ""
    if not score.judged:
        return "not measured"
    if score.held and (score.failed or score.level):
        return "partly"
    return "holds" if score.held else "not reproduced" if score.failed else "level"


def measured(facts: Facts, record: Record) -> list[dict[str, Any]]:
    """Reference, best control and method under every condition: what stands on a page, formatted, and the bare accuracies."""
    known = facts.of(record.id)
    found = []
    for condition in known.conditions:
        standing = known.standing(condition)
        if standing.method is None:
            continue
        accuracy = {"reference": standing.reference, "control": standing.best, "method": standing.method}
        bits = known.sample(condition, "method", "bits")
        found.append({
            "condition": condition_name(condition),
            "seeds": len(standing.method.values),
            "control": subject_name(standing.control).removeprefix("control: ") if standing.control else "",
            "accuracy": {role: sample.mean for role, sample in accuracy.items() if sample},
            "spread": {role: percent(sample.mean, sample.sd) for role, sample in accuracy.items() if sample},
            "gap": standing.gap,
            "bits": quantity("bits", bits.mean) if bits else NONE,
            **{metric: known.ratio(condition, metric) for metric in ("multiply_adds", "bit_operations", "file_bytes")},
            "latency": latency.mean if (latency := known.sample(condition, "method", "latency")) else None,
        })  # fmt: skip
    return found


def data(facts: Facts) -> dict[str, str]:
    """Path -> script: the names of all entries, and in parts what is known of each."""
    records = list(facts.catalogue.entries.values())
    names = [
        {"id": record.id, "name": record.entry.name, "title": record.entry.title, "authors": record.entry.authors,
         "year": record.entry.year, "family": record.family, "path": path_of(record).removesuffix(".md")}
        for record in records
    ]  # fmt: skip
    families = {family: name for family, (name, _) in FAMILIES.items()}
    # two scripts may ask for the names at once; what is known by then stays
    made = {NAMES: f"window.smallprint ??= {_line({'families': families, 'part': PART, 'names': names, 'known': {}})};\n"}
    for start in range(0, len(records), PART):
        known = {record.id: _known(facts, record) for record in records[start : start + PART]}
        made[f"{PARTS}/{start // PART}.js"] = f"Object.assign(smallprint.known, {_line(known)});\n"
    return made


def _line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _known(facts: Facts, record: Record) -> dict[str, Any]:
    """Everything beside what stands with the name."""
    entry, score = record.entry, facts.score(record)
    failing = {name for name, findings in facts.effects(record).items() if word(findings) == "fails"}
    claims = record.executable.claims if record.executable else {}
    return {
        "venue": entry.venue or "", "tags": entry.tags, "summary": entry.summary, "use": entry.when_to_use or "",
        "not": entry.when_not or "", "arxiv": entry.arxiv or "", "doi": entry.doi or "", "url": entry.url or "",
        "data": data_needed(record), "training": training_needed(record), "verdict": verdict(facts, record),
        "returns": (record.executable.returns or "") if record.executable else "",
        "held": score.held, "claims": score.total, "fails": [claims[name].says for name in claims if name in failing],
        "measured": measured(facts, record), "bibtex": bibtex.bibtex(entry, facts.citation_keys[record.id]),
    }  # fmt: skip


def _row(facts: Facts, record: Record) -> str:
    entry, score = record.entry, facts.score(record)
    known = measured(facts, record)[:1]
    leading = known[0] if known else {}
    said = verdict(facts, record)
    effects = f"{said} <small>{score.held} of {score.total}</small>" if score.judged else said
    target = hosted(CATALOGUE, path_of(record))
    title = "" if entry.title == entry.name else f" <small>{escape(entry.title)}</small>"
    gap, accuracy = leading.get("gap"), leading.get("accuracy", {}).get("method")
    cells = {
        "name": f'<a href="{target}" data-raw>{escape(entry.name)}</a>{title}',
        "authors": escape(", ".join(entry.authors)),
        "year": str(entry.year),
        "family": FAMILIES[record.family][0],
        "venue": escape(entry.venue or ""),
        "tags": ", ".join(f"<span>{escape(tag.replace('_', ' '))}</span>" for tag in entry.tags),
        "data": data_needed(record),
        "training": training_needed(record),
        "verdict": sortable(score.held / score.total if score.judged else None, effects),
        "accuracy": sortable(accuracy, percent(accuracy)),
        "gap": sortable(gap, signed(gap, 1)),
        **{metric: sortable(leading.get(metric), times(leading.get(metric))) for metric in ("multiply_adds", "file_bytes")},
    }
    return f'<tr id="{record.id}">' + "".join(f"<td>{cells[id]}</td>" for id, *_ in COLUMNS) + "</tr>"


def catalogue_page(facts: Facts) -> str:
    """All entries in one HTML table, newest first. Its links are those of the hosted site (see `hooks`)."""
    records = sorted(facts.catalogue.entries.values(), key=lambda r: (-r.entry.year, r.entry.name.casefold()))
    heads = "".join(
        f'<th scope="col" data-column="{id}"{" data-number" if number else ""}{"" if shown else " data-spare"}>{name}</th>'
        for id, name, number, shown in COLUMNS
    )
    rows = [_row(facts, record) for record in records]
    told = (
        f"{plural(len(records), 'entry', 'entries')}, newest first. *Claims* says how many of a paper's claims hold where we measured "
        "them again; *gap to control* is how many points of accuracy a method keeps beyond the best naive alternative of the same size. "
        f"{inside('How to read these numbers', CATALOGUE, 'guides/read.md')}. Tick entries to {inside('compare', CATALOGUE, COMPARE)} them."
    )

    def table(name: str, rows: Sequence[str]) -> str:
        frame = f'<div class="sp-scroll" tabindex="0" role="region" aria-label="{name}"><table class="sp-catalogue">'
        return f"{frame}\n<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"

    later = f'<noscript class="sp-later">{table("More entries", rows[FIRST:])}</noscript>' if rows[FIRST:] else ""
    hide = ("navigation", "toc")
    return "\n\n".join([
        front("Catalogue", "Every entry in one table: search, narrow, sort, choose columns, export.", hide, search="exclude: true"),
        "# Catalogue",
        told,
        table("All entries", rows[:FIRST]) + later,
    ]) + "\n"  # fmt: skip


def compare_page() -> str:
    """An empty frame that the script fills with the entries that its address names."""
    measured_there = inside("All methods against their controls", COMPARE, "comparisons/measured.md")
    return "\n\n".join([
        front("Compare", "Choose entries and see them side by side.", ("navigation", "toc"), search="exclude: true"),
        "# Compare",
        "Choose entries: what they need, what they cost, which claims hold, and how far each gets beyond its control. The page's address "
        "names your choice, so that it can be shared.",
        '<div class="sp-compare"></div>',
        f'<noscript><p class="sp-empty">Choosing needs a script. Without one: </p></noscript>\n\n{measured_there}{{ .sp-noscript }}',
    ]) + "\n"  # fmt: skip

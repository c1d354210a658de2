"""How the pages call things, in words and links: families, data, runs, claims, entries, and what is known of an address."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence

from catalog import Record
from catalog.schema import Bound
from scripts.evidence.facts import Condition, Facts, Sample
from scripts.evidence.link_health import Health
from scripts.evidence.text import code, escape, link
from scripts.website.markup import hosted, inside
from scripts.website.numbers import plain, plural

FAMILIES = {
    "low_rank": ("Low rank", "Replace a layer by a few thin ones whose product is nearly the same."),
    "pruning": ("Pruning", "Remove the channels, filters or weights that matter least."),
    "distillation": ("Distillation", "Let a small network learn from what a large one answers."),
    "quantization": ("Quantization", "Store and compute with a few bits instead of thirty-two."),
    "architecture": ("Architecture", "Design, or search for, networks that are small from the start."),
    "frameworks": ("Frameworks", "Libraries and tools, and which of their techniques have an entry here."),
    "overviews": ("Overviews", "Surveys, theses and book chapters that draw the map."),
    "lists": ("Lists", "Collections of papers, models and links that others keep."),
}
NAMES = {family: name for family, (name, _) in FAMILIES.items()}
DATA = {
    "cifar10": "CIFAR-10",
    "cifar10-jpeg75": "CIFAR-10 (JPEG copy)",
    "standin": "Stand-in (drawn)",
    "none": "no data",
}
COSTS = {  # what charts set accuracy against: title, axis
    "file_bytes": ("File size", "file size in bytes"),
    "multiply_adds": ("Multiply-adds", "multiply-adds for one image"),
    "latency": ("Time", "time over the reference's, one thread"),
}
BETTER = {"higher": "; right is better", "lower": "; left is better", "none": ""}  # said below bars


def path_of(record: Record) -> str:
    return f"{record.family}/{record.id}.md"


def entry_link(facts: Facts, here: str, id: str) -> str:
    """An entry's name, linked where there is such an entry."""
    record = facts.catalogue.entries.get(facts.moved.get(id, id))
    return inside(escape(record.entry.name), here, path_of(record)) if record else code(id)


def origin(record: Record) -> str:
    return "documentation" if record.family == "frameworks" else "paper"


def front(
    title: str, description: str = "", hide: Sequence[str] = (), *, search: str = "", citation: Sequence[tuple[str, str]] = ()
) -> str:
    """A page's front matter. The theme prints title and description as they are, so they are escaped here."""
    clean = {"title": html.escape(_line(title)), "description": html.escape(_line(description))}
    lines = [f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in clean.items() if text]
    lines += [f"hide: [{', '.join(hide)}]"] if hide else []
    lines += [f"search: {{{search}}}"] if search else []
    lines += [f"citation: {json.dumps([[name, _line(text)] for name, text in citation], ensure_ascii=False)}"] if citation else []
    return "---\n" + "\n".join(lines) + "\n---\n"


def _line(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def data_name(data: str) -> str:
    return DATA.get(data, escape(data))


def condition_name(condition: Condition) -> str:
    return f"{data_name(condition.data)}, {escape(condition.tier)} run"


def anchor(condition: Condition) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{condition.data}-{condition.tier}".lower())


def subject_name(subject: str) -> str:
    return f"control: {escape(subject.removeprefix('control_').replace('_', ' '))}" if subject.startswith("control_") else subject


def seeds(sample: Sample) -> str:
    return plural(len(sample.values), "seed")


def stale_mark(stale: bool) -> str:
    return ' <span class="sp-stale">stale</span>' if stale else ""


def metric_name(facts: Facts, id: str) -> str:
    metric = facts.catalogue.vocabulary.metrics.get(id)
    return ",&nbsp;".join(escape(part) for part in (metric.name, metric.unit) if part) if metric else escape(id)


def in_unit(unit: str) -> str:
    """ "in points", but "of the largest output"."""
    return escape(unit if unit.startswith("of ") else f"in {unit}")


def bound_text(bound: Bound) -> str:
    """A bound as "≥ 0.02", "≤ 10⁻⁵" or "3.4 ± 2%"."""
    if bound.at_least is not None:
        return f"≥ {plain(bound.at_least)}"
    if bound.at_most is not None:
        return f"≤ {plain(bound.at_most)}"
    return f"{plain(bound.paper)} ± {escape(bound.within) if isinstance(bound.within, str) else plain(bound.within)}"


def own_tasks(facts: Facts, records: Sequence[Record] | None = None) -> str:
    """Which of these entries, or of all, have a score that is no accuracy."""
    there = facts.catalogue.entries.values() if records is None else records
    own = [escape(record.entry.name) for record in there if facts.own_task(record.id)]
    return f" {' and '.join(own)} works on a task of its own, whose score stands in the place of accuracy." if own else ""


TERM = re.compile(r"^- \*\*(.+?)\*\*\{ #([\w-]+) \}", re.MULTILINE)


def explained(facts: Facts, here: str, text: str) -> str:
    """Safe HTML text in which the first mention of every term of the glossary leads there. Code stays as it is."""
    terms = {name.casefold(): id for name, id in TERM.findall(facts.templates.get("glossary.md", ""))}
    if not terms:
        return text
    words = re.compile(rf"<[^>]+>|\b({'|'.join(re.escape(name) for name in sorted(terms, key=len, reverse=True))})s?\b", re.IGNORECASE)
    said: set[str] = set()
    inside_code = 0

    def linked(found: re.Match[str]) -> str:
        nonlocal inside_code
        if not found[1]:
            inside_code += {"<code>": 1, "</code>": -1}.get(found[0], 0)
            return found[0]
        id = terms[found[1].casefold()]
        if inside_code or id in said:
            return found[0]
        said.add(id)
        return f'<a href="{hosted(here, "glossary.md")}#{id}" class="sp-term" data-raw>{found[0]}</a>'

    return words.sub(linked, text)


def archived(url: str, year: int) -> str:
    """The Wayback Machine's copy from that year, or the nearest it has."""
    return f"https://web.archive.org/web/{year}/{url}"


def latest(url: str) -> str:
    """The newest copy that the Wayback Machine has."""
    return f"https://web.archive.org/web/2/{url}"


def with_copy(url: str, health: Health | None) -> str:
    """What a list of links says behind one, as safe Markdown: its health where that is known, and in any case where a copy may be."""
    said = note(url, health)
    return said if "archived copy" in said else f"{said} <small>({link('archived copy', latest(url))})</small>"


def note(url: str, health: Health | None) -> str:
    """What a page says behind a link, as safe Markdown; nothing of a link that was never checked."""
    if health is None:
        return ""
    since = health.since or health.checked
    said = {
        "alive": "",
        "moved": f", moved to {link(escape(health.final), health.final)}" if health.final else ", moved",
        "gone": f", gone since {since}; {link('archived copy', archived(url, since.year))}",
        "unreachable": f", not reachable since {since}; {link('archived copy', archived(url, since.year))}",
        "refused": ", lets no program in" if health.status else ", not a public address",
    }[health.verdict]
    return f" <small>checked {health.checked}{said}</small>"

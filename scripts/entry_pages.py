"""The page of one entry, as Markdown: a pure function of the facts."""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence

from catalog import Record
from catalog.schema import Bound, Claim, Equation, Executable, Framework, Listing, Overview, Result
from scripts import bibtex, charts, cite, history, report, search
from scripts.facts import Condition, Facts, Finding, Measured, Sample
from scripts.links import note, paper_addresses, with_copy
from scripts.markup import (
    NONE,
    Column,
    code,
    decimals,
    escape,
    fence,
    figure,
    fixed,
    hosted,
    inside,
    link,
    percent,
    plain,
    plain_table,
    plural,
    quantity,
    raw_link,
    raw_table,
    section,
    signed,
    spread,
    table,
    times,
    with_code,
)  # fmt: skip
from scripts.mathml import mathml
from scripts.outcome import recorded
from scripts.records import ROUNDING, Row
from scripts.source import Source

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
DATA = {
    "cifar10": "CIFAR-10",
    "cifar10-jpeg75": "CIFAR-10 (JPEG copy)",
    "standin": "Stand-in (drawn)",
    "none": "no data",
}
QUANTITIES = {  # name, explanation; what is really measured first, then what is counted
    "accuracy": ("Accuracy", "share of test images, after the last step"),
    "latency": ("Time", "over the reference's, one thread, batch of 16"),
    "parameters": ("Parameters", "numbers in the network"),
    "nonzeros": ("Non-zeros", "of these"),
    "bits": ("Bits", "stored per weight, scales included"),
    "multiply_adds": ("Multiply-adds", "executed for one image"),
    "bit_operations": ("Bit operations", "multiply-adds times both bit widths"),
    "file_bytes": ("File", "written and read back"),
}
CLAIM_COLUMNS = ("Measured on", "Printed", "We measure", "Must be", "Verdict")  # the style sheet repeats three of them for phones
MEASURED, COUNTED = ("accuracy", "latency"), ("parameters", "nonzeros", "bits", "multiply_adds", "bit_operations", "file_bytes")


def path_of(record: Record) -> str:
    return f"{record.family}/{record.id}.md"


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


def metric_name(facts: Facts, id: str) -> str:
    metric = facts.catalogue.vocabulary.metrics.get(id)
    return ",&nbsp;".join(escape(part) for part in (metric.name, metric.unit) if part) if metric else escape(id)


def seeds(sample: Sample) -> str:
    return plural(len(sample.values), "seed")


def stale_mark(stale: bool) -> str:
    return ' <span class="sp-stale" title="by older code">stale</span>' if stale else ""


def verdict_mark(finding: Finding | None) -> str:
    """A verdict in words and colour; one that nobody expected is loud."""
    if finding is None:
        return '<span class="sp-verdict sp-open">not measured</span>'
    stale = stale_mark(finding.sample.stale)
    if finding.surprise:
        return f'<strong class="sp-verdict sp-surprise">{finding.verdict}, though expected: {finding.bound.expected}</strong>{stale}'
    if finding.verdict == "fails":
        return f'<span class="sp-verdict sp-fails">fails, as expected</span>{stale}'
    return f'<span class="sp-verdict sp-holds">holds</span>{stale}'


def entry_page(facts: Facts, record: Record) -> str:
    """Everything known about one entry."""
    source, measured = facts.sources.get(record.id), facts.of(record.id)
    parts = [
        front(
            record.entry.name,
            opening(record.entry.summary),
            ("navigation",),
            search=f"boost: {search.ENTRY}",
            citation=cite.tags(record.entry),
        ),
        _header(facts, record),
        _glance(facts, record, measured),
        _when(facts, record),
        _techniques(facts, record),
        _claims(record, source, measured),
        _numbers(facts, record, source, measured),
        _idea(facts, record, source),
        _departures(source),
        _config(source),
        _source(source),
        _published(facts, record),
        _run(record, source, measured),
        _cite(facts, record),
        _links(facts, record),
        _lineage(facts, record),
        _provenance(measured),
        _history(facts, record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def opening(text: str, most: int = 200) -> str:
    """As many whole sentences of a text as search engines show, the first one at least."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    count = max([n for n in range(1, len(sentences) + 1) if len(" ".join(sentences[:n])) <= most], default=1)
    return " ".join(sentences[:count])


def _header(facts: Facts, record: Record) -> str:
    entry, here = record.entry, path_of(record)
    name = FAMILIES[record.family][0]
    where = [
        f"{escape(entry.venue)} {entry.year}" if entry.venue and str(entry.year) not in entry.venue else escape(entry.venue or entry.year)
    ]
    if entry.arxiv:
        where.append(link(f"arXiv {escape(entry.arxiv)}", f"https://arxiv.org/abs/{entry.arxiv}"))
    if entry.doi:
        where.append(link(f"DOI {escape(entry.doi)}", f"https://doi.org/{entry.doi}"))
    if entry.url:
        home = "home page" if record.family in ("frameworks", "lists") else "paper"
        health = facts.health.get(entry.url)
        where.append(link(home, entry.url) + (note(entry.url, health) if health and health.verdict != "alive" else ""))
    where.append("[cite](#cite)")
    words = facts.catalogue.vocabulary.tags
    tags = " ".join(
        f'<span class="sp-tag" title="{escape(words.get(tag, ""))}">{escape(tag.replace("_", " "))}</span>' for tag in entry.tags
    )
    title = "" if entry.title == entry.name else f'<p class="sp-title">{escape(entry.title)}</p>'
    return "\n\n".join(filter(None, [
        f'<div class="sp-head sp-{record.family}" markdown>',
        f"{inside(name, here, f'{record.family}/index.md')}{{ .sp-crumb }}",
        f"# {escape(entry.name)} {{ #top }}",
        title,
        f'<p class="sp-authors">{escape(", ".join(entry.authors))}</p>' if entry.authors else "",
        f'<div class="sp-where" markdown>\n\n{" · ".join(where)}\n\n</div>',
        f'<p class="sp-tags">{tags}</p>' if tags else "",
        "</div>",
        f'<p class="sp-lead">{escape(entry.summary)}</p>',
    ]))  # fmt: skip


def _tile(value: str, label: str) -> str:
    return f"<div><strong>{value}</strong><span>{label}</span></div>"


def _glance(facts: Facts, record: Record, measured: Measured) -> str:
    """The few numbers that most people come for; or the word that there is no reimplementation."""
    if record.executable is None:
        return ""
    if record.id not in facts.sources:
        guide = inside("How to add it", path_of(record), "guides/contribute.md")
        text = f"**Not reimplemented yet.** What stands here comes from the {origin(record)} alone. {guide}."
        return f'<div class="sp-note" markdown>\n\n{text}\n\n</div>'
    score, tiles = facts.score(record), []
    if score.total:
        tiles.append(
            _tile(f"{score.held} of {score.total}", "claims hold")
            if score.open < score.total
            else _tile(str(score.total), "claims, not measured yet")
        )
    if measured.conditions:
        leading = measured.conditions[0]
        standing = measured.standing(leading)
        which = f" ({subject_name(standing.control).removeprefix('control: ')})" if standing.control else ""
        for sample, label in ((standing.reference, "reference"), (standing.best, "best control"), (standing.method, "method")):
            if sample:
                tiles.append(_tile(percent(sample.mean), f"{label}’s accuracy{which if sample is standing.best else ''}"))
        bits, before = (measured.sample(leading, subject, "bits") for subject in ("method", "reference"))
        if bits and before and round(bits.mean, 2) < round(before.mean, 2):
            tiles.append(_tile(quantity("bits", bits.mean), "bits a weight"))
        for metric, label in (("file_bytes", "of the file"), ("multiply_adds", "of the multiply-adds")):
            ratio = measured.ratio(leading, metric)
            if ratio is not None and round(ratio, 2) != 1:  # as many as before is no news
                tiles.append(_tile(times(ratio), label))
    under = f'<p class="sp-under">{condition_name(measured.conditions[0])}; all numbers below.</p>' if measured.conditions else ""
    return f'<div class="sp-glance sp-{record.family}">{"".join(tiles)}</div>{under}' if tiles else ""


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


def _when(facts: Facts, record: Record) -> str:
    pairs = [("Use it", record.entry.when_to_use), ("Rather not", record.entry.when_not)]
    cells = "".join(f"<div><h3>{title}</h3><p>{escape(text)}</p></div>" for title, text in pairs if text)
    return explained(facts, path_of(record), f'<div class="sp-when">{cells}</div>') if cells else ""


def _techniques(facts: Facts, record: Record) -> str:
    """What a framework offers and where it lives here; what an overview covers; what a list is about."""
    entry, here = record.entry, path_of(record)
    parts = []
    if isinstance(entry, Framework):
        if entry.status:
            note = f": {escape(entry.status.note)}" if entry.status.note else ""
            parts.append(f"**Status**: {entry.status.state}, last activity {escape(entry.status.last_activity)}{note}")
        if entry.techniques:
            rows = [
                (escape(t.name), f"{entry_link(facts, here, t.entry)}{_made(facts, t.entry)}" if t.entry else NONE)
                for t in entry.techniques
            ]
            parts.append("## What it offers { #techniques }\n\n" + table(*filled([Column("Technique"), Column("Here")], rows)))
    if isinstance(entry, Listing) and entry.topics:
        parts.append("## Topics\n\n" + "\n".join(f"- {escape(topic)}" for topic in entry.topics))
    covers = entry.covers if isinstance(entry, Overview | Executable) else []
    if covers:
        parts.append("## What it covers { #covers }\n\n" + "\n".join(f"- {entry_link(facts, here, id)}" for id in covers))
    return "\n\n".join(parts)


def _made(facts: Facts, id: str) -> str:
    return " <small>reimplemented</small>" if facts.moved.get(id, id) in facts.sources else ""


def entry_link(facts: Facts, here: str, id: str) -> str:
    """An entry's name, linked where there is such an entry."""
    record = facts.catalogue.entries.get(facts.moved.get(id, id))
    return inside(escape(record.entry.name), here, path_of(record)) if record else code(id)


def _claims(record: Record, source: Source | None, measured: Measured) -> str:
    entry = record.executable
    if entry is None or not entry.claims:
        return ""
    printed = any(bound.paper is not None for claim in entry.claims.values() for bound in claim.bounds().values())
    bodies = "\n".join(_claim(name, claim, source, measured, printed=printed) for name, claim in entry.claims.items())
    guide = inside("How to read this table", path_of(record), "guides/read.md#claims")
    told = f"What the {origin(record)} says, and what the reimplementation measures. {_bite(measured)}{guide}."
    return section("Claims", "claims", told, _claims_table(bodies, printed=printed))


def _bite(measured: Measured) -> str:
    """How many planted faults the claims notice, in words."""
    if not (bite := measured.bite):
        return ""
    sample = f" (an even sample of {bite.possible})" if bite.planted < bite.possible else ""
    harmless = f"; {plural(bite.equivalent, 'fault')} of the rest can change nothing" if bite.equivalent else ""
    died = f"; {plural(bite.died, 'fault')} ended the run itself" if bite.died else ""
    return f"Of {bite.planted} faults planted in the program{sample}, they notice {bite.killed}{harmless}{died}. "


def _claims_table(bodies: str, *, printed: bool) -> str:
    """The column of printed numbers stays away where the paper prints none."""
    heads = [name for name in CLAIM_COLUMNS if printed or name != "Printed"]
    return raw_table("sp-claims" if printed else "sp-claims sp-unprinted", heads, bodies)


def _claim(name: str, claim: Claim, source: Source | None, measured: Measured, *, printed: bool) -> str:
    place = [escape(claim.where), f"{claim.tier} claim", *([in_unit(claim.unit)] if claim.unit else [])]
    function = source.claims.get(name) if source else None
    if function:
        place.append(f'<a href="#__codelineno-source-{function.line}"><code>claim_{name}</code></a>')
    lines, states, verdicts = [], set(), set[str | None]()
    for case, bound in claim.bounds().items():
        found: list[Finding | None] = [*measured.findings(name, case, bound)] or [None]
        verdicts.add(found[0].verdict if found[0] else None)
        states.add("surprise" if any(f and f.surprise for f in found) else found[0].verdict if found[0] else "open")
        for finding in found:
            where = [code(case)] if case is not None else []
            if finding:
                seen = "no data" if finding.condition.data == "none" else data_name(finding.condition.data)
                where.append(f"{seen}, {seeds(finding.sample)}" if len(finding.sample.values) > 1 else seen)
            ours = spread(finding.sample.mean, finding.sample.sd) if finding else NONE
            because = f'<br><small class="sp-because">{escape(bound.because)}</small>' if bound.because and finding is found[0] else ""
            paper = [plain(bound.paper)] if printed else []
            cells = [" · ".join(where), *paper, ours, bound_text(bound), verdict_mark(finding) + because]
            lines.append("<tr>" + "".join(f"<td>{text}</td>" for text in cells) + "</tr>")
    state = next(state for state in ("surprise", "fails", "open", "holds") if state in states)
    word = f"<strong>{summary_word(claim, verdicts)}</strong> · " if len(lines) > 1 else ""
    head = f'<th scope="rowgroup" colspan="{5 if printed else 4}">{escape(claim.says)} <small>{word}{" · ".join(place)}</small></th>'
    return f'<tbody class="sp-is-{state}" id="claim-{name}"><tr>{head}</tr>\n' + "\n".join(lines) + "</tbody>"


def in_unit(unit: str) -> str:
    """ "in points", but "of the largest output"."""
    return escape(unit if unit.startswith("of ") else f"in {unit}")


def summary_word(claim: Claim, verdicts: set[str | None]) -> str:
    """One word for a claim of several cases or data sets."""
    if verdicts == {None}:
        return "not attempted"
    if verdicts == {"holds"}:
        return "theory holds" if claim.tier == "exact" else "holds"
    return "not reproduced" if "holds" not in verdicts else "partly"


def bound_text(bound: Bound) -> str:
    """A bound as "≥ 0.02", "≤ 10⁻⁵" or "3.4 ± 2%"."""
    if bound.at_least is not None:
        return f"≥ {plain(bound.at_least)}"
    if bound.at_most is not None:
        return f"≤ {plain(bound.at_most)}"
    return f"{plain(bound.paper)} ± {escape(bound.within) if isinstance(bound.within, str) else plain(bound.within)}"


def subject_name(subject: str) -> str:
    return f"control: {escape(subject.removeprefix('control_').replace('_', ' '))}" if subject.startswith("control_") else subject


def _numbers(facts: Facts, record: Record, source: Source | None, measured: Measured) -> str:
    if source is None:
        return ""
    guide = inside("What these data are", path_of(record), "guides/read.md#data")
    told = f"The same network, the same budget: what matters is how far the method gets beyond its controls. {guide}."
    title = "Reference · control · method"
    if not measured.conditions:
        command = code(f"smallprint smoke {record.id} --record")
        return section(title, "numbers", told, f'<p class="sp-empty">Not measured yet: {command} writes the numbers that stand here.</p>')
    tables = (_condition(measured, condition, explained=not place) for place, condition in enumerate(measured.conditions))
    return section(title, "numbers", told, _among(facts, record, measured), *tables)


def _condition(measured: Measured, condition: Condition, *, explained: bool) -> str:
    """Under one condition; the first table of a page is `explained`, as the others have the same columns."""
    subjects = measured.subjects(condition)
    known = [q for q in QUANTITIES if any(measured.sample(condition, s, q) for s in subjects)]
    groups = [
        ("Really measured", [q for q in MEASURED if q in known]),
        ("Counted on the network as it ships", [q for q in COUNTED if q in known]),
    ]
    top = "".join(f'<th scope="colgroup" colspan="{len(names)}">{title}</th>' for title, names in groups if names)
    order = [q for _, names in groups for q in names]
    words = {q: f' title="{QUANTITIES[q][1]}"' if explained else "" for q in order}
    names = [f'<th scope="col"{words[q]}>{QUANTITIES[q][0]}</th>' for q in order]
    lines = []
    for subject in subjects:
        cells = "".join(f"<td>{_cell(measured, condition, subject, q)}</td>" for q in order)
        role = "method" if subject == "method" else "control" if subject.startswith("control_") else "reference"
        lines.append(f'<tr class="sp-{role}"><th scope="row">{subject_name(subject)}</th>{cells}</tr>')
    sample = next(s for s in (measured.sample(condition, subject, order[0]) for subject in subjects) if s) if order else None
    note = {"smoke": "A smoke run is seconds on a slice of the data: it shows a difference, not what a method can reach."}.get(
        condition.tier, ""
    )
    note += " The stand-in is drawn by a program; its accuracies say nothing about photographs." if condition.data == "standin" else ""
    title = f"### {condition_name(condition)} {{ #{anchor(condition)} }}"
    rows = [row for row in measured.rows if (row.tier, row.data) == condition]
    runs, stale = seeds(sample) if sample else "", stale_mark(measured.stale(rows))
    facts = f"{runs}; accuracy after the last step, mean ± standard deviation.{stale} {note}"
    body = "<tbody>" + "\n".join(lines) + "</tbody>"
    return f'{title}\n\n<p class="sp-under">{facts}</p>\n\n{raw_table("sp-numbers", ["Network", *names], body, f"<td></td>{top}")}'


def _cell(measured: Measured, condition: Condition, subject: str, metric: str) -> str:
    sample = measured.sample(condition, subject, metric)
    if sample is None:
        return "1.00×" if (subject, metric) == ("reference", "latency") else NONE
    ratio = measured.ratio(condition, metric, subject) if metric in COUNTED and subject != "reference" else None
    small = f" <small>{times(ratio)}</small>" if ratio not in (None, 1) else ""  # that a number is the same is plain to see
    return f"{quantity(metric, sample.mean, sample.sd)}{small}"


def prose(text: str) -> str:
    """Paragraphs of a docstring: everything is text but `code`."""
    return "\n\n".join(f"<p>{with_code(paragraph)}</p>" for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip())


def _idea(facts: Facts, record: Record, source: Source | None) -> str:
    said = source.docstring.partition("\n")[2] if source else ""
    body = re.split(r"^Departures:", said, maxsplit=1, flags=re.MULTILINE)[0].strip()
    equations = [_equation(n, e, source) for n, e in enumerate(record.executable.equations if record.executable else [], 1)]
    parts = [explained(facts, path_of(record), prose(body)) if body else "", *equations]
    return section("How it works", "idea", *parts) if any(parts) else ""


def _equation(number: int, equation: Equation, source: Source | None) -> str:
    """An equation, what it says, and the lines of the program that compute it, folded."""
    drawn = f'<div class="sp-math" tabindex="0" data-search-exclude>{mathml(equation.tex)}</div>'
    said = f"<figcaption>{escape(equation.says)} <small>{escape(equation.where)}</small></figcaption>"
    shown = f'<figure class="sp-equation" id="equation-{number}">{drawn}{said}</figure>'
    function = source.functions.get(equation.function or "") if source else None
    if source is None or function is None:
        return shown
    lines = textwrap.dedent("\n".join(source.text.splitlines()[function.line - 1 : function.end]))
    ticks, _, rest = fence(lines, "").partition("\n")
    places = f"lines {function.line} to {function.end}" if function.end > function.line else f"line {function.line}"
    place = f'<a href="#__codelineno-source-{function.line}">{places} of the source</a>'
    block = f'{ticks}{{ .python #equation-{number}-code linenums="{function.line}" }}\n{rest}'
    opened = f'<details class="sp-lines" data-search-exclude markdown><summary>Computed by {code(equation.function)}</summary>'
    return f"{shown}\n\n{opened}\n\n{block}\n\n<p>These are {place}.</p>\n\n</details>"


def departures(text: str) -> list[str]:
    """The single departures: they are parted by semicolons outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == ";" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [" ".join(part.split()).rstrip(".") for part in parts if part.strip()]


def _departures(source: Source | None) -> str:
    if source is None:
        return ""
    text = source.departures
    found = departures(text) if text else []
    said = (
        "\n".join(f"- {with_code(part[:1].upper() + part[1:])}." for part in found) if found else '<p class="sp-empty">None is named.</p>'
    )
    return section("Departures", "departures", said)


def _config(source: Source | None) -> str:
    if source is None or not source.config:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row"><a href="#__codelineno-source-{s.line}">{code(s.name)}</a></th>'
        f"<td>{code(s.default)}</td><td>{with_code(s.comment)}</td></tr>"
        for s in source.config
    )
    body = raw_table("sp-config", ("Setting", "Value", "Where it comes from"), f"<tbody>{rows}</tbody>")
    said = "A smoke run uses other values, because the published ones need longer than seconds to act:"
    smoke = [said, fence(source.smoke, "python")] if source.smoke else []
    if source.long:
        smoke += ["A long run has about five minutes of a processor:", fence(source.long, "python")]
    told = "The method's own numbers, as published. Training length, batch and seed are the task's."
    return section("Configuration", "config", told, body, *smoke)


def _source(source: Source | None) -> str:
    if source is None:
        return ""
    ticks, _, rest = fence(source.text, "").partition("\n")
    path = re.sub(r"[^\w./-]", "", source.path)
    block = f'{ticks}{{ .python #source title="{path}" linenums="1" }}\n{rest}'
    return section("The source", "the-source", block, searched=False)


def _published(facts: Facts, record: Record) -> str:
    entry = record.executable
    if entry is None or not entry.results:
        return ""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in entry.results:
        groups[result.metric].append(result)
    rows = []
    for result in entry.results:
        shown = decimals(value for r in groups[result.metric] for value in (r.baseline, r.result))
        rows.append([
            escape(result.dataset), escape(result.model), metric_name(facts, result.metric),
            fixed(result.baseline, shown), fixed(result.result, shown), signed(change(result), shown),
            parameters_kept(result), multiply_adds_kept(result), printed_at(result),
        ])  # fmt: skip
    names = ["Data", "Network", "Metric", "Before", "After", "Change", "Parameters", "Multiply-adds", "Setting and place"]
    shared = [place for place in dict.fromkeys((r.dataset, r.model) for r in entry.results) if place in facts.printed]
    beside = ", ".join(inside(escape(place_name(place)), path_of(record), printed_path(place)) for place in shared)
    told = f"Copied from the {origin(record)}, never mixed with what we measure." + (f" Beside other papers: {beside}." if beside else "")
    return f"## What the {origin(record)} printed {{ #published }}\n\n{told}\n\n" + plain_table(
        *filled([Column(name, name in ("Before", "After", "Change", "Parameters", "Multiply-adds")) for name in names], rows),
        kind="sp-sortable sp-printed",
    )


def place_name(place: tuple[str, str]) -> str:
    return f"{place[1]} on {place[0]}"


def printed_path(place: tuple[str, str]) -> str:
    """Where the page stands that sets beside each other what papers printed of a data set and a network."""
    name = re.sub(r"[\W_]+", "-", " ".join(place).lower()).strip("-")
    return f"comparisons/published/{name}.md"


def printed_at(result: Result) -> str:
    """The setting of a printed number, and below it the place where it is printed."""
    return (f"{escape(result.setting)}<br>" if result.setting else "") + f"<small>{escape(result.where)}</small>"


def filled(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> tuple[list[Column], list[list[str]]]:
    """A table without the columns in which nothing stands."""
    used = [index for index in range(len(columns)) if any(row[index] not in ("", NONE) for row in rows)]
    return [columns[index] for index in used], [[row[index] for index in used] for row in rows]


def change(result: Result) -> float | None:
    return result.result - result.baseline if result.baseline is not None else result.delta


def kept(before: float | None, after: float | None, share: float | None) -> str:
    """ "2.3 of 20.04 M (11.5%)": what is known of it."""
    share = share if share is not None else after / before if before and after else None
    part = f"{plain(after)} of {plain(before)} M" if before and after else f"{plain(after or before)} M" if after else ""
    shown = f"{plain(100 * share, 3)}%" if share is not None else ""
    return f"{part} ({shown})" if part and shown else part or shown or NONE


def parameters_kept(result: Result) -> str:
    return kept(result.params_before, result.params_after, result.params_kept)


def multiply_adds_kept(result: Result) -> str:
    return kept(result.madds_before, result.madds_after, result.madds_kept)


def _run(record: Record, source: Source | None, measured: Measured) -> str:
    if source is None:
        return ""
    smoke = f"smallprint smoke {record.id}"
    commands = f"make smoke METHOD={record.id}\n{smoke} --seeds 5\n{smoke} --data path/to/cifar-10-batches-py"
    return "\n\n".join([
        "## Run it { #run }",
        f"On the embedded stand-in, over five seeds, on real CIFAR-10; {inside('how to begin', path_of(record), 'guides/run.md')}:",
        fence(commands, "bash"),
        *_expected(record, measured),
        "### On your own network { #own }",
        f"In the repository’s folder, with a `model` and data of yours; {inside('more', path_of(record), 'guides/run.md#own')}:",
        fence(own_network(record, source), "python"),
    ])  # fmt: skip


def _expected(record: Record, measured: Measured) -> list[str]:
    """What the first of the commands prints, made of the recorded rows by what prints it, and how long it takes."""
    found = recorded(record, measured.rows, "smoke", "standin")
    if not found.numbers:
        return []
    used = [row for row in measured.rows if row.tier in ("exact", "smoke")]
    took = f"The first took {found.seconds:.0f} seconds when it was recorded" if found.seconds else "The first takes seconds on a processor"
    told = f"{took}, without any download, and prints this, but for what differs between machines{stale_mark(measured.stale(used))}"
    return [f"{told}:", fence(report.as_text(record, found), "{ .text .sp-output }")]


def own_network(record: Record, source: Source) -> str:
    """The lines that apply a method to a reader's `model`, with the reader's data loaders."""
    return "\n".join([
        "import copy", "", "from methods.kit.measure import measure", "from methods.kit.task import Task",
        f"from methods.{record.family} import {record.id}", "",
        "# three DataLoaders of images (N, C, H, W) and labels (N,)", "task = Task.from_loaders(train, validation, test, steps=2000)",
        *([f"task = {record.id}.prepare(task)"] if "prepare" in source.functions else []),
        f"small = {record.id}.compress(copy.deepcopy(model), task, {record.id}.Config())",
        "print(measure(small, task, model))  # accuracy, parameters, bits, multiply-adds, bytes, latency",
    ])  # fmt: skip


def _cite(facts: Facts, record: Record) -> str:
    line, text = cite.text(record.entry), bibtex.bibtex(record.entry, facts.citation_keys[record.id])
    return section("Cite", "cite", fence(line, "{ .text .sp-plain }"), fence(text, "bibtex"), searched=False)


def _links(facts: Facts, record: Record) -> str:
    """The paper, code and whatever else, each with what is known of its health and with where a copy may be."""
    entry = record.entry
    home = "home page" if record.family in ("frameworks", "lists") else "the paper"
    places = paper_addresses(entry)
    coded = {item.url for item in entry.code}
    found = [(url, _host(url), home) for url in places if url not in coded]  # no address twice
    for item in entry.code:
        about = [home if item.url in places else "", escape(item.framework or ""), escape(item.note or "")]
        found.append((item.url, _host(item.url), ", ".join(filter(None, about))))
    found += [(item.url, escape(item.label), "") for item in entry.links]
    lines = [f"- {link(text, url)}{f' ({about})' if about else ''}{with_copy(url, facts.health.get(url))}" for url, text, about in found]
    told = '<p class="sp-under">Archived copies are the Internet Archive’s newest; of some addresses it may have none.</p>'
    return section("Code and links", "links", "\n".join(lines), told) if lines else ""


def _host(url: str) -> str:
    return escape(re.sub(r"^https?://(www\.)?", "", url).rstrip("/"))


def _lineage(facts: Facts, record: Record) -> str:
    here, entry = path_of(record), record.entry
    groups = [
        ("Builds on", entry.builds_on),
        ("Used by", facts.used_by.get(record.id, [])),
        ("Compared with", [*entry.compared_with, *facts.compared_by.get(record.id, [])]),
        ("Covered by", facts.covered_by.get(record.id, [])),
    ]
    today = [(name, [facts.moved.get(id, id) for id in ids]) for name, ids in groups if ids]
    known = [(name, {id: facts.catalogue.entries.get(id) for id in ids}) for name, ids in today]

    def named(id: str, there: Record | None) -> str:  # as HTML: Markdown takes seconds over a line of a thousand links
        return raw_link(escape(there.entry.name), here, path_of(there)) if there else code(id)

    lines = [f"<li><strong>{name}</strong>: {', '.join(named(*pair) for pair in there.items())}</li>" for name, there in known]
    shown = [list(filter(None, dict(known).get(name, {}).values())) for name, _ in groups[:3]]
    nodes = [[charts.Node(r.entry.name, r.family, hosted(here, path_of(r))) for r in records] for records in shown]
    graph = f'<figure class="sp-lineage" tabindex="0">{charts.lineage(entry.name, record.family, *nodes)}</figure>' if any(nodes) else ""
    return section("Lineage", "lineage", graph, f"<ul>{''.join(lines)}</ul>") if lines else ""


COSTS = {  # what charts set accuracy against: title, axis
    "file_bytes": ("File size", "file size in bytes"),
    "multiply_adds": ("Multiply-adds", "multiply-adds for one image"),
    "latency": ("Time", "time over the reference's, one thread"),
}


def _among(facts: Facts, record: Record, measured: Measured) -> str:
    """Accuracy against what the method saves most of, before the family's other methods."""
    if not measured.conditions:
        return ""
    condition = measured.conditions[0]
    saved = {cost: measured.ratio(condition, cost) or 1.0 for cost in ("file_bytes", "multiply_adds")}
    cost = min(saved, key=lambda name: saved[name])
    points = []
    for id, theirs in facts.measured.items():
        other = facts.catalogue.entries[id]
        if other.family != record.family or (other is not record and facts.own_task(record.id) | facts.own_task(id)):
            continue
        for subject in theirs.subjects(condition) if other is record else ["method"]:
            accuracy, paid = theirs.sample(condition, subject, "accuracy"), theirs.sample(condition, subject, cost)
            if accuracy and paid and paid.mean > 0:
                role = "control" if subject.startswith("control_") else subject
                points.append(charts.Point(other.entry.name, other.family, role, paid.mean, accuracy.mean))
    if len(points) < 2:
        return ""
    chart = charts.among(points, record.entry.name, record.family, COSTS[cost][1], f"among-{record.id}")
    grey = "; grey circles are the other methods of the family, which may start from another network"
    told = f"{condition_name(condition)}{'' if facts.own_task(record.id) else grey}: "
    told += inside("all numbers", path_of(record), f"comparisons/measured.md#{anchor(condition)}")
    return f"{figure(chart, anchor(condition))}\n\n{told}.\n{{ .sp-under }}"


def _provenance(measured: Measured) -> str:
    if not measured.rows:
        return ""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in (row for row in measured.rows if row.tier != ROUNDING):
        where = f"{row.device}, {plural(row.threads, 'thread')}", f"Python {row.python}, torch {row.torch}"
        groups[row.tier, row.data, *where, row.commit, row.code].append(row)
    heads = ("Data", "Run", "Seeds", "Device", "Versions", "Commit", "Code", "Date", "Numbers")
    lines = []
    for (tier, data, device, versions, commit, moved), rows in sorted(
        groups.items(), key=lambda item: (Condition(*item[0][:2]).rank, item[0])
    ):
        used = ", ".join(str(seed) for seed in sorted({row.seed for row in rows}))
        digests = list(dict.fromkeys(row.data_digest for row in sorted(rows, key=lambda row: row.seed)))
        images = " ".join(digest[: 16 // len(digests) + 3] for digest in digests)  # in whole they are in measured.csv
        lines.append([
            f"{data_name(data)}{f'<br>{code(images)}' if images else ''}", escape(tier), used, escape(device), escape(versions),
            code(commit), f"{code(moved)}{' stale' if moved != measured.code else ''}", _dates(row.date for row in rows), str(len(rows)),
        ])  # fmt: skip
    # What is the same for all is said once, above.
    same = [column for column in (3, 4, 5, 6, 7) if len(lines) > 1 and len({line[column] for line in lines}) == 1]
    shared = f"All of them: {' · '.join(('code ' if heads[c] == 'Code' else '') + lines[0][c] for c in same)}. " if same else ""
    told = f"{shared}*Code* is a digest of the method, what it imports and the kit: where it differs from today's, the number is *stale*."
    if again := sum(row.tier == ROUNDING for row in measured.rows):
        told += f" {plural(again, 'smoke number')} came again from another instruction set."
    kept = [column for column in range(len(heads)) if column not in same]
    rows_of = ("<tr>" + "".join(f"<td>{line[column]}</td>" for column in kept) + "</tr>" for line in lines)
    body = raw_table("sp-provenance", [heads[column] for column in kept], "<tbody>" + "\n".join(rows_of) + "</tbody>")
    return section("Where the numbers come from", "provenance", told, body, searched=False)


def _history(facts: Facts, record: Record) -> str:
    """When the page came and changed; nothing where git does not know."""
    if not (span := facts.history.get(record.id)):
        return ""
    added = f"Here since {history.day(span.added)}. " if span.added else ""
    return f'<p class="sp-under sp-dates">{added}Facts, program or numbers changed last on {history.day(span.changed)}.</p>'


def _dates(dates: Iterable[str]) -> str:
    days = sorted({date[:10] for date in dates})
    return escape(days[0]) if len(days) == 1 else f"{escape(days[0])} to {escape(days[-1])}"

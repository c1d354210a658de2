"""The page of one entry, as Markdown: a pure function of the facts. Its claims and numbers are in `entry_measured`."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict

from catalog import Record
from catalog.schema import Equation, Executable, Framework, Listing, Overview, Result
from scripts.curation import bibtex, cite
from scripts.curation.mathml import mathml
from scripts.evidence import history
from scripts.evidence.facts import Facts, Measured
from scripts.evidence.link_health import paper_addresses
from scripts.evidence.outcome import recorded
from scripts.evidence.source import Source
from scripts.evidence.text import code, escape, link, with_code  # fmt: skip
from scripts.running import report
from scripts.website import entry_code, search
from scripts.website.charts.lineage import Node, lineage
from scripts.website.entry_measured import claims, numbers, provenance
from scripts.website.markup import Column, fence, filled, hosted, inside, plain_table, raw_link, raw_table, section, table
from scripts.website.names import (
    FAMILIES,
    condition_name,
    entry_link,
    explained,
    front,
    metric_name,
    note,
    origin,
    path_of,
    stale_mark,
    subject_name,
    with_copy,
)
from scripts.website.numbers import NONE, decimals, fixed, percent, quantity, signed, times
from scripts.website.printed import change, multiply_adds_kept, parameters_kept, place_name, printed_at, printed_path


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
        claims(facts, record, source, measured),
        numbers(facts, record, source, measured),
        _idea(facts, record, source),
        _departures(source),
        _config(source),
        _source(source),
        _published(facts, record),
        _run(record, source, measured),
        _cite(facts, record),
        _links(facts, record),
        _lineage(facts, record),
        provenance(measured),
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
            _tile(f"{score.held} of {score.total}", "effects hold" + (f", {score.level} level" if score.level else ""))
            if score.judged
            else _tile(str(score.total), "effects, not measured yet")
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
    return section("The source", "the-source", block, entry_code.shared(source.claimed), searched=False)


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
        "from methods.kit.measure import measure", "from methods.kit.task import Task",
        f"from methods.{record.family} import {record.id}", "",
        "# three DataLoaders of images (N, C, H, W) and labels (N,)", "task = Task.from_loaders(train, validation, test, steps=2000)",
        *([f"task = {record.id}.prepare(task)"] if "prepare" in source.functions else []),
        f"small = {record.id}.compress(model, task, {record.id}.Config())",
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
    nodes = [[Node(r.entry.name, r.family, hosted(here, path_of(r))) for r in records] for records in shown]
    graph = f'<figure class="sp-lineage" tabindex="0">{lineage(entry.name, record.family, *nodes)}</figure>' if any(nodes) else ""
    return section("Lineage", "lineage", graph, f"<ul>{''.join(lines)}</ul>") if lines else ""


def _history(facts: Facts, record: Record) -> str:
    """When the page came and changed; nothing where git does not know."""
    if not (span := facts.history.get(record.id)):
        return ""
    added = f"Here since {history.day(span.added)}. " if span.added else ""
    return f'<p class="sp-under sp-dates">{added}Facts, program or numbers changed last on {history.day(span.changed)}.</p>'

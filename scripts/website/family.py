"""The page of a family: its head, its table, its charts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from catalog import Record
from catalog.schema import Framework, Listing
from scripts.evidence.facts import Condition, Facts, Sample, Size, Standing
from scripts.evidence.text import escape
from scripts.website import search
from scripts.website.charts import charts
from scripts.website.markup import UNSEARCHED, Column, figure, filled, inside, section, sortable, table, unbroken
from scripts.website.names import (
    FAMILIES,
    NAMES,
    condition_name,
    data_name,
    entry_link,
    front,
    own_tasks,
    path_of,
    seeds,
    stale_mark,
    subject_name,
)
from scripts.website.numbers import NONE, percent, plural, quantity, signed, times


def family_page(facts: Facts, family: str) -> str:
    """A family without a guide of its own in site/: its head and its table."""
    records, here = facts.catalogue.family(family), f"{family}/index.md"
    if not records:
        body = f'<p class="sp-empty">Nothing here yet.</p>\n\n{inside("How to add a paper", here, "guides/contribute.md")}'
    elif family in ("overviews", "lists"):
        body = _listing(facts, records, here)
    elif family == "frameworks":
        body = "\n\n".join(filter(None, [_frameworks(facts, records, here), family_sweep(facts, family)]))
    else:
        body = "\n\n".join(filter(None, [family_table(facts, family), family_sweep(facts, family)]))
    return family_head(facts, family) + "\n\n" + body + "\n"


def family_head(facts: Facts, family: str) -> str:
    """The front matter, so this stands at the very beginning of a page, its title and what the family is about."""
    name, sentence = FAMILIES[family]
    head = f'<div class="sp-head sp-{family}" markdown>\n\n# {name}\n\n<p class="sp-lead">{sentence}</p>\n\n</div>'
    return "\n\n".join([front(name, sentence, ("toc", "navigation"), search=f"boost: {search.FAMILY}"), head])


def timeline(facts: Facts, family: str) -> str:
    """The family's entries year by year, each with what it builds on."""
    here = f"{family}/index.md"
    years: dict[int, list[str]] = defaultdict(list)
    for record in sorted(facts.catalogue.family(family), key=lambda r: (r.entry.year, r.entry.name)):
        mark = "" if record.id in facts.sources else ' class="sp-unmade"'
        after = [entry_link(facts, here, id) for id in record.entry.builds_on]
        from_ = f" <small>after {', '.join(after)}</small>" if after else ""
        years[record.entry.year].append(f"<li{mark} markdown>{inside(escape(record.entry.name), here, path_of(record))}{from_}</li>")
    items = "\n".join(
        f'<li markdown><span class="sp-year">{year}</span><ul markdown>\n' + "\n".join(names) + "\n</ul></li>"
        for year, names in years.items()
    )
    return f'<ol class="sp-timeline sp-{family}" {UNSEARCHED} markdown>\n{items}\n</ol>' if items else ""


def findings(facts: Facts, family: str) -> str:
    """What the measurements of a family say, in sentences that are made of the numbers."""
    here = f"{family}/index.md"
    records = [record for record in facts.catalogue.family(family) if record.id in facts.sources]
    gaps: dict[Condition, list[tuple[Record, Standing]]] = defaultdict(list)
    for record in records:
        measured = facts.of(record.id)
        for condition in measured.conditions:
            standing = measured.standing(condition)
            if standing.gap is not None:
                gaps[condition].append((record, standing))
    if not gaps:
        return '<p class="sp-empty">Nothing of this family has been measured yet.</p>'
    often = [condition for condition, found in gaps.items() if 2 * len(found) >= max(map(len, gaps.values()))]
    condition = min(often, key=lambda c: c.rank)

    def named(found: Sequence[tuple[Record, Standing]]) -> str:
        return ", ".join(
            f"{inside(escape(record.entry.name), here, path_of(record))} ({signed(at.gap, 1, at.spread)} points to "
            f"*{subject_name(at.control or '').removeprefix('control: ')}*)"
            for record, at in found
        )

    ordered = sorted(gaps[condition], key=lambda item: -(item[1].gap or 0))
    ahead = [(record, at) for record, at in ordered if (at.gap or 0) > (at.spread or 0)]
    behind = [(record, at) for record, at in reversed(ordered) if (at.gap or 0) < -(at.spread or 0)]
    level = [item for item in ordered if item not in ahead and item not in behind]
    scores = [facts.score(record) for record in records]
    held, total = sum(score.held for score in scores), sum(score.total for score in scores)
    fails = [record for record, score in zip(records, scores, strict=True) if score.failed]
    lines = [f"{held} of {plural(total, 'effect')} of {plural(len(records), 'method')} hold where we measured them again."]
    if ahead:
        lines.append(f"Furthest beyond the best control of equal size ({condition_name(condition)}): {named(ahead[:3])}.")
    if behind:
        lines.append(f"Behind it: {named(behind[:4])}.")
    if level:
        lines.append(f"Level with it, within one deviation over the seeds: {named(level[:4])}.")
    if fails:
        links = ", ".join(inside(escape(record.entry.name), here, f"{path_of(record)}#claims") for record in fails)
        lines.append(f"Effects that fail at this scale, with the reason: {links}.")
    lines.append(f"Every number, for every length of run: {inside('methods against their controls', here, 'comparisons/measured.md')}.")
    return "\n".join(f"- {line}" for line in lines)


def family_table(facts: Facts, family: str) -> str:
    return _methods(facts, facts.catalogue.family(family), f"{family}/index.md")


def family_sweep(facts: Facts, family: str) -> str:
    return _sweep(facts, facts.catalogue.family(family), f"{family}/index.md", family)


GUIDE: dict[str, Callable[[Facts, str], str]] = {
    "family_head": family_head,
    "timeline": timeline,
    "findings": findings,
    "family_table": family_table,
    "sweep": family_sweep,
}


def _methods(facts: Facts, records: Sequence[Record], here: str) -> str:
    rows = []
    for record in sorted(records, key=lambda r: (r.id not in facts.sources, r.entry.year, r.entry.name)):
        entry, measured = record.entry, facts.of(record.id)
        condition = measured.conditions[0] if measured.conditions else None
        _, *samples = measured.standing(condition) if condition else (None, None, None, None)
        accuracies = [sortable(s.mean if s else None, percent(s.mean) if s else NONE) for s in reversed(samples)]
        ratios = {metric: measured.ratio(condition, metric) if condition else None for metric in ("multiply_adds", "file_bytes")}
        bits = measured.sample(condition, "method", "bits") if condition else None
        rows.append([
            inside(escape(entry.name), here, path_of(record)), _effects_held(facts, record),
            *accuracies,
            sortable(ratios["multiply_adds"], times(ratios["multiply_adds"])),
            sortable(bits.mean, quantity("bits", bits.mean)) if bits else NONE,
            sortable(ratios["file_bytes"], times(ratios["file_bytes"])), unbroken(condition_name(condition)) if condition else NONE,
            str(entry.year), escape(entry.venue or NONE),
        ])  # fmt: skip
    names = [
        "Name",
        "Effects that hold",
        "Method",
        "Best control",
        "Reference",
        "Multiply-adds",
        "Bits",
        "File",
        "Measured on",
        "Year",
        "Venue",
    ]
    columns = [Column(name, name in ("Year", "Reference", "Best control", "Method", "Multiply-adds", "Bits", "File")) for name in names]
    done = sum(record.id in facts.sources for record in records)
    said = f"{plural(len(records), 'entry', 'entries')}, {done} reimplemented."
    guide = inside("How to read these numbers", here, "guides/read.md")
    explain = f"{said} *Method*, *best control* and *reference* are accuracies; "
    explain += f"multiply-adds (of convolutions, dense layers and attention) and file are the method's share of the reference's. {guide}."
    return section(
        "All of them", "all", explain + own_tasks(facts, records), table(*filled(columns, rows), kind="sp-sortable", searched=False)
    )


def _sweep(facts: Facts, records: Sequence[Record], here: str, family: str) -> str:
    """All methods of a family at several operating points."""
    conditions = [condition for record in records if (condition := facts.of(record.id).sweep)]
    if not conditions:
        return ""
    condition = min(conditions, key=lambda c: c.rank)
    swept = [(record, found) for record in records if (found := facts.of(record.id).sizes(condition))]
    learning = [(record, found) for record, found in swept if "steps" in found[0].method]
    sizes = [(record, found) for record, found in swept if "steps" not in found[0].method]
    often = " or ".join(sorted({seeds(size.method["accuracy"]) for _, found in swept for size in found}))
    where = f"{data_name(condition.data)}, with the images {{}}of a smoke run, {often}: "
    return "\n\n".join(
        [
            *([_against_cost(facts, sizes, here, family, where.format("and steps "))] if sizes else []),
            *([_against_steps(facts, learning, here, family, where.format(""))] if learning else []),
        ]
    )


Swept = Sequence[tuple[Record, Sequence[Size]]]


def _against_cost(facts: Facts, swept: Swept, here: str, family: str, where: str) -> str:
    """Accuracy and error of the outputs against multiply-adds."""

    def spots(size: Size, subject: Mapping[str, Sample], metric: str) -> list[charts.Spot]:
        return [charts.Spot(size.share("multiply_adds", dict(subject)), subject[metric].mean)] if metric in subject else []

    tabs = []
    for metric, title in (("accuracy", "Accuracy"), ("output_error", "Output error")):
        series = [
            charts.Series(
                record.entry.name,
                next(iter(spots(found[0], found[0].reference, metric)), None),
                [spot for size in found for spot in spots(size, size.method, metric)],
                [spot for size in found if size.best for spot in spots(size, size.controls[size.best], metric)],
            )
            for record, found in swept
        ]
        known = [one for one in series if one.method]
        if known:
            name = f"sweep-{family}-{metric}".replace("_", "-")
            chart = charts.sweeps(known, family, "share of the multiply-adds", title.lower(), "best control", name)
            tabs.append(f'=== "{title}"\n\n    {figure(chart, "numbers-sweep", "span")}')
    scratch = [escape(record.entry.name) for record, _ in swept if record.executable and record.executable.start == "scratch"]
    explain = (
        f"{where}every method at several sizes, each beside "
        "the control that keeps the most accuracy there; grey lines are the other methods. *Output error* compares what every stage "
        "of a network puts out, behind batch norm and ReLU, with the reference's: the root mean square of the relative errors, which "
        "training moves, too."
        + (f" {' and '.join(scratch)} learn from random weights, the others start from a trained network." if scratch else "")
    )
    slow = [
        (
            size.method["latency"].mean / size.share("multiply_adds"),
            f"{escape(record.entry.name)} ({times(size.share('multiply_adds'))} the multiply-adds, "
            f"{times(size.method['latency'].mean)} the time)",
        )
        for record, found in swept
        for size in found[-1:]
        if "latency" in size.method and size.method["latency"].mean > 1.5 * size.share("multiply_adds")
    ]
    worst = "; ".join(text for _, text in sorted(slow, reverse=True)[:3])
    theory = f"Theory does not become time on one thread of a CPU, least of all for the smallest of {worst}." if slow else ""
    heads = ["Method", "Multiply-adds", "Parameters", "Time", "Accuracy", "Best control", "Which", "Output error"]
    rows = [_size(facts, here, record.id, size) for record, found in swept for size in found]
    return section("Accuracy and error against multiply-adds", "sweep", explain, *tabs, theory, _numbers("numbers-sweep", heads, rows))


def _against_steps(facts: Facts, swept: Swept, here: str, family: str, where: str) -> str:
    """Accuracy against the length of training, beside the same network without a teacher."""
    alone = "control_alone"

    def spot(subject: Mapping[str, Sample]) -> charts.Spot:
        return charts.Spot(subject["steps"].mean, subject["accuracy"].mean, subject["accuracy"].sd or 0.0)

    series = [
        charts.Series(
            record.entry.name,
            None,
            [spot(size.method) for size in found],
            [spot(size.controls[alone]) for size in found if alone in size.controls],
        )
        for record, found in swept
    ]
    name = f"steps-{family}".replace("_", "-")
    chart = charts.sweeps(series, family, "training steps", "accuracy", "without a teacher", name)
    explain = (
        f"{where}what comes out after so many steps, beside the same network that starts from the same weights and learns from the "
        "same images without a teacher; grey lines are the other methods, bars the deviation over seeds. Every point is a training run "
        "of its own, with its own schedule, and counts the network of the **last step, never the best one on the way**. The teacher has "
        "seen all training images, its students only those of a smoke run."
    )
    grown = [escape(record.entry.name) for record, _ in swept if record.executable and record.executable.returns == "larger"]
    if grown:
        explain += (
            f" {' and '.join(grown)} has no teacher but a trained network to grow from; beside it, as large a one from random weights."
        )
    heads = ["Method", "Steps", "Accuracy", "Without a teacher", "Best control", "Which", "Teacher or start"]
    rows = [
        [
            entry_link(facts, here, record.id) + stale_mark(size.method["accuracy"].stale),
            sortable(size.method["steps"].mean, f"{size.method['steps'].mean:,.0f}"),
            *(
                _cell(known.get("accuracy"), percent)
                for known in (size.method, size.controls.get(alone, {}), size.controls.get(size.best or "", {}))
            ),
            subject_name(size.best).removeprefix("control: ") if size.best else NONE,
            _cell(size.reference.get("accuracy"), percent),
        ]
        for record, found in swept
        for size in found
    ]
    drawn, numbers = figure(chart, "numbers-steps"), _numbers("numbers-steps", heads, rows)
    return section("Accuracy against training steps", "steps", explain, drawn, numbers)


def _numbers(id: str, heads: Sequence[str], rows: Sequence[list[str]]) -> str:
    """The table behind a chart, folded; every column but names sorts as numbers."""
    columns = [Column(head, head not in ("Method", "Which")) for head in heads]
    lines = table(columns, rows, kind="sp-sortable", id=id, searched=False).splitlines()
    return '??? note "The numbers of these charts"\n\n' + "\n".join(f"    {line}" for line in lines)


def _cell(sample: Sample | None, show: Callable[[float, float | None], str]) -> str:
    return sortable(sample.mean, show(sample.mean, sample.sd)) if sample else NONE


def _size(facts: Facts, here: str, id: str, size: Size) -> list[str]:
    return [
        entry_link(facts, here, id) + stale_mark(size.method["accuracy"].stale),
        *(sortable(size.share(metric), times(size.share(metric))) for metric in ("multiply_adds", "parameters")),
        _cell(size.method.get("latency"), lambda mean, sd: times(mean)),
        _cell(size.method.get("accuracy"), percent),
        _cell(size.controls.get(size.best or "", {}).get("accuracy"), percent),
        subject_name(size.best).removeprefix("control: ") if size.best else NONE,
        _cell(size.method.get("output_error"), percent),
    ]


def _effects_held(facts: Facts, record: Record) -> str:
    """ "11 of 12", or the word that there is no program."""
    score = facts.score(record)
    if record.id not in facts.sources:
        return "<small>not reimplemented</small>"
    return sortable(score.held / score.total, f"{score.held} of {score.total}") if score.judged else NONE


def _in_short(facts: Facts, record: Record) -> str:
    score = facts.score(record)
    if record.id not in facts.sources:
        return "not reimplemented"
    return f"{score.held} of {score.total} effects hold" if score.judged else "reimplemented"


def _frameworks(facts: Facts, records: Sequence[Record], here: str) -> str:
    """Which framework has which technique, technique by technique, and what is known of each framework."""
    offered: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # entry -> framework -> what it is called there
    rows = []
    for record in sorted(records, key=lambda r: r.entry.name.casefold()):
        entry = record.entry
        techniques = entry.techniques if isinstance(entry, Framework) else []
        found = [(id, t.name) for t in techniques if (id := facts.moved.get(t.entry or "", t.entry or "")) in facts.catalogue.entries]
        for id, called in found:
            offered[id][record.id].append(called)
        status = entry.status if isinstance(entry, Framework) else None
        rows.append([
            inside(escape(entry.name), here, path_of(record)), status.state if status else "",
            escape(status.last_activity) if status else "", str(len(techniques) or NONE),
            str(len(found) or NONE), str(entry.year),
            _effects_held(facts, record) if record.id in facts.sources else NONE,
        ])  # fmt: skip
    names = ["Framework", "State", "Last activity", "Techniques", "With an entry here", "Year", "Effects that hold"]
    columns = [Column(name, name in names[3:]) for name in names]
    parts = [section("All of them", "all", table(*filled(columns, rows), kind="sp-sortable", searched=False))]
    known = [(facts.catalogue.entries[id], found) for id, found in offered.items()]
    lines = [
        [
            f"{inside(escape(record.entry.name), here, path_of(record))}<br><small>{_in_short(facts, record)}</small>",
            "<br>".join(
                f"{entry_link(facts, here, id)} <small>{escape(', '.join(called))}</small>" for id, called in by.items()
            ),
            NAMES[record.family],
        ]
        for record, by in sorted(known, key=lambda item: (list(FAMILIES).index(item[0].family), item[0].entry.name.casefold()))
    ]  # fmt: skip
    if lines:
        told = (
            "Every entry that a framework offers, and what it is called there. Techniques without an entry stand on the frameworks’ pages. "
        )
        told += f"{inside('What claims are', here, 'guides/read.md#claims')}."
        columns = [Column("Entry"), Column("Offered by"), Column("Family")]
        parts.insert(
            0,
            section("Which has which technique", "techniques", told, table(columns, lines, kind="sp-sortable sp-offered", searched=False)),
        )
    return "\n\n".join(parts)


def _listing(facts: Facts, records: Sequence[Record], here: str) -> str:
    rows = []
    for record in sorted(records, key=lambda r: (r.entry.year, r.entry.name)):
        entry = record.entry
        covers = [entry_link(facts, here, id) for id in getattr(entry, "covers", [])]
        topics = [escape(topic) for topic in entry.topics] if isinstance(entry, Listing) else covers
        authors = (
            escape(
                entry.authors[0] + (" and others" if len(entry.authors) > 2 else f", {entry.authors[1]}" if len(entry.authors) == 2 else "")
            )
            if entry.authors
            else NONE
        )
        rows.append(
            [
                inside(escape(entry.name), here, path_of(record)),
                ", ".join(topics) or NONE,
                str(entry.year),
                authors,
                escape(entry.venue or NONE),
            ]
        )
    columns = [Column("Name"), Column("About"), Column("Year", True), Column("Authors"), Column("Venue")]
    return table(*filled(columns, rows), kind="sp-sortable sp-offered", searched=False)

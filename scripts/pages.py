"""All pages of the site as Markdown: a pure function of the facts. MkDocs only renders them (see `site_hooks`)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from catalog import Record
from catalog.schema import Comparison, Framework, Listing, Result
from scripts import browse, charts, data_page, exports, history, search, vega
from scripts.entry_pages import (
    COSTS,
    FAMILIES,
    anchor,
    bound_text,
    change,
    condition_name,
    data_name,
    entry_link,
    entry_page,
    filled,
    front,
    in_unit,
    metric_name,
    multiply_adds_kept,
    parameters_kept,
    path_of,
    place_name,
    printed_at,
    printed_path,
    seeds,
    stale_mark,
    subject_name,
)
from scripts.facts import Condition, Facts, Finding, Sample, Size, Standing
from scripts.markup import (
    NONE,
    UNSEARCHED,
    Column,
    code,
    decimals,
    escape,
    figure,
    fixed,
    inside,
    link,
    percent,
    plain,
    plain_table,
    plural,
    quantity,
    raw_link,
    relative,
    section,
    signed,
    sortable,
    spread,
    table,
    times,
    unbroken,
)

METHODS = ("low_rank", "pruning", "distillation", "quantization", "architecture")
MARK = re.compile(r"<!-- fill: ([a-z_]+) -->")
BETTER = {"higher": "; right is better", "lower": "; left is better", "none": ""}  # said below bars
MOST_BARS = 30  # of a chart, the youngest papers; nobody reads more, and the table below it holds all
NAMES = {family: name for family, (name, _) in FAMILIES.items()}


def pages(facts: Facts) -> dict[str, str]:
    """Every generated page: path of the Markdown file -> its text; and the charts' specifications, as scripts.

    Raises ValueError for a mark that nothing fills.
    """
    with vega.kept() as specs:
        made = {path: make() for path, make in makers(facts).items()}
    return made | vega.files(specs)


def makers(facts: Facts) -> dict[str, Callable[[], str]]:
    """Path of every generated page -> what makes its text: of thousands, none has to wait in memory for the others.

    Raises ValueError where two pages would have one path.
    """
    catalogue = facts.catalogue
    longest_first = sorted(catalogue.entries.values(), key=lambda record: record.id not in facts.sources)
    made: list[tuple[str, Callable[[], str]]] = [
        *((f"{family}/index.md", partial(family_page, facts, family)) for family in FAMILIES),
        *((f"comparisons/{id}.md", partial(comparison_page, facts, id, table)) for id, table in catalogue.comparisons.items()),
        (browse.CATALOGUE, partial(browse.catalogue_page, facts)),
        (browse.COMPARE, browse.compare_page),
        ("comparisons/index.md", partial(comparisons_page, facts)),
        ("comparisons/measured.md", partial(measured_page, facts)),
        (PUBLISHED, partial(published_page, facts)),
        *((printed_path(place), partial(printed_page, facts, place)) for place in facts.printed),
        *((path_of(record), partial(entry_page, facts, record)) for record in longest_first),
    ]
    if twice := [path for path, count in Counter(path for path, _ in made).items() if count > 1]:
        raise ValueError(f"two pages would stand in {', '.join(twice)}; rename an entry, a table, a data set or a network")
    return dict(made) | {path: partial(fill, facts, path, text) for path, text in facts.templates.items() if MARK.search(text)}


def fill(facts: Facts, path: str, text: str) -> str:
    """A hand-written page with its marks replaced."""
    parts: dict[str, Callable[[], str]] = {
        "counts": lambda: counts(facts),
        "cards": lambda: cards(facts, path),
        "pareto": lambda: pareto(facts, path),
        "verdicts": lambda: verdicts(facts, path),
        "tags": lambda: tags(facts),
        **{name: lambda make=make: make(facts, path.partition("/")[0]) for name, make in GUIDE.items()},  # type: ignore[misc]
        "newest": lambda: newest(facts, path),
        **{name: partial(make, facts) for name, make in data_page.PARTS.items()},
    }

    def part(mark: re.Match[str]) -> str:
        if mark[1] not in parts:
            raise ValueError(f"site/{path}: nothing fills {mark[0]}; use one of {', '.join(sorted(parts))}")
        return parts[mark[1]]()

    return MARK.sub(part, text)


# Home


def counts(facts: Facts) -> str:
    entries = facts.catalogue.entries
    return f"{plural(len(entries), 'entry', 'entries')}, {plural(sum(id in facts.sources for id in entries), 'method')} reimplemented"


def cards(facts: Facts, here: str) -> str:
    """One card a family."""
    made = []
    for family in FAMILIES:
        records = facts.catalogue.family(family)
        if not records and family not in METHODS:
            continue
        name, sentence = FAMILIES[family]
        reimplemented = sum(record.id in facts.sources for record in records)
        scores = [facts.score(record) for record in records]
        held, waiting, total = sum(s.held for s in scores), sum(s.open for s in scores), sum(s.total for s in scores)
        said = [plural(len(records), "entry", "entries")]
        said += [f"{reimplemented} reimplemented"] if reimplemented else []
        said += [f"{held} of {total} claims hold" if waiting < total else f"{plural(total, 'claim')} to measure"] if total else []
        inner = f"{inside(name, here, f'{family}/index.md')}{{ .sp-card-name }}\n\n{sentence}\n\n<small>{' · '.join(said)}</small>"
        made.append(f'<div class="sp-card sp-{family}" markdown>\n\n{inner}\n\n</div>')
    return '<div class="sp-cards" markdown>\n\n' + "\n\n".join(made) + "\n\n</div>"


def leading(facts: Facts) -> Condition | None:
    """The condition to show all methods under: the most telling one of those that at least half as many as possible have."""
    number: dict[Condition, int] = defaultdict(int)
    for measured in facts.measured.values():
        for condition in measured.conditions:
            number[condition] += 1
    often = [condition for condition in number if 2 * number[condition] >= max(number.values())]
    return min(often, key=lambda condition: condition.rank) if often else None


def points(facts: Facts, condition: Condition, cost: str) -> list[tuple[Record, charts.Point]]:
    """Every network measured under a condition, references once each; methods with a task of their own compare with none."""
    found: dict[tuple[object, ...], tuple[Record, charts.Point]] = {}
    for record in facts.catalogue.entries.values():
        if facts.own_task(record.id):
            continue
        measured = facts.of(record.id)
        for subject in measured.subjects(condition):
            accuracy, paid = measured.sample(condition, subject, "accuracy"), measured.sample(condition, subject, cost)
            if (subject, cost) == ("reference", "latency"):
                paid = Sample((1.0,))  # by definition
            if accuracy is None or paid is None or not paid.mean > 0:
                continue
            role = "control" if subject.startswith("control_") else subject
            label = {"reference": "reference", "method": record.entry.name}.get(
                subject, f"{record.entry.name}, {subject.removeprefix('control_')}"
            )
            point = charts.Point(label, record.family, role, paid.mean, accuracy.mean)
            known: tuple[object, ...] = (role, point.cost, point.accuracy) if role == "reference" else (record.id, subject)
            found.setdefault(known, (record, point))
    return list(found.values())


def pareto(facts: Facts, here: str) -> str:
    """Accuracy against cost of everything measured under the leading condition, with the numbers below."""
    condition = leading(facts)
    if condition is None:
        return f'<p class="sp-empty">Nothing has been measured yet: {code("smallprint smoke --record")} draws this chart.</p>'
    tabs: list[str] = []
    rows: dict[tuple[str, str, str], tuple[Record, charts.Point, dict[str, float]]] = {}
    for cost, (title, axis) in COSTS.items():
        there = points(facts, condition, cost)
        if there:
            chart = charts.pareto([point for _, point in there], axis, f"pareto-{cost}", NAMES)
            tabs.append(f'=== "{title}"\n\n    {figure(chart, "numbers-pareto", "span")}')
        for record, point in there:
            rows.setdefault((record.id, point.label, point.role), (record, point, {}))[2][cost] = point.cost
    columns = [
        Column("Network"),
        Column("Role"),
        Column("Family"),
        Column("Accuracy", True),
        *(Column(title, True) for title, _ in COSTS.values()),
    ]
    lines = [
        [
            inside(escape(point.label), here, path_of(record)) if point.role == "method" else escape(point.label),
            point.role,
            NAMES[record.family] if point.role != "reference" else NONE,
            sortable(point.accuracy, percent(point.accuracy)),
            *(sortable(costs.get(cost), quantity(cost, costs.get(cost))) for cost in COSTS),
        ]
        for record, point, costs in rows.values()
    ]
    body = table(columns, lines, kind="sp-sortable", id="numbers-pareto", searched=False)
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    what = f"{condition_name(condition)}: each point is a network, as it would ship. Up and left is better;"
    what += " the dashed line joins those that none beats in both."
    guide = inside("What these data are", here, "guides/read.md#data")
    return "\n\n".join([f"{what} {guide}.", *tabs, '??? note "The numbers of this chart"', indented])


def _where(facts: Facts, record: Record, finding: Finding, here: str) -> str:
    entry = record.executable
    claim = entry.claims[finding.claim] if entry else None
    case = f" ({escape(finding.case)})" if finding.case is not None else ""
    unit = f" {in_unit(claim.unit)}" if claim and claim.unit else ""
    numbers = f"Measured {spread(finding.sample.mean, finding.sample.sd)}{unit}, must be {bound_text(finding.bound)}"
    data = "" if finding.condition.data == "none" else f", {condition_name(finding.condition)}, {seeds(finding.sample)}"
    because = f" {escape(finding.bound.because)}" if finding.bound.because else ""
    says = f"{escape(claim.says)}{case} ({escape(claim.where)})" if claim else escape(finding.claim)
    there = f"{path_of(record)}#claim-{finding.claim}"
    odd = f" **It {finding.verdict}, though expected: {finding.bound.expected}.**" if finding.surprise else ""
    name, stale = inside(escape(record.entry.name), here, there), stale_mark(finding.sample.stale)
    return f"- **{name}**: {says}{odd} *{numbers}{data}.*{because}{stale}"


def verdicts(facts: Facts, here: str) -> str:
    """Claims that do not hold, one by one, then how many hold, method by method."""
    surprises, fails, rows, still_open = [], [], [], 0
    for record in facts.catalogue.entries.values():
        score = facts.score(record)
        still_open += score.open
        found = facts.findings(record)
        surprises += [_where(facts, record, finding, here) for finding in found if finding.surprise]
        fails += [_where(facts, record, finding, here) for finding in found if finding.verdict == "fails" and not finding.surprise]
        if score.held or score.failed:
            bite = facts.of(record.id).bite
            rows.append([
                inside(escape(record.entry.name), here, f"{path_of(record)}#claims"),
                sortable(score.held / score.total, f"{score.held} of {score.total}"), str(score.failed or NONE), str(score.open or NONE),
                sortable(bite.share, f"{bite.killed} of {bite.judged}") if bite else NONE, NAMES[record.family],
            ])  # fmt: skip
    if not rows:
        return f'<p class="sp-empty">No claim has been measured yet; {plural(still_open, "claim")} wait.</p>'
    columns = [
        Column("Method"),
        *(Column(name, True) for name in ("Claims that hold", "Fail", "Not measured", "Planted faults noticed")),
        Column("Family"),
    ]
    parts = []
    if surprises:
        parts.append('<div class="sp-loud" markdown>\n\n**Against what was expected**\n\n' + "\n".join(surprises) + "\n\n</div>")
    parts.append("### Did not reproduce { #did-not }")
    if fails:
        indented = "\n".join(f"    {line}" for line in fails)
        told = f"{plural(len(fails), 'failure')}, each with its number and the reason; a claim may have several cases"
        parts.append(f'??? quote "{told}"\n\n{indented}')
    else:
        parts.append(f"Nothing {'else ' if surprises else ''}so far, at the scale of these runs.")
    parts.append("### Method by method { #did }\n\n" + table(*filled(columns, rows), kind="sp-sortable", searched=False))
    return "\n\n".join(parts)


def newest(facts: Facts, here: str, count: int = 5) -> str:
    """The entries that came last, and where to hear of the next ones."""
    made = []
    for record in history.newest(facts.catalogue.entries.values(), facts.history, count):
        entry, span = record.entry, facts.history.get(record.id)
        name = inside(escape(entry.name), here, path_of(record))
        title = f"<br>{escape(entry.title)}" if entry.title != entry.name else ""
        about = [NAMES[record.family], escape(f"{entry.venue or ''} {entry.year}".strip())]
        about += [f"added {history.day(span.added)}"] if span and span.added else []
        made.append(f'<div class="sp-{record.family}" markdown>\n\n**{name}**{title}\n\n<small>{" · ".join(about)}</small>\n\n</div>')
    if not made:
        return ""
    hear = f"[Follow new entries]({relative(here, exports.FEED)}) in a feed reader, or take " if exports.has_feed(facts) else "Take "
    files = inside("the whole catalogue as data", here, "data.md")
    return '<div class="sp-newest" markdown>\n\n' + "\n\n".join(made) + f"\n\n</div>\n\n{hear}{files}."


def tags(facts: Facts) -> str:
    """The vocabulary of tags."""
    rows = [
        (f'<span class="sp-tag">{escape(tag.replace("_", " "))}</span>', escape(meaning))
        for tag, meaning in sorted(facts.catalogue.vocabulary.tags.items())
    ]
    return table([Column("Tag"), Column("Meaning")], rows) if rows else ""


# Families


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
    lines = [f"{held} of {plural(total, 'claim')} of {plural(len(records), 'method')} hold where we measured them again."]
    if ahead:
        lines.append(f"Furthest beyond the best control of equal size ({condition_name(condition)}): {named(ahead[:3])}.")
    if behind:
        lines.append(f"Behind it: {named(behind[:4])}.")
    if level:
        lines.append(f"Level with it, within one deviation over the seeds: {named(level[:4])}.")
    if fails:
        links = ", ".join(inside(escape(record.entry.name), here, f"{path_of(record)}#claims") for record in fails)
        lines.append(f"Claims that fail at this scale, with the reason: {links}.")
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
    alarm = ' <strong class="sp-verdict sp-surprise">unexpected</strong>'
    for record in sorted(records, key=lambda r: (r.id not in facts.sources, r.entry.year, r.entry.name)):
        entry, measured, score = record.entry, facts.of(record.id), facts.score(record)
        condition = measured.conditions[0] if measured.conditions else None
        _, *samples = measured.standing(condition) if condition else (None, None, None, None)
        accuracies = [sortable(s.mean if s else None, percent(s.mean) if s else NONE) for s in reversed(samples)]
        ratios = {metric: measured.ratio(condition, metric) if condition else None for metric in ("multiply_adds", "file_bytes")}
        bits = measured.sample(condition, "method", "bits") if condition else None
        rows.append([
            inside(escape(entry.name), here, path_of(record)) + (alarm if score.surprises else ""), _claims_held(facts, record),
            *accuracies,
            sortable(ratios["multiply_adds"], times(ratios["multiply_adds"])),
            sortable(bits.mean, quantity("bits", bits.mean)) if bits else NONE,
            sortable(ratios["file_bytes"], times(ratios["file_bytes"])), unbroken(condition_name(condition)) if condition else NONE,
            str(entry.year), escape(entry.venue or NONE),
        ])  # fmt: skip
    names = [
        "Name",
        "Claims that hold",
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
    explain += f"multiply-adds and file are the method's share of the reference's. {guide}."
    return section(
        "All of them", "all", explain + _own_tasks(facts, records), table(*filled(columns, rows), kind="sp-sortable", searched=False)
    )


def _own_tasks(facts: Facts, records: Sequence[Record] | None = None) -> str:
    """Which of these entries, or of all, have a score that is no accuracy."""
    there = facts.catalogue.entries.values() if records is None else records
    own = [escape(record.entry.name) for record in there if facts.own_task(record.id)]
    return f" {' and '.join(own)} works on a task of its own, whose score stands in the place of accuracy." if own else ""


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


def _claims_held(facts: Facts, record: Record) -> str:
    """ "11 of 12", or the word that there is no program."""
    score = facts.score(record)
    if record.id not in facts.sources:
        return "<small>not reimplemented</small>"
    return sortable(score.held / score.total, f"{score.held} of {score.total}") if score.total > score.open else NONE


def _in_short(facts: Facts, record: Record) -> str:
    score = facts.score(record)
    if record.id not in facts.sources:
        return "not reimplemented"
    return f"{score.held} of {score.total} claims hold" if score.total > score.open else "reimplemented"


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
            _claims_held(facts, record) if record.id in facts.sources else NONE,
        ])  # fmt: skip
    names = ["Framework", "State", "Last activity", "Techniques", "With an entry here", "Year", "Claims that hold"]
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


# Comparisons


def comparisons_page(facts: Facts) -> str:
    here = "comparisons/index.md"
    published = [
        f"- {inside(escape(t.title), here, f'comparisons/{id}.md')}: {plural(len(t.rows), 'method')}, {escape(t.dataset)}"
        for id, t in sorted(facts.catalogue.comparisons.items(), key=lambda item: item[1].title)
    ]
    return "\n\n".join([
        front("Comparisons", "What was measured here, and what papers printed: never mixed.", ("toc",)),
        "# Comparisons",
        "What we measured and what others printed stand on separate pages: networks, data and budgets differ, "
        "so their numbers must not be put side by side.",
        "## Measured here",
        f"- {inside('All methods against their controls', here, 'comparisons/measured.md')}: "
        "every reimplementation, for each data set and length of run",
        "## Printed in papers",
        f"- {inside('Results of the papers', here, 'comparisons/published.md')}: what each paper printed, for each data set and network",
        "\n".join(published) if published else '<p class="sp-empty">No published comparison table has been entered yet.</p>',
    ]) + "\n"  # fmt: skip


def comparison_page(facts: Facts, id: str, comparison: Comparison) -> str:
    """One published table, as printed."""
    here = f"comparisons/{id}.md"
    shown = {c.id: decimals([row.values.get(c.id) for row in comparison.rows]) for c in comparison.columns}
    precise = {c.id: decimals([row.result.get(c.id) for row in comparison.rows]) for c in comparison.columns}
    arrow = {"higher": "more is better", "lower": "less is better", "none": ""}
    columns = [Column("Method")]
    for c in comparison.columns:
        columns.append(Column(f'<span title="{arrow[c.direction]}">{escape(c.label)}</span>', True))
    rows = []
    for row in comparison.rows:
        name = entry_link(facts, here, row.entry) if row.entry and row.entry in facts.catalogue.entries else escape(row.method)
        name += (
            f" <small>{escape(row.method)}</small>"
            if row.entry in facts.catalogue.entries and facts.catalogue.entries[row.entry].entry.name != row.method
            else ""
        )
        cells = []
        for c in comparison.columns:
            value = row.values.get(c.id)
            text = signed(value, shown[c.id]) if c.delta_of or c.id.startswith("delta") else fixed(value, shown[c.id])
            absolute = f" <small>({fixed(row.result[c.id], precise[c.id])})</small>" if c.id in row.result else ""
            cells.append(sortable(value, text + absolute))
        rows.append([name, *cells, escape(row.note or "")])
    columns.append(Column("Note"))
    names = {c.delta_of: escape(c.name.removeprefix("Δ ")) for c in comparison.columns if c.delta_of}
    baseline = ", ".join(f"{names.get(id, escape(id))} {plain(value)}" for id, value in comparison.baseline.items())
    notes = "\n".join(f"- {escape(note)}" for note in comparison.notes)
    place = (comparison.dataset, comparison.model)
    beside = f" {inside('What the papers themselves printed', here, printed_path(place))}." if place in facts.printed else ""
    return "\n\n".join(filter(None, [
        front(comparison.title, comparison.caption, ("toc", "navigation")),
        f'{inside("Comparisons", here, "comparisons/index.md")}{{ .sp-crumb }}',
        f"# {escape(comparison.title)}",
        f'<p class="sp-lead">{escape(comparison.caption)}</p>',
        f"Printed in {link(escape(comparison.source.label), comparison.source.url)}. Nothing here was measured by us.",
        f"Data: {escape(comparison.dataset)}. Network: {escape(comparison.model)}.{f' Baseline: {baseline}.' if baseline else ''}{beside}",
        _bars(facts, comparison, id),
        table(*filled(columns, rows), kind="sp-sortable sp-download", id="numbers"),
        f"## What looks wrong in print, or needs a word {{ #notes }}\n\n{notes}" if notes else "",
    ])) + "\n"  # fmt: skip


def _bars(facts: Facts, comparison: Comparison, id: str) -> str:
    """The first column of a published table, as a chart."""
    first = comparison.columns[0]
    known = [(row, value) for row in comparison.rows if (value := row.values.get(first.id)) is not None]
    if len(known) < 2:
        return ""
    entries = facts.catalogue.entries
    bars = [charts.Bar(row.method, value, entries[row.entry].family if row.entry in entries else "") for row, value in known]
    return figure(charts.bars(bars, f"{first.label}{BETTER[first.direction]}", f"bars-{id}", NAMES), "numbers")


def measured_page(facts: Facts) -> str:
    """All methods against their controls, for each data set and length of run."""
    here = "comparisons/measured.md"
    by: dict[Condition, list[Record]] = defaultdict(list)
    for record in facts.catalogue.entries.values():
        for condition in facts.of(record.id).conditions:
            by[condition].append(record)
    parts = [
        front("Measured: methods against their controls", "Every reimplementation beside its naive alternatives.", ("navigation", "toc")),
        f"{inside('Comparisons', here, 'comparisons/index.md')}{{ .sp-crumb }}",
        "# Methods against their controls",
        "The gap is the method's accuracy less that of its best control, in percentage points, at the same final size "
        "and training budget; *which* names that control. Multiply-adds, bit operations, file and time are the method's share of the "
        f"reference's. {inside('How to read these numbers', here, 'guides/read.md')}.",
        "Compare within a run, not from run to run: short runs may cut less, and may start from networks that have learned already, where "
        "long ones start from random weights. Each method's departures and settings say which." + _own_tasks(facts),
    ]
    if not by:
        parts.append('<p class="sp-empty">Nothing has been measured yet.</p>')
    return (
        "\n\n".join([*parts, *(_measured(facts, condition, by[condition], here) for condition in sorted(by, key=lambda c: c.rank))]) + "\n"
    )


def _measured(facts: Facts, condition: Condition, records: Sequence[Record], here: str) -> str:
    rows, gaps = [], []
    for record in records:
        measured = facts.of(record.id)
        standing = measured.standing(condition)
        control, reference, best, method = standing
        if method is None:
            continue
        gap = standing.gap
        bits = measured.sample(condition, "method", "bits")
        ratios = {metric: measured.ratio(condition, metric) for metric in ("multiply_adds", "bit_operations", "file_bytes")}
        latency = measured.sample(condition, "method", "latency")
        rows.append((gap, [
            inside(escape(record.entry.name), here, path_of(record)) + stale_mark(method.stale),
            sortable(gap, signed(gap, 1, standing.spread)),
            sortable(method.mean, percent(method.mean, method.sd)), sortable(best.mean, percent(best.mean, best.sd)) if best else NONE,
            subject_name(control).removeprefix("control: ") if control else NONE,
            sortable(reference.mean if reference else None, percent(reference.mean) if reference else NONE),
            *(sortable(ratio, times(ratio)) for ratio in ratios.values()),
            sortable(bits.mean, quantity("bits", bits.mean)) if bits else NONE,
            sortable(latency.mean, times(latency.mean)) if latency else NONE, str(len(method.values)), NAMES[record.family],
        ]))  # fmt: skip
        if reference and not facts.own_task(record.id):
            gaps.append((gap, charts.Gap(record.entry.name, record.family, reference.mean, best.mean if best else None, method.mean)))
    names = [
        "Method",
        "Gap",
        "Accuracy",
        "Best control",
        "Which",
        "Reference",
        "Multiply-adds",
        "Bit operations",
        "File",
        "Bits",
        "Time",
        "Seeds",
        "Family",
    ]
    columns = [Column(name, name not in ("Method", "Family", "Which")) for name in names]

    def first(item: tuple[float | None, object]) -> float:
        return -item[0] if item[0] is not None else float("inf")

    lines = [line for _, line in sorted(rows, key=first)]
    name, numbers = f"gaps-{anchor(condition)}", f"numbers-{anchor(condition)}"
    chart = figure(charts.gaps([gap for _, gap in sorted(gaps, key=first)], name, NAMES), numbers) if gaps else ""
    body = table(*filled(columns, lines), kind="sp-sortable sp-download", id=numbers, searched=False)
    return section(condition_name(condition), anchor(condition), chart, body)


PUBLISHED = "comparisons/published.md"
UNMIXED = "Copied from the papers: every paper trains its own baseline, so compare changes rather than final numbers."


def published_page(facts: Facts) -> str:
    """Of which data sets and networks several papers printed results."""
    rows = []
    for place, found in sorted(facts.printed.items(), key=lambda item: (-len({record.id for record, _ in item[1]}), item[0])):
        records = {record.id: record for record, _ in found}.values()
        families = [name for family, (name, _) in FAMILIES.items() if any(record.family == family for record in records)]
        years = sorted({record.entry.year for record in records})
        rows.append([
            raw_link(escape(place[1]), PUBLISHED, printed_path(place)), escape(place[0]), str(len(records)), str(len(found)),
            f"{years[0]}–{years[-1]}" if years[1:] else str(years[0]), unbroken(", ".join(families)),
        ])  # fmt: skip
    names = ["Network", "Data", "Papers", "Results", "Years", "Families"]
    body = plain_table([Column(name, name in ("Papers", "Results")) for name in names], rows, kind="sp-sortable", id="networks")
    empty = '<p class="sp-empty">No two entries share data set and network yet; each entry’s own page has its results.</p>'
    return "\n\n".join([
        front("Printed results", "What papers printed, for each data set and network.", ("navigation", "toc"), search="exclude: true"),
        f"{inside('Comparisons', PUBLISHED, 'comparisons/index.md')}{{ .sp-crumb }}",
        "# Results of the papers",
        f"{UNMIXED} A network and its data appear here once two papers share them; the other results stand on the entries’ own pages.",
        body if rows else empty,
    ]) + "\n"  # fmt: skip


def _by_family(item: tuple[Record, Result]) -> tuple[int, int, str]:
    record, _ = item
    return list(FAMILIES).index(record.family), record.entry.year, record.entry.name


def printed_page(facts: Facts, place: tuple[str, str]) -> str:
    """What papers printed of one data set and network."""
    here, found = printed_path(place), facts.printed[place]
    shown = {m: decimals(v for _, r in found if r.metric == m for v in (r.baseline, r.result)) for m in {r.metric for _, r in found}}
    often = [metric for metric, _ in Counter(r.metric for _, r in found).most_common()]
    rows = []
    for record, r in sorted(found, key=lambda item: (often.index(item[1].metric), _by_family(item))):
        rows.append([
            raw_link(escape(record.entry.name), here, path_of(record), "published"),
            sortable(change(r), signed(change(r), shown[r.metric])), metric_name(facts, r.metric),
            sortable(r.result, fixed(r.result, shown[r.metric])), sortable(r.baseline, fixed(r.baseline, shown[r.metric])),
            multiply_adds_kept(r), parameters_kept(r), NAMES[record.family], str(record.entry.year), printed_at(r),
        ])  # fmt: skip
    names = ["Method", "Change", "Metric", "After", "Before", "Multiply-adds", "Parameters", "Family", "Year", "Setting and place"]
    columns = [Column(name, name in ("Year", "Before", "After", "Change")) for name in names]
    title = place_name(place)
    tables = [
        inside(escape(comparison.title), here, f"comparisons/{id}.md")
        for id, comparison in sorted(facts.catalogue.comparisons.items())
        if (comparison.dataset, comparison.model) == place
    ]
    return "\n\n".join(filter(None, [
        front(title, f"What papers printed of {title}.", ("navigation", "toc"), search="exclude: true"),  # the adapter tells search of it
        f"{inside('Results of the papers', here, PUBLISHED)}{{ .sp-crumb }}",
        f"# {escape(title)}",
        UNMIXED + (f" Tables in which others compare such results: {', '.join(tables)}." if tables else ""),
        _changes(facts, place, found),
        plain_table(*filled(columns, rows), kind="sp-sortable sp-printed sp-download", id="numbers"),
    ])) + "\n"  # fmt: skip


def _changes(facts: Facts, place: tuple[str, str], found: Sequence[tuple[Record, Result]]) -> str:
    """How much the metric that most of them print changed, as a chart."""
    often = Counter(r.metric for _, r in found if change(r) is not None).most_common(1)
    metric = often[0][0] if often else ""
    known = facts.catalogue.vocabulary.metrics.get(metric)
    changed = [(record, r) for record, r in found if r.metric == metric and change(r) is not None]
    youngest = sorted(changed, key=lambda item: (item[0].entry.year, item[0].entry.name))[-MOST_BARS:]
    bars = [
        charts.Bar(f"{record.entry.name}, {r.setting}" if r.setting else record.entry.name, change(r) or 0.0, record.family)
        for record, r in sorted(youngest, key=_by_family)
    ]
    if known is None or len(bars) < 2:
        return ""
    name = printed_path(place).rpartition("/")[2].removesuffix(".md")
    change_of = known.model_copy(update={"unit": "percentage points"}) if known.unit == "%" else known
    return figure(charts.bars(bars, f"change of {change_of.label}{BETTER[known.direction]}", f"changes-{name}", NAMES), "numbers")

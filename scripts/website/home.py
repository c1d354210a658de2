"""What the program fills into the home page and the guides: cards, the chart of all methods, verdicts, the newest entries."""

from __future__ import annotations

from collections import defaultdict

from catalog import Record
from scripts.evidence import history
from scripts.evidence.facts import Condition, Facts, Finding, Sample
from scripts.evidence.text import code, escape
from scripts.website.charts import charts
from scripts.website.exports import feed
from scripts.website.markup import Column, figure, filled, inside, relative, sortable, table
from scripts.website.names import COSTS, FAMILIES, NAMES, bound_text, condition_name, in_unit, path_of, seeds, stale_mark
from scripts.website.numbers import NONE, percent, plural, quantity, spread

METHODS = ("low_rank", "pruning", "distillation", "quantization", "architecture")


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
        said += [f"{held} of {total} effects hold" if waiting < total else f"{plural(total, 'effect')} to measure"] if total else []
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
    name, stale = inside(escape(record.entry.name), here, there), stale_mark(finding.sample.stale)
    return f"- **{name}**: {says} *{numbers}{data}.*{because}{stale}"


def verdicts(facts: Facts, here: str) -> str:
    """Effects that fail, one by one, then how many hold, are level and fail, method by method."""
    fails, rows, still_open = [], [], 0
    for record in facts.catalogue.entries.values():
        score = facts.score(record)
        still_open += score.open
        found = [finding for findings in facts.effects(record).values() for finding in findings if finding]
        fails += [_where(facts, record, finding, here) for finding in found if finding.verdict == "fails"]
        if score.judged:
            bite = facts.of(record.id).bite
            rows.append([
                inside(escape(record.entry.name), here, f"{path_of(record)}#claims"),
                sortable(score.held / score.total, f"{score.held} of {score.total}"), str(score.level or NONE),
                str(score.failed or NONE), str(score.open or NONE),
                sortable(bite.share, f"{bite.killed} of {bite.judged}") if bite else NONE, NAMES[record.family],
            ])  # fmt: skip
    if not rows:
        return f'<p class="sp-empty">No effect has been measured yet; {plural(still_open, "effect")} wait.</p>'
    columns = [
        Column("Method"),
        *(Column(name, True) for name in ("Effects that hold", "Level", "Fail", "Open", "Planted faults noticed")),
        Column("Family"),
    ]
    parts = []
    parts.append("### Did not reproduce { #did-not }")
    if fails:
        indented = "\n".join(f"    {line}" for line in fails)
        told = f"{plural(len(fails), 'failure')}, each with its number and the reason; an effect may have several cases"
        parts.append(f'??? quote "{told}"\n\n{indented}')
    else:
        parts.append("Nothing so far, at the scale of these runs.")
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
    hear = f"[Follow new entries]({relative(here, feed.FEED)}) in a feed reader, or take " if feed.has_feed(facts) else "Take "
    files = inside("the whole catalogue as data", here, "data.md")
    return '<div class="sp-newest" markdown>\n\n' + "\n\n".join(made) + f"\n\n</div>\n\n{hear}{files}."


def tags(facts: Facts) -> str:
    """The vocabulary of tags."""
    rows = [
        (f'<span class="sp-tag">{escape(tag.replace("_", " "))}</span>', escape(meaning))
        for tag, meaning in sorted(facts.catalogue.vocabulary.tags.items())
    ]
    return table([Column("Tag"), Column("Meaning")], rows) if rows else ""

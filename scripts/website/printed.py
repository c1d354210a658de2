"""What papers printed of one data set and network, side by side; and how a printed result is written anywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from catalog import Record
from catalog.schema import Result
from scripts.evidence.facts import Facts
from scripts.evidence.text import escape
from scripts.website.charts import charts
from scripts.website.markup import Column, figure, filled, inside, plain_table, raw_link, sortable, unbroken
from scripts.website.names import BETTER, FAMILIES, NAMES, front, metric_name, path_of
from scripts.website.numbers import NONE, decimals, fixed, plain, signed

MOST_BARS = 30  # of a chart, the youngest papers; nobody reads more, and the table below it holds all
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


def place_name(place: tuple[str, str]) -> str:
    return f"{place[1]} on {place[0]}"


def printed_path(place: tuple[str, str]) -> str:
    """Where the page stands that sets beside each other what papers printed of a data set and a network."""
    name = re.sub(r"[\W_]+", "-", " ".join(place).lower()).strip("-")
    return f"comparisons/published/{name}.md"


def printed_at(result: Result) -> str:
    """The setting of a printed number, and below it the place where it is printed."""
    return (f"{escape(result.setting)}<br>" if result.setting else "") + f"<small>{escape(result.where)}</small>"


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

"""Comparisons: published tables as they were printed, and all methods against their controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from catalog import Record
from catalog.schema import Comparison
from scripts.evidence.facts import Condition, Facts
from scripts.evidence.text import escape, link
from scripts.website.charts import charts
from scripts.website.markup import Column, figure, filled, inside, section, sortable, table
from scripts.website.names import BETTER, NAMES, anchor, condition_name, entry_link, front, own_tasks, path_of, stale_mark, subject_name
from scripts.website.numbers import NONE, decimals, fixed, percent, plain, plural, quantity, signed, times
from scripts.website.printed import printed_path


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
        "and training budget; *which* names that control. Multiply-adds (of convolutions, dense layers and attention), bit "
        "operations, file and time are the method's share of the reference's. "
        f"{inside('How to read these numbers', here, 'guides/read.md')}.",
        "Compare within a run, not from run to run: short runs may cut less, and may start from networks that have learned already, where "
        "long ones start from random weights. Each method's departures and settings say which." + own_tasks(facts),
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

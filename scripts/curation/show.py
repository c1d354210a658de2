"""Entries on a terminal: a table of them, or one with its claims and what was measured last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from catalog import Problem, Record
from catalog.schema import Claim
from scripts.evidence import records, source
from scripts.evidence.records import Row
from scripts.evidence.terminal import out, plain


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("year", "claims") else "left")
    return table


def entries(rows: Iterable[Record], methods: Mapping[str, str]) -> Table:
    """A table of entries; `methods` says of each, by id, whether it has a method."""
    table = _table("family", "id", "name", "year", "claims", "method")
    for r in rows:
        claims = len(r.executable.claims) if r.executable else 0
        table.add_row(r.family, r.id, plain(r.entry.name), str(r.entry.year), str(claims or ""), methods[r.id])
    return table


def show(root: Path, record: Record) -> list[Problem | str]:
    """Print everything about an entry. Returns what could not be read: its method, or its numbers."""
    unread: list[Problem] = []
    entry, method = record.entry, source.methods(root, unread).get(record.id)
    wrong: list[Problem | str] = [problem for problem in unread if problem.path == record.program]
    out.print(f"[bold]{plain(entry.title)}[/bold]\n{plain(', '.join(entry.authors))} · {plain(entry.venue or '')} · {entry.year}")
    for label, value in (("arXiv", entry.arxiv and f"https://arxiv.org/abs/{entry.arxiv}"), ("DOI", entry.doi), ("Home", entry.url)):
        if value:
            out.print(f"{label}: {plain(value)}")
    out.print(f"\n{plain(entry.summary)}")
    departures = method.departures if method else None
    for label, text in (("Use it for", entry.when_to_use), ("Not for", entry.when_not), ("Departures", departures)):
        if text:
            out.print(f"\n[bold]{label}:[/bold] {plain(' '.join(text.split()))}")
    if method:
        out.print(f"\n{record.program} · smallprint smoke {record.id}")
    try:
        rows, none = records.read(records.path_of(root, record.family, record.id)), "not yet"
    except records.RecordError as problem:
        rows, none = [], "cannot be read"
        wrong.append(str(problem).removeprefix(f"{root}/"))
    if record.executable and record.executable.claims:
        out.print(_claims(record.executable.claims, rows, none))
    return wrong


def _claims(claims: Mapping[str, Claim], rows: Sequence[Row], none: str) -> Table:
    table = _table("claim", "where", "tier", "kind", "bound", "measured")
    for claim_id, claim in claims.items():
        for case, bound in claim.bounds().items():
            subject = f"claim_{claim_id}" + (f"[{case}]" if case else "")
            seen: dict[str, list[float]] = {}
            for row in rows:
                if row.subject == subject:
                    seen.setdefault(row.data, []).append(row.value)
            values = ", ".join(f"{sum(v) / len(v):.4g}" + ("" if data == "none" else f" on {data}") for data, v in seen.items())
            label = claim_id + (f" {case}" if case else "")
            table.add_row(label, plain(claim.where), claim.tier, claim.kind, bound.text, values or none)
    return table

"""A run of one method as tables in the terminal."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog import Record
from scripts.evidence.outcome import IMAGES, Report, Verdict, grown, judge

COLUMNS: list[tuple[str, str, Callable[[float], str]]] = [
    ("accuracy", "accuracy", lambda v: f"{100 * v:.1f}%"),
    ("parameters", "parameters", lambda v: f"{v:,.0f}"),
    ("nonzeros", "non-zeros", lambda v: f"{v:,.0f}"),
    ("bits", "bits", lambda v: f"{v:.1f}"),
    ("multiply_adds", "multiply-adds", lambda v: f"{v / 1e6:.2f} M"),
    ("bit_operations", "bit ops", lambda v: f"{v / 1e9:.2f} G"),
    ("file_bytes", "file", lambda v: f"{v / 1e3:.0f} kB"),
    ("latency", "latency", lambda v: f"{v:.2f}x"),
    ("output_error", "output error", lambda v: f"{v:.3f}"),
    ("steps", "steps", lambda v: f"{v:,.0f}"),
]


def with_spread(values: list[float], show: Callable[[float], str]) -> str:
    """Mean, and deviation over the seeds when there are several different values."""
    mean = show(statistics.fmean(values))
    if len(values) < 2 or len(set(values)) == 1:
        return mean
    deviation = show(statistics.stdev(values)).split(" ")[0].rstrip("%x")
    return f"{mean} ±{deviation}"


def print_report(out: Console, record: Record, report: Report) -> None:
    """Numbers, then claims. Says loudly which data they were measured on."""
    took = f" · {report.seconds:.1f} s" if report.seconds else ""
    out.print(f"\n[bold]{escape(record.entry.name)}[/bold] [dim]{record.family}/{record.id}{took}[/dim]")
    if report.problem:
        out.print(f"[red]error[/red]: {escape(report.problem)}")
    if report.numbers:
        stand = " [yellow](the embedded stand-in, not CIFAR-10)[/yellow]" if report.data == "standin" else ""
        plural = "s" if len(report.seeds) > 1 else ""
        out.print(f"{report.tier} tier on {report.data}{stand}, {len(report.seeds)} seed{plural}, last step")
        out.print(numbers_table(report))
    if report.verdicts:
        out.print(claims_table(report.verdicts))
    if more := grown(record, report):
        out.print(f"[yellow]note[/yellow]: more than what it was made from: {more}")
    for line in report.layers:
        out.print(f"[dim]{escape(line)}[/dim]")
    for fault in report.faults:
        out.print(f"[red]unfair[/red]: {escape(fault)}")
    for subject, lines in report.traces.items():
        out.print(f"[dim]{escape(subject)}:[/dim]")
        out.print("".join(f"  {escape(line)}\n" for line in lines) or "  nothing is trained, run or scored\n", end="")
    for note in report.notes:
        out.print(f"[yellow]note[/yellow]: {escape(note)}")


_printed: dict[str, str] = {}  # a server that rebuilds asks for the same again and again


def as_text(record: Record, report: Report, width: int = 104) -> str:
    """What `print_report` prints, without colours."""
    key = repr((record.entry.name, record.family, record.id, report, width))
    if key not in _printed:
        _printed[key] = _as_text(record, report, width)
    return _printed[key]


def _as_text(record: Record, report: Report, width: int) -> str:
    out = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with out.capture() as printed:
        print_report(out, record, report)
    return "\n".join(line.rstrip() for line in printed.get().strip("\n").splitlines())


def numbers_table(report: Report) -> Table:
    """Reference, controls, method; one row each."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    present = [c for c in COLUMNS if any(c[0] in numbers for numbers in report.numbers.values())]
    for _, label, _ in present:
        table.add_column(label, justify="right")
    order = sorted(report.numbers, key=lambda s: (s.partition("@")[2], not s.startswith("reference"), s.startswith("method"), s))
    for subject in order:
        numbers = report.numbers[subject]
        cells = [with_spread(numbers[key], show) if key in numbers else "" for key, _, show in present]
        label = subject.removeprefix("control_").replace("_", " ") if subject.startswith("control_") else subject
        style = "bold" if subject.startswith("method") else ""
        table.add_row(f"control: {label}" if subject.startswith("control_") else label, *cells, style=style)
    return table


def claims_table(verdicts: list[Verdict]) -> Table:
    """One row a claim or case: place in the paper, printed and measured number, bound, verdict, expectation."""
    table = Table(box=None, pad_edge=False)
    for column in ("claim", "where", "tier", "kind"):
        table.add_column(column, overflow="fold")
    for column in ("paper", "ours", "bound"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for v in verdicts:
        name = v.claim + (f" {v.case}" if v.case else "")
        paper = "" if v.bound.paper is None else f"{v.bound.paper:g}"
        ours = "" if math.isnan(v.value) else with_spread(list(v.values.values()), lambda x: f"{x:.4g}")
        table.add_row(escape(name), escape(v.said.where), v.said.tier, v.said.kind, paper, ours, escape(v.bound.text), outcome(v))
    return table


def outcome(v: Verdict) -> str:
    """The verdict, and loudly where it makes a run red. Of a claim that is as recorded, also what the record says of it."""
    because = f": {escape(v.bound.because)}" if v.bound.because else ""
    if v.verdict == "error":
        return f"[red]error[/red] {escape(v.error or 'is not a number')}"
    if v.known and v.compared:
        seeds = [v.known.values[seed] for seed in v.compared]
        if v.departs:
            of = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
            return f"[red]departs[/red] from the recorded {statistics.fmean(seeds):.4g} ± {v.known.allowed(len(seeds)):.2g} of {of}"
        if v.known.data == "standin":
            return f"{'[green]meets[/green]' if v.meets else '[yellow]misses[/yellow]'}, as recorded"
        said = judge(v.said, v.bound, list(v.known.values.values()), IMAGES * len(v.known.values))
        seen = f" ±{said.half:.2g}" if said.verdict == "level" else ""
        colour = "green" if said.verdict == "holds" else "yellow"
        return f"[{colour}]{said.verdict}[/{colour}]{seen}, as recorded{because if said.verdict != 'holds' else ''}"
    if v.said.tier != "exact":
        return f"{'[green]meets[/green]' if v.meets else '[yellow]misses[/yellow]'} its bound, not recorded"
    if not v.surprising:
        return "[green]holds[/green]" if v.verdict == "holds" else f"[yellow]fails[/yellow]{because}"
    cure = "though the entry says why it does not" if v.verdict == "holds" else "and the entry does not say why"
    return f"[red]{v.verdict}[/red], {cure}"

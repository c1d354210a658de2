"""Runs of methods as one watches them on a terminal: what is being done, each report as it comes, and a last line that counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalog import Record
from methods.kit.batches import find
from scripts.evidence.outcome import Report
from scripts.evidence.terminal import Interrupted, err, out, plain, progress
from scripts.running.report import print_report
from scripts.running.runs import SMOKE, run_many


def run_methods(
    root: Path,
    entries: list[Record],
    jobs: int,
    options: dict[str, Any],
    work: str = SMOKE,
    ended: Callable[[Record, Report], None] = lambda entry, report: None,
) -> dict[str, Report]:
    """Run with progress and print each report as it comes, and a last line that counts.

    Raises DataError where `options` name a folder that is none of CIFAR-10, and `Interrupted`.
    """
    if options["data"] is not None:
        find(options["data"])
    started, total = time.monotonic(), len(entries)
    known = {entry.id: entry for entry in entries}
    running, done = dict[str, str](), list[str]()
    try:
        with progress() as say:

            def heard(id: str, event: str | Report | None) -> None:
                if event is None or isinstance(event, str):
                    running[id] = event or "starting"
                else:
                    del running[id]
                    done.append(id)
                    if event.output.strip():
                        err.print(plain(event.output.rstrip()))
                    print_report(out, known[id], event)
                    ended(known[id], event)
                    if total > 1 and not out.is_terminal:
                        err.print(f"{len(done)} of {total} done, {event.seconds:.1f} s: {id}")
                if total == 1 or jobs == 1:
                    say(" · ".join((f"{len(done)} of {total}", *next(iter(running.items()), ("",)))))
                else:
                    say(f"{len(done)} of {total} done · running {', '.join(running)}")

            reports = run_many(root, entries, jobs, options, heard, work)
    except KeyboardInterrupt:
        kept = "what was recorded is kept; go on with --resume" if options["record_rows"] else "what was green is not run again"
        raise Interrupted(f" after {len(done)} of {total} methods; {kept}") from None
    bad = [entry.id for entry in entries if not reports[entry.id].good]
    if total > 1:
        verdict = f"[red]{len(bad)} with surprises: {', '.join(bad)}[/red]" if bad else "[green]none with surprises[/green]"
        out.print(f"\n{total} methods in {time.monotonic() - started:.0f} s: {verdict}")
    return reports

"""Measured results: tidy rows in catalog/measured/<family>/<slug>.csv, one number a row, with where it comes from."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from catalog.files import Unreadable, content
from catalog.text import called, unfit
from scripts.evidence import files

ROUNDING = "rounding"  # tier of rows that tell what processors differ by: a smoke run's claims once more, on another instruction set


class Row(NamedTuple):
    """One measured number.

    `subject` is "reference", "method", "control_<name>" (then `metric` is a quantity such as "accuracy") or
    "claim_<id>" or "claim_<id>[<case>]" (then `metric` is "value"), or "run" (then "seconds", which the seed took), or "bite"
    (then "<class>_killed", "<class>_equivalent", "<class>_died", "<class>_planted" or "<class>_possible", of a class of faults).
    In a sweep "@<n>" follows, the place of an operating point. Of a network also "ledger_<name>", what it took to make it, and
    "milliseconds_<n>", its time for so many images.
    """

    tier: str
    subject: str
    metric: str
    value: float
    data: str  # cifar10, cifar10-jpeg75, standin; "none" for exact claims
    data_digest: str
    seed: int
    device: str
    threads: int
    python: str
    torch: str
    commit: str
    code: str  # digest of method, Config and kit
    date: str  # ISO, UTC


COLUMNS = list(Row._fields)
_NUMBERS = [(COLUMNS.index(name), kind) for name, kind in get_type_hints(Row).items() if kind is not str]


CURE = "this file is machine-written: restore it with git, or record again with `smallprint smoke --record`"
LARGEST = 10_000_000  # bytes; the largest has a hundredth of them


class RecordError(ValueError):
    """A results file that is not ours, or cannot be written; the message names file, line and cure."""


class Damaged(RecordError):
    """A results file that cannot be read: the line and the reason with its cure."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        self.line, self.reason = line, f"{reason}; {CURE}"
        super().__init__(f"{path}:{line}: {self.reason}")


def path_of(root: Path, family: str, slug: str) -> Path:
    return root / "catalog" / "measured" / family / f"{slug}.csv"


def read(path: Path) -> list[Row]:
    """All rows of a file, none where there is no file. Raises `Damaged`."""
    if not os.path.lexists(path):
        return []
    try:
        text = content(path, LARGEST)
    except Unreadable as refusal:
        raise Damaged(path, refusal.line, refusal.reason.partition(";")[0]) from refusal
    if bad := unfit(text):
        raise Damaged(path, text[: bad.start()].count("\n") + 1, f"holds the character {called(bad[0])}")
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        if next(lines, None) != COLUMNS:
            raise ValueError(f"the columns must be {','.join(COLUMNS)}")
        rows = [_row(values) for values in lines]
        if not text.endswith("\n"):
            raise ValueError("the last line is cut off")
    except (ValueError, csv.Error) as problem:
        raise Damaged(path, max(1, lines.line_num), str(problem)) from problem
    return rows


def _row(values: list[Any]) -> Row:
    if len(values) != len(COLUMNS):
        raise ValueError("not as many values as columns")
    for place, number in _NUMBERS:
        values[place] = number(values[place])
    row = Row._make(values)
    datetime.fromisoformat(row.date)
    return row


def key(row: Row) -> tuple[str, str, str, str, int]:
    """What a newer measurement of the same thing replaces."""
    return row.tier, row.subject, row.metric, row.data, row.seed


def write(path: Path, new: Iterable[Row]) -> None:
    """Add rows, replacing older ones of the same key. The file is written whole or not at all, and of several processes that add
    to it no row is lost. Raises `RecordError` and `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.alone(path.parent):
        merged = {key(row): row for row in read(path)}
        merged.update({key(row): row for row in new})
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in sorted(merged.values(), key=key):
            writer.writerow({**row._asdict(), "value": f"{row.value:.6g}"})
        files.write(path, text.getvalue())

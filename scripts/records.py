"""Measured results: tidy rows in catalog/measured/<family>/<slug>.csv, one number a row, with where it comes from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scripts import files


ROUNDING = "rounding"  # tier of rows that tell what processors differ by: a smoke run's claims once more, on another instruction set


@dataclass(frozen=True)
class Row:
    """One measured number.

    `subject` is "reference", "method", "control_<name>" (then `metric` is a quantity such as "accuracy") or
    "claim_<id>" or "claim_<id>[<case>]" (then `metric` is "value"), or "run" (then "seconds", which the seed took), or "bite"
    (then "killed", "equivalent", "planted" or "possible", of which those planted are an even sample).
    In a sweep "@<n>" follows, the place of an operating point.
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


COLUMNS = [column.name for column in fields(Row)]


class RecordError(ValueError):
    """A results file that is not ours; the message names file, line and cure."""


def path_of(root: Path, family: str, slug: str) -> Path:
    return root / "catalog" / "measured" / family / f"{slug}.csv"


def read(path: Path) -> list[Row]:
    """All rows of a file, none where there is no file. Raises `RecordError`."""
    if not path.exists():
        return []
    cure = "this file is machine-written: restore it with git, or record again with `smallprint smoke --record`"
    lines = csv.DictReader(path.read_text("utf-8").splitlines())
    if lines.fieldnames != COLUMNS:
        raise RecordError(f"{path}:1: the columns must be {','.join(COLUMNS)}; {cure}")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            if None in line or None in line.values():
                raise ValueError("not as many values as columns")
            numbers: dict[str, Any] = {"value": float(line["value"]), "seed": int(line["seed"]), "threads": int(line["threads"])}
            rows.append(Row(**{**line, **numbers}))
        except ValueError as problem:
            raise RecordError(f"{path}:{number}: {problem}; {cure}") from problem
    return rows


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
            writer.writerow({**asdict(row), "value": f"{row.value:.6g}"})
        files.write(path, text.getvalue())

"""Which methods work on which networks of the zoo: the machine-written catalog/networks.csv, read, compared and written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from catalog.files import Unreadable, content
from scripts.evidence import files

WORKS, REFUSED, FAILS = "works", "refused", "fails"
CURE = "this file is machine-written: restore it with git, or make it again with `smallprint networks --record`"


class NetworksError(ValueError):
    """The table cannot be read or written; the message names it and the cure."""


class Tried(NamedTuple):
    """A method on a network: it works, it refuses (`said` is why, by name), or it fails, which no committed line says."""

    network: str
    family: str
    id: str
    outcome: str
    said: str


COLUMNS = list(Tried._fields)
Table = Mapping[tuple[str, str], Tried]  # by network and method


def path_of(root: Path) -> Path:
    return root / "catalog" / "networks.csv"


def read(path: Path) -> dict[tuple[str, str], Tried]:
    """The table; nothing where there is no file. Raises `NetworksError`."""
    if not path.exists():
        return {}
    try:
        lines = list(csv.reader(io.StringIO(content(path), newline="")))
        if not lines or lines[0] != COLUMNS:
            raise ValueError(f"the columns must be {','.join(COLUMNS)}")
        rows = [Tried(*values) for values in lines[1:]]
        for row in rows:
            if row.outcome not in (WORKS, REFUSED):
                raise ValueError(f"{row.network}, {row.id}: must be {WORKS} or {REFUSED}, is {row.outcome!r}")
    except (Unreadable, TypeError, ValueError, csv.Error) as problem:
        raise NetworksError(f"{path}: damaged: {problem}; {CURE}") from problem
    return {(row.network, row.id): row for row in rows}


def write(path: Path, new: Iterable[Tried], ids: Iterable[str] = ()) -> None:
    """Put lines in the place of older ones, and drop those of methods that are not among `ids`.

    Raises `NetworksError` and `OSError`.
    """
    with files.alone(path.parent):
        known = {**read(path), **{(row.network, row.id): row for row in new}}
        there = set(ids)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row for _, row in sorted(known.items()) if row.id in there)
        files.write(path, text.getvalue())


def worse(now: Tried, before: Tried | None) -> str:
    """What is wrong with an outcome, beside what the table says; "" where nothing is. To work on more networks is no fault."""
    if now.outcome == FAILS:
        return f"fails on {now.network}: {now.said}"
    if before is not None and before.outcome == WORKS and now.outcome == REFUSED:
        return f"worked on {now.network}, and refuses it now: {now.said}"
    return ""

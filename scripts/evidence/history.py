"""When entries came and last changed, asked of git once for the whole catalogue. Without git nothing is known, and that is no error."""

from __future__ import annotations

import calendar
import re
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from catalog import FAMILIES, Record

_FILE = re.compile(
    rf"([A-Z])\t(?:(?P<entry>catalog)|catalog/measured|methods)/(?:{'|'.join(FAMILIES)})/(?:claims/)?(?P<slug>[a-z][a-z0-9_]*)\.(?:yaml|csv|py)"
)
# What a reader's own configuration could change is set here; a commit begins with a NUL byte, which no path holds.
_LOG = (
    *("-c", "log.showSignature=false", "-c", "log.showRoot=true", "log"),
    *("--format=%x00%cI%x00%D", "--name-status", "--no-renames", "--relative", "--", "catalog", "methods"),
)


class Span(NamedTuple):
    """When an entry was added, and when its facts, its program or its numbers changed last. A shallow clone knows no beginning."""

    added: datetime | None
    changed: datetime


def spans(root: Path, records: Iterable[Record]) -> dict[str, Span]:
    """Id -> its span, for every entry that git knows something about. An entry that was renamed is as old as its oldest name."""
    commits = _commits(root)
    found = {}
    for record in records:
        known = [commits[slug] for slug in (record.id, *record.entry.formerly) if slug in commits]
        if known:
            added = [span.added for span in known if span.added]
            found[record.id] = Span(min(added, default=None), max(span.changed for span in known))
    return found


def _commits(root: Path) -> dict[str, Span]:
    head = _git(root, "rev-parse", "HEAD")
    return _read(root, head) if head else {}


@lru_cache(maxsize=4)
def _read(root: Path, head: str) -> dict[str, Span]:
    """All of the history up to a commit; a server that rebuilds reads it again only after another commit."""
    return parse(_git(root, *_LOG) or "")


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def parse(log: str) -> dict[str, Span]:
    """Slug -> its span, of a log whose commits are NUL, date, NUL, decoration, and a line for every file with its status."""
    found: dict[str, Span] = {}
    parts = log.split("\0")[1:]
    for date, rest in zip(parts[::2], parts[1::2], strict=True):
        decoration, *lines = rest.splitlines() or [""]
        if "grafted" in decoration.split(", "):
            continue  # where a shallow clone ends, every file seems new
        at = datetime.fromisoformat(date).astimezone(UTC)
        for line in lines:
            if not (file := _FILE.fullmatch(line)):
                continue
            before = found.get(file["slug"], Span(None, at))
            new = file[1] == "A" and file["entry"]
            found[file["slug"]] = Span(min(before.added or at, at) if new else before.added, max(before.changed, at))
    return found


def newest(records: Iterable[Record], history: Mapping[str, Span], count: int) -> list[Record]:
    """The entries that were added last; of those added together, and where no date is known, the youngest papers."""

    def age(record: Record) -> tuple[float, int, str]:
        added = history[record.id].added if record.id in history else None
        return -added.timestamp() if added else 0.0, -record.entry.year, record.id

    return sorted(records, key=age)[:count]


def day(at: datetime) -> str:
    """A date as HTML: "23 November 2026"."""
    return f'<time datetime="{at:%Y-%m-%d}">{at.day} {calendar.month_name[at.month]} {at.year}</time>'

"""What is known of the catalogue's links: the machine-written catalog/links.json, read and written. Asking is in `curation.links`."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints, TypeAdapter, ValidationError

from catalog.files import Unreadable, raw
from catalog.schema import Entry, Strict
from catalog.text import short
from scripts.evidence import files

LARGEST = 50_000_000  # bytes; ten thousand entries would have a fifth of them
CURE = "this file is machine-written: restore it with git, or delete it and run `smallprint links`"
Verdict = Literal["alive", "moved", "gone", "unreachable", "refused"]
Address = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]


class LinksError(ValueError):
    """The file of verdicts cannot be read or written; the message names it and the cure."""


class Health(Strict):
    """What is known of one link. `since` is the day of the first check that ended like this one; alive links have none."""

    verdict: Verdict
    status: int | None
    checked: datetime.date
    final: Address | None = None
    since: datetime.date | None = None


_FILE = TypeAdapter(dict[Address, Health])


def path_of(root: Path) -> Path:
    return root / "catalog" / "links.json"


def read(path: Path) -> dict[str, Health]:
    """Address -> what is known of it; nothing where there is no file. Raises `LinksError`."""
    if not os.path.lexists(path):
        return {}
    try:
        return _FILE.validate_json(raw(path, LARGEST), strict=True)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = f"{short(': '.join(map(str, first['loc'])))}: " if first["loc"] else ""
        raise LinksError(f"{path}: damaged: {where}{first['msg']}; {CURE}") from problem
    except Unreadable as refusal:
        raise LinksError(f"{path}: cannot be read: {refusal.reason.partition(';')[0]}; {CURE}") from refusal


def write(path: Path, known: Mapping[str, Health]) -> None:
    """One line a link, sorted. The file is written whole or not at all. Raises `LinksError`."""
    lines = [
        f"{json.dumps(url, ensure_ascii=False)}: "
        + json.dumps({name: value for name, value in known[url].model_dump(mode="json").items() if value is not None or name == "status"})
        for url in sorted(known)
    ]
    try:
        files.write(path, "{\n" + ",\n".join(lines) + "\n}\n")
    except OSError as problem:
        raise LinksError(f"{path}: cannot be written: {problem.strerror}; make the folder writable") from problem


def paper_addresses(entry: Entry) -> list[str]:
    """Where the paper, or the project, itself is."""
    derived = [entry.arxiv and f"https://arxiv.org/abs/{entry.arxiv}", entry.doi and f"https://doi.org/{entry.doi}", entry.url]
    return [url for url in derived if url]

"""Citation keys such as liu2017learning, stable and no two alike."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from itertools import count, product

from catalog import Record
from catalog.schema import Entry

SMALL = {
    *("a", "an", "the", "on", "of", "for", "to", "in", "and", "with", "towards", "toward"),
    *("from", "is", "are", "do", "what", "how", "why", "can", "via", "by"),
}
SUFFIXES = {"jr", "sr", "ii", "iii", "iv"}


def ascii_word(text: str) -> str:
    """Small letters and digits only: "Müller-Łukasz" is "mullerukasz"."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def key(entry: Entry) -> str:
    """First author's last name, year, first telling word of the title."""
    names = without_suffix(entry.authors[0]) if entry.authors else []
    last = ascii_word(names[-1]) if names else ""
    words = [ascii_word(word) for word in re.split(r"[\s\-–—:/]+", entry.title)]
    telling = next((word for word in words if word and word not in SMALL), "")
    return f"{last or ascii_word(entry.name)}{entry.year}{telling}"


def keys(records: Iterable[Record]) -> dict[str, str]:
    """Every entry's id and its key, no two alike. `records` is the whole catalogue.

    Entries with the same key get -a, -b ... in the order of their ids. No plain key has a hyphen, so that a letter never
    makes a new collision, and an entry's key depends on none but the entries that share its author, year and word.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for record in records:
        alike[key(record.entry)].append(record.id)
    return {
        id: f"{base}-{letters}" if len(ids) > 1 else base
        for base, ids in alike.items()
        for id, letters in zip(sorted(ids), _letters(), strict=False)
    }


def _letters() -> Iterable[str]:
    """a, b ... z, aa, ab ..."""
    return ("".join(letters) for length in count(1) for letters in product(string.ascii_lowercase, repeat=length))


def without_suffix(name: str) -> list[str]:
    """A name's words without Jr. and the like."""
    return [word for word in name.replace(",", " ").split() if word.lower().strip(".") not in SUFFIXES]

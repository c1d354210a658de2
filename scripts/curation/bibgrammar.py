"""BibTeX's grammar: a text as its entries and their fields, as BibTeX itself reads them.

Written here because bibtexparser reads less than the grammar allows and exports use: entries in parentheses, parts joined by #,
quotation marks within braces, an @ within a field.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

_BLOCK = re.compile(r"@\s*(\w+)\s*([{(])")
_KEY = re.compile(r'([^,={}"]*),')
_BETWEEN = re.compile(r"[\s,]*")
_NAME = re.compile(r"([^\s,={}()\"#%']+)\s*=")
_PIECE = re.compile(r'\s*(?:([{"])|([^\s,={}()"#%]+))')
_JOINT = re.compile(r"\s*#")
_MARK = re.compile(r'\\"|[{}"]')  # an escaped quotation mark is an umlaut that nobody put into braces
LONGEST = 100_000  # characters of a field, abbreviations in abbreviations written out; a thousand authors have 20,000
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class BibtexError(ValueError):
    """BibTeX that no entry can be made of; the message says why and what to do."""


class Block(NamedTuple):
    """An entry: its kind and its fields' names in small letters, values without what enclosed them."""

    kind: str
    key: str
    fields: dict[str, str]


def blocks(text: str, wanted: Collection[str]) -> list[Block]:
    """Every entry, in order. An abbreviation that is nowhere defined matters in the fields `wanted` only. Raises `BibtexError`."""
    known, found, at = dict(zip(MONTHS, MONTHS, strict=True)), [], 0
    while block := _BLOCK.search(text, at):
        kind, end, at = block[1].lower(), "}" if block[2] == "{" else ")", block.end()
        if kind == "comment":
            at = _closed(text, at - 1) if end == "}" else at
        elif kind == "preamble":
            _, at = _value(text, at, known)
        elif kind == "string":
            defined, at = _fields(text, at, end, known, ())
            known |= defined
        else:
            key = _KEY.match(text, at)
            fields, at = _fields(text, key.end() if key else at, end, known, wanted)
            found.append(Block(kind, " ".join(key[1].split()) if key else "", fields))
    return found


def _fields(text: str, at: int, end: str, known: dict[str, str], wanted: Collection[str]) -> tuple[dict[str, str], int]:
    """Fields up to the entry's end, and where that is. Of two fields of one name the first counts; a forgotten comma does not."""
    fields: dict[str, str] = {}
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # matches anywhere
        if text.startswith(end, at):
            return fields, at + 1
        if not (name := _NAME.match(text, at)):
            here = repr(text[at : at + 20].split("\n")[0]) if at < len(text) else "its end"
            raise _error(text, at, f"expected a field such as year = {{2017}}, or {end}, but found {here}; correct it")
        (value, unknown), at = _value(text, name.end(), known)
        if unknown and name[1].lower() in wanted:
            raise _error(text, name.start(), f"{name[1]}: {unknown[:40]} is neither text nor defined by @string; put it in braces")
        fields.setdefault(name[1].lower(), value)


def _value(text: str, at: int, known: dict[str, str]) -> tuple[tuple[str, str], int]:
    """Text in braces or quotation marks, numbers and abbreviations, joined by #; the first unknown abbreviation; where they end."""
    value, unknown = "", ""
    while True:
        if not (piece := _PIECE.match(text, at)):
            raise _error(text, at, "expected text in braces behind the =; correct it")
        at = piece.end()
        if piece[1]:
            at = _closed(text, at - 1)
            value += text[piece.end() : at - 1]
        elif piece[2].isdecimal():
            value += piece[2]
        else:
            value += known.get(piece[2].lower(), "")
            unknown = unknown or ("" if piece[2].lower() in known else piece[2])
        if len(value) > LONGEST:
            raise _error(text, piece.start(), f"this field has more than {LONGEST:,} characters; shorten or remove it")
        if not (joint := _JOINT.match(text, at)):
            return (value, unknown), at
        at = joint.end()


def _closed(text: str, start: int) -> int:
    """Behind the end of what the brace or the quotation mark at `start` begins. To BibTeX, an escaped brace is a brace."""
    quoted, level = text[start] == '"', 0
    for mark in _MARK.finditer(text, start + quoted):
        level += (mark[0] == "{") - (mark[0] == "}")
        if level < 0:
            break
        if level == 0 and mark[0] == ('"' if quoted else "}"):
            return mark.end()
    raise _error(text, start, f"this {text[start]} is never closed: {' '.join(text[start : start + 30].split())!r}; correct it")


def closed(value: str) -> bool:
    """Whether one pair of braces encloses all of a value. Raises `BibtexError`."""
    return value.startswith("{") and _closed(value, 0) == len(value)


def _error(text: str, at: int, what: str) -> BibtexError:
    line = text.count("\n", 0, at) + 1
    return BibtexError(f"line {line} of the BibTeX: {what}")

"""Citations: an entry's fields as BibTeX with a stable key such as liu2017learning, and BibTeX as an entry's fields."""

from __future__ import annotations

import logging
import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count, product
from urllib.parse import quote

import bibtexparser
from bibtexparser import model
from bibtexparser.middlewares.names import parse_single_name_into_parts
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

from catalog import Record
from catalog.schema import Entry, Framework, Listing
from scripts.markup import address

logging.getLogger("bibtexparser").addHandler(logging.NullHandler())  # what it cannot read is reported from failed_blocks

JOURNAL = re.compile(
    r"journal|transactions|letters|magazine|review|proceedings of the ieee|\b(tpami|pami|ijcv|jmlr|tmlr|pnas|nature|science)\b",
    re.IGNORECASE,
)
SMALL = {
    *("a", "an", "the", "on", "of", "for", "to", "in", "and", "with", "towards", "toward"),
    *("from", "is", "are", "do", "what", "how", "why", "can", "via", "by"),
}
LATEX = {
    "\\": r"{\textbackslash}",
    "~": r"{\textasciitilde}",
    "^": r"{\textasciicircum}",
    "{": r"{\textbraceleft}",  # a bare brace, even an escaped one, would count in BibTeX
    "}": r"{\textbraceright}",
    "@": "{@}",  # before a brace, parsers take it for the beginning of an entry
    **{c: f"\\{c}" for c in "&%$#_"},
}
LIGATURE = re.compile(r"(?<=[-'`?!,<>])(?=[-'`,<>])")  # TeX would join -- to a dash, `` to a quotation mark
SUFFIXES = {"jr", "sr", "ii", "iii", "iv"}


class BibtexError(ValueError):
    """BibTeX that no entry can be made of; the message says why and what to do."""


@dataclass(frozen=True)
class Reference:
    """What a citation tells about a paper, in the catalogue's fields."""

    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    venue: str | None = None
    arxiv: str | None = None
    doi: str | None = None
    url: str | None = None


def ascii_word(text: str) -> str:
    """Small letters and digits only: "Müller-Łukasz" is "mullerukasz"."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def key(entry: Entry) -> str:
    """First author's last name, year, first telling word of the title."""
    names = _without_suffix(entry.authors[0]) if entry.authors else []
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


def _without_suffix(name: str) -> list[str]:
    """A name's words without Jr. and the like."""
    return [word for word in name.replace(",", " ").split() if word.lower().strip(".") not in SUFFIXES]


def surname(name: str) -> str:
    """The last name with its particles: "van der Maaten" of "Laurens van der Maaten"."""
    words = _without_suffix(name) or [name]
    particle = next((index for index, word in enumerate(words) if index and word[0].islower()), len(words) - 1)
    return " ".join(words[particle:])


# Out


def clean(text: str) -> str:
    """One line of composed characters, none of which controls."""
    return unicodedata.normalize("NFC", " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split()))


def latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return LIGATURE.sub("{}", "".join(LATEX.get(c, c) for c in clean(text)))


def author(name: str) -> str:
    """A name that holds a comma or "and" (a company's) is kept in one piece, and so is one with a word that begins
    with an escape, which bibtexparser's splitting of lists loses.
    """
    text = latex(name)
    whole = "," in name or re.search(r"\band\b", name, re.IGNORECASE) or name.lower() == "others" or re.search(r"(^|\s)\\", text)
    return f"{{{text}}}" if whole else text


def fields(entry: Entry) -> tuple[str, dict[str, str]]:
    """The kind of BibTeX entry and its fields."""
    venue = entry.venue if entry.venue and not entry.venue.lower().startswith("arxiv") else None
    software = isinstance(entry, Framework | Listing) and not (entry.arxiv or entry.doi)
    kind = "misc" if software or not venue or not entry.authors else "article" if JOURNAL.search(venue) else "inproceedings"
    place = {"misc": "howpublished", "article": "journal", "inproceedings": "booktitle"}[kind]
    values = {
        "title": f"{{{latex(entry.title)}}}",  # the second braces keep its capitals
        "author": " and ".join(author(name) for name in entry.authors if clean(name)),
        "year": str(entry.year),
        place: latex(venue or ""),
        "doi": re.sub(r"[{}\\]", lambda c: quote(c[0]), entry.doi or ""),
        "eprint": entry.arxiv or "",
        "archiveprefix": "arXiv" if entry.arxiv else "",
        "url": (address(entry.url) if entry.url else None) or "",
    }
    return kind, {name: value for name, value in values.items() if value}


def bibtex(entry: Entry, as_key: str | None = None) -> str:
    """The entry as BibTeX, under its key of `keys` where other entries stand beside it."""
    kind, values = fields(entry)
    library = bibtexparser.Library([model.Entry(kind, as_key or key(entry), [model.Field(name, value) for name, value in values.items()])])
    form = bibtexparser.BibtexFormat()
    form.indent = "  "
    text: str = bibtexparser.write_string(library, bibtex_format=form)
    return text.strip() + "\n"


def export(records: Iterable[Record], ids: Iterable[str]) -> str:
    """The entries of these ids, with a blank line between. `records` is the whole catalogue, which the keys depend on."""
    known = {record.id: record for record in records}
    names = keys(known.values())
    return "\n".join(bibtex(known[id].entry, names[id]) for id in ids)


# In

ARXIV_ID = r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?"
_ARXIV = re.compile(r"(?i:arxiv\.org/\w+/|arxiv[.:]\s*|arxiv preprint\s+|\babs/)" + ARXIV_ID + r"(?!\d)")
DOI = re.compile(r"(?:(?:https?://)?(?:dx\.)?doi\.org/|doi:\s*)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
VENUES = ("booktitle", "journal", "journaltitle", "howpublished", "school", "institution")


def arxiv_id(text: str) -> str | None:
    """The arXiv id that a text names, without its version."""
    found = _ARXIV.search(text)
    return found[1] if found else None


@cache
def _decoder() -> LatexNodes2Text:
    known = get_default_latex_context_db()
    texts = {"textbraceleft": "{", "textbraceright": "}", "textasciicircum": "^", "TeX": "TeX", "LaTeX": "LaTeX", "mbox": "%s", "url": "%s"}
    known.add_context_category("here", prepend=True, macros=[MacroTextSpec(name, text) for name, text in texts.items()])
    return LatexNodes2Text(latex_context=known, math_mode="text")


def plain(latex: str) -> str:
    """What LaTeX prints, as Unicode on one line: accents put together, braces and commands gone. Raises `BibtexError`."""
    latex = re.sub(r"(?<!\\)[%&]", r"\\\g<0>", latex)  # a comment or a table's cell in a title is a forgotten backslash
    if len(re.findall(r"(?<!\\)\$", latex)) % 2:
        latex = re.sub(r"(?<!\\)\$", r"\\$", latex)
    try:
        return clean(_decoder().latex_to_text(latex))
    except (RecursionError, IndexError, TypeError, ValueError) as problem:
        raise BibtexError(f"cannot read the LaTeX of {clean(latex)[:40]!r}; simplify it") from problem


def people(names: str) -> list[str]:
    """The names of an author list, parted at each "and" outside braces."""
    parts, level = [""], 0
    for token in re.findall(r"\\\S|\s+and(?=\s)|.", names.strip(), re.IGNORECASE | re.DOTALL):
        level += (token == "{") - (token == "}")
        if level == 0 and len(token) > 3:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts if part.strip()]


def person(name: str) -> str:
    """One name of BibTeX as it is spoken: "Laurens van der Maaten" of "van der Maaten, Laurens"."""
    return plain(parse_single_name_into_parts(name, strict=False).merge_first_name_first)


def read(text: str) -> Reference:
    """The one entry of a BibTeX text. Raises `BibtexError`."""
    try:
        library = bibtexparser.parse_string(text.replace("\r\n", "\n"))
    except RecursionError as problem:
        raise BibtexError("the BibTeX has too many lines or levels; shorten it") from problem
    for block in library.failed_blocks:
        reason = (str(block.error).splitlines() or ["cannot be read"])[0]
        raise BibtexError(f"line {(block.start_line or 0) + 1} of the BibTeX: {reason.rstrip('. ')}; correct it")
    if len(library.entries) != 1:
        raise BibtexError(f"the BibTeX holds {len(library.entries) or 'no'} entries; give exactly one")
    values = {field.key.lower(): str(field.value) for field in library.entries[0].fields}
    title = plain(values.get("title", ""))
    if not title:
        raise BibtexError("the BibTeX has no title; add title = {...}")
    names = [person(name) for name in people(values.get("author", ""))]
    if names and names[-1] == "others" and "{" not in values["author"].rpartition(" ")[2]:
        raise BibtexError('the authors end in "and others"; write all names out')
    year = re.search(r"\b(?:19|20)\d\d\b", values.get("year") or values.get("date", ""))
    return Reference(
        title=title,
        authors=tuple(filter(None, names)),
        year=int(year[0]) if year else None,
        venue=next((venue for name in VENUES if (venue := plain(values.get(name, "")))), None),
        arxiv=_eprint(values),
        doi=_doi(values.get("doi", "")),
        url=re.sub(r"\\url|\\(?=[_%&#$~])|[{}\s]", "", values.get("url", "")) or None,
    )


def _eprint(values: Mapping[str, str]) -> str | None:
    """The arXiv id, wherever a citation may hold it."""
    own = re.fullmatch(ARXIV_ID, values.get("eprint", "").strip())
    others = (values.get(name, "") for name in ("eprint", "doi", "journal", "volume", "howpublished", "url", "note"))
    return own[1] if own else next((id for text in others if (id := arxiv_id(text))), None)


def _doi(text: str) -> str | None:
    """A DOI without address and LaTeX; None where there is none or it is only arXiv's own. Raises `BibtexError`."""
    bare = re.sub(r"[{}\\\s]", "", text)
    if not bare or arxiv_id(bare):
        return None
    if not (found := DOI.fullmatch(bare)):
        raise BibtexError(f"{clean(text)[:60]!r} is no DOI; correct or remove it")
    return found[1]

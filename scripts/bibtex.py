"""An entry's citation, made of its fields: BibTeX with a stable key such as liu2017learning."""

from __future__ import annotations

import re
import unicodedata

import bibtexparser
from bibtexparser import model

from catalog.schema import Entry, Framework, Listing
from scripts.markup import address

JOURNAL = re.compile(
    r"journal|transactions|letters|magazine|review|proceedings of the ieee|\b(tpami|pami|ijcv|jmlr|tmlr|pnas|nature|science)\b",
    re.IGNORECASE,
)
SMALL = {
    *("a", "an", "the", "on", "of", "for", "to", "in", "and", "with", "towards", "toward"),
    *("from", "is", "are", "do", "what", "how", "why", "can", "via", "by"),
}
LATEX = {
    "\\": r"\textbackslash ",
    "~": r"\textasciitilde ",
    "^": r"\textasciicircum ",
    **{c: f"\\{c}" for c in "&%$#_"},
    "{": "(",
    "}": ")",
}


def ascii_word(text: str) -> str:
    """Small letters and digits only: "Müller-Łukasz" is "mullerukasz"."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def key(entry: Entry) -> str:
    """First author's last name, year, first telling word of the title."""
    first = entry.authors[0].replace(",", " ").split() if entry.authors else []
    names = [word for word in first if word.lower().strip(".") not in {"jr", "sr", "ii", "iii"}]
    last = ascii_word(names[-1]) if names else ""
    words = [ascii_word(word) for word in re.split(r"[\s\-–—:/]+", entry.title)]
    telling = next((word for word in words if word and word not in SMALL), "")
    return f"{last or ascii_word(entry.name)}{entry.year}{telling}"


def latex(text: str) -> str:
    """Text that LaTeX prints as it stands; braces, which BibTeX counts, become round."""
    return "".join(LATEX.get(c, c) for c in " ".join(text.split()) if c.isprintable())


def author(name: str) -> str:
    """A name that holds a comma or "and" (a company's) is kept in one piece."""
    return f"{{{latex(name)}}}" if "," in name or re.search(r"\band\b", name) else latex(name)


def fields(entry: Entry) -> tuple[str, dict[str, str]]:
    """The kind of BibTeX entry and its fields."""
    venue = entry.venue if entry.venue and not entry.venue.lower().startswith("arxiv") else None
    software = isinstance(entry, Framework | Listing) and not (entry.arxiv or entry.doi)
    kind = "misc" if software or not venue or not entry.authors else "article" if JOURNAL.search(venue) else "inproceedings"
    place = {"misc": "howpublished", "article": "journal", "inproceedings": "booktitle"}[kind]
    values = {
        "title": f"{{{latex(entry.title)}}}",  # the second braces keep its capitals
        "author": " and ".join(map(author, entry.authors)),
        "year": str(entry.year),
        place: latex(venue or ""),
        "doi": entry.doi or "",
        "eprint": entry.arxiv or "",
        "archiveprefix": "arXiv" if entry.arxiv else "",
        "url": (address(entry.url) if entry.url else None) or "",
    }
    return kind, {name: value for name, value in values.items() if value}


def bibtex(entry: Entry) -> str:
    """The entry as BibTeX."""
    kind, values = fields(entry)
    library = bibtexparser.Library([model.Entry(kind, key(entry), [model.Field(name, value) for name, value in values.items()])])
    form = bibtexparser.BibtexFormat()
    form.indent = "  "
    text: str = bibtexparser.write_string(library, bibtex_format=form)
    return text.strip() + "\n"

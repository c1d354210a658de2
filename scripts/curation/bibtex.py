"""Citations: an entry's fields as BibTeX with a stable key such as liu2017learning, and BibTeX as an entry's fields."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

import bibtexparser
from bibtexparser import model
from bibtexparser.middlewares.names import parse_single_name_into_parts
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

from catalog import Record
from catalog.schema import Entry
from scripts.curation.bibgrammar import BibtexError as BibtexError
from scripts.curation.bibgrammar import Block, blocks, closed
from scripts.evidence.keys import SUFFIXES, key, keys, without_suffix
from scripts.evidence.text import address

JOURNALS = (  # that their names do not give away
    "Pattern Recognition", "Neural Networks", "Neural Computation", "Neurocomputing", "Machine Learning", "Artificial Intelligence",
    "Information Sciences", "Knowledge-Based Systems", "Expert Systems with Applications", "Image and Vision Computing", "IEEE Access",
    "IEEE Micro", "Computer Vision and Image Understanding", "Communications of the ACM", "Proceedings of the IEEE", "Science", "Distill",
    "Sensors", "Entropy",
)  # fmt: skip
PLACES = (  # kind of BibTeX entry, its field for the venue, and what the venue's name says; the first that fits
    ("misc", "howpublished", r"^(arxiv|corr)\b[^;]*$|^(github|open.source|software|list|website)\b"),
    ("phdthesis", "school", r"^ph\.? ?d\.? thesis\b[\s,:]*"),
    ("mastersthesis", "school", r"^master'?s thesis\b[\s,:]*"),
    ("techreport", "institution", r"^technical report\b[\s,:]*"),
    ("inproceedings", "booktitle", r"conference|symposium|workshop|congress"),
    ("article", "journal", r"journal|transactions|\btrans\.|letters|magazine|review|\bcomput(ing|\.) surv"),
    ("article", "journal", r"^foundations and trends|^proceedings of the (acm on|national academy)|^nature\b"),
    ("article", "journal", r"\b(t?pami|tnnls|ijcv|[jt]mlr|pnas|tacl)\b"),
    ("article", "journal", rf"^({'|'.join(JOURNALS)})(\W*\d.*)?$"),
    ("inproceedings", "booktitle", ""),
)  # fmt: skip
REPORTS = {"phdthesis": "PhD thesis", "mastersthesis": "Master's thesis", "techreport": "Technical report"}
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


def surname(name: str) -> str:
    """The last name with its particles: "van der Maaten" of "Laurens van der Maaten"."""
    words = without_suffix(name) or [name]
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
    """A name of more than words, such as a company's with a comma, an "and" or an &, is kept in one piece."""
    words = re.fullmatch(r"[^\W_]([^\W_]|[-.'’ ])*", name) and not re.search(r"(?i:\band\b|\bet\.? al\b|^others$)|\band[A-Z]", name)
    return latex(name) if words else f"{{{latex(name)}}}"


def container(entry: Entry) -> tuple[str, str, str]:
    """The kind of BibTeX entry, its field for the venue and what to write there."""
    venue = clean(entry.venue or "")
    if not venue or not entry.authors:
        return "misc", "howpublished", venue
    kind, field, pattern = next(one for one in PLACES if re.search(one[2], venue, re.IGNORECASE))
    if kind in REPORTS:
        venue = re.sub(pattern, "", venue, flags=re.IGNORECASE)
    return kind, field, "" if re.match("arxiv[^;]*$", venue, re.IGNORECASE) else venue


def fields(entry: Entry) -> tuple[str, dict[str, str]]:
    """The kind of BibTeX entry and its fields."""
    kind, field, venue = container(entry)
    values = {
        "title": f"{{{latex(entry.title)}}}",  # the second braces keep its capitals
        "author": " and ".join(author(name) for name in entry.authors if clean(name)),
        "year": str(entry.year),
        field: latex(venue),
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
DOI = re.compile(r"(?:(?:https?://)?(?:dx\.|www\.)?doi\.org/|doi:?\s*)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
VENUES = ("booktitle", "journal", "journaltitle", "howpublished", "school", "institution")
DATES = ("year", "date", "issue_date")
PREPRINTS = ("eprint", "arxivid", "doi", "journal", "volume", "number", "eid", "pages", "howpublished", "url", "note")
INHERITED = (*DATES, *VENUES)  # the rest of a volume's record, its title and DOI above all, is not its papers'
READ = {"title", "subtitle", "author", "crossref", "doi", "url", *INHERITED} | set(PREPRINTS) - {"number", "eid", "pages", "note"}
MACROS = {  # that pylatexenc does not know, or prints otherwise
    "textbraceleft": "{", "textbraceright": "}", "textasciicircum": "^", "TeX": "TeX", "LaTeX": "LaTeX", "mbox": "%s", "url": "%s",
    "textless": "<", "textgreater": ">", "textbar": "|", "textunderscore": "_", "textquotedbl": '"', "textpercent": "%%", "slash": "/",
    "textampersand": "&", "textnumbersign": "#", "glqq": "„", "grqq": "“", "copyright": "©", "pounds": "£", "euro": "€", "S": "§", "P": "¶",
    "degree": "°", "micro": "µ", "SS": "ẞ",
}  # fmt: skip
_WITHIN = re.compile(r"""\\([`'^"~=.uvHckrbdt])\s*(\\[`'^"~=.uvHckrbd]\s*(?:\{\w\}|\w))""")  # two accents on one letter
_ACCENT = re.compile(r"\\([uvHckrbdt])\s+(\w|\\[ij]\b)")
_LETTER = re.compile(r"(\\(?:[lLoOij]|aa|AA|ae|AE|oe|OE|ss|dh|DH|dj|DJ|th|TH|ng|NG)(?![A-Za-z]))(?:\s+(?!and\s)(?=[a-z]))?")
_ENTITY = re.compile(r"\\?&(#\d+|#[xX][\da-fA-F]+|[A-Za-z]\w+);")
_PART = re.compile(r"\b(family|given|prefix|suffix)\s*=\s*([^,]+)")  # of a name, as biblatex can be told
_ASIDE = re.compile(r"\\(?:href|thanks|footnote|textcolor|color|label)\s*\{[^{}]*\}")  # macros whose first argument is not read


def arxiv_id(text: str) -> str | None:
    """The arXiv id that a text names, without its version."""
    found = _ARXIV.search(text)
    return found[1] if found else None


def unpunctuated(text: str) -> str:
    """An id or address without what a sentence puts around it."""
    after = ".,;:>\"'"
    text = text.strip().lstrip("<(").rstrip(after)
    for _ in range(text.count(")") - text.count("(")):
        text = text.removesuffix(")").rstrip(after)
    return text


@cache
def _decoder() -> LatexNodes2Text:
    known = get_default_latex_context_db()
    known.add_context_category("here", prepend=True, macros=[MacroTextSpec(name, text) for name, text in MACROS.items()])
    known.set_unknown_macro_spec(MacroTextSpec("", discard=False))  # or \texttt and many others would be left out with their text
    return LatexNodes2Text(latex_context=known, math_mode="text")


def _characters(text: str) -> str:
    """Text without the character references of HTML that publishers' exports hold."""
    return _ENTITY.sub(lambda found: html.unescape(f"&{found[1]};"), text)


def plain(latex: str) -> str:
    """What LaTeX prints, as Unicode on one line: accents put together, braces and commands gone. Raises `BibtexError`."""
    latex = _WITHIN.sub(r"\\\1{\2}", _ASIDE.sub("", _characters(latex)))
    latex = re.sub(r"(?<!\\)[%&]", r"\\\g<0>", latex)  # a comment or a table's cell in a title is a forgotten backslash
    if len(re.findall(r"(?<!\\)\$", latex)) % 2:
        latex = re.sub(r"(?<!\\)\$", r"\\$", latex)
    try:
        return clean(_decoder().latex_to_text(latex))
    except (RecursionError, IndexError, TypeError, ValueError) as problem:
        raise BibtexError(f"cannot read the LaTeX of {clean(latex)[:40]!r}; simplify it") from problem


def people(names: str) -> list[tuple[str, str]]:
    """The names of an author list, parted at each "and" or semicolon outside braces; beside each, what of it is outside them."""
    parts, level = [["", ""]], 0
    for token in re.findall(r"\\\S| and(?= |$)|.", " ".join(names.split()), re.IGNORECASE):
        level += (token == "{") - (token == "}")
        if level == 0 and (len(token) > 3 or token == ";"):
            parts.append(["", ""])
        else:
            parts[-1][0] += token
            parts[-1][1] += token if level == 0 and token != "}" else ""
    return [(whole.strip(), bare.strip()) for whole, bare in parts if whole.strip()]


def person(name: str) -> str:
    """One name of BibTeX as it is spoken: "Laurens van der Maaten" of "van der Maaten, Laurens"."""
    if parts := dict(_PART.findall(name)):
        return plain(" ".join(filter(None, map(parts.get, ("given", "prefix", "family", "suffix")))))
    return plain(parse_single_name_into_parts(name, strict=False).merge_first_name_first)


def persons(names: str) -> tuple[str, ...]:
    """The names of an author list as they are spoken. Raises `BibtexError` where a name may be several."""
    names = _LETTER.sub(r"{\1}", _ACCENT.sub(r"\\\1{\2}", _characters(names)))  # or their space would part a name, or be lost at its end
    found = [(whole.rstrip(", "), bare.rstrip(", ")) for whole, bare in people(names)]
    if found and re.search(r"(^others|\bet\.? al\.?)$", found[-1][1], re.IGNORECASE):
        raise BibtexError('the authors end in "and others"; write all names out')
    alone = len(found) == 1 or any(bare and "," not in bare for _, bare in found)
    for whole, bare in found:
        if _several(bare, alone):
            raise BibtexError(
                f"{clean(whole)[:60]!r} may be several authors; put and between authors, write one as First Last, a company in braces"
            )
    return tuple(filter(None, (person(whole) for whole, _ in found)))


def _several(name: str, alone: bool) -> bool:
    """Whether a name's commas may part people; `alone` says that no habit of writing "Last, First" can be seen in the list."""
    if _PART.search(name):
        return False
    last, *rest = [part.split() for part in name.split(",")]
    if re.search(r"(^|\s)\\?&(\s|$)|\band(?=[A-Z])", name) or len(rest) > 2:
        return True
    if len(rest) == 2:
        return "".join(rest[0]).lower().strip(".") not in SUFFIXES
    if not rest or not alone or min(len(last), len(rest[0])) < 2 or last[0][0].islower():
        return False
    return not all(len(word) == 1 or "." in word for word in rest[0])  # initials


def read(text: str) -> Reference:
    """The one entry of a BibTeX text, with what it takes from the volume that it refers to. Raises `BibtexError`."""
    kind, values = _the_one(blocks("\n".join(text.splitlines()), READ))
    if values.get("year", "").startswith("{"):  # nobody protects a year: whoever wrote this put all values in braces twice
        values = {name: value[1:-1] if closed(value) else value for name, value in values.items()}
    title = ": ".join(filter(None, (plain(values.get(name, "")) for name in ("title", "subtitle"))))
    if not title:
        raise BibtexError("the BibTeX has no title; add title = {...}")
    year = re.search(r"\b(?:19|20)\d\d\b", " ".join(values.get(name, "") for name in DATES))
    venue = next((venue for name in VENUES if (venue := plain(values.get(name, "")))), None)
    url = re.sub(r"\\url|\\(?=[_%&#$~])|[{}\s]", "", values.get("url", ""))
    return Reference(
        title=title,
        authors=persons(values.get("author", "")),
        year=int(year[0]) if year else None,
        venue=", ".join(filter(None, (REPORTS.get(kind), venue))) or None,
        arxiv=_eprint(values),
        doi=_doi(values.get("doi") or (url if DOI.fullmatch(url) else "")),
        url=url or None,
    )


def _the_one(found: list[Block]) -> tuple[str, dict[str, str]]:
    """Kind and fields of the only entry that no other refers to, with those that it takes from its volume. Raises `BibtexError`."""
    by_key = {block.key.lower(): block for block in found}
    volumes = set(map(_crossref, found))
    own = [block for block in found if not block.key or block.key.lower() not in volumes]
    if found and not own:
        raise BibtexError(f"the crossref of {clean(found[0].key)[:60]} goes in a circle; remove it")
    if len(own) != 1:
        names = f" ({', '.join(clean(block.key)[:30] for block in own[:3])}{' ...' if len(own) > 3 else ''})" if own else ""
        raise BibtexError(f"the BibTeX holds {len(own) or 'no'} entries{names}; give exactly one")
    fields, volume, seen = dict(own[0].fields), own[0], set[str]()
    while key := _crossref(volume):
        name = clean(volume.key)[:60]
        if key in seen:
            raise BibtexError(f"the crossref of {name} goes in a circle; remove it")
        if key not in by_key:
            cure = "add that entry, or write year and booktitle instead"
            raise BibtexError(f"{name} refers to {clean(key)[:60]} by crossref, which is not there; {cure}")
        seen.add(key)
        volume = by_key[key]
        theirs = {"booktitle": volume.fields.get("title", ""), **volume.fields}
        fields |= {name: theirs[name] for name in INHERITED if theirs.get(name) and not fields.get(name)}
    return own[0].kind, fields


def _crossref(block: Block) -> str:
    return block.fields.get("crossref", "").strip().lower()


def _eprint(values: Mapping[str, str]) -> str | None:
    """The arXiv id, wherever a citation may hold it."""
    texts = [re.sub(r"[{}]", "", values.get(name, "")).strip() for name in PREPRINTS]
    own = next((found for text in texts[:2] if (found := re.match(ARXIV_ID + r"(?![\w./])", text))), None)
    return own[1] if own else next((id for text in texts if (id := arxiv_id(text))), None)


def _doi(text: str) -> str | None:
    """A DOI without address and LaTeX; None where there is none or it is only arXiv's own. Raises `BibtexError`."""
    bare = unpunctuated(re.sub(r"[{}\\\s]", "", text))
    if not bare or arxiv_id(bare):
        return None
    if not (found := DOI.fullmatch(bare)):
        raise BibtexError(f"{clean(text)[:60]!r} is no DOI; correct or remove it")
    return found[1]

"""A new paper's three files, from an arXiv id, a DOI or BibTeX: the entry with its fields filled in, method and claims as skeletons."""

from __future__ import annotations

import html
import json
import keyword
import os
import re
import stat
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import requests
from urllib3.exceptions import HTTPError

import catalog
from catalog.schema import KINDS, METHOD_FAMILIES, Executable, Framework, Listing
from scripts.curation import bibtex
from scripts.curation.bibtex import Reference
from scripts.evidence import files as writing
from scripts.evidence import keys, source

AGENT = "smallprint/0.1 (catalogue of papers on small networks; one look-up a new entry)"
LARGEST = 4 << 20  # bytes of one answer; a record has some thousand
ATOM = {"a": "http://www.w3.org/2005/Atom", "arxiv": "http://arxiv.org/schemas/atom"}
RESERVED = {"index", "con", "prn", "aux", "nul", *KINDS, *keyword.kwlist}  # a family's page, Windows' devices, families, Python
VENUES = {  # by what their many full names contain; the first that fits
    "learning representations": "ICLR", "neural information processing": "NeurIPS", "computer vision and pattern": "CVPR",
    "european conference on computer vision": "ECCV", "international conference on computer vision": "ICCV",
    "winter conference on applications of computer": "WACV", "british machine vision": "BMVC", "machine learning and systems": "MLSys",
    "international conference on machine learning": "ICML",
    "artificial intelligence, aaai": "AAAI", "aaai conference": "AAAI", "joint conference on artificial intelligence": "IJCAI",
    "acoustics, speech": "ICASSP", "pattern analysis and machine": "IEEE TPAMI",
}  # fmt: skip
ACRONYM = re.compile(rf"(?<![(\w])({'|'.join(sorted({*VENUES.values()} - {'AAAI', 'IEEE TPAMI'}))}|NIPS)\b")  # AAAI holds many conferences
SLUG = r"[a-z][a-z0-9_]{0,59}"
SHORT = 4  # words; a longer beginning of a title is no name


class NewError(ValueError):
    """No entry can be made; the message says why and what to do."""


@dataclass(frozen=True)
class Service:
    """Where metadata comes from, and how patiently it is asked for. Times are in seconds."""

    arxiv: str = "https://export.arxiv.org/api/query"
    crossref: str = "https://api.crossref.org/works"
    timeout: tuple[float, float] = (10.0, 30.0)  # to connect, and for the whole answer
    tries: int = 4
    pause: float = 3.0  # before the second try, doubled before each other; arXiv asks for three seconds
    longest: float = 60.0  # that a Retry-After is obeyed


ONLINE = Service()


# Look up


def look_up(text: str, service: Service = ONLINE) -> Reference:
    """What is known of the paper that `text` names.

    `text` is an arXiv id or address, a DOI or its address, BibTeX, a file of BibTeX, or "-" for standard input.
    Raises `NewError`.
    """
    text = text.strip().lstrip("\ufeff")
    given = named(text)
    if given.arxiv:
        return tidy(from_arxiv(given.arxiv, service))
    if given.doi:
        return tidy(from_crossref(given.doi, service))
    here = text.startswith("@") or re.search(r"^\s*@\w+\s*[{(]", text, re.MULTILINE)
    shown = "standard input" if text == "-" else bibtex.clean(text)
    shown = shown if len(shown) <= 120 else f"{shown[:40]}…{shown[-79:]}"  # of a path the end tells more
    try:
        return tidy(bibtex.read(text if here else _content(text, shown)))
    except bibtex.BibtexError as problem:
        raise NewError(str(problem) if here else f"{shown}: {problem}") from problem
    except UnicodeDecodeError as problem:
        raise NewError(f"{shown}: is not UTF-8; give BibTeX, saved in that encoding") from problem
    except PermissionError as problem:
        raise NewError(f"{shown}: cannot be read: {problem.strerror}; make it readable") from problem
    except (OSError, ValueError) as problem:
        if isinstance(problem, NewError):
            raise
        raise NewError(
            f"{shown!r} is no arXiv id, no DOI and no file of BibTeX; write 1611.06440, 10.1109/ICCV.2017.298 or refs.bib"
        ) from None


def _content(place: str, shown: str) -> str:
    """The text of a file, or of standard input for "-". Raises `NewError`, `OSError` and `ValueError`."""
    if place != "-" and not stat.S_ISREG(os.stat(place).st_mode):  # to open a pipe would wait for whoever writes into it
        raise NewError(f"{shown}: is no file; give a file of BibTeX, or - and the BibTeX on standard input")
    with nullcontext(sys.stdin.buffer) if place == "-" else Path(place).open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NewError(f"{shown}: is longer than {LARGEST >> 20} MiB; give the BibTeX of the paper alone")
    return content.decode("utf-8-sig")


def named(text: str) -> Reference:
    """The arXiv id or the DOI that a text is, however it is written; nothing where it is neither."""
    text = bibtex.unpunctuated(text)
    found = bibtex.DOI.fullmatch(unquote(re.split("[?#]", text)[0]) if re.match("(?i:https?:)", text) else text)
    return Reference("", arxiv=arxiv, doi=None) if (arxiv := _arxiv(text)) else Reference("", doi=found[1] if found else None)


def _arxiv(text: str) -> str | None:
    """The id in an arXiv id, address or DOI, without its version; None where the text is none of these."""
    where = r"(?:(?:https?://)?(?:[\w-]+\.)*arxiv\.org/\w+/|arxiv[:\s]\s*|(?:https?://)?(?:(?:dx\.|www\.)?doi\.org/|doi:?\s*)?10\.48550/arxiv\.)?"
    found = re.fullmatch(rf"(?i:{where}){bibtex.ARXIV_ID}(?:\.pdf)?/?(?:[?#].*|\s*\[[\w.-]+\].*)?", text)
    return found[1] if found else None


def tidy(found: Reference) -> Reference:
    """Without venues that are none (arXiv, a web address), without the year in a venue's name, and the well-known ones in short.

    The title is without tags and without a full stop.
    """
    venue = found.venue or ""
    if re.match(r"(arxiv|corr\b|https?:)", venue, re.IGNORECASE):
        venue = ""
    if found.year:
        venue = re.sub(rf"[\s,(]*\b{found.year}\b\)?\.?$|^{found.year}\s+", "", venue)
    known = re.sub(r"[^a-z,]+", " ", venue.lower())
    short = next((short for words, short in VENUES.items() if words in known), None) or next(iter(ACRONYM.findall(venue)), None)
    if "workshop" in known:
        short = None
    if short == "NeurIPS" and found.year and found.year < 2018:
        short = "NIPS"  # as it was called
    title = re.sub(r"</?(?:i|b|em|strong|sub|sup|tt|span)>", "", found.title)  # which publishers leave in BibTeX, too
    title = re.sub(r"(?<=[^\W\d_]{2})\.$", "", title)  # a sentence's end, not an abbreviation's or an ellipsis
    return replace(found, title=title, venue=short or venue.strip() or None)


def from_arxiv(id: str, service: Service = ONLINE) -> Reference:
    """The record of an arXiv id. Raises `NewError`."""
    place = f"arXiv {id}"
    feed = _atom(get(service.arxiv, service, place, {"id_list": id, "max_results": "1"}), place)

    def word(path: str) -> str:
        return bibtex.clean(entry.findtext(path, "", ATOM)) if entry is not None else ""

    entry = feed.find("a:entry", ATOM)
    known = _arxiv(word("a:id").replace("http:", "https:", 1)) or ""
    if re.sub(r"\.[A-Z]{2}/", "/", known) != re.sub(r"\.[A-Z]{2}/", "/", id) or not word("a:title"):  # math.GT/0309136 is math/0309136
        raise NewError(f"{place}: arXiv knows no paper of this id; correct it")
    assert entry is not None
    names = (bibtex.clean(author.findtext("a:name", "", ATOM)) for author in entry.findall("a:author", ATOM))
    year = re.match(r"\d{4}", word("a:published"))
    doi = bibtex.DOI.fullmatch(word("arxiv:doi").split(" ")[0])
    return Reference(
        title=word("a:title"), authors=tuple(filter(None, names)), year=int(year[0]) if year else None,
        venue=word("arxiv:journal_ref") or None, arxiv=id, doi=doi[1] if doi else None,
    )  # fmt: skip


def _atom(body: bytes, place: str) -> ElementTree.Element:
    """The feed as a tree. Document types are refused before parsing: entities could grow without end."""
    try:
        text = body.decode("utf-8")  # and no other encoding, or the next line could be blind
        if re.search(r"<!\s*(doctype|entity)", text, re.IGNORECASE):
            what = "a web page" if re.search(r"<html", text, re.IGNORECASE) else "XML with a document type"
            raise NewError(f"{place}: the answer is {what}, no Atom feed; try later or give BibTeX")
        feed = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError) as problem:
        raise NewError(f"{place}: the answer is no whole Atom feed ({problem}); try later or give BibTeX") from problem
    if feed.tag != f"{{{ATOM['a']}}}feed":
        raise NewError(f"{place}: the answer is no Atom feed; try later or give BibTeX")
    return feed


def from_crossref(doi: str, service: Service = ONLINE) -> Reference:
    """The record of a DOI. Raises `NewError`."""
    place = f"DOI {doi}"
    body = get(f"{service.crossref}/{quote(doi, safe='')}", service, place)
    try:
        work = json.loads(body)["message"]
        names = [
            " ".join(filter(None, (a.get("given"), a.get("family"), a.get("suffix")))) or a.get("name", "") for a in work.get("author", [])
        ]
        year = ((work.get("issued") or {}).get("date-parts") or [[None]])[0][0]
        found = Reference(
            title=_text(": ".join([*work["title"][:1], *(work.get("subtitle") or [])[:1]])),
            authors=tuple(filter(None, map(_text, names))), year=int(year) if year else None,
            venue=_venue(list(map(_text, work.get("container-title") or []))), doi=str(work.get("DOI") or doi),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as problem:
        raise NewError(f"{place}: the answer is no record of Crossref; try later or give BibTeX") from problem
    if not found.title:
        raise NewError(f"{place}: Crossref knows no title; give BibTeX")
    return found


def _venue(containers: list[str]) -> str | None:
    """What a paper appeared in, of all that holds it: a volume rather than the series that the volume is of."""
    return next((name for name in containers if name and not name.startswith("Lecture Notes")), next(iter(containers), "")) or None


def _text(markup: str) -> str:
    """Text without the tags and character references that publishers leave in titles."""
    return bibtex.clean(unicodedata.normalize("NFC", html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", "", markup))))


def get(url: str, service: Service, place: str, params: Mapping[str, str] | None = None) -> bytes:
    """The body of an answer, asked for again when the server is busy or the connection breaks. Raises `NewError`."""
    why = ""
    for attempt in range(service.tries):
        wait = service.pause * 2**attempt
        try:
            headers = {"User-Agent": AGENT}
            with requests.get(url, params=params, headers=headers, timeout=service.timeout, stream=True) as response:
                status = response.status_code
                if status == 404:
                    raise NewError(f"{place}: is not known there (404); correct it, or give BibTeX")
                if status == 200:
                    return _body(response, service, place)
                why = f"the server says {status} {response.reason}"
                if status != 429 and status < 500:
                    raise NewError(f"{place}: {why}; correct it, or give BibTeX")
                wait = min(_retry_after(response.headers.get("Retry-After", ""), wait), service.longest)
        except (requests.Timeout, TimeoutError):
            why = "no answer in time"
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, HTTPError):
            why = "cannot connect, or the connection broke"
        except requests.RequestException as problem:
            raise NewError(f"{place}: cannot be asked for ({type(problem).__name__}); give BibTeX") from problem
        if attempt + 1 < service.tries:
            time.sleep(wait)
    raise NewError(f"{place}: {why}, {service.tries} times; try later or give BibTeX")


def _body(response: requests.Response, service: Service, place: str) -> bytes:
    """The whole answer. The time-out of requests holds between two pieces only, so that a slow drip needs its own."""
    body, end = b"", time.monotonic() + service.timeout[1]
    for piece in response.iter_content(1 << 14):
        body += piece
        if len(body) > LARGEST:
            raise NewError(f"{place}: the answer is longer than {LARGEST >> 20} MiB; give BibTeX")
        if time.monotonic() > end:
            raise TimeoutError
    return body


def _retry_after(text: str, otherwise: float) -> float:
    """Seconds to wait, of a header that gives seconds or a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text).astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return otherwise


# Name


def entries(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path below `root` and fields of every entry, of those too that are not filled in yet."""
    for family in KINDS:
        for path in sorted((root / "catalog" / family).glob("*.yaml")):
            try:
                fields, _ = catalog.read(path)
            except catalog.Unreadable:
                fields = {}
            yield path.relative_to(root).as_posix(), fields if isinstance(fields, dict) else {}


def duplicate(root: Path, found: Reference) -> str | None:
    """The entry that describes the same paper, and by what: "catalog/pruning/x.yaml has the same title"."""
    mine = _marks(found.title, found.arxiv, found.doi)
    for path, fields in entries(root):
        theirs = _marks(*(str(fields.get(name) or "") for name in ("title", "arxiv", "doi")))
        for what, mark in mine.items():
            if mark and mark == theirs[what]:
                return f"{path} has the same {what}"
    return None


def known(root: Path, text: str) -> None:
    """Refuse, before anything is fetched, an arXiv id or DOI that is here already. Raises `NewError`."""
    if other := duplicate(root, named(text)):
        raise NewError(f"{bibtex.clean(text)[:80]} is here already: {other}; add to that entry")


def _marks(title: str, arxiv: str | None, doi: str | None) -> dict[str, str]:
    if doi and (own := re.match(r"10\.48550/arxiv\.", doi, re.IGNORECASE)):  # the DOI that arXiv gives to each of its papers
        arxiv, doi = arxiv or doi[own.end() :], None
    letters = (c for c in unicodedata.normalize("NFKD", title).casefold() if c.isalnum())
    return {"arXiv id": (arxiv or "").casefold(), "DOI": (doi or "").casefold(), "title": "".join(letters)}


def taken(root: Path) -> dict[str, str]:
    """Every slug that is or was an entry's or a method's, and whose."""
    slugs: dict[str, str] = {}
    for path, fields in entries(root):
        former = fields.get("formerly")
        for old in former if isinstance(former, list) else []:
            slugs.setdefault(str(old), path)
    slugs |= {path.stem: path.relative_to(root).as_posix() for path in (*source.claims_paths(root), *source.paths(root))}
    return slugs | {Path(path).stem: path for path, _ in entries(root)}


def short_name(title: str) -> str:
    """The part before a colon if it is short, else the whole title."""
    head, colon, _ = title.partition(":")
    return head.strip() if colon and 0 < len(head.split()) <= SHORT else title


def propose(found: Reference, slugs: Mapping[str, str]) -> str:
    """A slug from the title that is free: "thinet" of "ThiNet: A Filter Level ...", else the title's telling words."""
    name = short_name(found.title)
    words = [word for word in (keys.ascii_word(word) for word in re.split(r"[\W_]+", name)) if word]
    if name == found.title:
        words = [word for word in words if word not in keys.SMALL and not (len(word) == 1 and word.isalpha())][:SHORT]
    base = "_".join(words)[:40].rstrip("_")
    if not base:
        base = (keys.ascii_word(bibtex.surname(found.authors[0])) if found.authors else "") or "paper"
    if not base[0].isalpha() or base in RESERVED:
        base = f"paper_{base}"
    candidates = (base, f"{base}_{found.year or 2}", *(f"{base}_{number}" for number in range(2, len(slugs) + 4)))
    return next(slug for slug in candidates if slug not in slugs)


def check_slug(slug: str, slugs: Mapping[str, str]) -> None:
    """Raises `NewError` for a slug that cannot be used."""
    if not re.fullmatch(SLUG, slug):
        near = re.sub(r"[^a-z0-9]+", "_", slug.lower()).strip("_")
        such = f", such as {near}" if re.fullmatch(SLUG, near) else ""
        raise NewError(f"--slug {bibtex.clean(slug)}: must be at most 60 small letters, digits and _, and begin with a letter{such}")
    if slug in RESERVED:
        raise NewError(f"--slug {slug}: is reserved; choose another")
    if slug in slugs:
        raise NewError(f"--slug {slug}: is taken by {slugs[slug]}; choose another")


# Write


def scalar(text: str) -> str:
    """Text as YAML on one line, quoted where it would be read as something else, in a list too."""
    try:
        plain = "#" not in text and catalog.parse(f"a: [{text}]")[0] == {"a": [text]} and catalog.parse(f"a: {text}")[0] == {"a": text}
    except catalog.Unreadable:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def _list(name: str, items: tuple[str, ...]) -> str:
    line = f"{name}: [{', '.join(map(scalar, items))}]"
    return line if len(line) <= 140 else "\n".join([f"{name}:", *(f"  - {scalar(item)}" for item in items)])


START = """\
start: trained | scratch  # keep one: what the method starts from
returns: smaller | same | larger  # keep one: what comes back
"""
CLAIMS = """\
# equations:  # the idea in one to three, in LaTeX; each beside the function that computes it
#   - {tex: 'W_n \\approx \\sum_k a_{nk} b_k', says: What it says and what its symbols mean., where: Eq. 1, function: compress}
claims:  # at least two exact, one of them wiring, and one smoke; each is measured by claim_<id> in methods/$family/claims/$slug.py
  first_claim:  # measured by claim_first_claim there; give both a name that tells
    says:  # what the paper says, not reworded to fit
    where:  # its place, such as Eq. 1, §3 or Table 2
    tier: exact  # exact, smoke, long or full
    kind: effect | count | identity | wiring  # keep one: what it achieves, a printed size, its mathematics, our check of its stages
    # against: random  # of an effect: the control that it is measured against, or reference
    at_most:  # the bound, as the paper says it; or at_least, or within with paper: the printed number
"""
RESULTS = """\
# results:  # what the paper printed, in the words of catalog/vocabulary.yaml; add new ones there
#   - {dataset: CIFAR-10, model: VGG-16, metric: top1_error, baseline: 6.75, result: 6.60, params_kept: 0.36, where: Table 1}
"""


def entry_text(found: Reference, family: str, slug: str, *, method: bool) -> str:
    """The entry's YAML. What is left empty is what `smallprint check` asks for."""
    kind = KINDS[family]
    known = {"venue": found.venue, "arxiv": found.arxiv, "doi": found.doi}
    web = found.url if found.url and re.fullmatch(r"https?://[^\s<>\"']+", found.url) else None
    needs_url = kind in (Framework, Listing) or not (found.arxiv or found.doi)
    lines = [
        f"name: {scalar(short_name(found.title))}  # the short name that people use",
        f"title: {scalar(found.title)}",
        _list("authors", found.authors),
        f"year: {found.year or ' # of publication'}",
        *(f"{name}: {scalar(value)}" for name, value in known.items() if value),
        *([f"url: {scalar(web) if web else ' # where the paper or the project can be read'}"] if needs_url else []),
        *([] if found.venue else ["# venue: ICCV  # where it appeared, in short, without the year"]),
        '# code: [{url: "https://github.com/...", framework: PyTorch}]  # the authors\' own first',
        "# tags: []  # words of catalog/vocabulary.yaml; add new ones there",
        "# builds_on: []  # ids of other entries; compared_with: [] likewise",
    ]
    below = ["summary:  # in your own words, at most 700 characters: what is done, and what comes out", "# when_to_use:", "# when_not:"]
    start, claims, results = START, Template(CLAIMS).substitute(family=family, slug=slug), RESULTS
    if not method:  # nobody needs to fill in what no program is asked for
        start, claims = textwrap.indent(START, "# "), ""
    if not issubclass(kind, Executable):
        start = results = ""
    return "\n".join(lines) + "\n" + start + "\n".join(below) + "\n" + claims + results


METHOD = '''\
"""$title.

The idea in two or three sentences.

Departures:
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods.kit.task import Task, on_copies


@dataclass(frozen=True)
class Config:
    """The paper's numbers as defaults, each with its place, such as: cut: float = 0.7  # share of channels, Table 1."""


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """The paper's algorithm, step by step, on a copy of the network that is yours to change."""
    raise NotImplementedError("$slug: write compress; it returns the network as it would ship")


@on_copies
def control_random(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The naive alternative at the size of `like`, with the same training; name it after what it does."""
    raise NotImplementedError("$slug: write control_random, at the size of `like`")
'''
MEASURING = '''\
"""The claims of $name."""

from __future__ import annotations

from methods.$family import $slug as method
from methods.kit.lab import Lab


def claim_first_claim(lab: Lab) -> float:
    """One number of `method` or of what it does on `lab`; its bound is claims.first_claim of catalog/$family/$slug.yaml."""
    raise NotImplementedError("$slug: write claim_first_claim; it returns the number to be bound")
'''


def method_text(found: Reference, family: str, slug: str) -> tuple[str, str]:
    """The skeletons of the method and of its claims, by the contract of methods."""
    last = [bibtex.surname(name) for name in found.authors]
    who = " and ".join(last) if len(last) < 3 else f"{last[0]} et al."
    when = " ".join(filter(None, (found.venue or ("arXiv" if found.arxiv else None), str(found.year or ""))))
    about = ", ".join(filter(None, (who, when)))
    title = f"{short_name(found.title)} ({about})" if about else short_name(found.title)

    def fit(text: str) -> str:
        return textwrap.shorten(text, 120, placeholder=" ...").replace("\\", r"\\").replace('"', r"\"")

    words = {"title": fit(title), "name": fit(short_name(found.title)), "family": family, "slug": slug}
    return Template(METHOD).substitute(words), Template(MEASURING).substitute(words)


def files(root: Path, found: Reference, family: str, slug: str | None = None, *, method: bool = True) -> dict[Path, str]:
    """Path and text of the new files; nothing is written. Raises `NewError`, for a paper that is here already too."""
    if other := duplicate(root, found):
        raise NewError(f"{found.title[:80]!r} is here already: {other}; add to that entry")
    slugs = taken(root)
    if slug is not None:
        check_slug(slug, slugs)
    slug = slug or propose(found, slugs)
    method = method and family in METHOD_FAMILIES
    made = {root / "catalog" / family / f"{slug}.yaml": entry_text(found, family, slug, method=method)}
    if method:
        folder = root / "methods" / family
        made[folder / f"{slug}.py"], made[folder / "claims" / f"{slug}.py"] = method_text(found, family, slug)
    return made


def write(texts: Mapping[Path, str]) -> None:
    """All files or none; what exists is not overwritten. Raises `NewError`."""
    placed: list[Path] = []
    try:
        with ExitStack() as stack:
            parts: dict[Path, Path] = {}
            for path in texts:
                if os.path.lexists(path):
                    raise NewError(f"{path}: exists already; choose another --slug")
                path.parent.mkdir(parents=True, exist_ok=True)
                writing.clear(path)
                parts[path] = stack.enter_context(writing.temporary(path))
                parts[path].write_text(texts[path], encoding="utf-8")
            for path, part in parts.items():
                os.replace(part, path)
                placed.append(path)
    except BaseException as problem:
        for path in placed:
            path.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            reason = problem.strerror or problem
            raise NewError(f"{problem.filename or 'the new files'}: cannot be written: {reason}; nothing was left") from problem
        raise

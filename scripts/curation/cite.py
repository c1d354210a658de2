"""How to cite a paper: as a line of text, and as the tags by which reference managers recognise it. BibTeX is in `bibtex`."""

from __future__ import annotations

from catalog.schema import Entry
from scripts.curation.bibtex import clean, container
from scripts.evidence.text import address

_PLACES = {
    "article": "citation_journal_title", "inproceedings": "citation_conference_title", "phdthesis": "citation_dissertation_institution",
    "mastersthesis": "citation_dissertation_institution", "techreport": "citation_technical_report_institution",
}  # fmt: skip


def where(entry: Entry) -> str | None:
    """The address of the paper itself."""
    if entry.doi:
        return address(f"https://doi.org/{entry.doi}")
    if entry.arxiv:
        return f"https://arxiv.org/abs/{entry.arxiv}"
    return address(entry.url) if entry.url else None


def text(entry: Entry) -> str:
    """Authors. Title. Venue year. Address; on one line."""
    names = [clean(name) for name in entry.authors]
    people = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
    venue = clean(entry.venue or "")
    place = venue if str(entry.year) in venue else f"{venue} {entry.year}".strip()
    parts = [_ended(part) for part in (people, clean(entry.title), place) if part]
    return " ".join([*parts, *filter(None, [where(entry)])])


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def tags(entry: Entry) -> list[tuple[str, str]]:
    """Name and content of every `<meta>` tag that Zotero and its like read: they describe the paper, not this page."""
    kind, _, venue = container(entry)
    found = [
        ("citation_title", entry.title),
        *(("citation_author", name) for name in entry.authors),
        ("citation_publication_date", str(entry.year)),
        (_PLACES.get(kind, ""), venue),
        ("citation_doi", entry.doi),
        ("citation_arxiv_id", entry.arxiv),
        ("citation_abstract_html_url", where(entry)),
    ]
    return [(name, clean(content)) for name, content in found if name and content]

"""Citations out and in again: what is exported is read back as the same fields, and keys stay what they are."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import bibtexparser
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from catalog import Record, load
from catalog.schema import Entry, Paper
from scripts import bibtex, cli, entry_pages
from scripts.bibtex import BibtexError, clean, read
from scripts.facts import gather

ROOT = Path(__file__).resolve().parent.parent


def paper(title: str = "A Title", authors: list[str] | None = None, **fields: object) -> Paper:
    return Paper.model_validate({
        "name": "name", "title": title, "authors": authors or ["Ana Müller"], "year": 2017, "arxiv": "1608.08710", "summary": "s", **fields,
    })  # fmt: skip


def record(id: str, entry: Entry) -> Record:
    return Record(id, "pruning", Path(), entry, {})


def bib(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["bib", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# In


@pytest.mark.parametrize(("latex", "text"), [
    (r"M{\"u}ller", "Müller"), (r"M\"{u}ller", "Müller"), (r"Erd{\H o}s", "Erdős"), (r"{\L}ukasz", "Łukasz"), (r"Stra{\ss}e", "Straße"),
    (r"Ga\v{s}per and {\o}", "Gašper and ø"), (r"Fran\c{c}ois", "François"), (r"\'{\i}", "í"), ("{ConvNets}", "ConvNets"),
    (r"90\% \& more\_of\_it", "90% & more_of_it"), ("90% & more", "90% & more"), ("a--b", "a–b"), ("$L_1$ norm", "L_1 norm"),
    (r"{\textbackslash} {\textbraceleft}{\textbraceright}", r"\ {}"), ("costs $5", "costs $5"), (r"\emph{so}", "so"),
])  # fmt: skip
def test_plain(latex: str, text: str) -> None:
    assert bibtex.plain(latex) == text


@pytest.mark.parametrize(("authors", "names"), [
    ("Li, Hao and Graf, Hans Peter", ("Hao Li", "Hans Peter Graf")), ("Hao Li and\n  Asim Kadav", ("Hao Li", "Asim Kadav")),
    ("van der Maaten, Laurens", ("Laurens van der Maaten",)), ("Laurens van der Maaten", ("Laurens van der Maaten",)),
    ("{Small Print, Inc.} and {Barnes and Noble}", ("Small Print, Inc.", "Barnes and Noble")), (r"M{\"u}ller, Ana", ("Ana Müller",)),
    ("{{Google Brain}}", ("Google Brain",)), ("", ()),
    (r"Li, Hao and \'Etienne Roy and \v{S}koda, Jan", ("Hao Li", "Étienne Roy", "Jan Škoda")),
    ("{Anders And}\tand\tB AND C", ("Anders And", "B", "C")),
])  # fmt: skip
def test_names(authors: str, names: tuple[str, ...]) -> None:
    assert read(f"@article{{a, title = {{T}}, author = {{{authors}}}}}").authors == names


@pytest.mark.parametrize("field", [
    "eprint = {1608.08710v2}", "journal = {arXiv preprint arXiv:1608.08710}", "url = {https://arxiv.org/abs/1608.08710}",
    "doi = {10.48550/arXiv.1608.08710}", "volume = {abs/1608.08710}", "note = {arXiv: 1608.08710}",
])  # fmt: skip
def test_arxiv_ids_wherever_they_stand(field: str) -> None:
    assert read(f"@article{{a, title = {{T}}, {field}}}").arxiv == "1608.08710"


def test_wrong_doi() -> None:
    with pytest.raises(BibtexError, match="'yes' is no DOI"):
        read("@article{a, title={T}, doi={yes}}")


# Out and in


LETTERS = st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs"))
LINES = st.text(LETTERS, min_size=1, max_size=40) | st.text("ab{}\\%&_$#~^@'`\"-,é ", min_size=1, max_size=20)
NAMES = LINES | st.lists(
    st.sampled_from(["van", "der", "de", "Li", "Müller", "and", "Jr.", "O'Neil", "Jean-Luc", "others", "III"]), min_size=1, max_size=20
).map(" ".join)


def same(text: str) -> str:
    """Composed letters, as the reader gives them."""
    return clean(unicodedata.normalize("NFC", text))


@given(LINES, st.lists(NAMES, min_size=1, max_size=4), LINES)
@example(r"100% of A & B_c {d} \e ~ ^ # $ @ -- ``x''", ["Laurens van der Maaten", "Small Print, Inc.", "Barnes and Noble"], "ICLR")
@example("T", ["A", "_b_", "0 &", "B"], "V")
@example("T", ["van der Maaten", "bell hooks", "others", "AND", "Jean-Luc De La Croix", "King, Jr."], "Trans. & Co")
def test_round_trip(title: str, authors: list[str], venue: str) -> None:
    title, venue = same(title), same(venue)
    names = list(dict.fromkeys(filter(None, map(same, authors))))
    assume(title and venue and names)
    entry = paper(title, names, venue=venue, doi="10.1109/ICCV.2017.298")
    back = read(bibtex.bibtex(entry))
    assert (back.title, back.authors, back.venue) == (title, tuple(names), venue)
    assert (back.year, back.arxiv, back.doi) == (2017, "1608.08710", "10.1109/ICCV.2017.298")


def test_the_whole_catalogue_comes_back() -> None:
    records = load(ROOT / "catalog").entries
    code, text = bib()
    assert code == 0
    library = bibtexparser.parse_string(text)
    assert not library.failed_blocks
    names = bibtex.keys(records.values())
    assert [entry.key for entry in library.entries] == [names[id] for id in records]
    assert len(set(names.values())) == len(records)
    for id, one in records.items():
        back, entry = read(bibtex.bibtex(one.entry, names[id])), one.entry
        assert (back.title, list(back.authors), back.year) == (same(entry.title), list(map(same, entry.authors)), entry.year), id
        assert (back.doi, back.arxiv) in ((entry.doi, entry.arxiv), (None, entry.doi and bibtex.arxiv_id(entry.doi))), id


# Keys


def test_letters_where_keys_collide() -> None:
    slim = paper("Learning to Slim", ["Zhuang Liu"])
    twins = [record(id, slim) for id in ("c", "a", "b")]
    assert bibtex.keys(twins) == {"a": "liu2017learning-a", "b": "liu2017learning-b", "c": "liu2017learning-c"}
    assert bibtex.keys(twins[:1]) == {"c": "liu2017learning"}
    many = [record(f"r{n:02}", slim) for n in range(28)]
    assert list(bibtex.keys(many).values())[-3:] == ["liu2017learning-z", "liu2017learning-aa", "liu2017learning-ab"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "x-a", "xa", "y"])), min_size=1, max_size=8), st.randoms())
def test_an_unrelated_entry_changes_no_key(kinds: list[tuple[str, str]], random: object) -> None:
    records = [record(f"r{n}", paper(title, [author])) for n, (author, title) in enumerate(kinds)]
    names = bibtex.keys(records)
    assert len(set(names.values())) == len(records)
    more = bibtex.keys([record("a0", paper("Unrelated", ["Z Zed"])), *reversed(records)])
    assert {id: more[id] for id in names} == names


def test_pages_show_the_same_key() -> None:
    facts = gather(ROOT)
    code, text = bib("network_slimming")
    assert (code, text) == (0, bibtex.bibtex(facts.catalogue.entries["network_slimming"].entry))
    for id, one in facts.catalogue.entries.items():
        assert f"{{{facts.citation_keys[id]}," in entry_pages._cite(facts, one)


# The command


def test_families_and_entries() -> None:
    _, pruning = bib("pruning")
    records = load(ROOT / "catalog")
    assert len(re.findall("^@", pruning, re.MULTILINE)) == len(records.family("pruning"))
    assert bib("pruning/thinet", "low-rank", "thinet")[1].count("\n@") == len(records.family("low_rank"))
    code, said = bib("prunning")
    assert (code, said.count("\n")) == (1, 1)


def test_output(tmp_path: Path) -> None:
    path = tmp_path / "all.bib"
    assert bib("--output", str(path)) == (0, "")
    assert path.read_text(encoding="utf-8") == bib()[1]
    code, said = bib("--output", str(tmp_path / "none" / "all.bib"))
    assert (code, said.count("\n"), "cannot be written: No such file" in said) == (1, 1, True)
    assert bib("--output", str(tmp_path))[0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["all.bib"]

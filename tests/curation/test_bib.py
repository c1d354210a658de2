"""Citations out and in again: what is exported is read back as the same fields, and keys stay what they are."""

from __future__ import annotations

import re
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

import bibtexparser
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from catalog import Record, load
from catalog.schema import Entry, Paper
from scripts import cli
from scripts.curation import bibtex
from scripts.curation.bibtex import BibtexError, Reference, clean, read
from scripts.evidence import keys
from scripts.evidence.facts import gather
from scripts.website import entry

ROOT = Path(__file__).resolve().parents[2]


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
    (r"\texttt{int8()}: \textit{a \textbf{b} \textsf{c}} \textsc{d} \textmd{e} \textrm{f} \underline{g}", "int8(): a b c d e f g"),
    (r"$\mathrm{L}_2$ $\mathcal{O}(n)$ \text{x} \ensuremath{\alpha} {\tt y} {\em z}", "L_2 𝒪(n) x α y z"), (r"a~b --- c", "a b — c"),
    (r"\href{https://example.org}{read}\thanks{us} \textcolor{red}{me}", "read me"), (r"\unheardof{word}", "word"),
    (r"""\v c \'e \"o {\'e} \c{c} \c c \H{o} \H o \k{a} \r{a} \u{g} \.z \=a \d{u}""", "č é ö é ç ç ő ő ą å ğ ż ā ụ"),
    (r"\L\o\O\aa\AA\ae\AE\oe\OE\ss\dh\th", "ŁøØåÅæÆœŒßðþ"), (r"\~\^e \'{\u a} \'\u{a} \v{\i}", "ễ ắ ắ ǐ"),
    (r"R&amp;D \&amp; M&uuml;ller &#8211;", "R&D & Müller –"),
    (r"{\textless}i{\textgreater} \S{}2 5\textpercent{} \glqq a\grqq", "<i> §2 5% „a“"),
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
    (r"Haji\v c, Jan  and Wo\'zniak, Micha\l  and Lu{\'\i}sa Coheur", ("Jan Hajič", "Michał Woźniak", "Luísa Coheur")),
    (r"\L ukasz Kaiser and Micha\l Wo\'zniak and Maa\ss, Jan", ("Łukasz Kaiser", "Michał Woźniak", "Jan Maaß")),
    (r"Skj\ae{}veland, \AA{}smund and Nguy{\~\^e}n, Th{\'\u a}ng", ("Åsmund Skjæveland", "Thắng Nguyễn")),
    ("King, Jr., Martin Luther and {van den Oord}, Ana", ("Martin Luther King Jr.", "Ana van den Oord")),
    ("Li, Hao; Graf, Hans Peter", ("Hao Li", "Hans Peter Graf")), ("M&uuml;ller, Ana; B C", ("Ana Müller", "B C")),
    ("{Alan D. Sokal}, ", ("Alan D. Sokal",)), ("A B and and C D and", ("A B", "C D")),
    ("Li, Hao, and Kadav, Asim", ("Hao Li", "Asim Kadav")),
    ("Smith Jones, M. A.", ("M. A. Smith Jones",)), ("van der Maaten, Laurens Jan", ("Laurens Jan van der Maaten",)),
    ("Li, Hao and Garcia Marquez, Gabriel Jose", ("Hao Li", "Gabriel Jose Garcia Marquez")), ("AT&T Labs and A. B", ("AT&T Labs", "A. B")),
    ("Y. {Jia} and M. {Van Gool} and {OpenAI}", ("Y. Jia", "M. Van Gool", "OpenAI")), ("{others}", ("others",)),
    (" and ".join(f"Name{n}, Ana" for n in range(300)), tuple(f"Ana Name{n}" for n in range(300))),
])  # fmt: skip
def test_names(authors: str, names: tuple[str, ...]) -> None:
    assert read(f"@article{{a, title = {{T}}, author = {{{authors}}}}}").authors == names


@pytest.mark.parametrize("authors", [
    "Song Han, Xingyu Liu, Huizi Mao", "Song Han, Xingyu Liu", "Song Han, Huizi Mao and Bill Dally", "Song Han, Huizi Mao, and Bill Dally",
    "Han, S., Mao, H., & Dally, W.", "Han, S, Mao, H, Dally, W", "Song Han & Huizi Mao", r"Song Han \& Huizi Mao", "Song Han andHuizi Mao",
])  # fmt: skip
def test_several_authors_are_never_one(authors: str) -> None:
    with pytest.raises(BibtexError, match="may be several authors; put and between authors"):
        read(f"@article{{a, title = {{T}}, author = {{{authors}}}}}")


@pytest.mark.parametrize("authors", ["A B and others", "A B and C D et al.", "A B et al", "others", "A B; others"])
def test_authors_that_are_left_out(authors: str) -> None:
    with pytest.raises(BibtexError, match="write all names out"):
        read(f"@article{{a, title = {{T}}, author = {{{authors}}}}}")


@pytest.mark.parametrize("text", [
    "@misc(a, title={T {(x)}}, year={2019})", "@MISC{a, Title = \"T {(x)}\", YEAR = 2019}", "@misc{a, title={T {(x)}} year={2019}}",
    "@misc{\n  title = {T\n      (x)},\n  date = {2019-05-06},\n}", '@misc{a b 1, title = "{T (x)}", year = "{2019}"}',
    "@string{t = {T}} @misc{a, title = t # { } # \"(x)\", year = 20 # 19, month = may # {~3}}",
    "@misc{a, title={T (x)}, title={U}, year=2019}",
    '@preamble{"\\foo" # {@bar}} @comment{@misc{b, title={U}}} me@x.org @misc{a, title={T (x)}, subtitle={}, note={@x{"}}, year={2019}}',
    "% @ 1\r\n@misc{a,\r\ntitle={T\r\n(x)},\r\nyear={2019}}\r\n",
    r"@misc{a, title = {T (x)}, file = {C:\}, month = sept, year = {2019}}",
])  # fmt: skip
def test_grammar(text: str) -> None:
    found = read(text)
    assert (found.title, found.year) == ("T (x)", 2019)


@pytest.mark.parametrize(("text", "why"), [
    ("@misc{a,\n title={T},\n journal = PAMI}", "line 3 of the BibTeX: journal: PAMI is neither text nor .*put it in braces"),
    ("@misc{a,\n title={T,\n year={2019}\n}", "line 4 .*found its end; correct it"), ("@misc{a, title={T}", "found its end"),
    ('\n@misc{a, title="T}', "line 2 .*this \" is never closed"), ("@misc{a title={T}}", "found 'a title=.*correct it"),
    ("@misc{a, title={T} {U}}", "or }, but found '{U}"), ("@misc(a, title={T}}", "or \\), but found '}'"),
    ("@misc{a, title=}", "expected text in braces"),
    ("@misc{a, title={T}} @misc{b, title={U}}", r"holds 2 entries \(a, b\); give exactly one"), ("TY  - JOUR", "holds no entries"),
])  # fmt: skip
def test_wrong_grammar(text: str, why: str) -> None:
    with pytest.raises(BibtexError, match=why) as refusal:
        read(text)
    assert "\n" not in str(refusal.value)


@given(st.text('@misc{}(),="#\\\\ab \n%&$', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BibtexError):
        read("@misc{a, title={T}, author = {A}, " + text)


BOMB = "@string{s0 = {haha}} " + " ".join(f"@string{{s{n + 1} = s{n} # s{n}}}" for n in range(60)) + " @misc{a, title = s60}"


@pytest.mark.parametrize("text", [
    BOMB, f"@misc{{a, title = {{{'{' * 9**6}", f"@misc{{a, title={{T}}, doi={{x{')' * 90_000}}}}}", f"@misc{{{' ' * 9**6}",
    f"@misc{{a, author={{{'A B and ' * 9**6}}}}}", f"@misc{{a, title={{{'{' * 9999}{'}' * 9999}}}}}", "@misc{a" * 9**5,
    "".join(f"@misc{{a{n}, title={{T}}, crossref={{a{n + 1}}}}}" for n in range(3000)),
])  # fmt: skip
def test_texts_made_to_take_long_are_refused_at_once(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(BibtexError):
        read(text)
    assert time.monotonic() - start < 2


CHILD = "@inproceedings{toy19, title={A Toy}, author={A B}, crossref={Conf/2019}}\n"
VOLUME = "@proceedings{conf/2019, title={A Conference, {TOY} 2019}, year={2019}, editor={C D}, doi={10.1000/v}, url={https://x.org}}\n"


@pytest.mark.parametrize("text", [
    CHILD + VOLUME, VOLUME + CHILD, CHILD + VOLUME.replace("title={A", "booktitle={A Conference, TOY 2019}, title={The"),
    CHILD + "@proceedings{conf/2019, title={A Conference, TOY 2019}, crossref={s}} @book{s, title={S}, year={2019}, doi={10.1000/s}}",
])  # fmt: skip
def test_a_volume_gives_its_papers_venue_and_year(text: str) -> None:
    found = read(text)
    assert found == Reference("A Toy", ("A B",), 2019, "A Conference, TOY 2019")


def test_what_a_paper_says_itself_counts() -> None:
    found = read(CHILD.replace("title=", "year={2018}, booktitle={TOY}, title=", 1) + VOLUME)
    assert (found.year, found.venue) == (2018, "TOY")


@pytest.mark.parametrize(("text", "why"), [
    (CHILD, "toy19 refers to conf/2019 by crossref, which is not there; add that entry"),
    (CHILD.replace("Conf/2019", "TOY19"), "a circle; remove it"), (CHILD + VOLUME.replace("title", "crossref={toy19}, title"), "a circle"),
    (CHILD + VOLUME.replace("title", "crossref={s}, title") + "@book{s, title={S}, crossref={conf/2019}}", "of s goes in a circle"),
    (CHILD + VOLUME + CHILD.replace("toy19", "toy20"), r"2 entries \(toy19, toy20\)"),
])  # fmt: skip
def test_volumes_that_are_missing_or_go_in_a_circle(text: str, why: str) -> None:
    with pytest.raises(BibtexError, match=why):
        read(text)


@pytest.mark.parametrize("field", [
    'eprint = "{1608.08710}", archivePrefix = "{arXiv}"', "eprint = {arXiv:1608.08710}", "eprint = {https://arxiv.org/abs/1608.08710v1}",
    "eprint = {{1608.08710}}", "eprint = {1608.08710 [cs.CV]}", "number = {arXiv:1608.08710}", "eid = {arXiv:1608.08710}",
    "arxivId = {1608.08710v3}",
    "url = {http://arxiv.org/pdf/1608.08710v3.pdf}", "note = {arXiv:1608.08710 [cs]}", "journal = {ArXiv preprint arXiv:1608.08710v2}",
    "eprint = {1608.08710v2}", "journal = {arXiv preprint arXiv:1608.08710}", "url = {https://arxiv.org/abs/1608.08710}",
    "doi = {10.48550/arXiv.1608.08710}", "volume = {abs/1608.08710}", "note = {arXiv: 1608.08710}",
])  # fmt: skip
def test_arxiv_ids_wherever_they_stand(field: str) -> None:
    assert read(f"@article{{a, title = {{T}}, {field}}}").arxiv == "1608.08710"


@pytest.mark.parametrize("field", ["eprint = {28846572}, eprinttype = {pubmed}", "eprint = {2019/1234}", "number = {2019.1}"])
def test_no_arxiv_id(field: str) -> None:
    assert read(f"@article{{a, title = {{T}}, {field}}}").arxiv is None


@pytest.mark.parametrize("field", [
    "doi = {https://doi.org/10.1000/A_(b)c}", r"doi = {10.1000/A\_(b)c}", "doi = {DOI: 10.1000/A_(b)c.}", "url = {http://dx.doi.org/10.1000/A_(b)c}",
    "doi = {{10.1000/A_(b)c}}", "doi = {}, url = {https://www.doi.org/10.1000/A_(b)c}", "doi = {(10.1000/A_(b)c).}",
])  # fmt: skip
def test_dois(field: str) -> None:
    assert read(f"@article{{a, title = {{T}}, {field}}}").doi == "10.1000/A_(b)c"


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
    names = keys.keys(records.values())
    assert [entry.key for entry in library.entries] == [names[id] for id in records]
    assert len(set(names.values())) == len(records)
    for id, one in records.items():
        back, entry = read(bibtex.bibtex(one.entry, names[id])), one.entry
        assert (back.title, list(back.authors), back.year) == (same(entry.title), list(map(same, entry.authors)), entry.year), id
        assert (back.doi, back.arxiv) in ((entry.doi, entry.arxiv), (None, entry.doi and bibtex.arxiv_id(entry.doi))), id


@pytest.mark.parametrize(("name", "written"), [
    ("Andrew Poon", "Andrew Poon"), ("Al Ba", "Al Ba"), ("Ana Müller-O'Neil Jr.", "Ana Müller-O'Neil Jr."),
    ("Barnes and Noble", "{Barnes and Noble}"),
    ("AT&T", r"{AT\&T}"), ("others", "{others}"), ("Toys, Inc.", "{Toys, Inc.}"), ("A; B", "{A; B}"), ("Toys et al.", "{Toys et al.}"),
])  # fmt: skip
def test_only_companies_are_kept_in_one_piece(name: str, written: str) -> None:
    assert bibtex.author(name) == written
    assert read(bibtex.bibtex(paper(authors=["B", name]))).authors == ("B", name)


# Where a paper appeared


VENUES = {
    "article": (
        "Pattern Recognition", "Pattern Recognition 107 (2020)", "ACM Computing Surveys", "ACM Computing Surveys 55(12)",
        "ACM Comput. Surv.", "IEEE Signal Processing Magazine", "IEEE Signal Processing Magazine 35(1)", "IEEE TPAMI", "IEEE TPAMI 38(10)",
        "arXiv 2021; ACM Computing Surveys 55(12)", "Pattern Recognition 107 (2020); arXiv 2018", "Proceedings of the IEEE", "IJCV", "JMLR",
        "Transactions on Machine Learning Research", "International Journal of Computer Vision", "Neural Networks", "Neurocomputing 300",
        "Pattern Recognition Letters", "Nature Machine Intelligence", "IEEE Access",
        "Foundations and Trends in Machine Learning",
    ),
    "inproceedings": (
        "ICLR", "CVPR", "ICCV", "ECCV", "BMVC", "NeurIPS", "NIPS", "ICML", "MLSys", "IJCAI", "EMDL", "ICCV workshop", "NIPS workshop",
        "NIPS 2014 Deep Learning and Representation Learning Workshop", "BMVC; ICLR workshop", "ICLR (oral)", "NeurIPS 2019; arXiv 2018",
        "NIPS Workshop on Compact Deep Neural Networks with Industrial Applications", "International Conference on Pattern Recognition",
        "IEEE Conference on Computer Vision and Pattern Recognition", "Computer Vision and Pattern Recognition", "Nowhere Yet Known",
        "2nd International Workshop on Embedded and Mobile Deep Learning (EMDL 2018)", "Proceedings of the IEEE Symposium on X",
        "Proceedings of Machine Learning and Systems", "Advances in Neural Information Processing Systems",
    ),
    "phdthesis": ("PhD thesis", "PhD thesis, Stanford University", "PhD thesis, Skolkovo Institute of Science"),
    "misc": (
        "arXiv", "arXiv 2019", "GitHub", "GitHub repository", "GitHub repository (chengshengchan/model_compression)", "open-source library",
        "open-source tool", "open-source toolkit", "open-source PyTorch package; paper arXiv 2019", "software (MIT)", "list", "CoRR",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "venue"), [(kind, venue) for kind, venues in VENUES.items() for venue in venues])
def test_kinds_of_venues(kind: str, venue: str) -> None:
    assert bibtex.fields(paper(venue=venue))[0] == kind


def test_the_venues_of_the_catalogue() -> None:
    entries = [record.entry for record in load(ROOT / "catalog").entries.values()]
    kinds = {entry.venue: bibtex.fields(entry)[0] for entry in entries if entry.venue and entry.authors}
    known = {venue: kind for kind, venues in VENUES.items() for venue in venues}
    assert {venue: kind for venue, kind in kinds.items() if venue in known} == {venue: known[venue] for venue in kinds if venue in known}
    assert {"Pattern Recognition", "ACM Computing Surveys", "IEEE TPAMI"} < {venue for venue, kind in kinds.items() if kind == "article"}


@pytest.mark.parametrize(("venue", "field"), [
    ("PhD thesis, Toy University", ("school", "Toy University")), ("Technical report, Toy Labs", ("institution", "Toy Labs")),
    ("Pattern Recognition", ("journal", "Pattern Recognition")), ("ICLR", ("booktitle", "ICLR")), ("GitHub", ("howpublished", "GitHub")),
])  # fmt: skip
def test_venues_stand_in_their_field_and_come_back(venue: str, field: tuple[str, str]) -> None:
    entry = paper(venue=venue)
    assert field in bibtex.fields(entry)[1].items()
    assert read(bibtex.bibtex(entry)).venue == venue


# Keys


def test_letters_where_keys_collide() -> None:
    slim = paper("Learning to Slim", ["Zhuang Liu"])
    twins = [record(id, slim) for id in ("c", "a", "b")]
    assert keys.keys(twins) == {"a": "liu2017learning-a", "b": "liu2017learning-b", "c": "liu2017learning-c"}
    assert keys.keys(twins[:1]) == {"c": "liu2017learning"}
    many = [record(f"r{n:02}", slim) for n in range(28)]
    assert list(keys.keys(many).values())[-3:] == ["liu2017learning-z", "liu2017learning-aa", "liu2017learning-ab"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "x-a", "xa", "y"])), min_size=1, max_size=8), st.randoms())
def test_an_unrelated_entry_changes_no_key(kinds: list[tuple[str, str]], random: object) -> None:
    records = [record(f"r{n}", paper(title, [author])) for n, (author, title) in enumerate(kinds)]
    names = keys.keys(records)
    assert len(set(names.values())) == len(records)
    more = keys.keys([record("a0", paper("Unrelated", ["Z Zed"])), *reversed(records)])
    assert {id: more[id] for id in names} == names


def test_pages_show_the_same_key() -> None:
    facts = gather(ROOT)
    code, text = bib("network_slimming")
    assert (code, text) == (0, bibtex.bibtex(facts.catalogue.entries["network_slimming"].entry))
    for id, one in facts.catalogue.entries.items():
        assert f"{{{facts.citation_keys[id]}," in entry._cite(facts, one)


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

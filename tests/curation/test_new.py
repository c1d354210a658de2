"""New entries, from BibTeX and from a server on this machine that answers like arXiv and Crossref and misbehaves like both."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import catalog
from catalog import FAMILIES
from scripts import cli
from scripts.curation import check, new
from scripts.curation.bibtex import Reference
from scripts.curation.new import NewError, Service, look_up
from scripts.evidence import source
from tests.helpers import Quiet, serving

ROOT = Path(__file__).resolve().parents[2]
LI = Reference(
    "Pruning Filters for Efficient ConvNets", ("Hao Li", "Asim Kadav", "Igor Durdanovic", "Hanan Samet", "Hans Peter Graf"),
    2017, "ICLR", "1608.08710",
)  # fmt: skip
BIB = r"""@inproceedings{li2017pruning,
  title={Pruning Filters for Efficient {ConvNets}},
  author={Li, Hao and Kadav, Asim and Durdanovic, Igor and Samet, Hanan and Graf, Hans Peter},
  booktitle={ICLR 2017}, year={2017}, eprint={1608.08710v3}, archivePrefix={arXiv}
}
"""
NAMES = "".join(f"<author><name>{name}</name></author>" for name in LI.authors)
FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title type="html">ArXiv Query: id_list=1608.08710</title>{}</feed>"""
ENTRY = f"""<entry><id>http://arxiv.org/abs/1608.08710v3</id><published>2016-08-31T02:29:59Z</published>
<title>Pruning Filters for\n  Efficient ConvNets</title><summary>The success of CNNs</summary>{NAMES}
<arxiv:comment xmlns:arxiv="http://arxiv.org/schemas/atom">Published at ICLR 2017</arxiv:comment></entry>"""
ATOM = FEED.format(ENTRY).encode()
BOMB = (
    b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><feed xmlns="http://www.w3.org/2005/Atom">&b;</feed>"""
)
WORK = {
    "DOI": "10.1109/iccv.2017.298", "type": "proceedings-article",
    "title": ["Learning <i>Efficient</i> Networks &amp; More"], "container-title": ["2017 IEEE Conference on Vision (ICCV)"],
    "author": [{"given": "Zhuang", "family": "Liu"}, {"given": "Laurens", "family": "van der Maaten"}, {"name": "Small Print, Inc."}],
    "issued": {"date-parts": [[2017, 10]]},
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Gives the answers (status, headers, body) one after the other, the last for ever. `hang` keeps it from answering."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, str]] = []
        self.hang, self.wake = False, threading.Event()

    @property
    def service(self) -> Service:
        base = f"http://127.0.0.1:{self.server_port}"
        return Service(f"{base}/api/query", f"{base}/works", timeout=(0.5, 0.5), pause=0.25, longest=9.0)


class Handler(Quiet):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers["User-Agent"]))
        if server.hang:
            server.wake.wait(5)
            return
        status, headers, body = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    with serving(server, server.wake.set):
        yield server


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(new.time, "sleep", waits.append)
    return waits


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with one entry, which the command works on."""
    root = tmp_path / "tree"
    (root / "catalog" / "pruning").mkdir(parents=True)
    (root / "methods" / "pruning").mkdir(parents=True)
    for name in ("vocabulary.yaml", "pruning/thinet.yaml"):
        shutil.copy(ROOT / "catalog" / name, root / "catalog" / name)
    monkeypatch.setattr(cli, "ROOT", root)
    return root


def run(*arguments: str, input: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["new", *arguments], input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def written(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def refused(server: Server, text: str = "1608.08710") -> str:
    with pytest.raises(NewError) as refusal:
        look_up(text, server.service)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# Where a paper is named


@pytest.mark.parametrize("text", [
    "1608.08710", "arXiv:1608.08710v2", "https://arxiv.org/abs/1608.08710", "http://www.arxiv.org/pdf/1608.08710v3.pdf",
    "https://arxiv.org/pdf/1608.08710?download=1", "10.48550/arXiv.1608.08710", "https://doi.org/10.48550/arxiv.1608.08710",
    "arXiv:1608.08710v3 [cs.CV] 10 Mar 2017", "arxiv 1608.08710.", "(https://arxiv.org/abs/1608.08710v2),", "<HTTPS://ARXIV.ORG/ABS/1608.08710>",
    "https://ar5iv.labs.arxiv.org/html/1608.08710", "arxiv.org/abs/1608.08710#S1", "DOI: 10.48550/ARXIV.1608.08710",
])  # fmt: skip
def test_arxiv(server: Server, text: str) -> None:
    server.answers = [(200, {}, ATOM)]
    found = look_up(text, server.service)
    assert found == Reference(LI.title, LI.authors, 2016, None, LI.arxiv)
    [(path, agent)] = server.asked
    assert "id_list=1608.08710&" in path
    assert agent.startswith("smallprint/")


@pytest.mark.parametrize("text", ["10.1109/ICCV.2017.298", "https://doi.org/10.1109/ICCV.2017.298", "doi:10.1109/ICCV.2017.298",
    "https://doi.org/10.1109%2FICCV.2017.298", "https://doi.org/10.1109/ICCV.2017.298?utm=x", "DOI 10.1109/ICCV.2017.298.",
    "HTTP://DX.DOI.ORG/10.1109/ICCV.2017.298", "(www.doi.org/10.1109/ICCV.2017.298)", "https://doi.org/10.1109/ICCV.2017.298#abstract",
])  # fmt: skip
def test_crossref(server: Server, text: str) -> None:
    server.answers = [(200, {}, json.dumps({"status": "ok", "message": WORK}).encode())]
    found = look_up(text, server.service)
    assert found.title == "Learning Efficient Networks & More"
    assert found.authors == ("Zhuang Liu", "Laurens van der Maaten", "Small Print, Inc.")
    assert (found.year, found.venue, found.doi) == (2017, "IEEE Conference on Vision (ICCV)", "10.1109/iccv.2017.298")
    assert server.asked[0][0] == "/works/10.1109%2FICCV.2017.298"


def test_old_ids() -> None:
    assert new._arxiv("arXiv:cs/0112017v1") == new._arxiv("https://arxiv.org/abs/cs/0112017") == "cs/0112017"
    assert new._arxiv("1608.0871012") is new._arxiv("https://not-arxiv.org/abs/1608.08710") is None
    doi = "10.1016/0893-6080(91)90009-T"
    assert new.named(doi).doi == new.named(f"({doi})").doi == doi


def test_an_old_id_with_its_subject_class(server: Server) -> None:
    server.answers = [(200, {}, ATOM.replace(b"1608.08710", b"math/0309136"))]
    assert look_up("math.GT/0309136", server.service).title == LI.title


def test_bibtex_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "li.bib"
    path.write_text(BIB, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(BIB.encode())))
    assert look_up(str(path)) == look_up("-") == look_up(f"\n{BIB}") == LI


@pytest.mark.parametrize(
    ("venue", "short"),
    [
        ("International Conference on Learning Representations", "ICLR"), ("Advances in Neural Information Processing Systems 30", "NIPS"),
        ("2017 IEEE Conference on Computer Vision and Pattern Recognition (CVPR)", "CVPR"),
        ("Proceedings of the European Conference on Computer Vision", "ECCV"),
        ("Proceedings of the IEEE International Conference on Computer Vision", "ICCV"),
        ("Proceedings of the AAAI Conference on Artificial Intelligence", "AAAI"), ("Pattern Recognition", "Pattern Recognition"),
        ("International Conference on Machine Learning", "ICML"), ("ICLR 2017 Workshop Track", "ICLR 2017 Workshop Track"),
    ],
)  # fmt: skip
def test_well_known_venues_in_short(venue: str, short: str) -> None:
    assert look_up(BIB.replace("ICLR 2017", venue)).venue == short


TOY = Reference("A Toy: 50% Smaller", ("Ana Müller", "Laurens van der Maaten"), 2019)
EXPORTS = {  # as the sites write them, of a paper that is none
    "Google Scholar": (r"""@inproceedings{muller2019toy,
  title={A Toy: 50\% Smaller},
  author={M{\"u}ller, Ana and van der Maaten, Laurens},
  booktitle={Proceedings of the IEEE conference on computer vision and pattern recognition},
  pages={1--9},
  year={2019}
}""", {"venue": "CVPR"}),
    "Google Scholar, a preprint": (r"""@article{muller2019toy,
  title={A Toy: 50\% Smaller}, author={M{\"u}ller, Ana and van der Maaten, Laurens}, journal={arXiv preprint arXiv:1901.00001}, year={2019}
}""", {"arxiv": "1901.00001"}),
    "DBLP": (r"""@inproceedings{DBLP:conf/iclr/MullerM19,
  author       = {Ana M{\"{u}}ller and
                  Laurens van der Maaten},
  title        = {A Toy: 50{\%} Smaller},
  booktitle    = {{ICLR} (Poster)},
  publisher    = {OpenReview.net},
  year         = {2019},
  timestamp    = {Thu, 25 Jul 2019 14:25:00 +0200},
  bibsource    = {dblp computer science bibliography, https://dblp.org}
}""", {"venue": "ICLR"}),
    "DBLP, a preprint": (r"""@article{DBLP:journals/corr/abs-1901-00001,
  author = {Ana M{\"{u}}ller and Laurens van der Maaten}, title = {A Toy: 50{\%} Smaller}, journal = {CoRR}, volume = {abs/1901.00001},
  year = {2019}, url = {http://arxiv.org/abs/1901.00001}, eprinttype = {arXiv}, eprint = {1901.00001}
}""", {"arxiv": "1901.00001", "url": "http://arxiv.org/abs/1901.00001"}),
    "ACL Anthology": (r"""@inproceedings{muller-van-der-maaten-2019-toy,
    title = "A Toy: 50{\%} Smaller",
    author = {M{\"u}ller, Ana  and
      van der Maaten, Laurens},
    editor = "Toy, A.",
    booktitle = "Proceedings of the Toy Workshop",
    month = jul,
    year = "2019",
    url = "https://aclanthology.org/W19-0001/",
    doi = "10.18653/v1/W19-0001",
}""", {"venue": "Proceedings of the Toy Workshop", "doi": "10.18653/v1/W19-0001", "url": "https://aclanthology.org/W19-0001/"}),
    "OpenReview": (r"""@inproceedings{
muller2019a,
title={A Toy: 50\% Smaller},
author={Ana M{\"u}ller and Laurens van der Maaten},
booktitle={International Conference on Learning Representations},
year={2019},
url={https://openreview.net/forum?id=x_1},
}""", {"venue": "ICLR", "url": "https://openreview.net/forum?id=x_1"}),
    "CVF": (r"""@InProceedings{Muller_2019_ICCV,
author = {M\"uller, Ana and van der Maaten, Laurens},
title = {A Toy: 50\% Smaller},
booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
month = {October},
year = {2019}
}""", {"venue": "ICCV"}),
    "Springer": (r"""@InProceedings{10.1007/978-3-030-00001-1_1,
author="M{\"u}ller, Ana
and van der Maaten, Laurens",
editor="Toy, A.",
title="A Toy: 50{\%} Smaller",
booktitle="Computer Vision -- ECCV 2019",
year="2019",
publisher="Springer International Publishing",
doi="10.1007/978-3-030-00001-1\_1",
isbn="978-3-030-00001-1"
}
""", {"venue": "ECCV", "doi": "10.1007/978-3-030-00001-1_1"}),
    "IEEE": (r"""@ARTICLE{1234567,
  author={Müller, Ana and van der Maaten, Laurens},
  journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
  title={A Toy: 50% Smaller},
  year={2019},
  volume={},
  keywords={Toys;Shape;Training;R&amp;D},
  doi={10.1109/TPAMI.2019.1234567}}
""", {"venue": "IEEE TPAMI", "doi": "10.1109/TPAMI.2019.1234567"}),
    "ACM": (r"""@article{10.1145/1234567.1234568,
author = {M\"{u}ller, Ana and van der Maaten, Laurens},
title = {A Toy: 50\% Smaller},
year = {2019},
issue_date = {July 2019},
publisher = {Association for Computing Machinery},
url = {https://doi.org/10.1145/1234567.1234568},
journal = {ACM Comput. Surv.},
month = jul,
articleno = {1}
}""", {"venue": "ACM Comput. Surv.", "doi": "10.1145/1234567.1234568", "url": "https://doi.org/10.1145/1234567.1234568"}),
    "PMLR": (r"""@InProceedings{pmlr-v97-muller19a,
  title = 	 {A Toy: 50\% Smaller},
  author =       {M{\"u}ller, Ana and van der Maaten, Laurens},
  booktitle = 	 {Proceedings of the 36th International Conference on Machine Learning},
  year = 	 {2019},
  volume = 	 {97},
  series = 	 {Proceedings of Machine Learning Research}
}""", {"venue": "ICML"}),
    "Zotero": (r"""@online{mullerToy2019,
  title = {A {{Toy}}: 50\% {{Smaller}}}, author = {Müller, Ana and family=Maaten, given=Laurens, prefix=van der, useprefix=true},
  date = {2019-01-01}, eprint = {1901.00001}, eprinttype = {arXiv}, eprintclass = {cs}, number = {arXiv:1901.00001}
}""", {"arxiv": "1901.00001"}),
    "Mendeley": (r"""@article{Muller2019,
archivePrefix = {arXiv}, arxivId = {1901.00001}, author = {M{\"{u}}ller, Ana and {van der Maaten}, Laurens}, eprint = {1901.00001},
file = {:C$\backslash$:/Toys/M{\"{u}}ller - 2019.pdf:pdf}, journal = {arXiv}, title = {{A Toy: 50{\%} Smaller}}, year = {2019}
}""", {"arxiv": "1901.00001"}),
    "ADS": (r"""@ARTICLE{2019arXiv190100001M,
       author = {{M{\"u}ller}, Ana and {van der Maaten}, Laurens}, title = "{A Toy: 50\% Smaller}", journal = {arXiv e-prints},
         year = 2019, month = jan, eid = {arXiv:1901.00001}, pages = {arXiv:1901.00001}, archivePrefix = {arXiv}, eprint = {1901.00001}
}""", {"arxiv": "1901.00001"}),
}  # fmt: skip


@pytest.mark.parametrize("site", EXPORTS)
def test_exports(site: str) -> None:
    text, more = EXPORTS[site]
    assert look_up(text) == replace(TOY, **more)


@pytest.mark.parametrize("title", [
    "<i>A</i> <b>Toy</b>", r"{\textless}i{\textgreater}A{\textless}/i{\textgreater} Toy", "&lt;i&gt;A&lt;/i&gt; Toy",
])  # fmt: skip
def test_a_title_has_no_tags(title: str) -> None:
    assert look_up(f"@misc{{a, title={{{title}}}}}").title == "A Toy"
    assert look_up(r"@misc{a, title={$n$ < $m$ and m > i}}").title == "n < m and m > i"


def test_a_title_is_no_sentence() -> None:
    titles = ["A Toy.", "A Toy...", "Toys etc.", "Toys vs. U.S.", "Toys 2.", "A Toy?"]
    assert [look_up(f"@misc{{a, title={{{title}}}}}").title for title in titles] == ["A Toy", "A Toy...", "Toys etc", *titles[3:]]


@pytest.mark.parametrize("venue", ["arXiv preprint arXiv:1608.08710", "CoRR", r"\url{https://example.org/x}"])
def test_no_venue(venue: str) -> None:
    assert look_up(BIB.replace("ICLR 2017", venue)).venue is None


@pytest.mark.parametrize(("text", "why"), [
    ("nonsense", "is no arXiv id, no DOI and no file"), ("", "is no arXiv id"), ("x" * 5000, "is no arXiv id"), ("a\0b", "is no arXiv id"),
    ("@article{a, title={}}", "has no title"), ("@article{a, title={b}", "correct it"), (BIB + BIB.replace("li2", "lo2"), "2 entries"),
    ("@article{a, title={b}, author={C and others}}", "and others"), ("@comment{x}", "holds no entries"),
    ("/dev/zero", "is no file; give a file"), ("https://example.org/paper", "is no arXiv id"), ("1608.0871012", "is no arXiv id"),
])  # fmt: skip
def test_no_source(text: str, why: str) -> None:
    with pytest.raises(NewError, match=why) as refusal:
        look_up(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize(("content", "why"), [
    (b"", "holds no entries"), (b"\0\1\2", "holds no entries"), (b"\x89PNG\r\n\xff", "not UTF-8"),
    ("@misc{a, title={Müller}}".encode("latin-1"), "not UTF-8"),
    (b"@misc{a, title={T},\n year: 2019}", "line 2 of the BibTeX"), (b" " * (new.LARGEST + 1), "is longer than 4 MiB"),
])  # fmt: skip
def test_files_that_are_no_bibtex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str) -> None:
    path = tmp_path / "x.bib"
    path.write_bytes(content)
    with pytest.raises(NewError, match=rf"x\.bib: .*{why}"):
        look_up(str(path))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(NewError, match=f"^standard input: .*{why}"):
        look_up("-")


def test_what_would_keep_us_waiting_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bib")
    (tmp_path / "folder.bib").mkdir()
    with (tmp_path / "huge.bib").open("wb") as huge:
        huge.truncate(100 << 20)  # a hole: no disk is filled
    for name, why in {"pipe": "is no file; give", "folder": "is no file; give", "huge": "is longer than 4"}.items():
        with pytest.raises(NewError, match=rf"{name}\.bib: {why}"):
            look_up(str(tmp_path / f"{name}.bib"))


@pytest.mark.parametrize("text", [BIB.replace("\n", "\r\n"), f"\ufeff{BIB}", f"% Encoding: UTF-8\n\n{BIB}\n% end", BIB.replace("\n", "\r")])
def test_files_of_other_systems(tmp_path: Path, text: str) -> None:
    path = tmp_path / "li.bib"
    path.write_bytes(text.encode())
    assert look_up(str(path)) == look_up(text) == LI


# Servers that misbehave


def test_waits_as_told(server: Server, slept: list[float]) -> None:
    server.answers = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": "3600"}, b""), (500, {}, b""), (200, {}, ATOM)]
    assert look_up("1608.08710", server.service).title == LI.title
    assert slept == [7.0, 9.0, 1.0], "as told, as told up to the cap, then doubled twice"


def test_retry_after_a_date() -> None:
    assert new._retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 5) == 0
    assert new._retry_after("Fri, 01 Jan 2100 00:00:00 GMT", 5) > 1e9
    assert new._retry_after("soon", 5) == new._retry_after("", 5) == new._retry_after("-1", 5) == 5


def test_gives_up(server: Server, slept: list[float]) -> None:
    server.answers = [(500, {}, b"")]
    assert refused(server) == "arXiv 1608.08710: the server says 500 Internal Server Error, 4 times; try later or give BibTeX"
    assert slept == [0.25, 0.5, 1.0]
    server.answers, server.asked = [(403, {}, b"")], []
    assert "403" in refused(server)
    assert len(server.asked) == 1, "a refusal is not asked again"


def test_slow(server: Server, slept: list[float]) -> None:
    server.hang = True
    service = Service(server.service.arxiv, timeout=(0.1, 0.1), tries=2)
    with pytest.raises(NewError, match="no answer in time, 2 times"):
        look_up("1608.08710", service)


def test_broken_off(server: Server, slept: list[float]) -> None:
    server.answers = [(200, {"Content-Length": str(len(ATOM) + 9)}, ATOM), (200, {}, ATOM)]
    assert look_up("1608.08710", server.service).title == LI.title
    assert len(slept) == 1


def test_nobody_there(slept: list[float]) -> None:
    with pytest.raises(NewError, match="cannot connect"):
        look_up("1608.08710", Service("http://127.0.0.1:9/api"))


@pytest.mark.parametrize(("body", "why"), [
    (ATOM[:-200], "no whole Atom feed"), (BOMB, "document type"), (BOMB.decode().encode("utf-16"), "no whole Atom feed"),
    (b"<!DOCTYPE html><html>Down for maintenance</html>", "a web page"), (b"<html></html>", "no Atom feed"), (b"", "no whole Atom feed"),
    (FEED.format("").encode(), "knows no paper"), (ATOM.replace(b"abs/1608", b"abs/1609"), "knows no paper"),
    (FEED.format("<entry><id>http://arxiv.org/api/errors#x</id><title>Error</title></entry>").encode(), "knows no paper"),
    (b" " * (new.LARGEST + 1), "longer than 4 MiB"),
])  # fmt: skip
def test_no_feed(server: Server, body: bytes, why: str) -> None:
    server.answers = [(200, {}, body)]
    assert why in refused(server)


@pytest.mark.parametrize(("status", "body", "why"), [
    (200, b"<html>Down</html>", "no record of Crossref"), (200, b"[]", "no record"), (200, b'{"message": {"title": [3]}}', "no record"),
    (200, b'{"message": {"title": [""]}}', "no title"), (404, b"Resource not found.", "is not known there (404)"),
])  # fmt: skip
def test_no_work(server: Server, status: int, body: bytes, why: str) -> None:
    server.answers = [(status, {}, body)]
    assert why in refused(server, "10.1/x".replace("10.1", "10.1000"))


# The three files


def test_the_three_files(tree: Path) -> None:
    code, said = run(BIB, "--family", "pruning", "--slug", "pruning_filters")
    assert code == 0, said
    assert [line.strip() for line in said.splitlines()[-3:]] == [
        "smallprint check", "smallprint smoke pruning_filters", "smallprint bite pruning_filters",
    ]  # fmt: skip
    fields, _ = catalog.read(tree / "catalog/pruning/pruning_filters.yaml")
    assert (fields["title"], tuple(fields["authors"]), fields["year"], fields["venue"], fields["arxiv"]) == (
        LI.title, LI.authors, 2017, "ICLR", LI.arxiv,
    )  # fmt: skip
    problems = check.check(tree)
    todo = {problem.field for problem in problems if problem.path.endswith("pruning_filters.yaml")}
    assert todo == {"start", "returns", "summary", "claims.first_claim.says", "claims.first_claim.where", "claims.first_claim.kind",
                    "claims.first_claim.at_most"}  # fmt: skip
    assert "catalog/pruning/pruning_filters.yaml:12: summary: is empty; fill it in, or remove it" in map(str, problems)
    left = [p.field for p in problems if p.path.endswith(".py")]
    assert left == ["claim_first_claim", "docstring", "docstring", "compress", "control_random"]
    method = source.methods(tree)["pruning_filters"]
    assert method.title == "Pruning Filters for Efficient ConvNets (Li et al., ICLR 2017)."
    assert (list(method.claims), list(method.controls)) == (["first_claim"], ["random"])
    assert max(map(len, method.text.splitlines())) <= 140
    smoke = CliRunner().invoke(cli.app, ["smoke", "pruning-filters"])  # which is there, but cannot be read yet
    assert (smoke.exit_code, "pruning_filters.yaml:12: summary: is empty" in smoke.output) == (1, True), smoke.output


def test_filled_in_it_passes_as_far_as_it_can(tree: Path) -> None:
    run(BIB, "--family", "pruning", "--slug", "pruning_filters")
    path = tree / "catalog/pruning/pruning_filters.yaml"
    text = path.read_text(encoding="utf-8").replace("trained | scratch", "trained").replace("smaller | same | larger", "smaller")
    text = text.replace("effect | count | identity | wiring", "identity")
    for empty in ("summary:", "says:", "where:"):
        text = text.replace(f"{empty}  #", f"{empty} words  #")
    path.write_text(text.replace("at_most:  #", "at_most: 0  #"), encoding="utf-8")
    found = [(p.field, p.message[:31]) for p in check.check(tree) if p.path.endswith("pruning_filters.yaml")]
    assert found == [("claims", "1 exact and 0 smoke are too few"), ("claims", "has no exact wiring claim; add ")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tree: Path, family: str) -> None:
    before = written(tree)
    assert run(BIB, "--family", family, "--no-method")[0] == 0
    [path] = written(tree) - before
    assert path == f"catalog/{family}/pruning_filters_efficient_convnets.yaml"
    assert {p.field for p in check.check(tree) if p.path == path} == {"summary", *(["url"] if family in ("frameworks", "lists") else [])}
    (tree / path).unlink()
    assert run(BIB, "--family", family)[0] == 0
    assert len(written(tree) - before) == (1 if family in ("overviews", "lists") else 3)


@pytest.mark.parametrize("family", ["pruning", "frameworks"])
def test_without_a_method_printed_results_can_be_added(tree: Path, family: str) -> None:
    assert run(f"{BIB[:-2]}, url={{https://example.org/x}}}}", "--family", family, "--no-method", "--slug", "mine")[0] == 0
    path = tree / "catalog" / family / "mine.yaml"
    text = path.read_text(encoding="utf-8").replace("summary:  #", "summary: words  #")
    for kept, line in {"trained": "start: trained | scratch", "smaller": "returns: smaller | same | larger"}.items():
        assert f"\n# {line}  # keep one" in text
        text = text.replace(f"# {line}", f"{line.partition(':')[0]}: {kept}")
    path.write_text(text.replace("# results:", "results:").replace("#   - {dataset", "  - {dataset"), encoding="utf-8")
    assert [str(p) for p in check.check(tree) if p.path.endswith("mine.yaml")] == []
    fields, _ = catalog.read(path)
    assert (fields["start"], fields["returns"], len(fields["results"])) == ("trained", "smaller", 1)


def test_what_has_no_results_is_offered_none(tree: Path) -> None:
    assert run(f"{BIB[:-2]}, url={{https://example.org/x}}}}", "--family", "lists", "--slug", "mine")[0] == 0
    text = (tree / "catalog/lists/mine.yaml").read_text(encoding="utf-8")
    assert [word for word in ("start:", "returns:", "results:") if word in text] == []


def test_family_is_asked_for_or_listed(tree: Path) -> None:
    assert run(BIB) == (1, f"error: --family is missing; add one of {', '.join(FAMILIES)}\n")
    code, said = run(BIB, "--family", "prunning")
    assert (code, "did you mean pruning?" in said) == (1, True)


@pytest.mark.parametrize(
    "change", [("title", "Other"), ("eprint", "eprinted"), ("title={Pruning Filters for", "title={pruning -- FILTERS: for")]
)
def test_duplicates(tree: Path, change: tuple[str, str]) -> None:
    assert run(BIB, "--family", "pruning", "--slug", "first")[0] == 0
    before = written(tree)
    code, said = run(BIB.replace(*change) if change[0] != "title" else BIB.replace("Pruning", "Other"), "--family", "low_rank")
    assert (code, said.count("\n"), "is here already: catalog/pruning/first.yaml has the same" in said) == (1, 1, True)
    assert written(tree) == before


def test_duplicate_of_an_arxiv_doi() -> None:
    assert new._marks("a", None, "10.48550/arXiv.1608.08710") == new._marks("A!", "1608.08710", None)


@pytest.mark.parametrize("slug", ["Bad", "a-b", "__init__", "class", "1st", "index", "pruning", "con", "x" * 61, "../evil", "thinet", ""])
def test_bad_slugs(tree: Path, slug: str) -> None:
    before = written(tree)
    code, said = run(BIB, "--family", "pruning", "--slug", slug)
    assert (code, said.startswith(f"error: --slug {slug}: ")) == (1, True)
    assert written(tree) == before


@pytest.mark.parametrize(("slug", "near"), [("Thi-Net", "thi_net"), ("Soft filter!", "soft_filter"), ("压缩", ""), ("1st", "")])
def test_a_bad_slug_is_answered_with_a_good_one(slug: str, near: str) -> None:
    with pytest.raises(NewError) as refusal:
        new.check_slug(slug, {})
    assert str(refusal.value).endswith(f"begin with a letter{near and ', such as '}{near}")


@pytest.mark.parametrize("text", [
    "doi:10.1109/ICCV.2017.541.", "HTTPS://DOI.ORG/10.1109%2Ficcv.2017.541", "10.1109/iccv.2017.541", "arXiv:1707.06342v1 [cs.CV]",
    "@misc{a, title={Other}, doi={http://dx.doi.org/10.1109/ICCV.2017.541}}", "@misc{a, title={Other}, eprint={1707.06342v1}}",
])  # fmt: skip
def test_a_paper_that_is_here_is_known_however_it_is_named(tree: Path, text: str) -> None:
    (code, said), before = run(text, "--family", "pruning"), written(tree)  # nothing is asked for: tests are offline
    assert (code, "is here already: catalog/pruning/thinet.yaml has the same" in said) == (1, True), said
    assert written(tree) == before


@pytest.mark.parametrize(("title", "slug"), [
    ("ThiNet: A Filter Level Pruning Method", "thinet"), ("Do We Need: Everything?", "do_we_need"), ("MobileNetV2", "mobilenetv2"),
    ("A Very Long Beginning of Five Words: More", "very_long_beginning_five"), ("8-bit Inference", "paper_8_bit_inference"),
    ("class", "paper_class"), ("Index: A Thing", "paper_index"), ("压缩", "maaten"), ("Überprüfung", "uberprufung"), ("", "maaten"),
])  # fmt: skip
def test_proposed_slugs(title: str, slug: str) -> None:
    found = Reference(title, ("Laurens van der Maaten",), 2017)
    expected = {"maaten": "vandermaaten"}.get(slug, slug)
    assert new.propose(found, {}) == expected
    assert new.propose(found, {expected: ""}) == f"{expected}_2017"
    assert new.propose(found, {expected: "", f"{expected}_2017": ""}) == f"{expected}_2"


words = st.text(max_size=60)


@given(words, st.lists(words, max_size=3), words, st.sampled_from(FAMILIES))
def test_any_text_can_be_read_back(title: str, authors: list[str], venue: str, family: str) -> None:
    title, names, venue = new.bibtex.clean(title) or "x", tuple(filter(None, map(new.bibtex.clean, authors))), new.bibtex.clean(venue)
    found = Reference(title, names, 2017, venue or None)
    slug = new.propose(found, {})
    new.check_slug(slug, {})
    fields, _ = catalog.parse(new.entry_text(found, family, slug, method=True))
    assert (fields["title"], tuple(fields["authors"]), fields.get("venue")) == (title, names, venue or None)
    assert all(ast.get_docstring(ast.parse(text)) for text in new.method_text(found, family, slug))


def test_long_and_empty_papers_are_written_for_check_to_judge(tree: Path) -> None:
    crowd = " and ".join(f"Ana Name{n}" for n in range(300))
    assert run(f"@misc{{a, title={{{'word ' * 80}}}, author={{{crowd}}}, year=2020}}", "--family", "pruning", "--slug", "long")[0] == 0
    fields, _ = catalog.read(tree / "catalog/pruning/long.yaml")
    assert (len(fields["title"]), len(fields["authors"])) == (399, 300)
    said = [str(p) for p in check.check(tree) if p.path.endswith("long.yaml") and p.field in ("name", "title", "authors")]
    assert [message.rpartition(": ")[2] for message in said] == ["has 399 characters, at most 300 are allowed; shorten it"] * 2
    assert run("@misc{a, title={1984?}}", "--family", "overviews")[0] == 0
    fields, _ = catalog.read(tree / "catalog/overviews/paper_1984.yaml")
    assert (fields["title"], fields["authors"], fields["year"]) == ("1984?", [], None)


# All files or none


def test_never_overwrites(tree: Path) -> None:
    path = tree / "methods/pruning/mine.py"
    os.symlink("nowhere", path)
    code, said = run(BIB, "--family", "pruning", "--slug", "mine")
    assert (code, "mine.py" in said) == (1, True)
    assert not (tree / "catalog/pruning/mine.yaml").exists()


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_leaves_nothing_behind(tree: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    before, calls, real = written(tree), [0], os.replace

    def full(part: Path, path: Path) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OSError(28, "No space left on device", str(path))
        real(part, path)

    monkeypatch.setattr(new.os, "replace", full)
    code, said = run(BIB, "--family", "pruning")
    assert (code, said.count("\n"), "No space left on device; nothing was left" in said) == (1, 1, True)
    assert written(tree) == before


def test_a_file_in_the_way_of_a_folder(tree: Path) -> None:
    (tree / "methods" / "low_rank").write_text("", encoding="utf-8")
    before = written(tree)
    assert run(BIB, "--family", "low_rank")[0] == 1
    assert written(tree) == before

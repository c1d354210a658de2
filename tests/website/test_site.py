"""Into which folders a site is put: what it replaces it has made itself, and everything else stays as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.website import site
from scripts.website.site import SiteError, build
from tests.website.test_pages import make_tree


def held(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what it is or holds."""
    return {
        str(path.relative_to(folder)): "link" if path.is_symlink() else path.read_text() if path.is_file() else "folder or other"
        for path in folder.rglob("*")
    }


def home_page(out: Path) -> None:
    out.mkdir()
    (out / "index.html").write_text("my home page")
    (out / "thesis.txt").write_text("mine")


def older_site(out: Path) -> None:
    out.mkdir()
    (out / "index.html").write_text("old")
    (out / site.MARK).write_text(f"{site.MARK}\nindex.html\n")


def link(to: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(out: Path) -> None:
        to(out.with_name("far"))
        out.symlink_to("far")

    return make


def with_more(out: Path) -> None:
    older_site(out)
    (out / "CNAME").write_text("example.org")


def mark_as_folder(out: Path) -> None:
    (out / site.MARK).mkdir(parents=True)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a home page": (home_page, "holds something that is no site of this program's, index.html; choose another folder with --out, or move"),
    "an older site to which something was added": (with_more, "holds something that is no site of this program's, CNAME"),
    "a folder with the mark's name": (mark_as_folder, f"holds something that is no site of this program's, {site.MARK}"),
    "a link to a home page": (link(home_page), "is a link; name the folder that it leads to, or choose another"),
    "a link to an older site": (link(older_site), "is a link"),
    "a link to an empty folder": (link(Path.mkdir), "is a link"),
    "a link to nothing": (link(lambda far: None), "is a link"),
    "a file": (lambda out: out.write_text("text"), "is no folder; choose another folder with --out"),
    "a pipe": (getattr(os, "mkfifo", None) or (lambda out: out.write_text("")), "is no folder"),
    "below a file": (lambda out: out.parent.rmdir() or out.parent.write_text(""), "File exists; make the folder writable"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="has other files")
@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_older_site_is_refused_and_left_alone(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    make(out)
    before = held(tmp_path)
    with pytest.raises(SiteError) as refusal:
        build(tmp_path / "tree", out)
    assert said in str(refusal.value)
    assert str(refusal.value).startswith(str(tmp_path / "place"))
    assert held(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="has other files")
def test_the_checkout_the_home_folder_and_all_above_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, home = tmp_path / "here" / "tree", tmp_path / "there" / "home"
    root.mkdir(parents=True)
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    before = held(tmp_path)
    for out, said in {
        root: "holds the checkout", root.parent: "holds the checkout", Path("/"): "holds the checkout", root / "..": "holds the checkout",
        home: "holds your home folder", home.parent: "holds your home folder",
    }.items():  # fmt: skip
        with pytest.raises(SiteError, match=said):
            build(root, out)
    monkeypatch.chdir(root)
    with pytest.raises(SiteError, match="holds the checkout"):
        build(root, Path("."))
    assert held(tmp_path) == before


def test_an_older_site_an_empty_folder_and_a_missing_one_are_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(root: Path, out: Path, *_: object) -> list[str]:
        (out / "assets").mkdir(parents=True)
        (out / "index.html").write_text("new")
        return []

    monkeypatch.setattr(site, "_render", render)
    older, empty, missing = tmp_path / "older", tmp_path / "empty", tmp_path / "deep" / "missing"
    older_site(older)
    empty.mkdir()
    usual = tmp_path / "tree" / site.HOSTED
    usual.mkdir(parents=True)
    (usual / "index.html").write_text("of a version that left no mark")
    for out in (older, empty, missing, older, None):
        place = build(tmp_path / "tree", out)
        assert place == (out or usual)
        assert held(place) == {"index.html": "new", "assets": "folder or other", site.MARK: f"{site.MARK}\nassets\nindex.html\n"}
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob("*.old"))


def test_what_comes_while_a_site_is_built_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def render(root: Path, part: Path, *_: object) -> list[str]:
        part.mkdir()
        home_page(out)
        return []

    monkeypatch.setattr(site, "_render", render)
    with pytest.raises(SiteError, match="holds something that is no site"):
        build(tmp_path / "tree", out)
    assert held(tmp_path) == {"out": "folder or other", "out/index.html": "my home page", "out/thesis.txt": "mine"}


def test_a_site_that_was_built_is_known_again(tmp_path: Path) -> None:
    root, out = make_tree(tmp_path / "tree"), tmp_path / "out"
    build(root, out)
    assert set((out / site.MARK).read_text().split()) == set(os.listdir(out))
    (out / "index.html").write_text("edited")
    build(root, out)
    assert (out / "index.html").read_text() != "edited"
    assert sorted(os.listdir(tmp_path)) == ["out", "tree"]

"""What is no file of a sane size is refused, not waited for; characters are told apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.files import LARGEST, Unreadable, content
from catalog.text import WIDEST, harmless, is_blank, short, unfit, visible
from scripts.curation.check import check
from scripts.evidence import link_health, records, source

PLACES = {  # what is read from where
    "entry": "catalog/pruning/slim.yaml", "vocabulary": "catalog/vocabulary.yaml", "table": "catalog/comparisons/table.yaml",
    "method": "methods/pruning/slim.py", "numbers": "catalog/measured/pruning/slim.csv", "links": "catalog/links.json",
}  # fmt: skip
ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "nothing": lambda path: path.symlink_to("nowhere"),
    "large": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), link_health.LARGEST + 1),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", PLACES.values(), ids=PLACES)
def test_what_is_no_file_is_one_problem_and_never_waited_for(tmp_path: Path, file: str, kind: str) -> None:
    for name in PLACES.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    ODD[kind](tmp_path / file)
    said = [problem for problem in check(tmp_path) if problem.path == file]
    assert len(said) == 1 or kind == "nothing"  # a method that is not there is not listed either way
    assert all("cannot be" in str(problem) or "is larger than" in str(problem) or "no entry" in str(problem) for problem in said)


def test_readers_of_single_files_refuse_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "x.py")
    with pytest.raises(Unreadable, match="a folder, a pipe or a device; put a regular file there"):
        content(path)
    with pytest.raises(records.Damaged, match=r"x\.py:1: cannot be opened: it is a folder, a pipe or a device; this file is mach"):
        records.read(path)
    with pytest.raises(link_health.LinksError, match="cannot be read: cannot be opened"):
        link_health.read(path)
    assert "put a regular file there" in str(source.read(tmp_path, path))


def test_content_is_text_with_line_feeds_and_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert content(path) == "a\nb\nc\n"
    path.write_bytes(b"a\nb\xff")
    with pytest.raises(Unreadable, match="not UTF-8") as refusal:
        content(path)
    assert refusal.value.line == 2
    path.write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(Unreadable, match="is larger than 1000000 bytes"):
        content(path)


@pytest.mark.parametrize("text", ["", " ", "\u200b\u200d", "\u00a0", "\ufeff", "\u3164", "\u2800", "\u0301", "\u2060"])
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}a")


@pytest.mark.parametrize("text", ["\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\u2066", "\ud800", "\ufffe", "\r"])
def test_what_no_page_can_hold(text: str) -> None:
    assert unfit(f"a{text}")


@pytest.mark.parametrize("text", ["é", "λ\tβ\n", "漢字", "שלום", "🙂", "a\u200db", "‘’–"])
def test_what_a_page_can_hold(text: str) -> None:
    assert unfit(text) is None
    assert not is_blank(text)


@given(st.text(st.characters()) | st.text(st.sampled_from("\n\r\x1b\x07\ud800\u2028\u202e\x9bé ")))
def test_whatever_is_printed_is_one_short_harmless_line(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text) == text or not text.isprintable()
    assert unfit(harmless(text)) is None
    assert harmless(text) == text or unfit(text)
    assert len(short(text * WIDEST)) <= 10 * WIDEST

"""Making pages in several processes: the same pages, the same warnings, and an end when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mkdocs.structure.pages import Page

from catalog import Record
from scripts.evidence.facts import Facts
from scripts.website import render
from scripts.website.site import SiteError, build
from tests.website.test_pages import make_tree
from tests.website.test_serve import held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are made in one process")
ROOT = Path(__file__).parents[2]


def test_any_number_of_processors_makes_the_same_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, made = make_tree(tmp_path / "tree"), []
    monkeypatch.setattr(render, "BATCHES", (2, 4))
    monkeypatch.setattr(render, "TOGETHER", 1)
    for processors in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda count=processors: count)
        made.append(held(build(root, tmp_path / str(processors))))
    assert made[0] == made[1]


def test_what_is_wrong_on_a_page_that_another_process_makes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path / "tree")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (root / "site/guides/spare.md").write_text("# Spare\n\n[a](nowhere.md) [b](read.md#nowhere) [c](../pruning/slim.md#no) [d](#away)\n")
    with pytest.raises(SiteError) as refusal:
        build(root, tmp_path / "out")
    said = str(refusal.value).splitlines()
    assert len(said) == 4, said
    assert all(any(name in line for line in said) for name in ("nowhere.md", "read.md#nowhere", "slim.md#no", "#away"))


def test_on_which_page_a_build_failed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path / "tree")

    def broken(facts: Facts, record: Record) -> str:
        raise ValueError("it cannot be made")

    monkeypatch.setattr("scripts.website.pages.entry_page", broken)
    said = []
    for processors in (1, 2):
        monkeypatch.setattr(os, "cpu_count", lambda count=processors: count)
        with pytest.raises(SiteError, match="it cannot be made") as refusal:
            build(root, tmp_path / "out")
        said.append(str(refusal.value))
    assert said[0] == said[1]
    assert "'pruning/slim.md'" in said[0]


def test_a_killed_process_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, page = make_tree(tmp_path / "tree"), render._page

    def killed(work: render.Work, here: Page) -> render.Drawn | None:
        if render._work:  # in a process that was forked
            os.kill(os.getpid(), signal.SIGKILL)
        return page(work, here)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(render, "_page", killed)
    with pytest.raises(SiteError, match="a process that made pages was killed"):
        build(root, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


SLOW = """
import os, sys, time
from pathlib import Path
from scripts import cli
from scripts.website import render
page = render._page
def slow(*arguments):
    if render._work:
        print(os.getpid(), flush=True)
        time.sleep(0.5)
    return page(*arguments)
render._page, os.cpu_count, cli.ROOT = slow, lambda: 2, Path(sys.argv[1])
sys.argv[1:2] = ["site", "--out"]
cli.main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", SLOW, str(make_tree(tmp_path / "tree")), str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        process.send_signal(how)
        _, said = process.communicate(timeout=20)  # when nobody holds its output any more
    assert "Traceback" not in said
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process that makes pages is still there")
    assert how == signal.SIGKILL or not list(tmp_path.glob(".out*"))

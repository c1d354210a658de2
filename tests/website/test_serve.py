"""The served site after a change: as a build from nothing would make it, only sooner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.evidence import records
from scripts.website.site import updater
from tests.website.test_pages import make_tree

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000/"


def edited(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        file = root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def measured_again(root: Path) -> None:
    path = records.path_of(root, "pruning", "slim")
    records.write(path, [row._replace(value=row.value / 2) for row in records.read(path)])


def added(root: Path) -> None:
    text = (root / "catalog/pruning/slim.yaml").read_text().partition("claims:")[0]
    text = text.replace("1708.06519", "1708.06520").replace("formerly: [slimmer]\n", "").replace("doi:", "builds_on: [slim]\ndoi:")
    (root / "catalog/pruning/new.yaml").write_text(text.replace("name: Slim", "name: New").replace(".298", ".299"))


def gone(root: Path) -> None:
    (root / "catalog/lists/list.yaml").unlink()
    records.path_of(root, "pruning", "slim").unlink()


CHANGES = {
    "a fact of one page": edited("catalog/pruning/slim.yaml", "makes networks slim", "makes networks thin"),
    "a name that other pages show": edited("catalog/pruning/slim.yaml", "name: Slim", "name: Thin"),
    "a measurement": measured_again,
    "a program": edited("methods/pruning/slim.py", "cut: float = 0.7", "cut: float = 0.8"),
    "a tag of all pages": edited("catalog/vocabulary.yaml", "Removes whole", "Takes whole"),
    "a published table": edited("catalog/comparisons/table.yaml", "-1.5", "-2.5"),
    "a hand-written page": edited("site/guides/read.md", "# ", "# Again: "),
    "a title that all pages show": edited("mkdocs.yml", "Home: index.md", "Begin: index.md"),
    "a style sheet": edited("site/assets/site.css", "{", "{ "),
    "a template": edited("site/templates/main.html", "smallprint:page", "smallprint:site"),
    "a new entry": added,
    "an entry that is gone, and measurements that a chart showed": gone,
}


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_rebuild_is_what_a_build_makes(tmp_path: Path) -> None:
    root, told, made = make_tree(tmp_path / "tree"), list[str](), {}
    update = updater(root, tmp_path / "served", ADDRESS, told.append)
    update()
    for place, (name, change) in enumerate(CHANGES.items()):
        change(root)
        update()
        made[name] = told[-1]
        if place % 3 < 2:
            continue  # a whole build takes its time
        updater(root, tmp_path / name, ADDRESS, told.append)()
        served, built = held(tmp_path / "served"), held(tmp_path / name)
        assert not {path for path in served.keys() | built.keys() if served.get(path) != built.get(path)}, (name, told)
    assert made["a fact of one page"].startswith("1 of "), made
    assert made["a style sheet"].startswith("0 of "), made
    assert not [line for line in told if " pages made in " not in line]


WRONG = {
    "catalog/pruning/slim.yaml": ("name: [\n", "slim.yaml:1: not YAML"),
    "methods/pruning/slim.py": ("def (", "slim.py:1"),
    "site/about.md": ("<!-- fill: nothing -->", "site/about.md: nothing fills"),
    "site/templates/main.html": ("{% nothing %}", "nothing"),
    "mkdocs.yml": ("nav: [", "mkdocs.yml"),
}


def test_what_is_wrong_is_said_and_the_last_good_site_stays(tmp_path: Path) -> None:
    root, told = make_tree(tmp_path / "tree"), list[str]()
    update = updater(root, tmp_path / "served", ADDRESS, told.append)
    update()
    before = held(tmp_path / "served")
    for path, (text, said) in WRONG.items():
        good = (root / path).read_text()
        (root / path).write_text(text)
        told.clear()
        update()
        assert said in told[0], told
        assert told[-1] == "the site stays as it was"
        assert held(tmp_path / "served") == before
        (root / path).write_text(good)
        update()
        assert " pages made in " in told[-1]
        assert held(tmp_path / "served").keys() == before.keys()


def test_a_change_that_failed_half_way_and_is_undone_leaves_nothing(tmp_path: Path) -> None:
    root, told = make_tree(tmp_path / "tree"), list[str]()
    update = updater(root, tmp_path / "served", ADDRESS, told.append)
    update()
    before = held(tmp_path / "served")
    changed = {"catalog/pruning/slim.yaml": "\nname: Slim\n", "site/about.md": "# "}
    good = {path: (root / path).read_text() for path in changed}
    for path, old in changed.items():
        edited(path, old, old.replace("Slim", "Thin") + ("<!-- fill: nothing -->" if path.endswith(".md") else ""))(root)
    (root / "site/assets/spare.txt").write_text("")
    update()
    assert told[-1] == "the site stays as it was"
    (root / "site/assets/spare.txt").unlink()
    for path, text in good.items():
        (root / path).write_text(text)
    update()
    assert " pages made in " in told[-1]
    assert held(tmp_path / "served") == before


SERVER = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is unheard where the tests run in the background of a shell
from scripts import cli
from scripts.website import site
site.updater = lambda *arguments: lambda: None
cli.ROOT = Path(sys.argv.pop())
site.serve.__defaults__ = ("127.0.0.1:0",)
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_interrupted_ends(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-u", "-c", SERVER, "site", "--serve", str(make_tree(tmp_path / "tree"))]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout
        assert process.stdout.readline().startswith("serving")
        time.sleep(0.3)
        process.send_signal(how)
        try:
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]

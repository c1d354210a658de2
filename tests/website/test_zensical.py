"""The same Markdown builds with Zensical, the successor of MkDocs Material: page making depends on neither."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.evidence.facts import gather
from scripts.website.pages import pages
from scripts.website.site import build
from tests.website.test_pages import Seen, make_tree

pytestmark = pytest.mark.xdist_group("pages")
ZENSICAL = Path(sys.executable).with_name("zensical")


def content(page: Path) -> Seen:
    article = re.search(r"<article.*</article>", page.read_text(), re.DOTALL)
    assert article, page
    return Seen(article[0])


@pytest.mark.skipif(not ZENSICAL.exists(), reason="Zensical is not installed; `pip install -e '.[dev]'` lets this test run")
def test_zensical_makes_the_same_pages(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree")
    hosted = build(root, tmp_path / "hosted")
    written = {path.relative_to(root / "site").as_posix(): path.read_text() for path in (root / "site").rglob("*.md")}
    for path, text in pages(gather(root, written)).items():  # what the hook does for MkDocs: Zensical runs no hooks
        (root / "site" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "site" / path).write_text(text)
    configuration = root / "mkdocs.yml"
    configuration.write_text(re.sub(r"^hooks:\n(?:  .*\n)+", "", configuration.read_text(), flags=re.MULTILINE))
    done = subprocess.run([str(ZENSICAL), "build", "--strict"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = {path.relative_to(hosted): path for path in hosted.rglob("index.html") if 'http-equiv="refresh"' not in path.read_text()}
    theirs = {path.relative_to(root / "build/site"): path for path in (root / "build/site").rglob("index.html")}
    assert ours.keys() == theirs.keys()
    for path in ours:
        one, other = content(ours[path]), content(theirs[path])
        assert "".join(one.text.split()) == "".join(other.text.split()), path  # ours is without white space that does not show
        assert one.ids - {"__skip"} == other.ids - {"__skip"}, path  # one's own

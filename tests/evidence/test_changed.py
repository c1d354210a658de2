"""What a branch changes, in a repository made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.evidence import changed

KIT = "methods/kit/task.py"
FILES = {
    KIT: "A = 1\n",
    "methods/pruning/one.py": '"""One."""\n',
    "methods/pruning/two.py": '"""Two."""\nfrom methods.pruning import one\n',
    "methods/low_rank/three.py": '"""Three."""\n',
    "catalog/low_rank/three.yaml": "name: Three\n",
    "README.md": "x\n",
}


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    git(tmp_path, "switch", "-qc", "branch")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("methods/pruning/one.py", ["one", "two"]),
        ("methods/pruning/two.py", ["two"]),
        ("catalog/low_rank/three.yaml", ["three"]),
        (KIT, ["three", "one", "two"]),
        ("scripts/running/smoke.py", ["three", "one", "two"]),
        ("README.md", []),
    ],
)
def test_methods_that_a_file_touches(root: Path, path: str, ids: list[str]) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text('"""Changed."""\nfrom methods.pruning import one\n' if path.endswith("two.py") else '"""Changed."""\n')
    assert changed.files(root) == {path}
    assert changed.methods(root, {path}) == ids
    git(root, "add", "-A")
    git(root, "commit", "-qm", "change")
    assert changed.files(root) == {path}
    assert changed.files(root, "HEAD") == set()


def test_main_moving_on_is_no_change_of_the_branch(root: Path) -> None:
    git(root, "switch", "-q", "main")
    (root / "README.md").write_text("y\n")
    git(root, "commit", "-qam", "elsewhere")
    git(root, "switch", "-q", "branch")
    (root / "methods/pruning/two.py").unlink()
    assert changed.files(root) == {"methods/pruning/two.py"}


@pytest.mark.parametrize("since", ["nowhere", "--output=x"])
def test_what_git_does_not_know(root: Path, since: str) -> None:
    with pytest.raises(changed.GitError, match="--since"):
        changed.files(root, since)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(changed.GitError, match="not a git repository"):
        changed.files(tmp_path)

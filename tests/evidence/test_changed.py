"""What a branch changes, in a repository made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.evidence import changed

KIT = "methods/kit/task.py"
FILES = {
    KIT: "A = 1\nB = 2\n",
    "methods/pruning/one.py": '"""One."""\nfrom methods.kit.task import A\n\ndef thin():\n    return A\n',
    "methods/pruning/two.py": '"""Two."""\nfrom methods.pruning import one\n\ndef compress():\n    return one.thin()\n',
    "methods/low_rank/three.py": '"""Three."""\nfrom methods.kit.task import B\n\nC = B\n',
    "methods/low_rank/claims/three.py": "from methods.low_rank import three as method\n\ndef claim_c(lab):\n    return method.C\n",
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
    ("path", "old", "new", "ids"),
    [
        ("methods/pruning/one.py", "return A", "return -A", ["one", "two"]),
        ("methods/pruning/one.py", "return A", "return A  # said", []),
        ("methods/pruning/one.py", "One.", "The first.", []),
        ("methods/pruning/two.py", "one.thin()", "-one.thin()", ["two"]),
        ("methods/low_rank/three.py", "import B", "import A as B", ["three"]),
        ("methods/low_rank/claims/three.py", "method.C", "-method.C", ["three"]),
        ("catalog/low_rank/three.yaml", "Three", "3", ["three"]),
        (KIT, "A = 1", "A = 3", ["one", "two"]),
        (KIT, "B = 2", "B = 3", ["three"]),
        (KIT, "B = 2", "B = 2\n\ndef new():\n    return B", []),
        (KIT, "B = 2", "B = 2\nprint(1)", ["three", "one", "two"]),
        ("scripts/running/smoke.py", "", "x", ["three", "one", "two"]),
        ("README.md", "x", "y", []),
    ],
)
def test_methods_that_a_change_touches(root: Path, path: str, old: str, new: str, ids: list[str]) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(FILES.get(path, "").replace(old, new))
    assert changed.files(root) == {path}
    assert changed.methods(root) == ids
    git(root, "add", "-A")
    git(root, "commit", "-qm", "change")
    assert changed.files(root) == {path}
    assert changed.methods(root) == ids
    assert changed.files(root, "HEAD") == set()
    assert changed.methods(root, "HEAD") == []


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

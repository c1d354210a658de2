"""What a branch changes, asked of git: for `check --changed` and `smoke --changed`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scripts.evidence import source
from scripts.evidence.definitions import WEIGHTS, Codes, Definitions, Node

BASES = ("origin/main", "origin/master", "main", "master")
RUNNERS = ("scripts/running/smoke.py", "pyproject.toml", "constraints.txt")  # what every measurement rests on


class GitError(ValueError):
    """Git cannot say what changed; the message says why and what to do."""


def git(root: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="surrogateescape", check=True)
    except OSError as problem:
        raise GitError(f"--changed needs git ({problem.strerror}); name what to check instead") from problem
    except subprocess.CalledProcessError as problem:
        said = problem.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise GitError(f"git {arguments[0]}: {said[0].removeprefix('fatal: ')}; give --since a commit that is here") from problem
    return done.stdout


def left(root: Path, since: str | None = None) -> str:
    """The commit at which this branch left `since` (default: main). Raises `GitError`."""
    known = set(git(root, "for-each-ref", "--format=%(refname:short)").split())
    base = since or next((name for name in BASES if name in known), "HEAD")
    return git(root, "merge-base", base, "HEAD").strip()


def files(root: Path, since: str | None = None) -> set[str]:
    """Paths, relative to `root`, that differ from where this branch left `since`, new and deleted ones too. Raises `GitError`."""
    differing = git(root, "diff", "--name-only", "--no-renames", "-z", left(root, since)).split("\0")
    new = git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return {path for path in (*differing, *new) if path}


def methods(root: Path, since: str | None = None) -> list[str]:
    """Ids of the methods whose numbers may be others than where this branch left `since`: a definition that they reach differs.

    So do those whose claims, or the runner, changed. Raises `GitError`.
    """
    paths, known, base = files(root, since), Definitions(root), left(root, since)
    there = set(git(root, "ls-tree", "-r", "-z", "--name-only", base, "--", "methods").split("\0"))
    changed = set[Node]()
    for path in (path for path in paths if path.startswith("methods/") and path.endswith(".py")):
        changed |= known.differing(path, git(root, "show", f"{base}:{path}") if path in there else "")
    weights = {path for path in paths if path.startswith(WEIGHTS)}
    found = []
    for id, method in source.methods(root).items():
        codes = Codes(root, method, known)
        reached = known.reached(codes.roots("", "all"))
        entry = f"catalog/{method.family}/{id}.yaml"
        if {*RUNNERS, entry} & paths or reached & changed or weights & set(known.weights(reached)):
            found.append(id)
    return found

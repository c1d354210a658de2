"""What a branch changes, asked of git: for `check --changed` and `smoke --changed`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scripts.evidence import source

BASES = ("origin/main", "origin/master", "main", "master")
RUNNERS = ("scripts/running/smoke.py", "pyproject.toml", "constraints.txt")  # beside the kit, what every measurement rests on


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


def files(root: Path, since: str | None = None) -> set[str]:
    """Paths, relative to `root`, that differ from where this branch left `since` (default: main), new and deleted ones too.

    Raises `GitError`.
    """
    known = set(git(root, "for-each-ref", "--format=%(refname:short)").split())
    base = since or next((name for name in BASES if name in known), "HEAD")
    left = git(root, "merge-base", base, "HEAD").strip()
    differing = git(root, "diff", "--name-only", "--no-renames", "-z", left).split("\0")
    new = git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return {path for path in (*differing, *new) if path}


def methods(root: Path, paths: set[str]) -> list[str]:
    """Ids of the methods whose numbers may change with these files: their own, what they import, the kit, their claims."""
    found = []
    for id, method in source.methods(root).items():
        mine = {*source.files(root, method), *RUNNERS, f"catalog/{method.family}/{id}.yaml"}
        if mine & paths or any(path.startswith("methods/kit/") for path in paths):
            found.append(id)
    return found

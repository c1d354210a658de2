"""A fresh clone builds by the README's first command. Slow and in need of a package index: `make test-clone`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.clone
def test_make_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "smallprint"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "SMALLPRINT_CIFAR10")}
    done = subprocess.run(["make"], cwd=clone, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    address = done.stdout.strip().splitlines()[-1].removeprefix("open file://")
    assert Path(address).is_file()
    assert (clone / "build" / "site" / "pruning" / "network_slimming" / "index.html").is_file()
    assert subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True).stdout == ""

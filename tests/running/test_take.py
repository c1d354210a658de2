"""A method in one file: it needs nothing of the project, and does bit for bit what the project does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from catalog import load
from scripts.evidence import source
from scripts.running.take import take
from tests.toys import ROOT, checkout, smallprint

METHODS = source.methods(ROOT)
PROGRAM = Path(__file__).parent / "at_home.py"


def first_of_each_family() -> set[str]:
    """One method a family, another after every change of a method."""
    families: dict[str, list[str]] = {}
    for method in METHODS.values():
        families.setdefault(method.family, []).append(method.id)
    return {min(ids, key=lambda id: hashlib.sha256(METHODS[id].text.encode()).digest()) for ids in families.values()}


def each() -> list[Any]:
    some = first_of_each_family()
    return [pytest.param(id, marks=() if id in some else pytest.mark.slow) for id in METHODS]


def taken(id: str, folder: Path) -> Path:
    path = folder / f"home_{id}.py"
    path.write_text(take(ROOT, load(ROOT / "catalog").entries[id], METHODS[id]), encoding="utf-8")
    return path


def run(module: str, saved: Path, where: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-P", PROGRAM, module, saved],
        cwd=where, env={**os.environ, "PYTHONPATH": str(where), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(saved)
    return found


@pytest.mark.parametrize("id", each())
def test_it_does_the_same_bit_for_bit(id: str, tmp_path: Path) -> None:
    method = METHODS[id]
    home = taken(id, tmp_path)
    theirs = run(home.stem, tmp_path / "theirs", tmp_path)
    ours = run(f"methods.{method.family}.{id}", tmp_path / "ours", ROOT)
    assert list(ours) == list(theirs) == ["compress", *sorted(f"control_{name}" for name in method.controls)]
    for name, (state, answer) in ours.items():
        other, said = theirs[name]
        assert torch.equal(answer, said), name
        assert list(state) == list(other)
        assert all(torch.equal(value, other[key]) for key, value in state.items() if isinstance(value, torch.Tensor)), name


def test_every_file_is_clean_and_says_what_it_is(tmp_path: Path) -> None:
    for id, method in METHODS.items():
        text = taken(id, tmp_path).read_text("utf-8")
        assert text.startswith("# Needs: ")
        assert f"# From: smallprint, {method.path} " in text
        assert "Permission is hereby granted" in text
        assert method.docstring.partition("\n")[0] in text
        assert "\nSWEEP" not in text
        assert text == take(ROOT, load(ROOT / "catalog").entries[id], method)
        assert "from methods" not in text.replace('"from methods', "")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E4,E7,E9,F", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_names_that_meet_are_told_apart(tmp_path: Path) -> None:
    """A helper of the kit and one of the method, a module's attribute, an alias, a name inside a formatted string, a local import."""
    root = checkout(tmp_path, {"toy": {}})
    (root / "methods/kit/late.py").write_text(
        'def helper(x):\n    """Helps."""\n    return 10 * x\n\n\nLATE = 7\n\n\ndef told(x):\n    return f"{helper(x)} and {LATE:>3}"\n'
    )
    program = root / "methods/pruning/toy.py"
    program.write_text(
        program.read_text()
        .replace("from methods.kit.task import Task\n", "from methods.kit import late\nfrom methods.kit.late import helper as other\n")
        .replace("model: nn.Module, task: Task, config: Config", "model, task, config")
        .replace("    \n    return model\n\n\ndef control", WORKS)
    )
    done = smallprint(root, "take", "toy")
    assert done.returncode == 0, done.stderr
    (tmp_path / "home.py").write_text(done.stdout)
    ran = subprocess.run(
        [sys.executable, "-P", "-c", "import home; print(home.compress(None, None, home.Config()))"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.strip() == "[-1.0, 10.0, 10.0, '10.0 and   7', 7]", ran.stderr + done.stdout


WORKS = """
    from methods.kit.late import LATE
    x = config.rate
    return [helper(x), late.helper(x), other(x), late.told(x), LATE]


def helper(x):
    return -x


def control"""


def test_what_cannot_be_taken_is_one_line(tmp_path: Path) -> None:
    root = checkout(tmp_path / "tree", {"toy": {}})
    (tmp_path / "there.py").write_text("mine")
    for words, said in (
        (("take", "toi"), "there is no 'toi'; did you mean toy?"),
        (("take", "toy", "-o", str(tmp_path / "there.py")), "there.py: is there already; remove it, or choose another file"),
        (("take", "toy", "-o", str(tmp_path / "none" / "x.py")), "x.py: cannot be written: No such file or directory; choose another file"),
    ):
        done = smallprint(root, *words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert said in done.stderr
    assert (tmp_path / "there.py").read_text() == "mine"
    done = smallprint(root, "take", "toy", "-o", str(tmp_path / "new.py"))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'new.py'}: {len((tmp_path / 'new.py').read_text().splitlines())} lines\n")

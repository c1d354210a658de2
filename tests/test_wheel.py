"""What is installed without a checkout: every file of the packages, and a claim that runs from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("catalog", "methods", "scripts")
CLAIM = """
from methods.kit.lab import Lab
from methods.pruning import network_slimming
from methods.pruning.claims import network_slimming as claims
print(network_slimming.__file__, claims.claim_slim_equals_masked(Lab(network_slimming, lambda: None)) < 1e-5)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked as an installer would."""
    place = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, place / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "tree")
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=place / "tree", capture_output=True, text=True, check=True)
    with zipfile.ZipFile(place / done.stdout.split()[-1]) as wheel:
        wheel.extractall(place / "site")
    return place / "site"


def test_every_program_is_in_it(installed: Path) -> None:
    for name in PACKAGES:
        here = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*.py")}
        assert here == {path.relative_to(installed) for path in (installed / name).rglob("*.py")}


def test_a_claim_runs_from_it(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CLAIM], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(installed / "methods/pruning/network_slimming.py"), "True"], done.stderr

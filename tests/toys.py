"""A checkout of small methods: the real program, none of the real methods."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("SMALLPRINT_CHECKOUT", "SMALLPRINT_CIFAR10", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")  # settings that no toy is to see

METHOD = '''
"""Toy (Nobody, 2020).

Does nothing.

Departures: none.
"""
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from methods.kit.task import Task
{top}

@dataclass(frozen=True)
class Config:
    rate: float = 1.0


def reference(task):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    {compress}
    return {returned}


def control_none(model, task, config, like):
    return nn.Sequential(model, nn.Tanh())
'''

CLAIMS = '''
"""The claims of Toy."""
import os, signal, sys
from pathlib import Path

from methods.pruning import {id} as method
{imports}


def claim_first(lab):
    return 0.0


def claim_second(lab):
    {claim}
    return {value}


def claim_level(lab):
    {smoke}
    return {level}
'''

ENTRY = """
name: {id}
title: {id} is a toy
authors: [N. Obody]
year: 2020
url: https://example.org/{id}
start: trained
returns: same
summary: A toy.
claims:
  first: {{says: It is zero., where: §1, tier: exact, kind: wiring, at_most: 0}}
  second: {{says: It is zero., where: §1, tier: exact, kind: identity, at_most: 0}}
  level: {{says: It is level., where: §1, tier: smoke, kind: effect, against: none, at_least: 0, unit: share of images}}
"""


def checkout(root: Path, methods: dict[str, dict[str, str]]) -> Path:
    """A copy of the program with these toys as its only methods."""
    for part in ("scripts", "methods/kit", "catalog"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "measured", "weights", "*.yaml"))
    (root / "methods/kit/weights").mkdir()
    shutil.copy(ROOT / "catalog/vocabulary.yaml", root / "catalog")
    for name in ("LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    (root / "methods/pruning/claims").mkdir(parents=True)
    (root / "catalog/pruning").mkdir(exist_ok=True)
    blank = {"top": "", "compress": "", "returned": "model", "claim": "", "value": "0.0", "smoke": "", "level": "0.25", "imports": ""}
    for id, parts in methods.items():
        for path, text in ((f"methods/pruning/{id}.py", METHOD), (f"methods/pruning/claims/{id}.py", CLAIMS)):
            (root / path).write_text(text.lstrip("\n").format(**{**blank, "id": id, **parts}))
        (root / f"catalog/pruning/{id}.yaml").write_text(ENTRY.format(id=id).lstrip("\n"))
    return root


def smallprint(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {key: value for key, value in os.environ.items() if key not in OURS}
    return subprocess.run(
        [sys.executable, "-P", "-m", "scripts.cli", *arguments],
        cwd=root, capture_output=True, text=True, timeout=300,
        env={**settings, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip

"""Method files as the checker and the pages read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog import Problem
from scripts.evidence.source import Function, Setting, Source, methods, read, resolve

TEXT = '''\
"""Slim (Lovelace, 1843).

The idea.

Departures: one pass instead of several;
one layer stays.

And no bias.
"""

import torch
from methods.kit import nets
from methods.kit.task import Task
from methods.low_rank.tucker import rank
from methods.quantization import bits as few
import methods.pruning.thinet

@dataclass(frozen=True)
class Config:
    """Numbers."""
    penalty: float = 1e-4  # λ, Eq. 1 # really
    cuts: tuple[float, ...] = (
        0.1,  # first
        0.2,
    )  # Table 1
    plain: int = 3
    bare: str

SMOKE = Config(penalty=1e-2)  # seconds only
LONG = (Config(), 300)  # steps
@cached
def helper(a, /, b, *rest, c=1, **more):
    try:
        from methods.distillation.late import soften
    except ImportError:
        from . import sibling

def compress(model, task, config):
    return model

def control_random(model, task, config, like): ...
'''
CLAIMS = '''
"""The claims of Slim."""
from methods.low_rank import tucker
from methods.pruning import slim as method

def claim_same(lab): ...

def claim_counts(lab, case): ...
'''


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def one(root: Path, text: str, claims: str = "") -> Source:
    plant(root, {"methods/pruning/slim.py": text, "methods/pruning/claims/slim.py": claims})
    return methods(root)["slim"]


def test_everything_that_a_file_says(tmp_path: Path) -> None:
    source = one(tmp_path, TEXT, CLAIMS)
    assert (source.id, source.family, source.path) == ("slim", "pruning", "methods/pruning/slim.py")
    assert source.title == "Slim (Lovelace, 1843)."
    assert source.departures == "one pass instead of several;\none layer stays.\n\nAnd no bias."
    assert source.config == (
        Setting("penalty", "1e-4", "λ, Eq. 1 # really", 21),
        Setting("cuts", "(\n        0.1,  # first\n        0.2,\n    )", "Table 1", 22),
        Setting("plain", "3", "", 26),
        Setting("bare", "", "", 27),
    )
    assert source.smoke == "SMOKE = Config(penalty=1e-2)  # seconds only"
    assert source.long == "LONG = (Config(), 300)  # steps"
    assert source.functions["helper"] == Function(31, 36, ("a", "b"))
    assert source.functions["compress"] == Function(38, 39, ("model", "task", "config"))
    assert {name: f.case for name, f in source.claims.items()} == {"same": False, "counts": True}
    assert source.claims["same"].line == 6
    assert source.claimed
    assert (source.claimed.path, source.claimed.imports) == ("methods/pruning/claims/slim.py", {"tucker": 3})
    assert list(source.controls) == ["random"]
    assert source.imports == {"tucker": 14, "bits": 15, "thinet": 16, "late": 34, "sibling": 36}
    assert source.modules["torch"] == 11
    assert source.modules["methods.kit.nets"] == 12


def test_a_bare_file(tmp_path: Path) -> None:
    source = one(tmp_path, "")
    assert (source.docstring, source.title, source.departures, source.config, source.smoke) == ("", "", None, None, None)
    assert not (source.functions)
    assert not (source.imports)
    assert not (source.claims)
    assert not (source.controls)


def test_a_config_may_be_empty(tmp_path: Path) -> None:
    assert one(tmp_path, "class Config:\n    pass\n").config == ()


def test_what_cannot_be_read_is_a_problem_and_hides_nothing(tmp_path: Path) -> None:
    plant(tmp_path, {"methods/pruning/slim.py": TEXT, "methods/pruning/bad.py": "x = 1\ndef f(:\n", "methods/low_rank/slim.py": ""})
    plant(tmp_path, {"methods/pruning/__init__.py": "", "methods/kit/task.py": "def"})
    problems: list[Problem] = []
    assert list(methods(tmp_path, problems)) == ["slim"]
    assert sorted(map(str, problems)) == [
        "methods/pruning/bad.py:2: not Python: invalid syntax; correct it",
        "methods/pruning/slim.py:1: the id slim is taken by methods/low_rank/slim.py; rename one",
    ]


def test_claims_that_cannot_be_read_are_a_problem(tmp_path: Path) -> None:
    plant(tmp_path, {"methods/pruning/slim.py": TEXT, "methods/pruning/claims/slim.py": "x = 1\ndef f(:\n"})
    problems: list[Problem] = []
    assert methods(tmp_path, problems) == {}
    assert list(map(str, problems)) == ["methods/pruning/claims/slim.py:2: not Python: invalid syntax; correct it"]


def test_a_folder_called_like_a_method(tmp_path: Path) -> None:
    (tmp_path / "methods" / "pruning" / "odd.py").mkdir(parents=True)
    problem = read(tmp_path, tmp_path / "methods" / "pruning" / "odd.py")
    assert isinstance(problem, Problem)
    assert problem.message.startswith("cannot be opened")


KNOWN = {"network_slimming": "pruning", "thinet": "pruning", "kim_tucker": "low_rank"}


@pytest.mark.parametrize(
    "name",
    [
        "network_slimming",
        "network-slimming",
        "Network-Slimming",
        "pruning/network_slimming",
        "pruning/network-slimming.py",
        "catalog/pruning/network_slimming.yaml",
        "methods/pruning/network_slimming.py",
        "./methods/pruning/network_slimming.py",
        "/home/me/repo/catalog/measured/pruning/network_slimming.csv",
        "methods\\pruning\\network_slimming.py",
        "methods/network_slimming",
    ],
)
def test_resolve(name: str) -> None:
    assert resolve(name, KNOWN) == "network_slimming"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("netwrk_slimming", "there is no 'netwrk_slimming'; did you mean network_slimming?"),
        ("tucker", "there is no 'tucker'; did you mean kim_tucker?"),
        ("zzz", "there is no 'zzz'; nothing is called similarly"),
        ("", "there is no ''; nothing is called similarly"),
        ("low_rank/thinet", "there is no 'low_rank/thinet': low_rank is the wrong family; use pruning/thinet"),
        ("prun/thinet", "there is no 'prun/thinet': prun is no family; use pruning/thinet"),
    ],
)
def test_resolve_says_what_is_near(name: str, said: str) -> None:
    with pytest.raises(LookupError) as refusal:
        resolve(name, KNOWN)
    assert str(refusal.value) == said

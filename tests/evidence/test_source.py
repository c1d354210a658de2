"""Method files as the checker and the pages read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog import Problem
from scripts.evidence.source import Function, Setting, Source, digest, methods, read, resolve

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


TREE = {
    "methods/pruning/slim.py": '"""Slim."""\nfrom methods.low_rank.tucker import rank\n\nX = 1  # one\n',
    "methods/pruning/claims/slim.py": "from methods.pruning import slim as method\nC = 1\n",
    "methods/low_rank/tucker.py": "from methods.low_rank.vbmf import bound\nY = 2\n",
    "methods/low_rank/vbmf.py": "from methods.low_rank.tucker import Y\nfrom methods.kit import fit\nZ = 3\n",
    "methods/kit/fit.py": "B = 1\n",
    "methods/kit/lab.py": "from methods.kit.task import f\n",
    "methods/low_rank/other.py": "A = 1\n",
    "methods/kit/task.py": 'def f():\n    """Says."""\n    return 1\n',
}


def digest_of(root: Path, files: dict[str, str]) -> str:
    return digest(plant(root, files), methods(root)["slim"])


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("methods/pruning/slim.py", "# one", "# a single one", True),
        ("methods/pruning/slim.py", '"""Slim."""', '"""Slimmer."""', True),
        ("methods/pruning/slim.py", '"""Slim."""\n', "", True),
        ("methods/pruning/slim.py", "X = 1", "X = (\n    1\n)", True),
        ("methods/kit/task.py", "Says.", "Told.", True),
        ("methods/low_rank/other.py", "A = 1", "A = 2", True),
        ("methods/pruning/slim.py", "X = 1", "X = 2", False),
        ("methods/pruning/slim.py", "X = 1", "X = 1.0", False),
        ("methods/pruning/slim.py", "X = 1", "X = '1'", False),
        ("methods/pruning/slim.py", "X = 1", "Y = 1", False),
        ("methods/pruning/slim.py", "X = 1", "X = None", False),
        ("methods/pruning/claims/slim.py", "C = 1", "C = 2", False),
        ("methods/low_rank/tucker.py", "Y = 2", "Y = -2", False),
        ("methods/low_rank/vbmf.py", "Z = 3", "Z = 4", False),
        ("methods/kit/task.py", "return 1", "return 2", False),
        ("methods/kit/fit.py", "B = 1", "B = 2", False),
        ("methods/kit/new.py", "", "B = 1", True),
        ("methods/kit/task.py", "def f()", "def f(:", False),
    ],
)
def test_digest_follows_the_code_and_nothing_else(tmp_path: Path, file: str, old: str, new: str, same: bool) -> None:
    before = digest_of(tmp_path, TREE)
    after = digest_of(tmp_path, {**TREE, file: TREE.get(file, "").replace(old, new)})
    assert (before == after) == same
    assert len(before) == 16
    assert int(before, 16) >= 0


def test_digest_is_the_same_on_every_python(tmp_path: Path) -> None:
    assert digest_of(tmp_path, TREE) == "bc01b8a61652fdda"


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

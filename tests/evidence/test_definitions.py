"""What a number rests on: the definitions that it reaches, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.evidence import source
from scripts.evidence.definitions import Codes, Definitions, Node
from tests.evidence.test_source import plant

METHOD, CLAIMS, TUCKER, TASK, NETS = (
    "methods/pruning/slim.py", "methods/pruning/claims/slim.py", "methods/low_rank/tucker.py", "methods/kit/task.py", "methods/kit/nets.py",
)  # fmt: skip
TREE = {
    METHOD: """\
\"\"\"Slim.\"\"\"
from dataclasses import dataclass
import torch
from methods.kit import nets
from methods.kit.task import cut as sliced
from methods.low_rank import tucker as other

@dataclass
class Config:
    cut: float = 0.7  # Table 1

SMOKE = Config(0.5)
LONG = (Config(), 700)
TABLE = {"a": sliced}

def reference(task):
    return nets.trained("vgg", task.name)

def thin(model):
    return TABLE["a"](model)

def compress(model, task, config):
    \"\"\"Cuts.\"\"\"
    return thin(model)

def control_random(model, task, config, like):
    return other.rank(model)

def control_none(model, task, config, like):
    return model
""",
    CLAIMS: """\
from methods.pruning import slim as method

def toy():
    return 3

def claim_same(lab):
    return method.thin(toy())

def claim_first(lab):
    return 1.0

def claim_better(lab):
    return lab.after - lab.control("random")

def claim_worst(lab):
    return min(lab.control(name) for name in every())

def every():
    return dir(method)
""",
    TUCKER: "from methods.low_rank.vbmf import bound\n\ndef rank(x):\n    return bound.of(x)\n\ndef loose(x):\n    return x\n",
    "methods/low_rank/vbmf.py": "class bound:\n    Z = 3\n",
    TASK: """\
import logging

def cut(x):
    def inner():
        from methods.kit.late import soft
        return soft
    return inner
""",
    "methods/kit/late.py": "soft = 1\nhard = 2\n",
    "methods/kit/lab.py": "class Lab:\n    x = 1\n\nLATER = 2\n",
    NETS: "def trained(name, data):\n    return name\n\ndef new():\n    return 1\n",
    "methods/kit/weights/vgg-standin.safetensors": "vgg",
    "methods/kit/weights/other-standin.safetensors": "other",
    "scripts/running/smoke.py": "STEPS = 5\n\ndef make_task():\n    return STEPS\n",
}
EVERY = ["reference", "method", "control_random", "control_none", "claim_same", "claim_first", "claim_better", "claim_worst"]
RUN = [name for name in EVERY if name not in ("claim_same", "claim_first")]  # what needs the bench


def codes(root: Path, files: dict[str, str], tier: str = "smoke") -> dict[str, str]:
    found = Codes(root, source.methods(plant(root, files))["slim"])
    return {name: found.of(tier, name) for name in EVERY}


@pytest.mark.parametrize(
    ("file", "old", "new", "moved"),
    [
        (METHOD, "# Table 1", "# Table 2", []),
        (METHOD, "Slim.", "Slimmer.", []),
        (METHOD, "Cuts.", "Cuts channels.", []),
        (METHOD, "SMOKE = Config(0.5)", "SMOKE = Config(\n    0.5\n)", []),
        (METHOD, "LONG = (Config(), 700)", "LONG = (Config(), 701)", ["claim_worst"]),
        (METHOD, "SMOKE = Config(0.5)", "SMOKE = Config(0.6)", [name for name in RUN if name != "reference"]),
        (METHOD, "0.7", "0.8", [name for name in RUN if name != "reference"]),
        (METHOD, "return thin(model)", "return thin(thin(model))", [name for name in RUN if name != "reference"]),
        (METHOD, 'TABLE["a"](model)', 'TABLE["a"](-model)', [name for name in EVERY if name not in ("reference", "claim_first")]),
        (METHOD, '{"a": sliced}', '{"a": sliced, "b": 1}', [name for name in EVERY if name not in ("reference", "claim_first")]),
        (METHOD, "task.name", "task.names", RUN),
        (METHOD, "other.rank(model)", "other.rank(-model)", ["control_random", "claim_better", "claim_worst"]),
        (METHOD, "    return model\n", "    return -model\n", ["control_none", "claim_worst"]),
        (METHOD, "import torch", "import torch\n\ndef new(x):\n    return x", ["claim_worst"]),
        (METHOD, "import torch", "import torch\ntorch.set_num_threads(1)", [name for name in EVERY if name != "claim_first"]),
        (CLAIMS, "return 1.0", "return 2.0", ["claim_first"]),
        (CLAIMS, "return 3", "return 4", ["claim_same"]),
        (CLAIMS, "def toy", "def claim_new(lab):\n    return 0.0\n\ndef toy", []),
        (TUCKER, "return x\n", "return -x\n", []),
        (TUCKER, "bound.of(x)", "bound.off(x)", ["control_random", "claim_better", "claim_worst"]),
        ("methods/low_rank/vbmf.py", "Z = 3", "Z = 4", ["control_random", "claim_better", "claim_worst"]),
        ("methods/kit/late.py", "soft = 1", "soft = 3", [name for name in EVERY if name not in ("reference", "claim_first")]),
        ("methods/kit/late.py", "hard = 2", "hard = 3", []),
        (TASK, "import logging", "import logging\n\ndef new():\n    return 1", []),
        (NETS, "return 1", "return 2", []),
        (NETS, "return name", "return name + data", RUN),
        ("methods/kit/weights/vgg-standin.safetensors", "vgg", "wgg", RUN),
        ("methods/kit/weights/other-standin.safetensors", "other", "another", []),
        ("methods/kit/lab.py", "x = 1", "x = 2", RUN),
        ("methods/kit/lab.py", "LATER = 2", "LATER = 3", []),
        ("scripts/running/smoke.py", "STEPS = 5", "STEPS = 6", RUN),
        ("methods/kit/new.py", "", "A = 1", []),
        (TASK, "def cut(x)", "def cut(x:", [name for name in EVERY if name not in ("reference", "claim_first")]),
    ],
)
def test_a_digest_is_of_the_definitions_and_nothing_else(tmp_path: Path, file: str, old: str, new: str, moved: list[str]) -> None:
    before = codes(tmp_path / "a", TREE)
    text = TREE.get(file, "")
    assert old in text
    after = codes(tmp_path / "b", {**TREE, file: text.replace(old, new) or new})
    assert [name for name in EVERY if before[name] != after[name]] == [name for name in EVERY if name in moved]
    assert all(len(code) == 16 and int(code, 16) >= 0 for code in before.values())


def test_a_tier_has_its_own_settings(tmp_path: Path) -> None:
    longer = {**TREE, METHOD: TREE[METHOD].replace("700", "701")}
    for tier, same in (("smoke", True), ("long", False)):
        assert (codes(tmp_path / tier / "a", TREE, tier)["method"] == codes(tmp_path / tier / "b", longer, tier)["method"]) == same


def test_a_digest_is_the_same_on_every_python(tmp_path: Path) -> None:
    assert codes(tmp_path, TREE)["method"] == "67f6012f3fe8a0c5"


def test_what_a_definition_reaches(tmp_path: Path) -> None:
    known = Definitions(plant(tmp_path, TREE))
    assert known.reached([Node(METHOD, "thin")]) == {
        Node(METHOD, "thin"), Node(METHOD, "TABLE"), Node(TASK, "cut"), Node("methods/kit/late.py", "soft"),
    }  # fmt: skip
    assert known.reached([Node(METHOD, "nothing"), Node("methods/none.py", "f")]) == set()


def test_every_number_of_the_catalogue_has_its_definitions() -> None:
    """No name of the real methods is left unresolved: a whole file is reached only where the code asks for it."""
    from tests.toys import ROOT

    known = Definitions(ROOT)
    for method in source.methods(ROOT).values():
        found = known.reached(Codes(ROOT, method, known).roots("smoke", "method"))
        assert Node(method.path, "compress") in found
        assert Node("methods/kit/task.py", "Task") in found
        assert not [node for node in found if node.name == "*"], method.id

"""The verbs `networks` and `plan`."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from catalog import Record, load
from methods.kit.zoo import ZOO
from scripts.evidence.networks import FAILS, REFUSED, WORKS
from scripts.running import networks, plan
from scripts.running.plans import PlanError
from tests.toys import ROOT, checkout, smallprint

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

def text():
    return "no network"
"""


@pytest.fixture(scope="module")
def slimming() -> Record:
    return load(ROOT / "catalog").entries["network_slimming"]


def outcome(record: Record, compress: object) -> tuple[str, str]:
    method = SimpleNamespace(compress=compress, Config=lambda: None)
    tried = networks.attempt(method, record, "lenet", ZOO["lenet"])  # type: ignore[arg-type]
    return tried.outcome, tried.said


def raises(problem: Exception) -> object:
    def compress(*_: object) -> nn.Module:
        raise problem

    return compress


def thinner(model: nn.Module, task: object, config: object) -> nn.Module:
    model.f1, model.f2 = nn.Linear(512, 8), nn.Linear(8, 10)
    return model


def test_what_counts_as_what(slimming: Record) -> None:
    assert outcome(slimming, thinner) == (WORKS, "")
    assert outcome(slimming, lambda model, *_: copy.deepcopy(model)) == (
        FAILS,
        "is smaller neither in parameters, nor in bits, bytes or multiply-adds",
    )
    assert outcome(slimming, raises(ValueError("c1: is tied\n to c2"))) == (REFUSED, "c1: is tied to c2")
    assert outcome(slimming, raises(ValueError("LeNet: cannot be traced"))) == (REFUSED, "LeNet: cannot be traced")
    assert outcome(slimming, raises(ValueError("shapes do not fit"))) == (FAILS, "shapes do not fit")
    assert outcome(slimming, raises(KeyError("c1"))) == (FAILS, "KeyError: 'c1'")
    said = outcome(slimming, lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)))
    assert said == (FAILS, "answers (4, 3) where the network answered (4, 10)")
    said = outcome(slimming, lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.Threshold(1e9, float("nan"))))
    assert said == (FAILS, "answers something that is not finite")


def test_images_of_the_zoo_can_be_told_apart() -> None:
    task = networks.task_for(ZOO["one_colour"])
    assert task.train.images.shape[1:] == (1, 28, 28)
    splits = [split.images.flatten(1) for split in (task.train, task.validation, task.test)]
    assert all(float(torch.cdist(a, b).min()) > 0 for a, b in pairwise(splits))
    assert networks.task_for(ZOO["doubles"]).test.images.dtype == torch.float64


def test_the_table_is_made_and_compared(tmp_path: Path) -> None:
    toys = {
        "zz_refuses": {"compress": "if not hasattr(model, 'c1'): raise ValueError(f'{next(n for n, _ in model.named_parameters())}: no')"},
        "zz_dies": {"compress": "if hasattr(model, 'qkv') or hasattr(model, 'blocks'): os.abort()"},
    }
    root = checkout(tmp_path, toys)
    done = smallprint(root, "networks", "-j", "2", "--record")
    assert done.returncode == 1
    assert "zz_dies: its process died of SIGABRT at methods/pruning/zz_dies.py" in done.stderr
    assert "not recorded" in done.stderr
    done = smallprint(root, "networks", "zz_refuses", "--record")
    assert done.returncode == 0, done.stderr
    assert "1 works, 24 refused" in done.stdout
    table = root / "catalog" / "networks.csv"
    assert "lenet,pruning,zz_refuses,works,\n" in table.read_text()
    method = root / "methods" / "pruning" / "zz_refuses.py"
    method.write_text(method.read_text().replace("'c1'", "'c9'"))
    done = smallprint(root, "networks", "zz_refuses")
    assert done.returncode == 1
    assert "zz_refuses worked on lenet, and refuses it now: c1.weight: no" in done.stderr
    assert "networks.csv" not in smallprint(root, "check").stdout
    table.write_text("x")
    assert "networks.csv: damaged" in smallprint(root, "networks").stderr


def test_a_plan_is_read_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    network = f"{tmp_path / 'mine.py'}:build"
    done = smallprint(ROOT, "plan", network, "pruning_filters", "lebedev_cp", "--input", "3,16,16")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("Filter pruning") for line in lines)
    assert "  0: Conv2d 3→8 3x3 → Conv2d 3→4 3x3" in lines
    assert any(line.startswith("  would not: CP decomposition needs") and "0: the first convolution" in line for line in lines)


@pytest.mark.parametrize(
    ("where", "shape", "said"),
    [
        ("mine.py", "3,16,16", "must be FILE.py:FUNCTION"),
        ("none.py:build", "3,16,16", "a file that is there"),
        ("mine.py:nothing", "3,16,16", "has no attribute 'nothing'"),
        ("mine.py:text", "3,16,16", "returned str, no network"),
        ("mine.py:build", "1,16,16", "the network does not run on an image of 1x16x16: RuntimeError"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path: Path, where: str, shape: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    with pytest.raises(PlanError, match=said):
        plan.random_task(plan.build(f"{tmp_path}/{where}"), tuple(map(int, shape.split(","))), [])


def test_a_plan_changes_nothing_and_knows_what_training_decides() -> None:
    entries = load(ROOT / "catalog").entries
    torch.manual_seed(0)
    model = ZOO["resnet"].build().eval()
    before = copy.deepcopy(model.state_dict())
    slim, filters = (plan.plan(entries[id], model, (3, 16, 16)) for id in ("network_slimming", "pruning_filters"))
    assert slim.trained
    assert filters.trained, "it asks how much accuracy each layer's cut costs"
    assert not plan.plan(entries["jaderberg_low_rank"], model, (3, 16, 16)).trained
    assert filters.parameters[1] < filters.parameters[0]
    assert filters.multiply_adds[1] < filters.multiply_adds[0]
    assert any("Conv2d 16→16 3x3 → Conv2d 16→8 3x3" in line for line in filters.layers)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

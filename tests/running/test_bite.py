"""The fault planter: what it plants, what it leaves alone, and that a weak claim is found out."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from catalog import load
from scripts.evidence import source
from scripts.running import bite, faults
from tests.toys import checkout, smallprint

ROOT = Path(__file__).resolve().parents[2]

METHOD = textwrap.dedent('''
    """Toy."""
    from dataclasses import dataclass, replace

    @dataclass(frozen=True)
    class Config:
        rate: float = 3.0

    def helper(a, b):
        if a < b:
            raise ValueError("no" + "thing")
        return a - 2 * b

    def unused(a):
        return a + 1

    def loss_of(model, x, y, config):
        return task_loss(model(x), y) + config.rate * penalty(model)

    def penalty(model: nn.Module):
        return sum(abs(p) for p in model.parameters())

    def compress(model: nn.Module, task, config):
        """Doc 1 + 1."""
        model.train()
        model.requires_grad_(False)
        for name in helper(config.rate, -task.seed):
            model.cut(name)
        model = fit(model, task, loss_of, share=0.25)
        return fit(model, replace(task, train=task.validation.first(config.images)))

    def control_plain(model: nn.Module, task, config, like: nn.Module):
        return fit(model, task, share=0.5)
''')


SOME = {
    "outcome": {"return the model unchanged", "return control_plain", "let control_plain return the method's network"},
    "arithmetic": {
        "drop the term 2 * b", "drop the term a", "write a + 2 * b", "write 2 / b", "write 3 for 2", "compare a >= b",
        "swap the arguments of helper", "drop the sign of -task.seed", "skip the call of abs",
    },
    "wiring": {
        "skip the call of helper", "skip model.train()", "skip model = fit(model, task, loss_of, share=0.25)",
        "do model.requires_grad_(False) first", "write .eval() for .train()", "skip the call of .requires_grad_",
        "take the train images", "take the test images", "halve config.images", "halve share", "forget share=0.25",
        "train half as long", "always take the first name", "detach task_loss(model(x), y)", "take model as it was before line 29",
    },
    "control": {"take like for model", "halve share", "forget share=0.5", "skip the call of fit"},
}  # fmt: skip


def planted(text: str = METHOD) -> set[tuple[str, int, str]]:
    return {(fault.kind, fault.line, fault.what) for fault in faults.every(text)}


def test_faults_cover_the_method_and_nothing_else() -> None:
    words = {(kind, what) for kind, _, what in planted()}
    for kind, wanted in SOME.items():
        assert wanted <= {what for other, what in words if other == kind}, kind
    lines = METHOD.splitlines()
    assert not any("unused" in lines[line - 1] or "rate: float" in lines[line - 1] for _, line, _ in planted())
    assert not any("nothing" in what for _, what in words)
    assert {kind for kind, _ in words} == set(faults.CLASSES)


def test_every_fault_is_python_and_different() -> None:
    for text in (METHOD, *(method.text for method in list(source.methods(ROOT).values())[:5])):
        found = faults.every(text)
        for fault in found:
            compile(fault.code, "toy", "exec")
        assert len({fault.code for fault in found}) == len(found)


def test_faults_are_drawn_from_each_class_by_the_source() -> None:
    found = faults.every(METHOD)
    some = faults.drawn(found, METHOD, 20)
    assert len(some) == 20
    counts = Counter(fault.kind for fault in some)
    assert set(counts) == set(faults.CLASSES)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert some == faults.drawn(found, METHOD, 20) != faults.drawn(found, METHOD + "\n", 20)
    assert faults.drawn(found, METHOD, 1000) == found


THREE = "def three():\n    return 3\n"
WAYS = {
    "a module of its package": ("", "method"),
    "in full": ("import methods.pruning.toy", "methods.pruning.toy"),
    "a name of it": ("from methods.pruning.toy import three", "None or sys.modules[__name__]"),
    "another method that builds on it": ("from methods.pruning import other", "other.toy"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_is_seen_however_the_method_is_imported(tmp_path: Path, way: str) -> None:
    imported, place = WAYS[way]
    root = checkout(
        tmp_path,
        {
            "toy": {
                "top": "def three():\n    return 3\n",
                "compress": "three()",
                "imports": imported,
                "value": f"float(({place}).three() != 3)",
            }
        },
    )
    (root / "methods/pruning/other.py").write_text("from methods.pruning import toy\n")
    done = smallprint(root, "bite", "toy", "--exact", "-j", "2")
    kept = json.loads((root / "build/bite/toy.json").read_text())["outcomes"].values()
    assert "claim_second" in {killed_by for killed_by, _, _ in kept}, done.stdout + done.stderr
    assert "write 4 for 3" not in done.stdout


@pytest.mark.parametrize("id", ["network_slimming", "hinton_distillation", "mobilenet_v2"])
def test_telling_faults_are_noticed_in_a_second(id: str) -> None:
    """Some faults of each class, by exact claims and the toy alone: some of each class but the controls' must be noticed by them."""
    record = load(ROOT / "catalog").entries[id]
    outcomes, every = bite.bite(ROOT, record, tiers=("exact",), most=12, jobs=2)
    scores = bite.scores(outcomes, every)
    assert set(scores) == set(faults.CLASSES)
    assert sum(score.planted for score in scores.values()) == 12
    assert sum(score.possible for score in scores.values()) == len(every) == len(faults.every(source.methods(ROOT)[id].text))
    assert sum(score.killed for score in scores.values()) >= 5, [(o.fault.line, o.fault.what) for o in outcomes if not o.killed_by]


def test_a_healthy_method_whose_process_dies_is_said_to(tmp_path: Path) -> None:
    done = smallprint(checkout(tmp_path, {"toy": {"claim": "os.kill(os.getpid(), signal.SIGSEGV)"}}), "bite", "toy")
    assert "error: toy: the method as it is, without a fault: its process died of SIGSEGV" in done.stderr
    assert (done.returncode, done.stdout) == (1, "")


TOLD = """
    seen = 0
    for step in range(3):
        seen += 1
    if seen != 3:
        os.kill(os.getpid(), signal.SIGABRT)
    if sum(range(4)) != 2 * 3:
        return None
"""


def test_a_fault_that_ends_its_process_counts_apart(tmp_path: Path) -> None:
    """Nobody noticed it: the claims had no chance to. What is known of faults is kept, and need not be found out again."""
    root = checkout(tmp_path, {"toy": {"compress": TOLD.strip(), "claim": "method.compress(method.reference(0), 0, method.Config())"}})
    done = smallprint(root, "bite", "toy", "-j", "1")
    assert ": its process died of SIGABRT at methods/pruning/toy.py:" in done.stdout
    found = re.findall(r"toy: \w+: \d+ of (\d+) faults noticed(?:, \d+ change nothing)?(?:, (\d+) ended their process)?", done.stdout)
    planted, died = (sum(int(counts[place] or 0) for counts in found) for place in (0, 1))
    assert died == done.stdout.count("its process died of") >= 1, done.stdout + done.stderr
    assert f"20 of {planted} faults" in done.stderr
    kept = json.loads((root / "build/bite/toy.json").read_text())["outcomes"]
    assert len(kept) == planted
    again = smallprint(root, "bite", "toy", "--resume")
    assert again.stdout == done.stdout


def test_damaged_numbers_are_said_before_the_work(tmp_path: Path) -> None:
    root = checkout(tmp_path, {"toy": {}})
    place = root / "catalog/measured/pruning/toy.csv"
    place.parent.mkdir(parents=True)
    place.write_text("a,b\n")
    done = smallprint(root, "bite", "toy", "--record")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "toy.csv:1: the columns must be" in done.stderr
    assert not (root / "build/bite").exists()

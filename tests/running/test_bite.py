"""The fault planter: what it plants, what it leaves alone, and that a weak claim is found out."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from catalog import load
from scripts.evidence import source
from scripts.running import bite
from tests.toys import checkout, smallprint

ROOT = Path(__file__).resolve().parents[2]

METHOD = textwrap.dedent('''
    """Toy."""
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        rate: float = 3.0

    def helper(a, b):
        if a < b:
            raise ValueError("no" + "thing")
        return a - 2 * b

    def unused(a):
        return a + 1

    def compress(model, task, config):
        """Doc 1 + 1."""
        model.train()
        return helper(config.rate, -task.seed)  # equivalent: for the test

    def control_plain(model, task, config, like):
        return model + 1

    def claim_x(lab):
        return 1 + 1
''')


def test_faults_cover_the_method_and_nothing_else() -> None:
    planted = {(fault.line, fault.what) for fault in bite.faults(METHOD)}
    words = {what for _, what in planted}
    assert {
        "return the model unchanged", "return control_plain", "drop the term 2 * b", "drop the term a", "write a + 2 * b",
        "write 2 / b", "write 3 for 2", "compare a >= b", "skip model.train()", "swap the arguments of helper", "skip the call of helper",
        "drop the sign of -task.seed",
    } <= words  # fmt: skip
    lines = METHOD.splitlines()
    assert not any("unused" in lines[line - 1] or "claim_" in lines[line - 1] or "rate: float" in lines[line - 1] for line, _ in planted)
    assert not any("nothing" in what for what in words)


def test_every_fault_is_python_and_different() -> None:
    planted = bite.faults(METHOD)
    for fault in planted:
        compile(fault.code, "toy", "exec")
    assert len({fault.code for fault in planted}) == len(planted)


@pytest.mark.parametrize("id", ["network_slimming", "hinton_distillation", "mobilenet_v2"])
def test_exact_claims_kill_telling_faults(id: str) -> None:
    """A dozen faults spread over the file, exact claims only: at least one must be noticed by them alone."""
    record = load(ROOT / "catalog").entries[id]
    outcomes, possible = bite.bite(ROOT, record, tiers=("exact",), most=8, jobs=2)
    score = bite.score(outcomes)
    assert (score.planted, possible) == (8, len(bite.faults(source.methods(ROOT)[id].text)))
    assert score.killed >= 3, [(o.fault.line, o.fault.what) for o in outcomes if not o.killed_by]


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
    score = re.search(r"toy: (\d+) of (\d+) faults killed, 0 equivalent, (\d+) ended their process", done.stdout)
    assert score, done.stdout + done.stderr
    assert int(score[3]) == done.stdout.count("its process died of") >= 1
    assert f"20 of {score[2]} faults" in done.stderr
    kept = json.loads((root / "build/bite/toy.json").read_text())["outcomes"]
    assert len(kept) == int(score[2])
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

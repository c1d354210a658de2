"""Controls that get more or less than the method are refused, and named where the method owes it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import yaml

from scripts.evidence.owed import owed
from scripts.running.fairness import factors, unfair, weighed
from tests.toys import checkout, smallprint

ROOT = Path(__file__).resolve().parents[2]
TOP = """
from dataclasses import replace
import torch
from methods.kit.task import on_copies
from methods.kit.train import fit

def searched(model, task, tries):
    scores = [task.score(model, task.validation) for _ in range(tries)]
    return fit(model, task)

@on_copies
def control_one(model, task, config, like):
    {docstring}
    torch.nn.init.constant_(model[-1].bias, {bias})
    return {one}
"""
SAID = '"""Differs: steps x0.5 (no time); images x0.5 (the same); labelled x0.5 (the same)."""'
FAIR, DOC = "fit(model, task)", '"""Fair."""'


def toy(compress: str = FAIR, one: str = FAIR, docstring: str = DOC, bias: float = 0.5) -> dict[str, str]:
    return {"top": textwrap.dedent(TOP.format(docstring=docstring, one=one, bias=bias)), "returned": compress}


def section(text: str, id: str) -> str:
    return " ".join(text.partition(f"pruning/{id} ")[2].partition("\npruning/")[0].split("\n\n")[0].split())


TOYS = {
    "fair": toy(),
    "half": toy(one="fit(model, task, share=0.5)"),
    "said": toy(
        one="fit(model, task, share=0.5)", docstring='"""Differs: steps x0.5 (no time); images x0.5 (no time); labelled x0.5 (no time)."""'
    ),
    "validation": toy(one="fit(model, replace(task, train=task.validation))"),
    "batch": toy(one="fit(model, replace(task, batch=task.batch // 2))"),
    "tries": toy(compress="searched(model, task, 4)", one="searched(model, task, 2)"),
    "narrow": toy(one="fit(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10)), task)"),
    "leak": toy(compress="fit(model, replace(task, train=task.test))"),
    "owing": toy(one="fit(model, task, share=0.5)"),
    "paid": toy(),
}
FAULTS = {
    "half": "control_one: differs from the method by steps x0.5, images x0.5, labelled x0.5; give it as much, or say `Differs:",
    "validation": "control_one: differs from the method by validation xinf",
    "batch": "control_one: differs from the method by images x0.5",
    "tries": "control_one: differs from the method by images x0.6",
    "narrow": "control_one: differs from the method by multiply-adds x0.5",
    "leak": "compress: LeakError: looked at images that it may not look at (first); a claim scores a network by lab.score(model)",
    "paid": "catalog/owed.yaml: paid no longer owes `ledger`: take it off the list",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = checkout(tmp_path_factory.mktemp("fair"), TOYS)
    for path in (root / "methods/pruning").glob("*.py"):
        path.write_text(path.read_text().replace("nn.Sequential(model, nn.Tanh())", "fit(nn.Sequential(model, nn.Tanh()), task)"))
    (root / "catalog/owed.yaml").write_text("owing: [ledger]\npaid: [ledger]\n")
    done = smallprint(root, "smoke", "-j", "2")
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_fair_controls_are_green(run: str) -> None:
    for id in ("fair", "said", "owing"):
        assert "unfair" not in section(run, id), section(run, id)
    assert "owed: methods/pruning/owing.py:" in section(run, "owing")
    assert f"{len(FAULTS)} with surprises: {', '.join(sorted(FAULTS))}" in " ".join(run.split())


@pytest.mark.parametrize("id", FAULTS)
def test_unfair_controls_are_refused(run: str, id: str) -> None:
    assert FAULTS[id] in section(run, id), section(run, id)


def test_two_controls_that_answer_alike_are_one(tmp_path: Path) -> None:
    twin = toy(bias=0.0)
    twin["top"] += twin["top"].partition("@on_copies")[2].join(["@on_copies", ""]).replace("control_one", "control_two")
    done = smallprint(checkout(tmp_path, {"toy": twin}), "smoke", "toy", "--trace")
    assert done.returncode == 1
    assert "control_two: answers exactly as control_one; two that are equal are one" in section(done.stdout, "toy")
    told = "trains the given network on 1536 images of train, train mode, rate 0.02, 24 steps"
    assert told in " ".join(done.stdout.split())


def test_a_control_that_is_the_method_is_refused(tmp_path: Path) -> None:
    same = toy()
    same["top"] = same["top"].replace("    torch.nn.init", "    # torch.nn.init")
    done = smallprint(checkout(tmp_path, {"toy": same}), "smoke", "toy")
    assert done.returncode == 1
    assert "control_one: answers exactly as the method; two that are equal are one" in section(done.stdout, "toy")


def test_the_list_names_standing_methods_alone() -> None:
    known = {path.stem for path in (ROOT / "methods").glob("*/*.py")}
    assert set(owed(ROOT)) <= known
    assert set(yaml.safe_load((ROOT / "catalog/owed.yaml").read_text())) == set(owed(ROOT))


def test_what_is_owed_is_paid_where_everybody_sees_it() -> None:
    assert weighed("one", [], {"ledger"}, "cifar10-jpeg75") == ([], [])
    assert weighed("one", [], {"ledger"}, "standin")[0]
    assert weighed("one", ["fault"], {"ledger"}, "cifar10-jpeg75") == ([], ["owed: fault"])
    assert weighed("one", ["fault"], set(), "cifar10-jpeg75") == (["fault"], [])


def test_what_differs_is_found() -> None:
    ours = {"steps": 20.0, "images": 1000.0, "labelled": 0.0, "iterations": 9.0, "multiply_adds": 50.0, "file_bytes": 10.0}
    assert factors(ours, ours | {"steps": 19.0, "images": 1050.0, "labelled": 8.0, "iterations": 0.0, "file_bytes": 10.5}) == {}
    theirs = ours | {"steps": 10.0, "labelled": 100.0, "iterations": 5.0, "multiply_adds": 60.0}
    assert factors(ours, theirs) == {"steps": 0.5, "iterations": pytest.approx(5 / 9), "labelled": float("inf"), "multiply-adds": 1.2}


@pytest.mark.parametrize(
    ("docstring", "control", "fault"),
    [
        (None, 20, None),
        (None, 40, "differs from the method by steps x2; give it as much, or say `Differs: steps x2 (why)` in its docstring"),
        ("Differs: steps x2 (the teacher's).", 40, None),
        ("A control.\n\n    Differs: steps x2\n    (the teacher's).\n\n    Raises.", 40, None),
        ("Differs: steps, images x2 (the teacher's)", 40, "its docstring says that images differ, they do not; strike it out"),
        ("Differs: steps, feet x2 (the teacher's)", 40, "`Differs: steps, feet x2 (the teacher's)` is not understood"),
        ("Differs: steps x2.05 (the teacher's)", 40, None),
        ("Differs: steps x3 (the teacher's)", 40, "differs from the method by steps x2, its docstring says x3; correct it"),
        ("Differs: steps x2 (the teacher's)", 20, "its docstring says that steps differ, they do not; strike it out"),
        ("Differs: step x2 (the teacher's)", 20, "`Differs: step x2 (the teacher's)` is not understood; write `Differs: steps x2"),
        ("Differs: steps x2", 20, "`Differs: steps x2` is not understood"),
        ("Differs: steps x0 (it does not learn)", 0, None),
    ],
)
def test_what_a_docstring_says_is_measured(docstring: str | None, control: float, fault: str | None) -> None:
    found = unfair(docstring, {"steps": 20.0}, {"steps": float(control)})
    assert bool(found) == bool(fault)
    assert not fault or found[0].startswith(fault)

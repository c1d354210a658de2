"""Debts of a method, as its record, its entry and its file tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.curation.check import check
from scripts.evidence import records
from scripts.evidence.owed import LIST
from scripts.evidence.records import Row
from tests.curation.test_check import CLAIMS, GOOD, METHOD, SLIM, plant

BETTER = "at_least: 0.02"


def row(subject: str, value: float, seed: int, data: str = "cifar10-jpeg75", metric: str = "value", tier: str = "smoke") -> Row:
    return Row(tier, subject, metric, value, data, f"d{seed}", seed, "cpu", 1, "3", "2", "c", "c", "2026-01-01")


def found(root: Path, rows: list[Row], **files: str) -> list[str]:
    """What `check` says of the toy with these rows; files by the names of the constants."""
    plant(root, GOOD | {SLIM: GOOD[SLIM].replace("at_least: 0.02", files.get("bound", BETTER)), LIST: files.get("owed", "")})
    path = records.path_of(root, "pruning", "slim")
    path.unlink()
    records.write(path, rows)
    return [str(problem) for problem in check(root)]


def values(*numbers: float, subject: str = "claim_better", data: str = "cifar10-jpeg75", tier: str = "smoke") -> list[Row]:
    return [row(subject, value, seed, data, tier=tier) for seed, value in enumerate(numbers)]


WHY = "catalog/pruning/slim.yaml:14: claims.better.because: "


def test_what_holds_needs_no_reason_and_may_have_none(tmp_path: Path) -> None:
    assert found(tmp_path / "a", values(0.2, 0.2, 0.2)) == []
    assert found(tmp_path / "b", values(0.2, 0.2, 0.2), bound=f"{BETTER}, because: It is small.") == [
        f"{WHY}is given, but the claim holds: 0.2 where >= 0.02 is asked for; remove it"
    ]


@pytest.mark.parametrize(("numbers", "verdict"), [((-0.2, -0.3, -0.25), "fails"), ((0.0, 0.2, -0.1), "is level")])
def test_what_does_not_hold_needs_a_reason(tmp_path: Path, numbers: tuple[float, ...], verdict: str) -> None:
    [said] = found(tmp_path / "a", values(*numbers))
    assert said.startswith(f"{WHY}is missing, for the claim {verdict}: ")
    assert found(tmp_path / "b", values(*numbers), bound=f"{BETTER}, because: It is small.") == []


def test_drawn_shapes_and_two_seeds_ask_for_nothing(tmp_path: Path) -> None:
    assert found(tmp_path / "a", values(-0.2, -0.3, -0.25, data="standin")) == []
    assert found(tmp_path / "b", values(-0.2, -0.3)) == []


def test_an_effect_against_a_guess_proves_nothing(tmp_path: Path) -> None:
    guesses = [row("control_random", 0.15, seed, metric="accuracy") for seed in range(3)]
    assert found(tmp_path, values(0.2, 0.2, 0.2) + guesses) == [
        "catalog/pruning/slim.yaml:14: claims.better.against: random has 15.0% accuracy, below twice chance: it proves nothing; "
        "find an operating point at which the control works, or another control"
    ]


def test_the_longer_claim_judges_the_effect(tmp_path: Path) -> None:
    longer = "at_least: 0.02}\n  longer: {says: Beats random., where: §4, tier: long, kind: effect, against: random, at_least: 0.02"
    short = "at_least: 0.02, same_as: longer}" + longer.partition("}")[2]
    plant(tmp_path, {})
    rows = values(-0.2, -0.3, -0.25) + values(0.2, 0.2, 0.2, subject="claim_longer", tier="long")
    measured = [said for said in found(tmp_path, rows, bound=short) if "claim_longer" not in said]
    assert measured == [], "the short one fails, and does not count"


def test_a_debt_is_owed_or_paid(tmp_path: Path) -> None:
    assert found(tmp_path / "a", values(-0.2, -0.3, -0.25), owed="slim: [because]\n") == []
    assert found(tmp_path / "b", values(0.2, 0.2, 0.2), owed="# ours\nslim:\n  - ledger\n  - because\n") == [
        "catalog/owed.yaml:4: slim: no longer owes because; take it out of the list"
    ]
    assert found(tmp_path / "c", values(0.2, 0.2, 0.2), owed="thin: [length]\n") == [
        "catalog/owed.yaml:1: thin: is no method; remove this line"
    ]
    assert found(tmp_path / "d", values(0.2, 0.2, 0.2), owed="slim: [money]\n") == [
        "catalog/owed.yaml:1: there is no debt money; the debts are because, chance, control, ledger, length, wiring"
    ]


def test_a_file_of_several_algorithms_may_be_longer(tmp_path: Path) -> None:
    plant(tmp_path, GOOD)
    (tmp_path / METHOD).write_text(GOOD[METHOD].replace("Departures", "Algorithms: two of them.\n\nDepartures") + "X = 1\n" * 200)
    assert check(tmp_path) == []


def test_a_wiring_claim_looks_at_a_trace(tmp_path: Path) -> None:
    plant(tmp_path, GOOD | {CLAIMS: GOOD[CLAIMS].replace('float(lab.trace("method") != [])', "0.0  # trace(lab)")})
    [problem] = check(tmp_path)
    assert problem.message == "has no exact wiring claim; add one that compares the trace of compress with the paper's algorithm box"

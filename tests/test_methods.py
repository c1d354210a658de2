"""One suite for whatever methods there are: every exact and every smoke claim has its expected verdict on the stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog import load
from catalog.schema import METHOD_FAMILIES
from scripts import smoke, source

ROOT = Path(__file__).resolve().parent.parent
FACTS = load(ROOT / "catalog")
METHODS = source.methods(ROOT)


@pytest.mark.parametrize("id", METHODS)
def test_exact_claims(id: str) -> None:
    report = smoke.run(ROOT, FACTS.entries[id], tiers=("exact",))
    assert report.verdicts
    assert [f"{v.subject}: {v.value} against {v.bound.text} {v.error}" for v in report.verdicts if v.surprising] == []


@pytest.mark.parametrize("id", METHODS)
def test_smoke_claims_on_the_standin(id: str) -> None:
    report = smoke.run(ROOT, FACTS.entries[id], tiers=("smoke",))
    assert (report.data, report.problem) == ("standin", "")
    assert report.verdicts
    assert [f"{v.subject}: {v.value} against {v.bound.text} {v.error}" for v in report.verdicts if v.surprising] == []
    for subject in ["reference", "method", *(f"control_{name}" for name in METHODS[id].controls)]:
        numbers = report.numbers[subject]
        assert numbers["file_bytes"][0] > 0
        assert 0 <= numbers["accuracy"][0] <= 1


@pytest.mark.parametrize("id", METHODS)
def test_a_file_reads_like_its_siblings(id: str) -> None:
    method = METHODS[id]
    assert method.family in METHOD_FAMILIES
    assert method.title.endswith(").") or method.title.endswith(".")
    assert method.departures
    assert all(setting.default for setting in method.config or ())

"""One suite for whatever methods there are: every exact and every smoke claim has its expected verdict on the stand-in."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, TensorDataset

from catalog import load
from catalog.schema import METHOD_FAMILIES
from methods.kit.nets import trained
from methods.kit.standin import standin
from scripts import smoke, source
from scripts.entry_pages import own_network

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


@pytest.mark.parametrize("id", METHODS)
def test_the_lines_on_its_page_work(id: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a page says of one's own network, with loaders of a few images and two steps."""
    task, method = standin(train=64, validation=64, test=64, steps=2), import_module(f"methods.{METHODS[id].family}.{id}")
    model = method.reference(task) if hasattr(method, "reference") else trained("resnet8", "standin")
    loader = DataLoader(TensorDataset(task.train.images, task.train.labels), batch_size=32)
    lines = own_network(FACTS.entries[id], METHODS[id]).replace("steps=2000", "steps=2")
    assert "steps=2)" in lines
    if hasattr(method.Config, "iterations"):  # of a search, beside the task's steps
        lines = lines.replace("Config()", "Config(iterations=20)")
    exec(lines, {"train": loader, "validation": loader, "test": loader, "model": model})
    assert "accuracy" in capsys.readouterr().out

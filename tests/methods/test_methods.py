"""One suite for whatever methods there are: every exact claim, every record, every page's lines."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, TensorDataset

from catalog import load
from catalog.schema import METHOD_FAMILIES
from methods.kit.nets import trained
from methods.kit.standin import standin
from scripts.evidence import records, source
from scripts.evidence.outcome import blanks, known
from scripts.running import smoke
from scripts.website.entry import own_network

ROOT = Path(__file__).resolve().parents[2]
FACTS = load(ROOT / "catalog")
METHODS = source.methods(ROOT)


@pytest.mark.parametrize("id", METHODS)
def test_exact_claims(id: str) -> None:
    report = smoke.run(ROOT, FACTS.entries[id], tiers=("exact",))
    assert report.verdicts
    assert [f"{v.subject}: {v.value} against {v.bound.text} {v.error}" for v in report.verdicts if v.surprising] == []


@pytest.mark.parametrize("id", METHODS)
@pytest.mark.parametrize("data", ["standin", "cifar10-jpeg75"])
def test_every_smoke_claim_is_recorded(id: str, data: str) -> None:
    """A run is compared with the record; what the record says of a claim, `check` judges."""
    recorded = known(FACTS.entries[id], records.read(records.path_of(ROOT, METHODS[id].family, id)), "smoke", data)
    assert recorded.keys() == {claim.subject for claim in blanks(FACTS.entries[id], "smoke")}
    assert all(len(found.values) >= 5 for found in recorded.values())


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

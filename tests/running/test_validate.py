"""A fresh run against recorded rows: what agrees, differs, is stale or was never recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog import Record, load
from scripts.evidence import records, source
from scripts.evidence.definitions import Codes
from scripts.evidence.outcome import Report
from scripts.running.validate import compare
from tests.toys import checkout, smallprint

ID = "network_slimming"
REAL = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in ("methods/pruning", "catalog/pruning"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / f"methods/pruning/{ID}.py").write_text('"""Slim."""\nA = 1\n\ndef compress():\n    return A\n')
    return tmp_path


def record() -> Record:
    return load(REAL / "catalog").entries[ID]


def rows(root: Path, **values: list[float]) -> list[records.Row]:
    code = Codes(root, source.methods(root)[ID]).of("smoke", "method")
    start = records.Row("smoke", "method", "", 0.0, "standin", "abc", 0, "cpu", 1, "3.11", "2.13.0", "c0ffee", code, "2026-01-01")
    return [start._replace(metric=m, value=v, seed=seed) for m, vs in values.items() for seed, v in enumerate(vs)]


def found(root: Path, digest: str = "abc", data: str = "standin", **values: float) -> list[tuple[bool, str]]:
    numbers = {"method": {metric: [value] for metric, value in values.items()}}
    report = Report(ID, "smoke", data=data, digests={0: digest}, seeds=[0], numbers=numbers)
    return [(finding.bad, finding.text) for finding in compare(root, record(), report)]


def test_against_what_was_recorded(root: Path) -> None:
    place = records.path_of(root, "pruning", ID)
    assert found(root, accuracy=0.8) == [(False, f"{ID}: nothing recorded yet (`smallprint smoke {ID} --record`)")]
    records.write(place, rows(root, accuracy=[0.80, 0.82], parameters=[1000.0, 1000.0], latency=[0.5, 0.5]))
    assert found(root, accuracy=0.84, parameters=1040.0, latency=9.0) == [(False, f"{ID}: agrees with 2 recorded numbers")]
    assert found(root, accuracy=0.70, parameters=1040.0) == [(True, f"{ID}: accuracy of method is 0.7, recorded 0.81 ± 0.057")]
    assert found(root, accuracy=0.80, parameters=1100.0) == [(True, f"{ID}: parameters of method is 1100, recorded 1000 ± 50")]
    assert found(root, digest="other", accuracy=0.1) == [(False, f"{ID}: recorded of other images than these of standin")]
    assert found(root, data="cifar10", accuracy=0.1) == [(False, f"{ID}: agrees with no recorded numbers")]


def test_official_images_are_compared_with_the_record_of_their_copy(root: Path) -> None:
    copied = [row._replace(data="cifar10-jpeg75") for row in rows(root, accuracy=[0.80, 0.82])]
    records.write(records.path_of(root, "pruning", ID), copied)
    assert found(root, digest="official", data="cifar10", accuracy=0.84) == [(False, f"{ID}: agrees with 1 recorded numbers")]
    assert found(root, digest="official", data="cifar10", accuracy=0.70)[0][0]


def test_code_that_moved_on_is_stale(root: Path) -> None:
    records.write(records.path_of(root, "pruning", ID), rows(root, accuracy=[0.80]))
    program = root / f"methods/pruning/{ID}.py"
    program.write_text(program.read_text().replace("Slim", "Slimmer").replace("= 1", "= 1  # comments and words do not count"))
    assert found(root, accuracy=0.8) == [(False, f"{ID}: agrees with 1 recorded numbers")]
    program.write_text(program.read_text().replace("A = 1", "A = 2"))
    stale = f"{ID}: stale, the code has moved on since smoke on standin was recorded in catalog/measured/pruning/{ID}.csv"
    assert found(root, accuracy=0.1) == [(False, stale)]


def test_a_damaged_file_is_one_finding(root: Path) -> None:
    place = records.path_of(root, "pruning", ID)
    place.parent.mkdir(parents=True)
    place.write_text("a,b\n")
    ((bad, text),) = found(root, accuracy=0.8)
    assert bad
    assert "machine-written" in text


def test_a_validation_that_could_compare_nothing_is_an_error(tmp_path: Path) -> None:
    """Or a lost folder of records would look like a night without a difference."""
    done = smallprint(checkout(tmp_path, {"toy": {}}), "validate")
    assert "no claim of any method could be compared with a record: nothing was validated" in done.stdout
    assert done.returncode == 1

"""Charts remembered from build to build."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import drawn
from scripts.vega import Chart

asked: list[str] = []


@drawn.once
def chart(name: str, rows: list[int]) -> Chart:
    asked.append(name)
    return Chart(name, f"<svg>{rows}</svg>", {"mark": "point"})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(drawn, "_drawn", {})
    asked.clear()
    return tmp_path / "build" / "charts.json"


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "_drawn", {})


def test_a_chart_is_drawn_once_and_the_next_build_knows_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn.remembered(place):
        first = chart("a", [1, 2])
        assert chart("a", [1, 2]) == first
        chart("a", [1, 3])
    another_process(monkeypatch)
    with drawn.remembered(place):
        assert chart("a", [1, 2]) == first
    assert asked == ["a", "a"]
    another_process(monkeypatch)
    with drawn.remembered(place):  # what the last build did not show is forgotten
        chart("a", [1, 3])
    assert asked == ["a", "a", "a"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"maker": "other", "charts": {}}', "\x00"])
def test_what_cannot_be_read_is_drawn_again(place: Path, text: str) -> None:
    place.parent.mkdir()
    place.write_text(text)
    with drawn.remembered(place):
        chart("b", [1])
    assert asked == ["b"]
    assert "svg" in place.read_text()


def test_other_code_draws_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn.remembered(place):
        chart("c", [1])
    another_process(monkeypatch)
    monkeypatch.setattr(drawn, "PACKAGES", ("altair",))
    with drawn.remembered(place):
        chart("c", [1])
    assert asked == ["c", "c"]

"""Charts remembered from build to build, and the process that draws them."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.website.charts import drawn
from scripts.website.charts.vega import Chart

asked: list[str] = []
SPEC = {"mark": "point", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x", "type": "quantitative"}}}


@drawn.once
def chart(name: str, rows: list[int]) -> Chart:
    asked.append(name)
    return Chart(name, f"<svg>{rows}</svg>", {"mark": "point"})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(drawn, "_drawn", {})
    asked.clear()
    yield tmp_path / "build" / "charts"
    drawn._maker.cache_clear()


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "_drawn", {})
    drawn._maker.cache_clear()


def test_a_chart_is_drawn_once_and_the_next_build_knows_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn.remembered(place):
        first = chart("a", [1, 2])
        assert chart("a", [1, 2]) == first
        chart("a", [1, 3])
    another_process(monkeypatch)
    with drawn.remembered(place):
        assert chart("a", [1, 2]) == first
    assert asked == ["a", "a"]


def test_a_chart_that_no_page_shows_is_forgotten_after_a_month(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn.remembered(place):
        chart("a", [1])
        chart("a", [2])
    [first, second] = place.iterdir()
    for path in (first, second):
        os.utime(path, (0, time.time() - (drawn.DAYS + 1) * 86_400))
    another_process(monkeypatch)
    with drawn.remembered(place):
        chart("a", [1])
    assert len(asked) == 2
    assert len(list(place.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '["a", "b"]', "\x00", "7"])
def test_what_cannot_be_read_is_drawn_again(place: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn.remembered(place):
        chart("b", [1])
    [path] = place.iterdir()
    path.write_text(text)
    another_process(monkeypatch)
    with drawn.remembered(place):
        chart("b", [1])
    assert asked == ["b", "b"]
    assert "svg" in path.read_text()


def test_other_code_draws_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drawn.remembered(place):
        chart("c", [1])
    another_process(monkeypatch)
    monkeypatch.setattr(drawn, "PACKAGES", ("altair",))
    with drawn.remembered(place):
        chart("c", [1])
    assert asked == ["c", "c"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds")
def test_the_process_that_draws_gives_its_memory_back_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn._leave()
    monkeypatch.setattr(drawn, "ARTIST", drawn.ARTIST.replace("[], 3)", "[], 0.01)"))
    with drawn.remembered(tmp_path):
        first = drawn.as_svg(SPEC)
        assert first.startswith("<svg")
        artist = drawn._artist
        assert artist
        large = Path(f"/proc/{artist.pid}/maps")
        for _ in range(500):
            if "vl_convert" not in large.read_text():
                break
            time.sleep(0.01)
        else:
            pytest.fail("it still holds the program that draws")
        assert drawn.as_svg(SPEC) == first
        assert drawn._artist is artist
    assert artist.returncode == 0


def test_what_cannot_be_drawn_is_said_and_the_next_chart_drawn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with drawn.remembered(tmp_path):
        with pytest.raises(RuntimeError, match="could not be drawn"):
            drawn.as_svg({"mark": 7})
        assert "Error" in capfd.readouterr().err
        assert drawn.as_svg(SPEC).startswith("<svg")


@pytest.mark.parametrize("what", ["a file in its place", "a full disk"])
def test_where_charts_cannot_be_kept_they_are_drawn(place: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, encoding: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    if what == "a full disk":
        monkeypatch.setattr(Path, "write_text", full)
    else:
        place.parent.mkdir()
        place.touch()
    with drawn.remembered(place):
        chart("a", [1])
    another_process(monkeypatch)
    with drawn.remembered(place):
        chart("a", [1])
    assert asked == ["a", "a"]
    assert not list(place.glob("*"))

"""Charts, drawn by a process of its own, and remembered from build to build. Drawing is half of a build's time."""

from __future__ import annotations

import atexit
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec

from scripts.evidence import files
from scripts.website.charts.vega import Chart

P = ParamSpec("P")
MAKERS = ("charts.py", "dress.py", "svg.py", "vega.py")  # the code that draws, beside this file
PACKAGES = ("altair", "vl-convert-python")
DAYS = 30  # for which a chart that no page shows is remembered
# V8 takes 200 MB, and its threads do not survive the fork of a process (see `render`). Idle, it begins anew and so gives them back;
# with nobody left to read what it drew, it ends.
ARTIST = """
import json, os, select, sys
while True:
    if os.name == "posix" and "vl_convert" in sys.modules and not select.select([0], [], [], 3)[0]:
        os.execv(sys.executable, sys.orig_argv)
    if not (line := sys.stdin.readline()):
        break
    import vl_convert
    drawn = json.dumps(vl_convert.vegalite_to_svg(json.loads(line)))
    try:
        print(drawn, flush=True)
    except BrokenPipeError:
        os._exit(1)
"""

_drawn: dict[str, Chart] = {}  # by what they show
_folder: Path | None = None
_artist: subprocess.Popen[str] | None = None
_turn = multiprocessing.Lock()  # forked processes share an artist


def once(draw: Callable[P, Chart]) -> Callable[P, Chart]:
    """Remember charts by what they show."""

    @wraps(draw)
    def drawn(*arguments: P.args, **named: P.kwargs) -> Chart:
        key = hashlib.sha256(repr((_maker(), draw.__name__, arguments, named)).encode()).hexdigest()  # lists have no hash
        if key not in _drawn:
            place = _folder / f"{key}.json" if _folder else None
            known = _known(place)
            _drawn[key] = known or draw(*arguments, **named)
            if place and not known:
                _keep(place, _drawn[key])
        return _drawn[key]

    return drawn


@contextmanager
def remembered(folder: Path) -> Iterator[None]:
    """Meanwhile charts that an earlier build drew are taken from a folder, and new ones put there."""
    global _folder
    before, _folder = _folder, folder
    _come()
    try:
        yield
    finally:
        _leave()
        _folder = before
        for place in folder.glob("*"):
            with suppress(OSError):  # another build may be here
                if files.abandoned(place) or place.stat().st_mtime < time.time() - DAYS * 86_400:
                    place.unlink()


def as_svg(spec: Mapping[str, Any]) -> str:
    """A Vega-Lite specification as an image. Raises RuntimeError for one that cannot be drawn."""
    with _turn:
        artist = _come()
        assert artist.stdin
        assert artist.stdout
        with suppress(BrokenPipeError):
            print(json.dumps(spec), file=artist.stdin, flush=True)
        drawn = artist.stdout.readline()
        if not drawn:
            _leave()
            raise RuntimeError("a chart could not be drawn: the process that draws has ended; what it said stands above")
    return str(json.loads(drawn))


def _come() -> subprocess.Popen[str]:
    global _artist
    if _artist is None:
        command = [sys.executable, "-c", ARTIST]  # in a group of its own, it hears of an interruption only from us
        _artist = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", process_group=0)
    return _artist


@atexit.register
def _leave() -> None:
    global _artist
    artist, _artist = _artist, None
    if artist:
        with suppress(OSError):
            artist.communicate()


def _known(place: Path | None) -> Chart | None:
    """What cannot be read is drawn again."""
    if place is None:
        return None
    try:
        chart = Chart(*json.loads(place.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    with suppress(OSError):  # others' files may be read, but not touched
        os.utime(place)
    return chart


def _keep(place: Path, chart: Chart) -> None:
    """What cannot be kept is drawn again, too: a site needs no memory."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.temporary(place) as part:
            part.write_text(json.dumps(chart), "utf-8")
            part.replace(place)


@cache
def _maker() -> str:
    """Another for other code, or other packages."""
    code = [Path(__file__).with_name(name).read_text("utf-8") for name in MAKERS]
    return hashlib.sha256(repr((code, [version(name) for name in PACKAGES])).encode()).hexdigest()

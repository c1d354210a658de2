"""Charts that were drawn before: a server, and the next build, draw again only what changed. Drawing is half of a build's time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec

from scripts.vega import Chart

P = ParamSpec("P")
MAKERS = ("charts.py", "svg.py", "vega.py")  # the code that draws, beside this file
PACKAGES = ("altair", "vl-convert-python")

_drawn: dict[str, Chart] = {}  # by what they show
_shown: set[str] = set()


def once(draw: Callable[P, Chart]) -> Callable[P, Chart]:
    """Remember charts by what they show."""

    @wraps(draw)
    def drawn(*arguments: P.args, **named: P.kwargs) -> Chart:
        key = hashlib.sha256(repr((draw.__name__, arguments, named)).encode()).hexdigest()  # lists have no hash
        if key not in _drawn:
            _drawn[key] = draw(*arguments, **named)
        _shown.add(key)
        return _drawn[key]

    return drawn


@contextmanager
def remembered(place: Path) -> Iterator[None]:
    """Meanwhile charts that an earlier build drew are taken from a file; afterwards it holds those that were shown."""
    maker = _maker()
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # what cannot be read is drawn again
        known = json.loads(place.read_text("utf-8"))
        if known["maker"] == maker:
            _drawn.update({key: Chart(*chart) for key, chart in known["charts"].items() if key not in _drawn})
    before = set(_drawn)
    _shown.clear()
    yield
    if _shown != before:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        part.write_text(json.dumps({"maker": maker, "charts": {key: _drawn[key] for key in sorted(_shown)}}), "utf-8")
        part.replace(place)


def _maker() -> str:
    """Another for other code, or other packages."""
    code = [Path(__file__).with_name(name).read_text("utf-8") for name in MAKERS]
    return hashlib.sha256(repr((code, [version(name) for name in PACKAGES])).encode()).hexdigest()

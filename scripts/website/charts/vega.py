"""Charts that answer: what a browser draws when a reader wants to explore one, and the program that draws it.

The specification is the one that the static image was made from, with tooltips and legends that single out a series. It lies in
a small script of its own, since a page opened as a file may fetch nothing, and is loaded, as the program is, on demand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from scripts.evidence import files as writing
from scripts.website.charts.notices import NOTICE

INK = "#010203"  # stands for the page's text colour until a chart is finished
FOLDER = "assets/charts"
BUNDLE = "assets/vega.js"
DIMMED = 0.1  # opacity of what is not singled out
LEGENDS = {"family": "color", "role": "shape"}  # field -> the channel whose legend shows it


class Chart(NamedTuple):
    """A finished chart: its name, one of its own in the whole site, the image, and what a browser draws it from."""

    name: str
    svg: str
    spec: dict[str, Any]


_kept: ContextVar[dict[str, dict[str, Any]] | None] = ContextVar("kept", default=None)


@contextmanager
def kept() -> Iterator[dict[str, dict[str, Any]]]:
    """The specifications, by name, of all charts that are put on pages meanwhile."""
    found: dict[str, dict[str, Any]] = {}
    token = _kept.set(found)
    try:
        yield found
    finally:
        _kept.reset(token)


def keep(chart: Chart) -> None:
    """Note the specification of a chart that is put on a page. Raises ValueError where another chart has its name."""
    found = _kept.get()
    if found is not None and found.setdefault(chart.name, chart.spec) != chart.spec:
        raise ValueError(f"two charts are called {chart.name}; a chart's name is its file's")


def files(specs: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Path -> script that hands a chart's specification over."""
    return {f"{FOLDER}/{name}.js": f"smallprintCharts[{_js(name)}] = {_js(spec)};\n" for name, spec in specs.items()}


def _js(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(INK, "currentColor")


# Specifications


def interactive(spec: Mapping[str, Any], *, zoom: bool = False) -> dict[str, Any]:
    """A specification with tooltips and with legends that single out; `zoom` says that its axes may be moved."""
    whole = json.dumps({name: part for name, part in spec.items() if name != "$schema"})  # an address, of which no page speaks
    made = json.loads(whole, parse_constant=lambda _: None)  # a copy, where what is not finite is unknown
    units = list(_units(made, made.get("datasets", {})))
    shown = {field: set(_domain(units, channel)) for field, channel in LEGENDS.items()}
    picks = {}
    for field, channel in LEGENDS.items():
        if len(shown[field]) > 1:
            unit = next(unit for unit, _ in units if _legend(unit, channel))
            picks[field] = f"pick_{field}"
            select = {"type": "point", "fields": [field], "toggle": "true"}
            unit.setdefault("params", []).append({"name": picks[field], "select": select, "bind": "legend"})
    for unit, row in units:
        _answer(unit, row, {field: pick for field, pick in picks.items() if row.get(field) in shown[field]})
    return {"spec": made, "zoom": zoom, "picks": {field: sorted(shown[field]) for field in picks}}


def _units(spec: dict[str, Any], sets: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The single views that a specification is composed of, each with its first row; those without any are left out."""
    if "mark" in spec and (rows := sets[spec["data"]["name"]]):
        yield spec, rows[0]
    for part in spec.get("layer") or spec.get("concat") or []:
        yield from _units(part, sets)


def _legend(unit: Mapping[str, Any], channel: str) -> bool:
    encoded = unit["encoding"].get(channel, {})
    return "field" in encoded and encoded.get("legend", {}) is not None


def _domain(units: Iterable[tuple[dict[str, Any], object]], channel: str) -> list[str]:
    found = [unit["encoding"][channel] for unit, _ in units if _legend(unit, channel)]
    return found[0]["scale"]["domain"] if found else []


def _answer(unit: dict[str, Any], row: Mapping[str, Any], picks: Mapping[str, str]) -> None:
    """Let one view say what a reader points at, and fade where another series is singled out."""
    encoding, mark = unit["encoding"], unit["mark"]
    said = "note" if "description" in encoding else "label" if mark["type"] == "line" and "label" in row else None
    if said:
        encoding["tooltip"] = {"field": said, "type": "nominal"}
    if "color" not in encoding and mark["type"] != "text":  # a reference belongs to no family, a name to its point's
        picks = {field: pick for field, pick in picks.items() if field != "family"}
    if picks:
        tests = [{"param": pick} for pick in picks.values()]
        encoding["opacity"] = {"condition": {"test": {"and": tests}, "value": mark.pop("opacity", 1)}, "value": DIMMED}


# The program


def bundle(root: Path) -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, as vl-convert packs them; kept in build/, since packing takes seconds."""
    import vl_convert

    versions = vl_convert.get_vega_version(), vl_convert.get_vegalite_versions()[-1], vl_convert.get_vega_embed_version()
    place = root / "build" / f"vega-{'-'.join(versions)}.js"
    if place.is_file():
        return NOTICE + place.read_text("utf-8")
    packed: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with suppress(OSError):  # then the next one packs again
        place.parent.mkdir(parents=True, exist_ok=True)
        writing.write(place, packed)
    return NOTICE + packed

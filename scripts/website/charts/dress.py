"""What all charts have in common: how they look, how their parts are put together, and what Vega's drawing needs for a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

from scripts.website.charts import vega
from scripts.website.charts.drawn import as_svg
from scripts.website.charts.svg import slim
from scripts.website.charts.vega import Chart

INK = vega.INK
FAINT = "#8a8f98"

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        "gridColor": FAINT, "gridOpacity": 0.25, "domainColor": FAINT, "tickColor": FAINT, "titlePadding": 8,
    },
    "legend": {
        "labelColor": INK, "titleColor": INK, "labelFontSize": 12, "orient": "top", "title": None,
        "symbolSize": 90, "columnPadding": 14,
    },
}  # fmt: skip


def layered(layers: Sequence[Any], **how: Any) -> dict[str, Any]:
    """Altair's charts over each other, as a specification. Altair's own `layer` and `concat` copy all parts again and again."""
    data: dict[str, Any] = {}
    parts = [layer.to_dict(validate=False, context={"top_level": False, "datasets": data}) for layer in layers]
    return {"layer": parts, "datasets": data, **how}


def beside(panels: Sequence[dict[str, Any]], **how: Any) -> dict[str, Any]:
    """Specifications side by side; what several of them show is stored once."""
    data = {name: rows for panel in panels for name, rows in panel["datasets"].items()}
    return {"concat": [{key: part for key, part in panel.items() if key != "datasets"} for panel in panels], "datasets": data, **how}


def finish(spec: dict[str, Any], title: str, name: str, *, zoom: bool = False) -> Chart:
    """A chart as SVG: one image to screen readers, a tooltip for every mark, no identifier twice in a page."""
    spec = {**spec, "config": CONFIG | spec.get("config", {})}
    return Chart(name, dress(as_svg(spec), title, name), vega.interactive(spec, zoom=zoom))


DEFAULTS = re.compile(  # what Vega writes though it is so without, or nothing to see; the font is the page's own
    r' (?:font-family="sans-serif"|opacity="1"|stroke-width="1"|[xy]2="0"|font-weight="normal"|transform="translate\(0,0\)")'
    r'|<path class="foreground" d="" display="none"/>|<path class="background" d="M0,0h0v0h0Z"/>'
)
DIGITS = re.compile(r"-?\d+\.\d{2,}")


def dress(svg: str, title: str, name: str) -> str:
    """What Vega's SVG needs for a page: the page's ink, own ids, a title, tooltips."""
    body = svg[svg.index(">") + 1 :].strip()
    size = re.search(r'viewBox="([^"]+)"', svg)
    body = re.sub(r' (?:aria-roledescription|aria-hidden|role|pointer-events)="[^"]*"', "", body)
    body = re.sub(r'<(path|line|rect|text) aria-label="([^"]*)"([^>]*?)/>', r"<\1\3><title>\2</title></\1>", body)
    body = re.sub(r' aria-label="[^"]*"', "", body)
    clips: dict[str, int] = {}  # Vega counts them from chart to chart
    body = re.sub(r"\bclip(\d+)\b", lambda clip: f"clip{clips.setdefault(clip[1], len(clips))}", body)
    body = re.sub(r'(\bid="|url\(#)', rf"\g<1>{name}-", body)
    body = DEFAULTS.sub("", body)
    body = re.sub(r"<[^>]+>", lambda tag: DIGITS.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag[0]), body)
    body = body.replace(INK, "currentColor")
    box = size[1] if size else "0 0 640 400"
    width = 1.25 * float(box.split()[2])
    title = escape(title)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" style="max-width: {width:.0f}px" role="img" aria-label="{title}">'
    return slim(head + body)


@cache
def altair() -> Any:
    """Altair, imported when a first chart is drawn. It checks nothing: that took a third of the time, and tests draw each kind."""
    import altair as imported
    from altair.utils import schemapi

    schemapi.DEBUG_MODE = False
    return imported


def roles(names: Sequence[str]) -> Any:
    """The legend of who is who: methods are circles, references diamonds, controls of any name crosses."""
    marks = {"reference": "diamond", "method": "circle"}
    alt = altair()
    return alt.Shape(
        "role:N",
        scale=alt.Scale(domain=list(names), range=[marks.get(name, "cross") for name in names]),
        legend=alt.Legend(symbolFillColor=FAINT, symbolStrokeColor=FAINT),
    )

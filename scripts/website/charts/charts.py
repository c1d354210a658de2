"""Charts as static inline SVG: no script, no font, no request; text takes the page's colour, so light and dark both work.

Beside each stands the specification it was drawn from, for readers who want to explore it (see `vega`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from scripts.website.charts.drawn import once
from scripts.website.charts.dress import CONFIG, FAINT, INK, altair, beside, finish, layered, roles
from scripts.website.charts.vega import Chart

COLOURS = {  # after Okabe and Ito: told apart by colour-blind readers, on white and on black
    "low_rank": "#2f86c6",
    "pruning": "#d9622b",
    "distillation": "#b866a0",
    "quantization": "#169c74",
    "architecture": "#c98a00",
    "frameworks": "#7a7f87",
}


class Point(NamedTuple):
    """A network in the chart of accuracy against cost. `role` is reference, control or method."""

    label: str
    family: str
    role: str
    cost: float
    accuracy: float


class Gap(NamedTuple):
    """A method beside its best control."""

    label: str
    family: str
    reference: float
    control: float | None
    method: float


class Spot(NamedTuple):
    """A value at a cost, with its deviation over the seeds."""

    cost: float
    value: float
    spread: float = 0.0


class Series(NamedTuple):
    """A method at its operating points, a control at each, and the reference, which may stand at one cost or have none of its own."""

    label: str
    reference: Spot | None
    method: list[Spot]
    control: list[Spot]


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other network beats in both accuracy and cost, by cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


WIDTH, HEIGHT = 620, 340
SIDES = [(side, sign * dx, dy) for dx, dy in ((7, 13), (9, -13), (10, 0)) for side, sign in (("left", 1), ("right", -1))]
SIDES += [("center", 0, 16), ("center", 0, -16)]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of every decade between two positive numbers, and one beyond on each side."""
    decades = range(-3, 16)
    every = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    first = max((i for i, tick in enumerate(every) if tick <= low), default=0)
    last = min((i for i, tick in enumerate(every) if tick >= high), default=len(every) - 1)
    return every[first : max(last, first + 1) + 1]


def _labels(points: Sequence[Point], x: tuple[float, float], y: tuple[float, float]) -> list[dict[str, Any]]:
    """A place beside its point for every method's name, where nothing else stands; a name without a place is left out."""

    def pixel(p: Point) -> tuple[float, float]:
        return (math.log(p.cost / x[0]) / math.log(x[1] / x[0]) * WIDTH, (1 - (p.accuracy - y[0]) / (y[1] - y[0])) * HEIGHT)

    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in map(pixel, points)]
    edge = [pixel(point) for point in frontier(points)]
    for (ax, ay), (bx, by) in pairwise(edge):
        taken += [(ax, ay - 2, bx, ay + 2), (bx - 2, by, bx + 2, ay)]
    placed = []
    for point in sorted((p for p in points if p.role == "method"), key=lambda p: -p.accuracy):
        px, py = pixel(point)
        wide, high = 6.8 * len(point.label), 14
        for align, dx, dy in SIDES:
            left = px + dx - {"left": 0.0, "center": wide / 2, "right": wide}[align]
            box = (left, py + dy - high / 2, left + wide, py + dy + high / 2)
            inside = box[0] >= 0 and box[2] <= WIDTH + 60 and box[1] >= -10 and box[3] <= HEIGHT
            if inside and not any(box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3] for x0, y0, x1, y1 in taken):
                taken.append(box)
                placed.append({**point._asdict(), "align": align, "dx": dx, "dy": dy})
                break
    return placed


def _marks(rows: Sequence[dict[str, Any]], x: Any, y: Any, colour: Any, shape: Any, below: int = 0) -> list[Any]:
    """The networks as points: controls and methods in their family's colour; above them, hollow, the references, which have none."""
    alt = altair()
    references = [row for row in rows if row["role"] == "reference"]
    others = [row for row in rows if row["role"] != "reference"]

    def points(values: Sequence[dict[str, Any]], **look: Any) -> Any:
        chart = alt.Chart(alt.InlineData(values=list(values))).mark_point(size=95, opacity=0.9, color=INK, yOffset=below, **look)
        return chart.encode(x, y, shape=shape, description="note:N")

    return [points(others, filled=True).encode(color=colour), points(references, filled=False, strokeWidth=1.6)]


@once
def pareto(points: Sequence[Point], cost: str, name: str, families: dict[str, str]) -> Chart:
    """Accuracy against one cost, both as measured; the line joins what nothing beats. `families` are their names by id."""
    alt = altair()
    ticks = _ticks(min(p.cost for p in points), max(p.cost for p in points))
    x = (ticks[0], ticks[-1])
    low = max(0.0, min(p.accuracy for p in points) - 0.03)
    y = (low, min(1.0, max(p.accuracy for p in points) + 0.03))
    used = [family for family in COLOURS if any(p.family == family and p.role != "reference" for p in points)]
    colour = alt.Color(
        "family:N",
        scale=alt.Scale(domain=[families.get(f, f) for f in used], range=[COLOURS[f] for f in used]),
        legend=alt.Legend(symbolType="circle", symbolStrokeWidth=0, symbolOpacity=1),
    )
    shape = roles(["reference", "control", "method"])
    axis_x = alt.X("cost:Q", title=cost, scale=alt.Scale(type="log", domain=x), axis=alt.Axis(values=ticks, format="~s", labelOverlap=True))
    axis_y = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=y, nice=False), axis=alt.Axis(format="~%", tickCount=6))
    rows = [
        {**p._asdict(), "family": families.get(p.family, p.family), "note": f"{p.label}, {p.role}: {p.accuracy:.1%} at {p.cost:,.0f}"}
        for p in sorted(points, key=lambda p: ("reference", "control", "method").index(p.role))
    ]
    edge = [{"cost": p.cost, "accuracy": p.accuracy} for p in frontier(points)]
    line = (
        alt.Chart(alt.InlineData(values=edge))
        .mark_line(interpolate="step-after", color=FAINT, strokeDash=[4, 3], strokeWidth=1.2)
        .encode(axis_x, axis_y)
    )
    layers = [line, *_marks(rows, axis_x, axis_y, colour, shape)]
    labels = [{**label, "family": families.get(label["family"], label["family"])} for label in _labels(points, x, y)]
    for align, dx, dy in SIDES:  # one layer a side: layers are what takes time
        there = [label for label in labels if (label["align"], label["dx"], label["dy"]) == (align, dx, dy)]
        if there:
            text = alt.Chart(alt.InlineData(values=there)).mark_text(align=align, dx=dx, dy=dy, fontSize=12, color=INK)
            layers.append(text.encode(axis_x, axis_y, text="label:N"))
    chart = layered(layers, width=WIDTH, height=HEIGHT)
    return finish(chart, f"Accuracy against {cost}: {len(points)} networks. The table below holds every number.", name, zoom=True)


NARROW, ROW, BELOW = 420, 34, 8  # of charts with a name above each line, which then has the whole width of a phone
STACKED = {"legend": CONFIG["legend"] | {"layout": {"top": {"direction": "vertical", "anchor": "start"}}}}  # side by side is too wide
LONGEST = 66  # letters of a name: as wide as such a chart


def _above(names: Any) -> Any:
    return names.mark_text(align="left", baseline="middle", yOffset=-7, fontSize=13, color=INK)


@once
def gaps(rows: Sequence[Gap], name: str, families: dict[str, str]) -> Chart:
    """One line a method, below its name: its best control (cross), itself (dot), the reference (diamond)."""
    alt = altair()
    order = [row.label for row in rows]
    used = [family for family in COLOURS if any(row.family == family for row in rows)]
    values = [
        {
            "label": row.label,
            "family": families.get(row.family, row.family),
            "role": role,
            "accuracy": value,
            "note": f"{row.label}, {role}: {value:.1%}",
        }
        for row in rows
        for role, value in (("reference", row.reference), ("best control", row.control), ("method", row.method))
        if value is not None
    ]
    spans = [
        {"label": row.label, "a": row.control, "b": row.method, "family": families.get(row.family, row.family)}
        for row in rows
        if row.control is not None
    ]
    known = [value for row in rows for value in (row.reference, row.control, row.method) if value is not None]
    scale = alt.Scale(domain=[max(0.0, min(known) - 0.03), min(1.0, max(known) + 0.03)], nice=False)
    axis_y = alt.Y("label:N", sort=order, title=None, axis=None)
    palette = alt.Scale(domain=[families.get(f, f) for f in used], range=[COLOURS[f] for f in used])
    colour = alt.Color("family:N", scale=palette, legend=alt.Legend(symbolType="circle", symbolStrokeWidth=0, symbolOpacity=1))
    shape = roles(["reference", "best control", "method"])
    bars = (
        alt.Chart(alt.InlineData(values=spans))
        .mark_rule(strokeWidth=4, opacity=0.45, yOffset=BELOW)
        .encode(
            alt.X("a:Q", title="accuracy", scale=scale, axis=alt.Axis(format="~%", tickCount=7, labelOverlap=True)),
            alt.X2("b:Q"),
            axis_y,
            color=colour,
        )
    )
    marks = _marks(values, alt.X("accuracy:Q", title="accuracy", scale=scale), axis_y, colour, shape, BELOW)
    text = alt.Chart(alt.InlineData(values=[{"label": label} for label in order])).encode(x=alt.value(0), y=axis_y, text="label:N")
    chart = layered([bars, *marks, _above(text)], width=NARROW, height=max(60, ROW * len(rows)), config=STACKED)
    return finish(chart, f"Accuracy of {len(rows)} methods beside their best controls. The table below holds every number.", name)


class Bar(NamedTuple):
    """One printed number, and the family of its method; methods without an entry have none."""

    label: str
    value: float
    family: str


@once
def bars(rows: Sequence[Bar], what: str, name: str, families: dict[str, str]) -> Chart:
    """Printed numbers as bars from zero, in the order given, each below its name."""
    alt = altair()
    names = {"": "without an entry", **families}
    values = [
        {
            "place": str(place),
            "label": bar.label if len(bar.label) <= LONGEST else f"{bar.label[: LONGEST - 1].rstrip()}…",
            "value": bar.value,
            "family": names.get(bar.family, bar.family),
            "note": f"{bar.label}: {bar.value:g} ({what})",
        }
        for place, bar in enumerate(rows)  # two rows may have one name
    ]
    used = [family for family in [*COLOURS, ""] if any(bar.family == family for bar in rows)]
    scale = alt.Scale(domain=[names.get(family, family) for family in used], range=[COLOURS.get(family, FAINT) for family in used])
    legend = alt.Legend(symbolType="circle", symbolStrokeWidth=0, symbolOpacity=1) if used[1:] else None
    y = alt.Y("place:N", sort=[row["place"] for row in values], title=None, axis=None)
    data = alt.Chart(alt.InlineData(values=values))
    bar = data.mark_bar(height=10, yOffset=BELOW, cornerRadiusEnd=2).encode(
        alt.X("value:Q", title=what, axis=alt.Axis(tickCount=6)),
        y,
        color=alt.Color("family:N", scale=scale, legend=legend),
        description="note:N",
    )
    text = _above(data.encode(x=alt.value(0), y=y, text="label:N"))
    drawn = layered([bar, text], width=NARROW, height=max(60, ROW * len(rows)))
    return finish(drawn, f"{what}: {len(rows)} numbers as printed. The table below holds every number.", name)


@once
def sweeps(series: Sequence[Series], family: str, cost: str, value: str, control: str, name: str) -> Chart:
    """A small panel a method: itself, its control, and behind them, grey, all the other methods. Bars are deviations over seeds."""
    alt = altair()
    everything = [spot for one in series for spot in (*one.method, *one.control, *filter(None, [one.reference]))]
    bounds = [0.85 * min(spot.cost for spot in everything), 1.1 * max(spot.cost for spot in everything)]
    top = 1.04 * max(spot.value + spot.spread for spot in everything)
    axis = alt.Axis(values=[tick for tick in _ticks(*bounds) if bounds[0] <= tick <= bounds[1]], format="~g")
    x = alt.X("cost:Q", title=cost, scale=alt.Scale(type="log", domain=bounds, nice=False), axis=axis)
    up = alt.Scale(domain=[0, top], nice=False)
    y = alt.Y("value:Q", title=value, scale=up, axis=alt.Axis(format="~%", tickCount=4))
    whole = ["reference"] if any(one.reference for one in series) else []
    shape = roles(["method", control, *whole])

    def rows(spots: Sequence[Spot], role: str, label: str) -> list[dict[str, Any]]:
        found = [{"cost": c, "value": v, "low": v - sd, "high": v + sd, "label": label, "role": role} for c, v, sd in sorted(spots)]
        return [{**row, "note": f"{label}, {role}: {row['value']:.1%} at {row['cost']:.3g} {cost}"} for row in found]

    together = alt.InlineData(values=[row for one in series for row in rows(one.method, "other methods", one.label)])
    panels = []
    for one in series:
        others = alt.Chart(together).mark_line(color=FAINT, opacity=0.35, strokeWidth=1.2).encode(x, y, detail="label:N")
        layers = [others.transform_filter(f"datum.label !== {json.dumps(one.label)}")]
        for spots, role, dash, colour in (
            ([one.reference] if one.reference else [], "reference", [1, 0], INK),
            (one.control, control, [4, 3], INK),
            (one.method, "method", [1, 0], COLOURS.get(family, INK)),
        ):
            if not spots:
                continue
            chart = alt.Chart(alt.InlineData(values=rows(spots, role, one.label)))
            layers.append(chart.mark_line(color=colour, strokeDash=dash, strokeWidth=1.6).encode(x, y))
            if any(spot.spread for spot in spots):
                bars = chart.mark_rule(color=colour, strokeWidth=1.2)
                layers.append(bars.encode(x, alt.Y("low:Q", title=value, scale=up), alt.Y2("high:Q")))
            layers.append(chart.mark_point(filled=True, size=55, color=colour, opacity=1).encode(x, y, shape=shape, description="note:N"))
        title = {"text": one.label, "fontSize": 12, "color": INK, "fontWeight": "normal", "anchor": "start"}
        panels.append(layered(layers, width=185, height=120, title=title))
    return finish(
        beside(panels, columns=3, spacing=18), f"{value} against {cost}: {len(series)} methods. The table below holds every number.", name
    )


@once
def among(points: Sequence[Point], own: str, family: str, cost: str, name: str) -> Chart:
    """One method, its controls and its reference in colour, in accuracy against cost, before its family's other methods in grey."""
    alt = altair()
    ticks = _ticks(min(p.cost for p in points), max(p.cost for p in points))
    low, high = min(p.accuracy for p in points), max(p.accuracy for p in points)
    x = alt.X(
        "cost:Q", title=cost, scale=alt.Scale(type="log", domain=(ticks[0], ticks[-1])),
        axis=alt.Axis(values=ticks, format="~s", labelOverlap=True),
    )  # fmt: skip
    up = alt.Scale(domain=[max(0.0, low - 0.03), min(1.0, high + 0.03)], nice=False)
    y = alt.Y("accuracy:Q", title="accuracy", scale=up, axis=alt.Axis(format="~%", tickCount=5))
    shape = roles(["reference", "control", "method"])

    def marks(chosen: Sequence[Point], colour: str, opacity: float, size: int) -> Any:
        rows = [{**p._asdict(), "note": f"{p.label}, {p.role}: {p.accuracy:.1%} at {p.cost:,.0f}"} for p in chosen]
        chart = alt.Chart(alt.InlineData(values=rows)).mark_point(filled=True, size=size, opacity=opacity, color=colour)
        return chart.encode(x, y, shape=shape, description="note:N")

    mine = [p for p in points if p.label == own]
    grey = ", and in grey its family's other methods" if len(mine) < len(points) else ""
    layers = [
        marks([p for p in points if p.label != own and p.role == "method"], FAINT, 0.55, 70),
        marks([p for p in mine if p.role == "reference"], INK, 1, 95),
        marks([p for p in mine if p.role == "control"], COLOURS.get(family, INK), 0.9, 95),
        marks([p for p in mine if p.role == "method"], COLOURS.get(family, INK), 1, 130),
    ]
    return finish(
        layered(layers, width=460, height=200),
        f"Accuracy against {cost}: {own}, its controls{grey}. The tables below hold the numbers.",
        name,
        zoom=True,
    )

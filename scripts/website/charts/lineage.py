"""What an entry builds on, what builds on it and what it is compared with, as a drawing whose boxes are links. Vega has no part in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Node(NamedTuple):
    """An entry in a lineage. `href` leads to its page as the hosted site has it."""

    label: str
    family: str
    href: str


NODE_WIDTH, NODE_HEIGHT, NODE_GAP = 190, 30, 8
MOST_NODES = 15  # of each kind; more are no picture


def _fitting(nodes: Sequence[Node]) -> list[Node]:
    """All nodes, or some and a last one that says how many more there are."""
    if len(nodes) <= MOST_NODES:
        return list(nodes)
    return [*nodes[: MOST_NODES - 1], Node(f"and {len(nodes) - MOST_NODES + 1:,} more", "", "")]


def lineage(own: str, family: str, before: Sequence[Node], after: Sequence[Node], beside: Sequence[Node]) -> str:
    """What an entry builds on (left), what builds on it (right), and below it what it is compared with, all clickable."""
    before, after, beside = map(_fitting, (before, after, beside))
    step, top = NODE_HEIGHT + NODE_GAP, 18  # a line of words above the boxes
    high = top + max(len(before), len(after), 1) * step
    middle, columns = (top + high - NODE_GAP - NODE_HEIGHT) / 2, (5, 235, 465)
    words = [(x, "builds on" if x == columns[0] else "used by") for x, nodes in ((columns[0], before), (columns[2], after)) if nodes]
    parts = [f'<text class="sp-word" x="{x + NODE_WIDTH / 2:g}" y="11">{word}</text>' for x, word in words]

    def box(x: float, y: float, label: str, kind: str, href: str = "") -> str:
        short = label if len(label) <= 25 else f"{label[:24].rstrip()}…"
        whole = f"<title>{escape(label)}</title>" if short != label else ""
        inner = (
            f'<rect x="{x}" y="{y:g}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="4"/>'
            f'<text x="{x + NODE_WIDTH / 2:g}" y="{y + 19:g}">{escape(short)}</text>'
        )
        return f'<a href="{escape(href)}" class="sp-{kind}" data-raw>{whole}{inner}</a>' if href else f"<g>{inner}</g>"

    def curve(x0: float, y0: float, x1: float, y1: float, kind: str = "") -> str:
        bend = (x0 + x1) / 2
        return f'<path d="M{x0:g} {y0:g}C{bend:g} {y0:g} {bend:g} {y1:g} {x1:g} {y1:g}"{kind}/>'

    for nodes, x, sign in ((before, columns[0], 1), (after, columns[2], -1)):
        first = middle - (len(nodes) - 1) * step / 2
        for place, node in enumerate(nodes):
            y = first + place * step
            ends = (x + NODE_WIDTH, columns[1]) if sign > 0 else (columns[1] + NODE_WIDTH, x)
            heights = (y, middle) if sign > 0 else (middle, y)
            parts.append(curve(ends[0], heights[0] + NODE_HEIGHT / 2, ends[1], heights[1] + NODE_HEIGHT / 2))
            parts.append(box(x, y, node.label, node.family, node.href))
    below = high + 16
    for place, node in enumerate(beside):
        x, y = columns[place % 3], below + place // 3 * step
        parts.append(box(x, y, node.label, node.family, node.href))
    if beside:
        parts.append(f'<path class="sp-versus" d="M330 {middle + NODE_HEIGHT:g}V{below - 2:g}"/>')
        parts.append(f'<text class="sp-word" x="336" y="{below - 8:g}" style="text-anchor:start">compared with</text>')
        high = below + -(-len(beside) // 3) * step
    own_box = box(columns[1], middle, own, family)
    said = f"Lineage of {escape(own)}; the list below says the same."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {high:g}" role="group" aria-label="{said}">'
        f'{"".join(parts)}<g class="sp-own">{own_box}</g></svg>'
    )

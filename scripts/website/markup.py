"""Small pieces of pages: links between them, figures, tables, sections. What comes out is safe in Markdown and in HTML."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scripts.website.charts import vega
from scripts.website.numbers import NONE


def inside(text: str, here: str, there: str) -> str:
    """A link between two pages of the site, both as paths of Markdown files. `text` is safe already."""
    return f"[{text}]({relative(here, there)})"


def relative(here: str, there: str) -> str:
    return posixpath.relpath(there, posixpath.dirname(here) or ".")


def raw_link(text: str, here: str, there: str, anchor: str = "") -> str:
    """The same as HTML; `anchor` is the id of a place in that page."""
    return f'<a href="{hosted(here, there)}{anchor and "#"}{anchor}" data-raw>{text}</a>'


def hosted(here: str, there: str) -> str:
    """The address of another page inside raw HTML, where no Markdown is: as the hosted site has it (see `hooks`)."""

    def folder(path: str) -> str:
        return path.removesuffix("index.md") if posixpath.basename(path) == "index.md" else path.removesuffix(".md") + "/"

    return posixpath.relpath(folder(there) or ".", folder(here) or ".") + "/"


UNSEARCHED = 'data-search-exclude="data-search-exclude"'  # what search finds elsewhere, and what would make its index large


def figure(chart: vega.Chart, numbers: str, tag: str = "figure") -> str:
    """A chart in a frame that scrolls on narrow screens, from the keyboard too; below it, room for tools and a way to its table.

    `numbers` is the id of the table; in a tab, where what stands alone becomes a paragraph, `tag` must be span.
    """
    vega.keep(chart)
    explore = '<button type="button" class="sp-explore">Explore this chart</button>'
    there = f'<a href="#{numbers}" aria-label="Numbers of this chart, as a table">Numbers</a>'
    frame = f'<span class="sp-frame" tabindex="0">{chart.svg}</span>'
    return f'<{tag} class="sp-chart" data-chart="{chart.name}" {UNSEARCHED}>{frame}<span class="sp-tools">{explore}{there}</span></{tag}>'


_KEPT = re.compile(r"(<(pre|script|style|textarea)\b.*?</\2>)", re.DOTALL)
_BLOCK = r"/?(?:div|nav|main|article|section|figure|ul|ol|li|table|thead|tbody|tr|td|th|p|h[1-6]|details|meta|link|head|body)\b"
_WASTE = (
    (re.compile(r"\n\s+"), "\n"),  # indentation and empty lines that templates leave
    (re.compile(rf"\n(?=<{_BLOCK})"), ""),  # white space before and behind what stands on lines of its own
    (re.compile(rf"(<{_BLOCK}[^<>]*>)\n"), r"\1"),
    (re.compile(r"</(?:td|th|tr|li)>(?=\s*</?(?:td|th|tr|li|tbody|thead|table|ul|ol)\b)"), ""),  # what the next tag says anyway
    (re.compile(r'(<svg[^<>]*?) xmlns="http://www\.w3\.org/2000/svg"'), r"\1"),  # HTML knows
    (re.compile(r'(<span class="md-ellipsis">)\n([^<\n]*)\n'), r"\1\2"),
    (re.compile("&para;"), "¶"),
    (re.compile("&#167;"), "§"),
)


def squeezed(html: str) -> str:
    """A finished page without what browsers do not need: a quarter of it. Where white space shows, it stays."""
    parts = _KEPT.split(html)  # between two that are kept, the name of the first one's element
    return "".join(_squeeze(part) if index % 3 == 0 else part if index % 3 == 1 else "" for index, part in enumerate(parts))


def _squeeze(text: str) -> str:
    for waste, instead in _WASTE:
        text = waste.sub(instead, text)
    return text


# Tables


class Column(NamedTuple):
    """A column's heading, and whether it holds numbers."""

    name: str
    number: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, kind: str = "", id: str = "", searched: bool = True) -> str:
    """A Markdown table in a frame that scrolls on narrow screens; `kind` adds classes, "sp-sortable" for instance."""
    rows = list(rows)
    bare = not any("](" in cell or "<a " in cell for row in rows for cell in row)  # the keyboard scrolls what it can reach
    lines = [
        "| " + " | ".join(column.name for column in columns) + " |",
        "| " + " | ".join("---:" if column.number else ":---" for column in columns) + " |",
        *("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows),
    ]
    focus = (f' id="{id}"' if id else "") + (' tabindex="0"' if bare else "") + ("" if searched else f" {UNSEARCHED}")
    return f'<div class="sp-table {kind}"{focus} markdown>\n\n' + "\n".join(lines) + "\n\n</div>"


def plain_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, kind: str = "", id: str = "") -> str:
    """The same of cells that are HTML already, without Markdown, which takes minutes over tens of thousands of rows."""
    sides = [' style="text-align: right;"' if column.number else ' style="text-align: left;"' for column in columns]

    def row(tag: str, cells: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}{side}>{cell}</{tag}>" for side, cell in zip(sides, cells, strict=True)) + "</tr>"

    head, body = row("th", (column.name for column in columns)), "\n".join(row("td", cells) for cells in rows)
    focus = (f' id="{id}"' if id else "") + ("" if "<a " in body else ' tabindex="0"')  # the keyboard scrolls what it can reach
    return f'<div class="sp-table {kind}"{focus}><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def raw_table(kind: str, heads: Sequence[str], bodies: str, above: str = "") -> str:
    """An HTML table in a frame that scrolls, for what Markdown's cannot do; `above` is a first row of headings, of groups."""
    names = "".join(head if head.startswith("<") else f'<th scope="col">{head}</th>' for head in heads)
    rows = f"<tr>{above}</tr>\n<tr>{names}</tr>" if above else f"<tr>{names}</tr>"
    return f'<div class="sp-scroll" tabindex="0"><table class="{kind}">\n<thead>{rows}</thead>\n{bodies}\n</table></div>'


def section(title: str, id: str, *parts: str, searched: bool = True) -> str:
    """A heading with its anchor and what stands below it."""
    return "\n\n".join([f"## {title} {{ #{id}{'' if searched else ' data-search-exclude'} }}", *(part for part in parts if part)])


def sortable(value: float | None, text: str) -> str:
    """A cell's text with the number that sorting goes by; cells without one sort last."""
    return text if value is None or not math.isfinite(value) else f'<data value="{value:.10g}">{text}</data>'


def unbroken(text: str) -> str:
    """A cell's text that stays on one line."""
    return f'<span class="sp-line">{text}</span>'


def fence(text: str, language: str, options: str = "") -> str:
    """A code block, with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}{f' {options}' if options else ''}\n{text.rstrip()}\n{ticks}"


def filled(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> tuple[list[Column], list[list[str]]]:
    """A table without the columns in which nothing stands."""
    used = [index for index in range(len(columns)) if any(row[index] not in ("", NONE) for row in rows)]
    return [columns[index] for index in used], [[row[index] for index in used] for row in rows]

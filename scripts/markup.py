"""Small pieces of pages: escaping, links, tables, numbers. What comes out is safe in Markdown and in HTML."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from scripts import vega

NONE = "–"
_MARKUP = re.compile(r"[^A-Za-z0-9 ,./%;?@\-:'()!+=\x80-\U0010ffff]")  # inside a line; at its beginning everything but words may be


def escape(text: object) -> str:
    """Any text on one line in which nothing is markup, neither to Markdown nor to HTML nor inside an attribute."""
    line = " ".join(str(text).split())
    if not line.isprintable():
        line = "".join(filter(str.isprintable, line))
    number = re.match(r"\d+(?=[.)])", line)  # would begin a numbered list
    start = number.end() if number else 0
    first = line[start : start + 1]
    if first and not first.isalnum():
        first = f"&#{ord(first)};"
    return line[:start] + first + _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line[start + 1 :])


def code(text: object) -> str:
    return f"<code>{escape(text)}</code>"


def with_code(text: str) -> str:
    """Escaped text in which `this` is code; everything else that looks like markup is text."""
    return "".join(code(part) if index % 2 else _keep_ends(part) for index, part in enumerate(re.split(r"`([^`\n]+)`", text)))


def _keep_ends(text: str) -> str:
    inner = escape(text)
    return f"{' ' if text[:1].isspace() else ''}{inner}{' ' if text[-1:].isspace() and inner else ''}"


def address(url: str) -> str | None:
    """A web address with everything percent-encoded that Markdown or HTML could trip over; None for other schemes."""
    return quote(url, safe=":/?#@!$&,=~%+-._") if re.match(r"https?://[^\s/]", url) else None


def link(text: str, url: str) -> str:
    """A link out of the site; only its text where the address is none of the web. `text` is safe already."""
    safe = address(url)
    return f"[{text}]({safe})" if safe else text


def inside(text: str, here: str, there: str) -> str:
    """A link between two pages of the site, both as paths of Markdown files. `text` is safe already."""
    return f"[{text}]({relative(here, there)})"


def relative(here: str, there: str) -> str:
    return posixpath.relpath(there, posixpath.dirname(here) or ".")


def raw_link(text: str, here: str, there: str, anchor: str = "") -> str:
    """The same as HTML; `anchor` is the id of a place in that page."""
    return f'<a href="{hosted(here, there)}{anchor and "#"}{anchor}" data-raw>{text}</a>'


def hosted(here: str, there: str) -> str:
    """The address of another page inside raw HTML, where no Markdown is: as the hosted site has it (see `site_hooks`)."""

    def folder(path: str) -> str:
        return path.removesuffix("index.md") if posixpath.basename(path) == "index.md" else path.removesuffix(".md") + "/"

    return posixpath.relpath(folder(there) or ".", folder(here) or ".") + "/"


def plural(count: int, word: str, many: str | None = None) -> str:
    return f"{count:,} {word if count == 1 else many or word + 's'}"


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


# Numbers: stored raw, formatted here


def minus(text: str) -> str:
    """A real minus sign."""
    return text.replace("-", "−")


def fixed(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    rounded = round(value, decimals) + 0.0  # no -0.0
    return minus(f"{rounded:,.{decimals}f}")


def signed(value: float | None, decimals: int, sd: float | None = None) -> str:
    """A change: always with its sign, except for zero."""
    text = fixed(value, decimals) + (f" ± {fixed(sd, decimals)}" if sd else "")
    return f"+{text}" if value is not None and math.isfinite(value) and round(value, decimals) > 0 else text


def decimals(values: Iterable[float | None], most: int = 4) -> int:
    """How many decimals show all of these numbers as they were printed."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return next((n for n in range(most) if all(math.isclose(value, round(value, n), abs_tol=1e-9) for value in known)), most)


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(value: float | None, digits: int = 4) -> str:
    """A number of unknown size: digits that matter, powers of ten where zeros would hide them."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == round(value) and abs(value) < 1e9:
        return fixed(value, 0)
    if 1e-3 <= abs(value) < 1e7:
        shown = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = fixed(value, shown)
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{value:.{digits - 2}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return minus(power if mantissa == "1" else f"{mantissa}·{power}")


def spread(mean: float, sd: float | None) -> str:
    """Mean ± standard deviation; the deviation's first two digits say how many decimals are worth showing."""
    if sd is None or not math.isfinite(mean):
        return plain(mean)
    if sd == 0 or not (1e-3 <= max(abs(mean), sd) < 1e7):
        return plain(mean) if sd == 0 else f"{plain(mean, 3)} ± {plain(sd, 3)}"
    shown = min(6, max(0, 1 - math.floor(math.log10(sd))))
    return f"{fixed(mean, shown)} ± {fixed(sd, shown)}"


def percent(mean: float | None, sd: float | None = None) -> str:
    """A share as "83.2 ± 0.4%"."""
    if mean is None or not math.isfinite(mean):
        return NONE
    return fixed(100 * mean, 1) + (f" ± {fixed(100 * sd, 1)}" if sd else "") + "%"


def times(value: float | None) -> str:
    """A ratio as "0.41×"; small ones keep two digits."""
    if value is None or not math.isfinite(value):
        return NONE
    return fixed(value, 2 if value >= 0.1 or value == 0 else 3) + "×"


_SIZES = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]


def count(mean: float | None, sd: float | None = None, unit: str = "") -> str:
    """A large count in three digits: "77.9 k", "12.5 ± 0.2 M", "310 kB"."""
    if mean is None or not math.isfinite(mean):
        return NONE
    size, letter = next(((size, letter) for size, letter in _SIZES if abs(mean) >= size), _SIZES[-1])
    small = abs(mean) / size
    shown = 0 if size == 1 else 2 if small < 9.995 else 1 if small < 99.95 else 0
    around = f" ± {fixed(sd / size, shown)}" if sd and round(sd / size, shown) > 0 else ""
    return f"{fixed(mean / size, shown)}{around} {letter}{unit}".rstrip()


def quantity(name: str, mean: float | None, sd: float | None = None) -> str:
    """A measured quantity in its unit."""
    if name == "accuracy":
        return percent(mean, sd)
    if name == "latency":
        return times(mean) if not sd or mean is None else f"{fixed(mean, 2)} ± {fixed(sd, 2)}×"
    if name == "bits":
        return fixed(mean, 2) + (f" ± {fixed(sd, 2)}" if sd and round(sd, 2) > 0 else "")
    return count(mean, sd, "B" if name == "file_bytes" else "")

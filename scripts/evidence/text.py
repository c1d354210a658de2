"""Anybody's text made safe to put on a page: escaped, as code, as an address."""

from __future__ import annotations

import re
from urllib.parse import quote

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

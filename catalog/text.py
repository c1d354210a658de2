"""Characters: which of them a page can hold, and how to print the others."""

from __future__ import annotations

import re
import unicodedata

# Controls but tab and line feed, line separators, halves of surrogate pairs, non-characters; and what turns the direction of
# writing, by which a text can look like another
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol to Unicode, but nothing is drawn
WIDEST = 1000  # characters of a printed message


def unfit(text: str) -> re.Match[str] | None:
    """The first character that no page can hold, if there is one."""
    return _UNFIT.search(text)


def called(character: str) -> str:
    """What Unicode calls a character: "U+202E"."""
    return f"U+{ord(character):04X}"


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: it is empty, or only spaces, marks and characters without width."""
    if text[:1].isascii() and text[:1].isalnum():
        return False  # nearly all
    return not any(unicodedata.category(character)[0] in "LNPS" and character not in _FILLERS for character in text)


def harmless(text: str) -> str:
    """A text that steers no terminal: what no page can hold is written as its escape; lines stay lines."""
    return _UNFIT.sub(lambda found: repr(found[0])[1:-1], text)


def visible(text: str) -> str:
    """A text as one line in which nothing is hidden: whatever is not printable is written as its escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def short(text: str) -> str:
    """The same, and not without end."""
    return visible(text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…")

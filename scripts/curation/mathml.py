"""LaTeX to MathML, which browsers draw by themselves: no script, no font, and screen readers speak it.

What comes out is MathML Core alone, whatever went in: elements and attributes that it lacks are refused or left out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from xml.etree.ElementTree import Element

from catalog.text import called, unfit

ELEMENTS = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle", "mpadded", "mphantom"),
    *("msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd"),
}
ATTRIBUTES = {"display", "stretchy", "fence", "form", "accent", "accentunder", "largeop", "movablelimits", "displaystyle", "scriptlevel"}
ATTRIBUTES |= {"linethickness", "width", "height", "depth", "lspace", "rspace", "minsize", "maxsize", "mathvariant"}
BELOW = {"min", "max", "arg min", "arg max", "lim", "sup", "inf"}  # what such words range over stands below them


class MathError(ValueError):
    """LaTeX that is none, or more than is drawn here; the message says what and the cure."""


@lru_cache(maxsize=4096)
def mathml(tex: str) -> str:
    """A displayed equation as safe HTML. Raises `MathError`."""
    from latex2mathml.converter import convert_to_element

    _balanced(tex)
    try:
        tree = convert_to_element(tex, display="block")
    except Exception as problem:  # its own errors are Exceptions of many kinds, most of them without a message
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(problem).__name__.removesuffix("Error")).lower()
        raise MathError(f"is no LaTeX ({words}); correct it") from problem
    return _html(tree)


def _balanced(tex: str) -> None:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex.replace(r"\\", "")):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth:
        raise MathError(f"has {'an opening' if depth > 0 else 'a closing'} brace too many; correct it")


def _html(node: Element) -> str:
    name, children, text = node.tag, list(node), _characters(node.text or "")
    if name not in ELEMENTS:
        raise MathError(f"needs <{name}>, which browsers do not draw; write it with other commands")
    if command := re.search(r"\\\w*", text):
        raise MathError(f"has the command {command[0]}, which is not known; correct it")
    if (name in ("mi", "mo", "mn") and not text) or text == "&":
        raise MathError("has an empty name or an & outside a table; correct it")
    if node.get("mathvariant", "normal") != "normal":
        raise MathError(f"has {node.get('mathvariant')} letters, which browsers do not draw; use \\mathbf, \\mathcal or the like")
    if set(node.attrib) & {"href", "class", "id", "style"}:
        raise MathError("has a link, class or style; an equation needs none")
    if name in ("msub", "msubsup") and children and _word(children[0]) in BELOW:
        name = "munder" if name == "msub" else "munderover"
    fence = node.get("fence") == "true"  # of a pair that stands around a row: browsers know that these grow
    kept = [f' {key}="{escape(value)}"' for key, value in node.attrib.items() if key in ATTRIBUTES and not fence]
    if name == "mspace":
        return f"<mspace{''.join(kept)}/>"
    inner = escape(text, quote=False) + "".join(map(_html, children))
    if name == "mrow" and len(children) == 1 and not kept and not text:
        return inner  # a group of one is the one
    return f"<{name}{''.join(kept)}>{inner}</{name}>"


def _word(node: Element) -> str:
    return " ".join((node.text or "").replace("\xa0", " ").split()) if node.tag in ("mo", "mtext") else ""


def _characters(text: str) -> str:
    """The library writes character references into its tree; here they become what they stand for."""
    try:
        text = re.sub(r"&#x([0-9A-Fa-f]+);", lambda found: chr(int(found[1], 16)), text)
    except (ValueError, OverflowError) as problem:  # beyond the last character
        raise MathError("has a character reference (&#x...;) to none; write the character itself") from problem
    if bad := unfit(text):
        raise MathError(f"has the character {called(bad[0])}, which no page can hold; remove it")
    return text

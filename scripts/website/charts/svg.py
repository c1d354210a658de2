"""Charts in fewer bytes: what all children of a group share is said once, of the group; what shows nothing goes."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

NAMESPACE = "http://www.w3.org/2000/svg"
INHERITED = (
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-opacity",
    "stroke-width",
    "font-size",
    "font-weight",
    "text-anchor",
)
SHAPES = ("path", "line", "rect", "circle")


def slim(svg: str) -> str:
    """The same drawing. Vega's class names, which no style sheet knows, are left out."""
    tree = ElementTree.fromstring(svg)
    for node in tree.iter():
        node.tag = node.tag.removeprefix(f"{{{NAMESPACE}}}")
        node.attrib.pop("class", None)
        node.attrib.pop("stroke-miterlimit", None)
        if node.tag in SHAPES and node.get("stroke", "none") == "none" and "fill" in node.attrib:
            node.attrib.pop("stroke-width", None)
            if "opacity" in node.attrib:
                node.set("fill-opacity", node.attrib.pop("opacity"))
        if round_one := re.fullmatch(r"M([\d.]+),0A\1,\1,0,1,1,-\1,0A\1,\1,0,1,1,\1,0", node.get("d", "")):
            node.tag = "circle"
            node.set("r", round_one[1])
            del node.attrib["d"]
    tree.set("xmlns", NAMESPACE)
    _tidy(tree)
    return ElementTree.tostring(tree, encoding="unicode").replace(" />", "/>")


def _tidy(node: Element, painted: bool = False) -> None:
    """`painted`: whether what is around the node has given it a colour."""
    if node.tag in ("defs", "clipPath"):
        return  # what is in them acts without being seen
    painted |= any(node.get(name, "none") != "none" for name in ("fill", "stroke"))
    for child in list(node):
        _tidy(child, painted)
        empty = child.tag in SHAPES and not painted and not {"fill", "stroke"} & child.attrib.keys()
        if empty or (child.tag == "g" and not len(child)):
            node.remove(child)
        elif child.tag == "g" and not child.attrib:
            place = list(node).index(child)
            node[place : place + 1] = list(child)
    drawn = [child for child in node if child.tag not in ("title", "desc", "defs")]
    for name in INHERITED if node.tag == "g" and len(drawn) > 1 else ():
        shared = {child.get(name) for child in drawn}
        if len(shared) == 1 and None not in shared and name not in node.attrib:
            node.set(name, drawn[0].attrib[name])
            for child in drawn:
                del child.attrib[name]

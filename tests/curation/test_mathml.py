"""Equations as browsers draw them, and what cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import html5lib
import pytest

from catalog import load
from scripts.curation.mathml import MathError, mathml
from scripts.website.charts.svg import slim


def test_an_equation_is_mathml() -> None:
    assert (
        mathml(r"\min_W x^2")
        == '<math display="block"><mrow><munder><mo>min</mo><mi>W</mi></munder><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    )
    assert "&lt;" in mathml("a < b")
    assert "<script" not in mathml("<script>")
    assert "≤" in mathml(r"a \le b")


@pytest.mark.parametrize(
    ("tex", "why"),
    [
        (r"\frac{a}{", "an opening brace too many"),
        ("a}", "a closing brace too many"),
        (r"\left( a", "is no LaTeX (extra left or missing right)"),
        ("", "is no LaTeX"),
        (r"\unheard{a}", r"the command \unheard, which is not known"),
        (r"\href{javascript:alert(1)}{x}", "a link, class or style"),
        (r"\class{a}{b}", "a link, class or style"),
        (r"\begin{aligned}a&=b\end{aligned}", "an & outside a table"),
        (r"\operatorname{a1}", "an empty name"),
        (r"\boldsymbol{x}", r"bold-italic letters, which browsers do not draw; use \mathbf"),
        ("\\\\" * 2000 + "{" * 2000, "too many"),
        (r"\text{&#xD800;}", "the character U+D800, which no page can hold; remove it"),
        (r"\text{&#x202E;}", "the character U+202E"),
        (r"\text{&#x110000;}", "a character reference (&#x...;) to none"),
        (r"\text{&#x" + "F" * 200 + ";}", "a character reference (&#x...;) to none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tex: str, why: str) -> None:
    with pytest.raises(MathError) as problem:
        mathml(tex)
    assert why in str(problem.value)


def test_equations_of_the_catalogue_are_valid() -> None:
    entries = load(Path(__file__).parents[2] / "catalog").entries.values()
    found = [equation for record in entries if record.executable for equation in record.executable.equations]
    assert found
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    parser.parse("<!doctype html><title>x</title>" + "".join(mathml(equation.tex) for equation in found))


def test_a_chart_is_slimmed_once() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><title>A &amp; B</title><g fill="none" class="mark-group"><g>'
        '<path class="background" d="M0,0h9"/><line y2="5" stroke="#888"/><line y2="6" stroke="#888"/><g></g></g>'
        '<path d="M4.2,0A4.2,4.2,0,1,1,-4.2,0A4.2,4.2,0,1,1,4.2,0" fill="#111" opacity="0.6" stroke-width="2">'
        "<title>x</title></path></g></svg>"
    )
    assert slim(svg) == (
        '<svg viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg"><title>A &amp; B</title><g fill="none"><g stroke="#888">'
        '<line y2="5"/><line y2="6"/></g><circle fill="#111" fill-opacity="0.6" r="4.2"><title>x</title></circle></g></svg>'
    )
    assert slim(slim(svg)) == slim(svg)

"""The loader survives any text, and bounds mean what they say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog import Problem, Unreadable, parse, validate
from catalog.schema import KINDS, Bound, Claim, Paper

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
PIECES = st.sampled_from([*"ab:-?[]{},&*!|>'\"%@`#~. \t\n\r01_=<", "\x00", "\ufeff", "\u2028", "\ud800", "é", "!!int ", "!!bool ", "---\n"])
CLAIM: dict[str, Any] = {"says": "It holds.", "where": "§1", "tier": "exact", "kind": "identity"}


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=60))
@example("[" * 100_000)
@example("- " * 50_000)
@example("a: !!int ''")
@example("a: !!bool x")
@example("a: !!timestamp x")
@example("a: " + "9" * 5000)
@example("{a: 1}: 2")
@example("a: \x1b")
@example("%YAML 9.9\n---\n")
def test_any_text_is_read_or_refused(text: str) -> None:
    problems: list[Problem] = []
    try:
        data, lines = parse(text)
    except Unreadable as refusal:
        problems.append(Problem("x.yaml", refusal.line, refusal.field, refusal.reason))
    else:
        assert validate(Paper, data, lines, "x.yaml", problems) is None
    assert problems
    assert all(1 <= problem.line <= max(1, len(text.splitlines())) for problem in problems)
    assert all(problem.message for problem in problems)


def test_lines_of_fields() -> None:
    data, lines = parse("a: 1\nb:\n  - x\n  - c: {d: 2,\n       e: 3}\n")
    assert data == {"a": 1, "b": ["x", {"c": {"d": 2, "e": 3}}]}
    assert lines[("a",)] == 1
    assert lines[("b", 0)] == 3
    assert lines[("b", 1, "c", "d")] == 4
    assert lines[("b", 1, "c", "e")] == 5


def test_values_are_what_yaml_makes_of_them() -> None:
    assert parse("{a: 1.0e-5, b: yes, c: ~, d: '1', e: 2026-01-01, f: .inf}")[0]["a"] == 1e-5
    assert parse("b: 'yes'\nc: ~\nd: '1'")[0] == {"b": "yes", "c": None, "d": "1"}


@given(NUMBERS, NUMBERS)
def test_one_sided_bounds(value: float, limit: float) -> None:
    assert Bound(at_least=limit).admits(value) == (value >= limit)
    assert Bound(at_most=limit).admits(value) == (value <= limit)


@given(NUMBERS)
def test_a_bound_admits_its_own_limit_and_never_nan(limit: float) -> None:
    for bound in (Bound(at_least=limit), Bound(at_most=limit), Bound(paper=limit, within="0%"), Bound(paper=limit, within=0)):
        assert bound.admits(limit)
        assert not bound.admits(math.nan)


@pytest.mark.parametrize(
    ("paper", "within", "inside", "outside"),
    [
        (200.0, "2%", 204.0, 204.1),
        (200.0, "2%", 196.0, 195.9),
        (-200.0, "2%", -204.0, -204.1),
        (200.0, 2, 202.0, 202.1),
        (0.0, "5%", 0.0, 1e-9),
    ],
)
def test_within_is_absolute_or_relative(paper: float, within: float | str, inside: float, outside: float) -> None:
    bound = Bound(paper=paper, within=within)
    assert bound.admits(inside)
    assert not bound.admits(outside)


def test_a_bound_without_a_bound_admits_nothing_silently() -> None:
    with pytest.raises(ValueError, match="a bound needs at_least, at_most, or within and paper"):
        Bound(paper=1.0).admits(1.0)


@pytest.mark.parametrize(
    ("bound", "text"),
    [(Bound(at_least=0.02), ">= 0.02"), (Bound(at_most=1e-5), "<= 1e-05"), (Bound(paper=3.4, within="2%"), "3.4 ± 2%")],
)
def test_a_bound_in_words(bound: Bound, text: str) -> None:
    assert bound.text == text


def test_a_claim_without_cases_has_one_bound() -> None:
    claim = Claim(**CLAIM, paper=3.0, at_most=4, because="too small")
    assert claim.bounds() == {None: Bound(paper=3.0, at_most=4, because="too small")}


def test_cases_override_what_the_claim_says() -> None:
    cases = {"B0": {"paper": 5.3}, "B1": {"paper": 7.8, "within": 0.1}, "B2": {"paper": 9.2, "because": "typo"}}
    bounds = Claim.model_validate({**CLAIM, "within": "2%", "cases": cases}).bounds()
    assert bounds == {
        "B0": Bound(paper=5.3, within="2%"),
        "B1": Bound(paper=7.8, within=0.1),
        "B2": Bound(paper=9.2, within="2%", because="typo"),
    }
    assert bounds["B0"].admits(5.4)
    assert not bounds["B0"].admits(5.5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"paper": 1.0},
        {"within": 0.1},
        {"at_least": 0, "at_most": 1},
        {"at_least": 0, "paper": 1.0, "within": 0.1},
        {"at_least": math.nan},
        {"at_most": math.inf},
        {"at_most": True},
        {"at_most": "1"},
        {"paper": 1.0, "within": "2 %"},
        {"paper": 1.0, "within": "-2%"},
        {"paper": 1.0, "within": -0.1},
        {"paper": 1.0, "within": math.nan},
        {"at_most": 1, "expected": "fails"},
        {"at_most": 1, "kind": "result"},
        {"at_most": 1, "against": "random"},
        {"at_most": 1, "same_as": "other"},
        {"at_most": 1, "kind": "effect", "against": "random"},
        {"at_most": 1, "kind": "effect", "tier": "smoke"},
        {"at_most": 1, "tier": "quick"},
        {"at_most": 1, "says": " "},
        {"at_most": 1, "cases": {"B 0": {}}},
        {"at_most": 1, "cases": {"B0": {"at_least": 0}}},
        {"cases": {"B0": {"at_least": 0}, "B1": {}}},
        {"at_most": 1, "cases": {"B0": {"kind": "count"}}},
    ],
    ids=str,
)
def test_claims_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Claim.model_validate({**CLAIM, **fields})


def test_entries_are_frozen() -> None:
    paper = Paper(name="Slim", title="T", authors=["A"], year=2017, url="https://example.org", summary="S.")
    with pytest.raises(ValidationError):
        paper.year = 2018


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.sampled_from(["1708.06519", "../x"])
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_any_values_in_any_fields_are_an_entry_or_problems(family: str, data: st.DataObject) -> None:
    """What YAML can hold, dates and not-a-number too, in every field of every kind of entry."""
    model = KINDS[family]
    fields = {name: data.draw(TREES) for name in model.model_fields if data.draw(st.booleans())}
    problems: list[Problem] = []
    entry = validate(model, fields, {}, "x.yaml", problems)
    assert (entry is None) == bool(problems)
    assert all(problem.message and "\n" not in problem.message for problem in problems)

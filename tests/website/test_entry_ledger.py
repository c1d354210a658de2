"""What each network took to make, on its page."""

from __future__ import annotations

from scripts.evidence.facts import Condition, Measured
from scripts.evidence.records import Row
from scripts.website.entry_ledger import table

LONG = Condition("long", "cifar10")


def row(subject: str, metric: str, value: float, seed: int = 0) -> Row:
    return Row("long", subject, metric, value, "cifar10", "", seed, "cpu", 1, "3", "2", "c", "d", "2026-01-01")


def test_a_table_shows_what_is_not_zero_for_all() -> None:
    rows = [row("method", "ledger_steps", 700), row("control_one", "ledger_steps", 350), row("reference", "ledger_steps", 0)]
    rows += [
        row("method", "ledger_evaluations", 0),
        row("method", "ledger_rate", 0.02),
        *(row("method", "milliseconds_1", v, v) for v in (1, 4)),
    ]
    found = table(Measured(rows), LONG)
    assert (
        '<th scope="row">method</th><td>700</td><td>0.02</td><td>2.5</td>' in found.replace("<strong>", "").replace("</strong>", "").lower()
    )
    assert found.index("350") < found.index("700")
    assert "Evaluations" not in found


def test_nothing_is_shown_of_what_is_not_recorded() -> None:
    assert table(Measured([row("method", "accuracy", 0.5)]), LONG) == ""

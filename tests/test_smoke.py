"""Claims as the bench calls them."""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scripts.smoke import call, keeps_nan


@pytest.mark.parametrize("choose", [max, min])
def test_a_nan_among_numbers_is_kept(choose: Any) -> None:
    keeps = keeps_nan(choose)
    for values in ((0.0, math.nan), (math.nan, 0.0), (1, 2.0, math.nan)):
        assert math.isnan(keeps(*values))
        assert math.isnan(keeps(iter(values)))
    for values in ((3, 1, 2), ("b", "a"), ([2], [1, 5])):
        assert keeps(*values) == choose(*values)
        assert keeps(iter(values)) == choose(values)
    assert keeps([1, -3], key=abs) == choose([1, -3], key=abs)
    assert keeps([], default=7) == 7


def test_a_claim_does_not_lose_one() -> None:
    module = ModuleType("method")
    exec(
        "def claim_worst(lab):\n    worst = 0.0\n    for x in (1.0, float('nan'), 2.0):\n        worst = max(worst, x)\n    return worst",
        vars(module),
    )
    claim: Any = SimpleNamespace(bounds=lambda: {None: None})
    lab: Any = None
    assert math.isnan(call(module, "worst", claim, lab, 0)[None])

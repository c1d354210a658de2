"""The table of methods and networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.evidence import networks
from scripts.evidence.networks import FAILS, REFUSED, WORKS, NetworksError, Tried

A, B = Tried("lenet", "pruning", "slim", WORKS, ""), Tried("vit", "pruning", "slim", REFUSED, 'patch: "tied", by a shortcut')


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "networks.csv"
    assert networks.read(path) == {}
    networks.write(path, [B, A], ["slim"])
    assert networks.read(path) == {("lenet", "slim"): A, ("vit", "slim"): B}
    networks.write(path, [A._replace(id="other")], ["other"])  # the old method is gone
    assert list(networks.read(path)) == [("lenet", "other")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "network,id\n",
        "network,family,id,outcome,said\nlenet,pruning,slim\n",
        "network,family,id,outcome,said\nlenet,pruning,slim,fails,\n",
    ],
)
def test_damage_is_named_with_its_cure(tmp_path: Path, text: str) -> None:
    path = tmp_path / "networks.csv"
    path.write_text(text)
    with pytest.raises(NetworksError, match=r"damaged: .*smallprint networks --record"):
        networks.read(path)


def test_what_is_worse() -> None:
    assert networks.worse(A, None) == networks.worse(A, A._replace(outcome=REFUSED)) == ""
    assert networks.worse(B, None) == networks.worse(B, B) == ""
    assert networks.worse(B, B._replace(outcome=WORKS, said="")).startswith("worked on vit, and refuses it now: patch")
    assert networks.worse(A._replace(outcome=FAILS, said="KeyError: 3"), A) == "fails on lenet: KeyError: 3"

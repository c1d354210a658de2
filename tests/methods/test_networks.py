"""Every method on three networks of the zoo, others after every change of its source. All of them: `smallprint networks`."""

from __future__ import annotations

import hashlib
import importlib
import random
import warnings
from collections import defaultdict

import pytest

from catalog import load
from methods.kit.zoo import ZOO
from scripts.evidence import networks as table
from scripts.evidence import source
from scripts.running.networks import attempt
from tests.toys import ROOT

METHODS = source.methods(ROOT)
KNOWN = table.read(table.path_of(ROOT))
EVERYBODY = ("lenet", "vgg", "resnet", "depthwise")  # networks that every method works on
FEWEST = 12
LIMITED = {  # whose idea needs what some of these networks lack
    "semi_supervised_adaptive_distillation": "a detector: something that answers for every place of a map",
}
LENET = {  # whose idea needs more than LeNet's two convolutions
    "t_net": "several convolutions of one shape",
    "efficient_network_compression": "layers enough to meet a budget within half a percent",
}


@pytest.mark.parametrize("id", METHODS)
def test_it_works_or_refuses_by_name(id: str) -> None:
    record = load(ROOT / "catalog").entries[id]
    method = importlib.import_module(f"methods.{record.family}.{id}")
    chance = random.Random(hashlib.sha256(METHODS[id].text.encode()).digest())
    for name in chance.sample(list(ZOO), 3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tried = attempt(method, record, name, ZOO[name])
        assert table.worse(tried, KNOWN.get((name, id))) == ""


def test_the_table_is_whole() -> None:
    assert set(KNOWN) == {(name, id) for name in (*ZOO, "export") for id in METHODS}


@pytest.mark.parametrize("id", METHODS)
def test_it_works_on_networks_of_many_kinds(id: str) -> None:
    works = defaultdict(list)
    for (name, method), tried in KNOWN.items():
        works[method] += [name] if tried.outcome == table.WORKS and name in ZOO else []
    if id in LIMITED:
        assert len(works[id]) < FEWEST, "it works on enough: take it out of LIMITED"
        return
    assert {*EVERYBODY} - ({"lenet"} if id in LENET else set()) <= {*works[id]}
    assert len(works[id]) >= FEWEST

"""Masks keep the largest weights, of each layer or of all, and training keeps the others at zero."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from methods.kit import masks
from methods.kit.testing import odd_network, odd_task


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data())
def test_the_largest_stay_and_of_equal_ones_the_first(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    found = masks.largest(torch.tensor(values), count).tolist()
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    assert found == [place in order[:count] for place in range(len(values))]


SCORES = {"a": torch.tensor([[5.0, 4.0], [3.0, 2.0]]), "b": torch.tensor([0.5, 0.1])}


def test_shares_are_of_each_layer_or_of_all() -> None:
    each = masks.of_each(SCORES, 0.5)
    assert each["a"].tolist() == [[True, True], [False, False]]
    assert each["b"].tolist() == [True, False]
    assert {name: int(part.sum()) for name, part in masks.of_each(SCORES, {"a": 0.75, "b": 0.0}).items()} == {"a": 3, "b": 1}
    every = masks.of_all(SCORES, 0.5)
    assert every["a"].tolist() == [[True, True], [True, False]]
    assert every["b"].tolist() == [True, False]  # under the threshold, but no layer is cut through


def test_what_is_gone_stays_gone_while_the_others_learn() -> None:
    model, task = odd_network(), odd_task()
    before = {name: layer.weight.detach().clone() for name, layer in masks.prunable(model, task, "needs a layer").items()}
    kept = masks.of_each({name: weight.abs() for name, weight in before.items()}, 0.3)
    seen = []
    masks.fit_masked(model, task, kept, after_step=lambda progress: seen.append(model[0].conv.weight[~kept["0.conv"]].abs().sum().item()))
    assert seen == [0.0] * task.steps
    for name, stays in kept.items():
        weight = model.get_submodule(name).weight
        assert torch.equal(weight != 0, stays)
        assert not torch.equal(weight[stays], before[name][stays])


def test_a_network_without_a_layer_is_refused_by_name() -> None:
    task = odd_task()
    model = nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 8, 1), nn.Flatten())
    with pytest.raises(ValueError, match=r"pruning needs a layer, there is none \(1: no plain Conv2d or Linear but Conv1d"):
        masks.prunable(model, task, "pruning needs a layer")

"""methods/kit/layers.py: which layers can be replaced, and what is seen of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import layers


class Named(nn.Linear):
    """Adds a method, not another forward."""

    def fan(self) -> int:
        return self.in_features


class Spelled(nn.Linear):
    """As some libraries write it."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.linear(input, self.weight.to(input.dtype), self.bias)
        return F.linear(input, self.weight, self.bias)


class Adapted(nn.Linear):
    """An adapter that is zero today."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.more = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight + self.more, self.bias)


class Dropping(nn.Linear):
    """Drops weights while it learns."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, F.dropout(self.weight, 0.5, self.training), self.bias)


class Rescaled(nn.Conv2d):
    """What calls the convolution is torch's; what it calls is not."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight / weight.norm(), bias)


class Same(nn.Conv2d):
    """Pads by the size of its input: where its stride does not divide that, it differs from torch's."""

    def forward(self, input: Tensor) -> Tensor:
        more = [(-size) % self.stride[0] for size in input.shape[2:]]
        return super().forward(F.pad(input, [0, more[1], 0, more[0]]))


class Other(nn.Conv2d):
    """Another function of another input."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[0])


@pytest.mark.parametrize(
    ("layer", "is_plain"),
    [
        (nn.Linear(4, 3), True), (nn.Conv2d(4, 3, 3), True), (Named(4, 3), True), (Spelled(4, 3), True), (Spelled(4, 3).half(), True),
        (Adapted(4, 3), False), (Dropping(4, 3), False), (Rescaled(4, 3, 3), False), (Same(4, 3, 3, 3), False), (Same(4, 3, 3, 1), True),
        (Other(4, 3, 1), False), (nn.ConvTranspose2d(4, 3, 3), False), (nn.ReLU(), False),
    ],
)  # fmt: skip
def test_plain_is_what_computes_the_same(layer: nn.Module, is_plain: bool) -> None:
    state = torch.get_rng_state()
    assert layers.plain(layer, (nn.Conv2d, nn.Linear)) is is_plain
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_with_a_forward_of_its_own_is_not_plain() -> None:
    layer = nn.Linear(4, 3)
    layer.forward = lambda x: x  # type: ignore[method-assign, assignment]
    assert not layers.plain(layer, (nn.Linear,))


@pytest.mark.parametrize(
    ("name", "patterns", "out"),
    [
        ("a.b.0", ["a.b.0"], True), ("a.b.0", ["a.b"], True), ("a.b.0", ["a"], True), ("a.b.0", ["*.0"], True), ("a.b.0", ["b"], False),
        ("a.b.0", ["A.b.0"], False), ("a.b.10", ["a.b.1"], False), ("a.b.0", [], False), ("a.b.0", ["c", "?.b"], True),
    ],
)  # fmt: skip
def test_patterns_match_a_layer_or_what_is_around_it(name: str, patterns: list[str], out: bool) -> None:
    assert layers.excluded(name, patterns) is out


class Odd(nn.Module):
    """Registers its last layer first, has one that never runs, one that lends its weight, two with one weight, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.idle, self.lent = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)
        self.tied, self.first, self.other = nn.Conv2d(6, 6, 1), nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1)
        self.alias = self.twice = nn.Conv2d(6, 6, 1)
        self.other.weight = self.tied.weight
        self.block, self.grouped, self.pair = nn.Sequential(nn.Conv2d(6, 6, 3)), nn.Conv2d(6, 6, 1, groups=2), Pair()

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.tied(self.first(x)))
        x = F.conv2d(x, self.lent.weight)
        x = self.pair(self.twice(self.grouped(self.alias(x))))[0]
        return cast(Tensor, self.late(self.block(x)))


class Pair(nn.Module):
    """Answers two things."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_replaceable_says_why_not() -> None:
    model, image = Odd().train(), torch.zeros(1, 3, 12, 12)
    model.block.eval()
    chosen, kept = layers.replaceable(model, lambda _, first: "first" if first else "", image=image, exclude=["block"])
    assert set(chosen) == {"late", "alias"}
    assert kept == {
        "idle": "never runs by itself", "lent": "never runs by itself", "tied": "shares a weight with other", "first": "first",
        "other": "shares a weight with tied", "block.0": "excluded", "grouped": "a grouped convolution",
    }  # fmt: skip
    assert layers.replaceable(model, lambda *_: "", image=image, exclude=["twice"])[1]["alias"] == "excluded", "under each of its names"
    assert model.training
    assert not model.block.training
    assert layers.runs(model.double(), image)["alias"] == 2


def test_a_network_that_does_not_run_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"^Odd: does not run on an image of \(1, 4, 12, 12\)"):
        layers.replaceable(Odd(), lambda *_: "", image=torch.zeros(1, 4, 12, 12))


def test_responses_of_what_does_not_run_runs_twice_or_is_no_tensor() -> None:
    model, images = Odd().train(), torch.randn(5, 3, 12, 12)
    found = layers.responses(model, images, ["idle", "alias", "pair", "first"])
    assert set(found) == {"alias", "first"}
    assert torch.equal(found["first"], model.first(images))
    assert torch.equal(found["alias"], model.alias(F.conv2d(model.other(model.tied(found["first"])), model.lent.weight)))
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())


def test_images_in_parts_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, images, seen = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), torch.randn(20, 3, 12, 12), list[int]()
    whole = layers.responses(model, images, ["0", "1"])
    model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    monkeypatch.setattr(layers, "MOST_BYTES", 8 * 7 * 4 * (3 * 144 + 8 * 100))
    assert [len(part) for part in layers.chunks(model, images)] == [7, 7, 6]
    seen.clear()
    parts = layers.responses(model, images, ["0", "1"])
    assert max(seen) == 7
    assert all(torch.allclose(parts[name], whole[name], atol=1e-5) for name in whole)


def test_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images, made = torch.arange(100), list[Any]()

    def of(some: Tensor) -> Tensor:
        made.append(some)
        return some

    monkeypatch.setattr(layers, "MOST_BYTES", 1000)
    at = layers.in_parts(images, 10, of, seed=3)
    assert at(0) is at(10**6) is made[0] is images
    at = layers.in_parts(images, 40, of, seed=3)
    turns = [at(step) for step in (0, layers.TURN - 1, layers.TURN, 7 * layers.TURN)]
    assert [len(some.unique()) for some in turns] == 4 * [12]
    assert turns[0] is turns[1]
    assert not torch.equal(turns[1], turns[2])
    assert torch.equal(layers.in_parts(images, 40, of, seed=3)(0), turns[0])
    assert len(layers.in_parts(images, 10**6, of, seed=0)(0)) == 1, "one image at least"

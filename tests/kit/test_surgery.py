"""Channels are free only where removing them is zeroing them; what ties the others is said. On every kind of network that led astray."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn

from methods.kit import nets, surgery
from methods.kit.proof import tensors
from methods.kit.surgery import free_channels, remove_channels, widths
from methods.kit.task import Split, Task
from methods.kit.testing import odd_task
from methods.pruning import network_slimming, pruning_filters
from tests.helpers import Mixed

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Way(nn.Module):
    """A network, or a part of one, written as a function of its parts and its input."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **settings)


def between(*parts: nn.Module | Callable[[Tensor], Tensor], wide: int = 12, read: int = 12) -> nn.Sequential:
    """Layer 0 has `wide` channels, norm and activation, and reaches layer 4, which reads `read`, through part 3. Layer 4 is free."""
    way = nn.Sequential(*(part if isinstance(part, nn.Module) else Way(lambda _, x, part=part: part(x)) for part in parts))
    way = way[0] if len(way) == 1 else way
    return nn.Sequential(
        conv(3, wide),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        way,
        conv(read, 8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def behind(*parts: nn.Module | Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Layer 0 with twelve channels, and what follows it."""
    rest = [part if isinstance(part, nn.Module) else Way(lambda _, x, part=part: part(x)) for part in parts]
    return nn.Sequential(conv(3, 12), nn.BatchNorm2d(12), *rest)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Padded(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(F.pad(x, (1, 0, 1, 0)), weight, bias)


class Named(nn.Conv2d):
    """As a model library names its own layers."""


def squeezed(channels: int) -> Way:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(channels, 4, 1), nn.ReLU(), conv(4, channels, 1), nn.Sigmoid())
    return Way(lambda s, x: x * s.gate(x), gate=gate)


def shuffled_by_hand(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def gap(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def same(channel: int) -> list[int]:
    return [channel]


def spread(places: int) -> Callable[[int], list[int]]:
    return lambda channel: list(range(channel * places, (channel + 1) * places))


Free = tuple[Callable[[], nn.Sequential], str, Callable[[int], list[int]]]
FREE: dict[str, Free] = {  # the network, who reads layer 0, and where it reads a channel
    "nothing": (lambda: between(nn.Identity()), "4", same),
    "a norm without scale": (lambda: between(nn.BatchNorm2d(12, affine=False)), "4", same),
    "a norm of single maps": (lambda: between(nn.InstanceNorm2d(12, affine=True)), "4", same),
    "slopes of channels": (lambda: between(nn.PReLU(12)), "4", same),
    "a saturating activation in place": (lambda: between(nn.ReLU6(inplace=True)), "4", same),
    "a depthwise layer": (lambda: between(conv(12, 12, groups=12)), "4", same),
    "a depthwise transposed layer": (lambda: between(nn.ConvTranspose2d(12, 12, 2, 2, groups=12)), "4", same),
    "a transposed layer": (lambda: between(nn.ConvTranspose2d(12, 12, 2, 2)), "3", same),
    "a transposed layer that is told its size": (
        lambda: between(Way(lambda s, x: s.up(x, output_size=(17, 17)), up=nn.ConvTranspose2d(12, 12, 3, 2))),
        "3.up",
        same,
    ),
    "reflecting borders": (lambda: between(conv(12, 12, 1), nn.Conv2d(12, 12, 1, padding=1, padding_mode="reflect")), "3.0", same),
    "a plain subclass": (lambda: between(Named(12, 12, 3, padding=1)), "3", same),
    "channels twice, joined": (lambda: between(lambda x: torch.cat([x, -x], 1), read=24), "4", lambda c: [c, c + 12]),
    "a parameter for each channel": (lambda: between(Way(lambda s, x: x * s.scale, scale=nn.Parameter(torch.ones(12, 1, 1)))), "4", same),
    "dropped maps": (lambda: between(nn.Dropout2d()), "4", same),
    "a softmax over places": (lambda: between(lambda x: x * x.flatten(2).softmax(-1).view_as(x)), "4", same),
    "view": (lambda: behind(nn.ReLU(), lambda x: x.view(x.size(0), -1), nn.Linear(768, 5)), "4", spread(64)),
    "flattened": (lambda: behind(nn.Hardsigmoid(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 5)), "5", spread(16)),
    "tokens": (lambda: behind(tokens, nn.Linear(12, 7), nn.GELU(), lambda x: x.mean(1), nn.Linear(7, 5)), "3", same),
    "a layer over sequences": (lambda: behind(nn.ReLU(), nn.Flatten(2), nn.Conv1d(12, 5, 1), lambda x: x.mean(2)), "4", same),
    "a volume": (lambda: behind(lambda x: x.unsqueeze(2), nn.Conv3d(12, 6, (1, 3, 3)), nn.Flatten(), nn.Linear(216, 5)), "3", same),
    "a dictionary": (lambda: behind(Way(lambda s, x: {"logits": s.fc(gap(x)), "extra": [None, 1]}, fc=nn.Linear(12, 5))), "2.fc", same),
}

TIED: dict[str, tuple[Callable[[], nn.Sequential], str]] = {
    "swapped halves": (
        lambda: between(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
        "removing channel 0 is not the same as zeroing it where 4",
    ),
    "ChannelShuffle": (lambda: between(nn.ChannelShuffle(2)), "its channels come back in another order (ChannelShuffle 3)"),
    "channel_shuffle": (lambda: between(lambda x: F.channel_shuffle(x, 3)), "its channels come back in another order (ChannelShuffle)"),
    "shuffled by hand": (lambda: between(shuffled_by_hand), "removing channel 0 "),
    "reversed": (lambda: between(lambda x: x.flip(1)), "not the same as zeroing it where 4 reads it"),
    "rolled": (lambda: between(lambda x: x.roll(1, 1)), "not the same as zeroing it where 4 reads it"),
    "indexed": (lambda: between(lambda x: x[:, [11, *range(11)]]), "breaks the network (IndexError"),
    "every other": (lambda: between(lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1)), "channel 0 goes only together with 1"),
    "half unread": (lambda: between(lambda x: x[:, :6], read=6), "not the same as zeroing it where 4 reads it"),
    "PixelShuffle": (lambda: between(nn.PixelShuffle(2), read=3), "its channels become positions (PixelShuffle 3)"),
    "pixel_shuffle": (lambda: between(lambda x: F.pixel_shuffle(x, 2), read=3), "its channels become positions (PixelShuffle)"),
    "PixelUnshuffle": (lambda: between(nn.PixelUnshuffle(2), read=48), "another order (PixelUnshuffle 3)"),
    "grouped": (lambda: between(conv(12, 12, groups=3)), "read in groups by 3"),
    "depthwise, twice as wide": (lambda: between(conv(12, 24, groups=12), read=24), "read in groups by 3"),
    "grouped, transposed": (lambda: between(nn.ConvTranspose2d(12, 12, 2, 2, groups=3)), "read in groups by 3"),
    "GroupNorm": (lambda: between(nn.GroupNorm(3, 12)), "read in groups by 3"),
    "LayerNorm over maps": (lambda: between(nn.LayerNorm((12, 8, 8))), "normalised by what cannot lose a channel (LayerNorm 3)"),
    "LayerNorm over places": (lambda: between(nn.LayerNorm((8, 8))), "normalised by what cannot lose a channel (LayerNorm 3)"),
    "LayerNorm over channels": (
        lambda: between(lambda x: x.permute(0, 2, 3, 1), nn.LayerNorm(12), lambda x: x.permute(0, 3, 1, 2)),
        "(LayerNorm 3.1)",
    ),
    "LocalResponseNorm": (lambda: between(nn.LocalResponseNorm(3)), "(LocalResponseNorm 3)"),
    "Softmax": (lambda: between(nn.Softmax(1)), "(Softmax 3)"),
    "normalize": (lambda: between(lambda x: F.normalize(x, dim=1)), "not the same as zeroing it where 4 reads it"),
    "squeeze and excitation": (lambda: between(squeezed(12)), "multiplied with the channels of 3.gate.3"),
    "maps in one": (lambda: between(lambda x: x.amax(1, keepdim=True), read=1), "not the same as zeroing it where 4 reads it"),
    "GLU": (lambda: between(nn.GLU(1), read=6), "its channels gate each other in pairs (GLU 3)"),
    "glu": (lambda: between(lambda x: F.glu(x, 1), read=6), "its channels gate each other in pairs (GLU)"),
    "chunk and gate": (lambda: between(lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), read=6), "channel 0 "),
    "one half gates": (lambda: between(lambda x: torch.mul(*x.chunk(2, 1)), read=6), "channel 0 goes only together with 6"),
    "maxout": (lambda: between(lambda x: torch.maximum(*x.chunk(2, 1)), read=6), "channel 0 goes only together with 6"),
    "a table of places": (
        lambda: between(Way(lambda s, x: x + s.table, table=nn.Parameter(torch.randn(12, 8, 8)))),
        "its channels meet 3.table, a parameter of",
    ),
    "a constant for each channel": (lambda: between(lambda x: x + torch.arange(12.0).view(-1, 1, 1)), "breaks the network (RuntimeError"),
    "a number in the code": (lambda: between(lambda x: x.view(1, 12, -1, 8)), "breaks the network (RuntimeError: shape '[1, 12, -1, 8]'"),
    "a reader with a forward of its own": (
        lambda: between(Standardised(12, 12, 3, padding=1)),
        "not the same as zeroing it where 3 reads it",
    ),
    "noise": (lambda: between(lambda x: x + torch.randn_like(x)), "not the same as zeroing it where 4 reads it"),
    "a kernel of no layer": (
        lambda: between(Way(lambda s, x: F.conv2d(x, s.w), w=nn.Parameter(torch.randn(6, 12, 3, 3))), read=6),
        "its channels meet 3.w, a parameter of no layer",
    ),
    "a matrix of no layer": (lambda: behind(Way(lambda s, x: gap(x) @ s.w, w=nn.Parameter(torch.randn(12, 5)))), "read by 2.w"),
    "a fixed kernel": (lambda: between(lambda x: F.conv2d(x, torch.ones(6, 12, 1, 1).to(x)), read=6), "removing channel 0 "),
    "channels last, flattened": (
        lambda: behind(lambda x: x.permute(0, 2, 3, 1).flatten(1), nn.Linear(768, 5)),
        "not the same as zeroing it where 3 reads it",
    ),
    "a layer over places": (
        lambda: behind(lambda x: x.flatten(2), nn.Linear(64, 5), lambda x: x.mean(1)),
        "not the same as zeroing it where 3 reads it",
    ),
    "products of maps": (
        lambda: behind(lambda x: x.flatten(2) @ x.flatten(2).mT, nn.Flatten(), nn.Linear(144, 5)),
        "what hangs on its channels cannot be traced (RecursionError: more than 144 indices)",
    ),
    "attention": (
        lambda: behind(
            tokens, Way(lambda s, x: s.m(x, x, x)[0].mean(1), m=nn.MultiheadAttention(12, 2, batch_first=True)), nn.Linear(12, 5)
        ),
        "its channels are read by attention (MultiheadAttention 3.m)",
    ),
    "an encoder": (
        lambda: behind(tokens, nn.TransformerEncoderLayer(12, 2, 16, batch_first=True), lambda x: x.mean(1), nn.Linear(12, 5)),
        "tied by a shortcut to 3.linear2",
    ),
    "a recurrent layer": (
        lambda: behind(tokens, nn.LSTM(12, 7, batch_first=True), lambda x: x[0].mean(1), nn.Linear(7, 5)),
        "read by 3 (LSTM)",
    ),
    "the output": (lambda: behind(gap), "its channels are the network's output"),
    "the output, too": (lambda: behind(Way(lambda s, x: (s.fc(gap(x)), x), fc=nn.Linear(12, 5))), "changes the network's output itself"),
    "spectral norm": (
        lambda: between(nn.utils.parametrizations.spectral_norm(conv(12, 12))),
        "the weight of 3 is computed anew in every pass",
    ),
}


@pytest.mark.parametrize("kind", FREE)
def test_these_are_free_and_really_so(kind: str) -> None:
    torch.manual_seed(0)
    build, reader, place = FREE[kind]
    model, image, gone = build().double().eval(), IMAGE.double(), [1, 4, 5, 11]
    free, tied = free_channels(model, image)
    assert free["0"] == 12, tied
    thin, read = remove_channels(model, image, {"0": gone}), model.get_submodule(reader)
    axis = -1 if isinstance(read, nn.Linear) else 1
    places = torch.tensor([index for channel in gone for index in place(channel)])
    read.register_forward_pre_hook(lambda _, inputs: inputs[0].index_fill(axis, places, 0))
    torch.testing.assert_close(list(tensors(thin(image))), list(tensors(model(image))))
    assert widths(thin)["0"] == 8


@pytest.mark.parametrize("kind", TIED)
def test_these_are_tied_with_the_reason(kind: str) -> None:
    torch.manual_seed(0)
    build, reason = TIED[kind]
    model = build().eval()
    free, tied = free_channels(model, IMAGE)
    assert reason in tied["0"]
    assert free == ({"4": 8} if len(model) == 9 else {}) | {name: width for name, width in free.items() if name.startswith("3")}
    with pytest.raises(ValueError, match="0: its channels cannot be removed") as problem:
        remove_channels(model, IMAGE, {"0": [0]})
    assert reason in str(problem.value)


def one(run: Callable[..., Any], **parts: Any) -> Way:
    return Way(run, **parts, fc=nn.Linear(12, 5)).eval()


@pytest.mark.parametrize(
    ("model", "tied"),
    [
        (one(lambda s, x: s.fc(gap(s.a(x))), a=conv(3, 12), b=conv(3, 12)), {"b": "the network's answer does not depend on it"}),
        (
            one(lambda s, x: s.fc(gap(s.a(x)) + gap(s.b(x)).detach().mean()), a=conv(3, 12), b=conv(3, 12)),
            {"b": "the network's answer does not depend on it"},
        ),
        (one(lambda s, x: s.fc(gap(s.b(s.a(x) + s.a(-x)))), a=conv(3, 12), b=conv(12, 12)), {}),
        (
            one(lambda s, x: s.fc(gap(s.b(s.b(s.a(x))))), a=conv(3, 12), b=conv(12, 12)),
            {"a": "tied by a shortcut to b", "b": "tied by a shortcut to a"},
        ),
        (
            one(lambda s, x: s.fc(gap(s.c(s.a(x)) + s.c(s.b(x)))), a=conv(3, 12), b=conv(3, 12), c=conv(12, 12)),
            {"a": "tied by a shortcut to b", "b": "tied by a shortcut to a"},
        ),
        (
            one(lambda s, x: s.fc(gap(s.a(x))), a=Standardised(3, 12, 3)),
            {"a": "no plain Conv2d but Standardised, with a forward of its own"},
        ),
        (one(lambda s, x: s.fc(gap(s.a(x))), a=Padded(3, 12, 3)), {"a": "no plain Conv2d but Padded, with a forward of its own"}),
        (one(lambda s, x: s.fc(gap(s.a(x))), a=Named(3, 12, 3)), {}),
        (
            one(
                lambda s, x: (s.fc(gap(s.a(x))), s.d(s.a(x).flatten(1))) if s.training else s.fc(gap(s.a(x))),
                a=conv(3, 12),
                d=nn.Linear(768, 5),
            ),
            {"a": r"removing channel 11 breaks the network in training (d)"},
        ),
        (
            one(lambda s, x: s.fc(gap(s.a(x) + s.gate * s.b(x.flip(1)))), a=conv(3, 12), b=conv(3, 12), gate=nn.Parameter(torch.zeros(1))),
            {"a": "tied by a shortcut to b", "b": "tied by a shortcut to a"},
        ),
        (
            one(
                lambda s, x: s.fc(gap(s.a(x) + s.gate * s.c(s.b(x).flip(1)))),
                a=conv(3, 12),
                b=conv(3, 8),
                c=conv(8, 12),
                gate=nn.Parameter(torch.zeros(1)),
            ),
            {
                "a": "tied by a shortcut to c",
                "b": "removing channel 0 is not the same as zeroing it where c reads it",
                "c": "tied by a shortcut to a",
            },
        ),
    ],
    ids=[
        "never runs",
        "detached",
        "runs twice",
        "runs into itself",
        "one reader for two",
        "own forward",
        "own padding",
        "a plain subclass",
        "another head in training",
        "switched off",
        "switched off and reversed",
    ],
)
def test_networks_that_do_more_than_run_layer_after_layer(model: nn.Module, tied: dict[str, str]) -> None:
    assert free_channels(model, IMAGE)[1] == tied


def test_layers_that_share_a_weight_keep_it() -> None:
    first, d, e = conv(3, 8), conv(8, 8, bias=False), conv(8, 8, bias=False)
    e.weight = d.weight
    model = nn.Sequential(
        first, nn.ReLU(), d, nn.ReLU(), e, nn.ReLU(), conv(8, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()
    free, tied = free_channels(model, IMAGE)
    assert free == {"6": 6}
    assert tied == dict.fromkeys("024", "a weight that would be cut is shared by 2 and 4")


def test_weights_behind_a_mask_are_left_and_the_rest_is_worked_on() -> None:
    model = between(nn.Identity()).eval()
    nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    free, tied = free_channels(model, IMAGE)
    assert (free, tied) == ({"4": 8}, {"0": "the weight of 0 is computed anew in every pass"})
    assert widths(remove_channels(model, IMAGE, {"4": [0]}))["4"] == 7


@torch.no_grad()
def test_what_is_zero_today_is_tried_all_the_same() -> None:
    model = between(nn.ChannelShuffle(2)).eval()
    for silent in (model[1].weight, model[1].bias, model[4].weight):
        silent.zero_()
    assert "ChannelShuffle" in free_channels(model, IMAGE)[1]["0"]
    model = between(nn.Identity()).eval()
    model[1].weight.zero_()
    model[1].bias.fill_(1)
    assert free_channels(model, IMAGE)[0] == {"0": 12, "4": 8}


@pytest.mark.parametrize("wrong", [lambda c: [(c[0] + 1) % 6], lambda c: c[:0]])
def test_a_graph_that_cuts_wrongly_is_found_out(wrong: Callable[[list[int]], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    cut = surgery._cut
    model = nn.Sequential(nets.conv_bn(3, 6), nets.conv_bn(6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    assert set(free_channels(model, IMAGE)[0]) == {"0.conv", "1.conv"}
    monkeypatch.setattr(surgery, "_cut", lambda graph, layer, channels: cut(graph, layer, wrong(list(channels))))
    free, tied = free_channels(model, IMAGE)
    assert free == {}
    assert all("channel 0" in reason for reason in tied.values())


def test_surgery_leaves_the_network_and_the_dice_as_they_were() -> None:
    model = Mixed().train()
    model.stem.requires_grad_(False)
    model.wide.eval()
    torch.manual_seed(1)
    dice, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    free, _ = free_channels(model, IMAGE)
    thin = remove_channels(model, IMAGE, {"stem.conv": [0], "wide.conv": [3]})
    assert set(free) == {"stem.conv", "block.first.conv", "wide.conv"}
    assert torch.equal(dice, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.training, model.wide.training, model.grouped.training) == (True, False, True)
    for network in (model, thin):
        assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
            f"stem.{name}" for name, _ in model.stem.named_parameters()
        }


def test_every_kind_of_number_and_a_frozen_network(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for kind in (torch.float64, torch.bfloat16):
        model = between(nn.Identity()).eval().to(kind).requires_grad_(False)
        assert free_channels(model, IMAGE.to(kind))[0] == {"0": 12, "4": 8}
        assert remove_channels(model, IMAGE.to(kind), {"0": [1]})(IMAGE.to(kind)).dtype == kind
    assert not caplog.messages
    free_channels(between(lambda x: x.float()).eval(), IMAGE)
    assert "surgery is tried in torch.float32, in float64 there is an error (RuntimeError: " in caplog.messages[0]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda s, x: s.fc(gap(s.a(x))).argmax(1), "no gradient leads back from what the network answers"),
        (lambda s, x: s.fc(gap(s.a(x)))[:, 7], "IndexError"),
        (lambda s, x: s.fc(s.a(x)), "RuntimeError"),
    ],
)
def test_a_network_that_cannot_be_traced_is_refused_in_a_line(run: Callable[..., Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"Way: what hangs on its channels cannot be traced .*{reason}") as problem:
        free_channels(one(run, a=conv(3, 12)), IMAGE)
    assert "\n" not in str(problem.value)


def test_excluded_layers_are_left() -> None:
    free, tied = free_channels(Mixed(), IMAGE, ("stem", "*.first.*"))
    assert free == {"wide.conv": 24}
    assert (tied["stem.conv"], tied["block.first.conv"], tied["grouped.conv"]) == ("excluded", "excluded", "a grouped convolution")
    assert free_channels(Mixed(), IMAGE, ("*",))[1] == dict.fromkeys(widths(Mixed()), "excluded")


def test_channels_that_were_not_found_free_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"block.second.conv: its channels cannot be removed \(tied by a shortcut to block.shortcut.conv\)"
    ):
        remove_channels(Mixed(), IMAGE, {"block.second.conv": [0]})
    with pytest.raises(ValueError, match=r"wide.conv: its channels cannot be removed \(not among the free ones\)"):
        remove_channels(Mixed(), IMAGE, {"wide.conv": [0]}, ["stem.conv"])
    assert widths(remove_channels(Mixed(), IMAGE, {"block.second.conv": []})) == widths(Mixed())


def test_one_colour_and_layers_of_one_channel() -> None:
    model = nn.Sequential(nets.conv_bn(1, 2), nets.conv_bn(2, 1), nn.Flatten(), nn.Linear(64, 5)).eval()
    assert free_channels(model, torch.randn(1, 1, 8, 8)) == ({"0.conv": 2, "1.conv": 1}, {})


@pytest.mark.parametrize(
    ("method", "config"),
    [(network_slimming, network_slimming.Config(cut=0.5)), (pruning_filters, pruning_filters.Config(sensitive=1.0))],
)
def test_controls_have_the_method_s_widths_also_where_depthwise_layers_lose_theirs(method: Any, config: Any) -> None:
    chance = torch.Generator().manual_seed(0)
    part = Split(torch.randn(16, 3, 8, 8, generator=chance), torch.arange(16) % 5)
    task = Task("own", part, part, part, steps=2, batch=8, augmented=False)
    model = nets.separable([(16, 1), (16, 2)], 5)
    thin = method.compress(copy.deepcopy(model), task, config)
    assert widths(method.control_random(copy.deepcopy(model), task, config, thin)) == widths(thin)
    assert widths(thin)["depthwise2.conv"] < 16


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1, self.c2, self.b2 = conv(3, 8, 5), nn.BatchNorm2d(8), conv(8, 12, 5), nn.BatchNorm2d(12)
        self.fc = nn.Linear(12 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.b1(self.c1(x))), 2)
        x = F.max_pool2d(torch.relu(self.b2(self.c2(x))), 2)
        return self.fc(x.view(x.size(0), -1))


@pytest.mark.parametrize(
    ("method", "config"),
    [(network_slimming, network_slimming.Config(cut=0.5)), (pruning_filters, pruning_filters.Config(sensitive=1.0))],
)
def test_pruners_work_behind_a_view_and_say_what_they_leave(method: Any, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chance = torch.Generator().manual_seed(0)
    part = Split(torch.randn(16, 3, 8, 8, generator=chance), torch.arange(16) % 5)
    torch.manual_seed(0)
    model = LeNet().eval()
    for exclude, left in (((), ""), (("c1",), "c1: excluded")):
        caplog.clear()
        task = Task("own", part, part, part, steps=2, batch=8, augmented=False, exclude=exclude)
        thin = method.compress(copy.deepcopy(model), task, config)
        random = method.control_random(copy.deepcopy(model), task, config, thin)
        assert sum(widths(thin).values()) == 20 - (6 if exclude else 10)
        assert (widths(thin)["c1"] == 8) == bool(exclude)
        assert widths(random) == widths(thin)
        assert any(f"left as they are: {left}" in message for message in caplog.messages) == bool(left)
    with pytest.raises(ValueError, match=r"there is none \(c1: excluded; c2: excluded"):
        method.compress(copy.deepcopy(model), Task("own", part, part, part, steps=2, exclude=("c*",)), config)


def test_a_network_is_narrowed_in_an_order() -> None:
    model = between(nn.Identity())
    for order, stay in (
        (surgery.first_ones, list(range(5))),
        (surgery.by_l1_norm, sorted(model[0].weight.detach().abs().sum((1, 2, 3)).numpy().argsort()[-5:].tolist())),
        (surgery.at_random(3), sorted(torch.randperm(12, generator=torch.Generator().manual_seed(3))[:5].tolist())),
    ):
        small = surgery.narrowed(model, IMAGE, {"0": 5, "4": 8}, order)
        assert widths(small) == {"0": 5, "4": 8}
        assert torch.equal(small[0].weight, model[0].weight[stay])
        assert torch.equal(small[4].weight, model[4].weight[:, stay])


def test_what_stays_is_a_multiple_where_that_is_asked_for() -> None:
    wide = {"a": 20, "b": 6, "c": 16, "d": 9}
    gone = {"a": [3, 1, 9, 2, 0, 5], "b": [0, 1], "c": list(range(8)), "d": []}
    assert surgery.in_multiples(gone, wide, 8) == {"a": [3, 1, 9, 2], "b": [], "c": list(range(8)), "d": []}
    assert surgery.in_multiples(gone, wide, 1) == gone


@pytest.mark.parametrize(
    ("method", "config"),
    [
        (pruning_filters, pruning_filters.Config(cut=0.6, sensitive=1.0)),
        (network_slimming, network_slimming.Config(cut=0.6)),
    ],
)
def test_pruners_leave_multiples_where_the_task_asks(method: Any, config: Any) -> None:
    model = nn.Sequential(nets.conv_bn(3, 24), nets.conv_bn(24, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4))
    with torch.no_grad():
        for block in model[:2]:
            block.bn.weight.uniform_(0.1, 1)
    small = widths(method.compress(model, replace(odd_task(1), multiple=8), config))
    assert all(width % 8 == 0 for width in small.values())
    assert small != {"0.conv": 24, "1.conv": 40}

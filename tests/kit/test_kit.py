"""Tasks, networks, training and surgery."""

from __future__ import annotations

import copy
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.measure import multiply_adds
from methods.kit.surgery import free_channels, norm_after, remove_channels, widths
from methods.kit.task import DataError, Split, Task, accuracy, augment, cifar10, read_batch
from methods.kit.train import descend, fit, minimise
from tests.helpers import Mixed


def random_split(count: int = 64, classes: int = 10, size: int = 8) -> Split:
    g = torch.Generator().manual_seed(1)
    return Split(torch.randn(count, 3, size, size, generator=g), torch.arange(count) % classes)


def toy(steps: int = 4, seed: int = 0) -> Task:
    part = random_split()
    return Task("toy", part, part, part, steps=steps, batch=16, seed=seed)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder in the official layout with ten images a batch, so that slices can be asked for."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        batch = {b"batch_label": b"testing batch 1 of 1", b"labels": (np.arange(10_000) % 10).tolist(),
                 b"data": rng.integers(0, 256, (10_000, 3072), np.uint8), b"filenames": []}  # fmt: skip
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path


def test_cifar_is_read_in_slices(cifar: Path) -> None:
    task = cifar10(cifar, train=100, validation=50, test=30, steps=3)
    assert (task.name, len(task.train), len(task.validation), len(task.test)) == ("cifar10", 100, 50, 30)
    assert task.train.images.shape == (100, 3, 32, 32)
    assert task.digest == cifar10(cifar / "cifar-10-batches-py", train=100, validation=50, test=30, steps=9).digest
    assert task.digest != cifar10(cifar, train=101, validation=50, test=30, steps=3).digest


def test_a_truncated_batch_is_named(cifar: Path) -> None:
    path = cifar / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"test_batch: truncated or not a CIFAR-10 batch .*smallprint data"):
        cifar10(cifar, train=10, validation=10, test=10, steps=1)


def test_a_missing_batch_is_named(cifar: Path) -> None:
    (cifar / "cifar-10-batches-py" / "data_batch_5").unlink()
    with pytest.raises(DataError, match=r"data_batch_5: cannot be read \(No such file"):
        cifar10(cifar, train=10, validation=10, test=10, steps=1)


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a CIFAR-10 folder"):
        cifar10(tmp_path, steps=1)


def test_a_batch_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, ("1 + 1",)

    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match="has no place in a CIFAR-10 batch"):
        read_batch(tmp_path / "batch")


def test_from_loaders_takes_any_batches_and_refuses_what_is_none() -> None:
    part = random_split()
    task = Task.from_loaders(part.chunks(16), part.chunks(16), part.chunks(16), steps=2)
    assert torch.equal(task.train.images, part.images)
    assert not task.augmented
    with pytest.raises(DataError, match="train: the loader gave no batch"):
        Task.from_loaders([], part.chunks(), part.chunks(), steps=1)
    with pytest.raises(DataError, match=r"test: wants images \(N, C, H, W\)"):
        Task.from_loaders(part.chunks(), part.chunks(), [(torch.zeros(3, 4), torch.zeros(3))], steps=1)


def test_batches_are_the_budget_and_depend_on_the_seed_alone() -> None:
    task = toy(steps=10)
    assert len(list(task.batches())) == 10
    assert len(list(task.batches(0.5))) == 5
    first, again = (torch.cat([y for _, y in task.batches()]) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.cat([y for _, y in toy(10, seed=1).batches()]))


def test_an_epoch_shows_every_image_once() -> None:
    labels = torch.cat([y for _, y in toy(steps=4).batches()])
    assert torch.equal(labels.sort().values, toy().train.labels.sort().values)


def test_augmentation_mirrors_and_shifts() -> None:
    image = torch.zeros(200, 1, 8, 8)
    image[:, 0, 4, 2] = 1
    moved = augment(image, torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    assert set(moved.flatten(1).sum(1).tolist()) <= {0.0, 1.0}
    columns = {int(i) % 8 for i in moved.flatten(1).argmax(1)}
    assert columns == set(range(8)) - {7} | {7}


@pytest.mark.parametrize(
    ("name", "parameters", "printed"),
    [
        ("resnet8", 78_042, None),
        ("resnet20", 272_474, 0.27),  # He et al., Table 6
        ("resnet56", 855_770, 0.85),
        ("vgg16", 14_724_042, 14.72),  # Liu et al., ICLR 2019, code release
        ("vgg19", 20_035_018, 20.04),  # Liu et al., ICCV 2017, Table 1
        ("vgg_wide", 630_186, None),
        ("depthwise", 136_778, None),
    ],
)
def test_networks_have_their_published_size(name: str, parameters: int, printed: float | None) -> None:
    model = nets.on_meta(nets.NETS[name])
    assert nets.count(model) == parameters
    if printed:
        shortcuts = sum(p.numel() for n, p in model.named_parameters() if ".shortcut." in n)  # option B; the paper's option A has none
        assert (parameters - shortcuts) / 1e6 == pytest.approx(printed, abs=0.005)


def test_mobilenet_has_its_published_size_and_cost() -> None:
    model = nets.on_meta(lambda: nets.separable(nets.MOBILENET_PLAN, 1000, 2))
    assert nets.count(model) / 1e6 == pytest.approx(4.2, abs=0.05)  # Howard et al., Table 4
    assert multiply_adds(model, torch.empty(1, 3, 224, 224, device="meta")) / 1e6 == pytest.approx(569, abs=0.5)


def test_a_wrong_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="6n \\+ 2"):
        nets.resnet(10)


@pytest.mark.parametrize("data", ["standin", "cifar10"])
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg_wide", "depthwise"])
def test_reference_weights_load_and_are_described(name: str, data: str) -> None:
    model = nets.trained(name, data)
    line = nets.recipe(name, data)
    assert line["parameters"] == nets.count(model)
    assert line["data"] == ("standin" if data == "standin" else "cifar10-jpeg75")


def test_reference_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in nets.WEIGHTS.iterdir()) < 8e6


def test_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "WEIGHTS", tmp_path)
    with pytest.raises(nets.WeightsError, match="there are no reference weights of resnet8 for standin"):
        nets.trained("resnet8", "standin")
    (tmp_path / "resnet8-standin.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}......")
    with pytest.raises(nets.WeightsError, match=r"resnet8-standin.safetensors: not the weights of resnet8 .*git checkout"):
        nets.trained("resnet8", "standin")


def test_training_learns_repeats_and_freezes() -> None:
    task = Task("toy", *[random_split(32, 2)] * 3, steps=60, batch=32, augmented=False)

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))

    first, second = (fit(net(), task, lr=0.1) for _ in range(2))
    assert accuracy(first, task.train) > 0.9
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    frozen = net()
    before = frozen[1].weight.clone()
    fit(frozen, task, params=frozen[3].parameters())
    assert torch.equal(frozen[1].weight, before)
    with pytest.raises(ValueError, match="nothing to train"):
        fit(net().requires_grad_(False), task)


def test_a_step_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimiser = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    velocity: dict[torch.Tensor, torch.Tensor | None] = {}
    for turn in range(4):
        x = torch.randn(7, 5)
        for model in (ours, theirs):
            model.zero_grad()
            (model(x).square().sum() if turn != 1 else F.linear(x, model.weight).sum()).backward()  # once the bias has no gradient
        optimiser.step()
        descend(ours.parameters(), velocity, 0.1, 0.01)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_search_is_that_of_torch() -> None:
    ours, theirs = (torch.linspace(-2, 2, 6).requires_grad_() for _ in range(2))
    optimiser = torch.optim.Adam([theirs], 0.05)
    for step in range(5):
        optimiser.zero_grad()
        (theirs**2 * (step + 1)).sum().backward()
        optimiser.step()
    minimise(lambda step: (ours**2 * (step + 1)).sum(), [ours], 5, 0.05)
    assert torch.equal(ours, theirs)


def test_after_step_hears_the_progress() -> None:
    heard: list[float] = []
    fit(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), toy(steps=4), share=0.5, after_step=heard.append)
    assert heard == [0.5, 1.0]


def test_accuracy_puts_the_mode_back() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).train()
    accuracy(model, random_split())
    assert model.training


def test_surgery_says_which_channels_are_free_and_why_others_are_not() -> None:
    free, tied = free_channels(Mixed().eval(), torch.randn(1, 3, 16, 16))
    assert set(free) == {"stem.conv", "block.first.conv", "wide.conv"}
    assert tied["block.second.conv"] == "tied by a shortcut to block.shortcut.conv"
    assert tied["grouped.conv"] == "a grouped convolution"


def test_removing_channels_that_are_zero_changes_nothing() -> None:
    torch.manual_seed(0)
    model, x = Mixed().eval(), torch.randn(2, 3, 16, 16)
    norms = norm_after(model, x[:1])
    cuts = {"stem.conv": [1, 3], "block.first.conv": [0], "wide.conv": [5, 23]}
    with torch.no_grad():
        for name, channels in cuts.items():
            norm = model.get_submodule(norms[name])
            norm.weight[channels] = norm.bias[channels] = 0
        slim = remove_channels(model, x[:1], cuts)
        torch.testing.assert_close(slim(x), model(x))
    assert (widths(slim)["stem.conv"], widths(slim)["wide.conv"], widths(model)["wide.conv"]) == (6, 22, 24)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [({"fc1": [0]}, "this is Linear"), ({"wide.conv": [24]}, "has channels 0 to 23"), ({"wide.conv": range(24)}, "keep at least one")],
)
def test_surgery_refuses_by_name(cuts: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        remove_channels(Mixed().eval(), torch.randn(1, 3, 16, 16), cuts)


def test_channels_that_are_read_in_groups_are_not_free() -> None:
    model = nn.Sequential(nets.conv_bn(3, 8), nets.conv_bn(8, 8, groups=4), nn.GroupNorm(2, 8), nets.conv_bn(8, 6), nn.Conv2d(6, 4, 1))
    free, tied = free_channels(model, torch.randn(1, 3, 8, 8))
    assert free == {"3.conv": 6}
    assert tied["0.conv"] == "read in groups by 1.conv, 2" or tied["0.conv"] == "read in groups by 1.conv"


def test_a_lab_gives_the_same_networks_in_any_order() -> None:
    method = types.SimpleNamespace(
        Config=dict, reference=lambda task: nn.Linear(192, 3),
        compress=lambda model, task, config: nn.Linear(192, 3), control_random=lambda model, task, config, like: nn.Linear(192, 3),
    )  # fmt: skip
    part = Split(torch.randn(8, 3, 8, 8), torch.arange(8) % 3)

    def lab() -> Lab:
        return Lab(method, lambda: Task("toy", part, part, part, steps=1))  # type: ignore[arg-type]

    with torch.no_grad():
        torch.rand(3)
        late = (first := lab()).controlled("random").weight, first.compressed.weight, first.reference.weight
    early = (second := lab()).reference.weight, second.compressed.weight, second.controlled("random").weight
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(late, reversed(early), strict=True))


def test_a_smoke_run_may_name_its_own_number_of_steps() -> None:
    method = types.SimpleNamespace(Config=dict, SMOKE=({"rate": 1}, 3))
    settings = [(method.SMOKE, 3), (None, 3), ({"rate": 1}, 4), (({"rate": 1}, 2), 2)]
    for config, steps in settings:
        lab = Lab(method, lambda: toy(steps=4), config)  # type: ignore[arg-type]
        assert (lab.config, lab.task.steps) == ({"rate": 1}, steps)


def test_a_disturbed_teacher_is_told() -> None:
    x = torch.randn(8, 3, 8, 8)

    def teacher() -> nn.Module:
        return nn.Sequential(nets.conv_bn(3, 4), nn.Dropout(0.0))

    assert disturbed(still := teacher(), lambda: still.eval().requires_grad_(False)(x)) == 0
    assert disturbed(training := teacher(), lambda: training.requires_grad_(False)(x)) > 1
    assert disturbed(learning := teacher(), lambda: learning.eval()(x)) >= 1
    assert disturbed(moved := teacher(), lambda: moved[0].conv.weight.data.add_(0.25)) == pytest.approx(0.25)
    assert disturbed(copied := teacher(), lambda: copy.deepcopy(copied)(x)) == 0
    assert not any(layer._forward_hooks for layer in copied.modules())

"""What a task takes: answers that are no tensors, labels that are no classes, floats of any width, streams; and what it refuses."""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm
from torch.utils.data import DataLoader, TensorDataset

from methods.kit import nets, progress
from methods.kit.layout import copied, evaluating, suited
from methods.kit.measure import measure
from methods.kit.task import DataError, Split, Stream, Task, accuracy, classes_of, numbers, on_copies
from methods.kit.train import fit, minimise

Pair = namedtuple("Pair", "logits aux")


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class Answers(nn.Module):
    """A small network whose answer is made into something else."""

    def __init__(self, made: Callable[[Tensor], Any], classes: int = 4) -> None:
        super().__init__()
        self.made, self.stem, self.fc = made, nets.conv_bn(3, 8), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Any:
        return self.made(self.fc(self.stem(x).mean((2, 3))))


class Auxiliary(Answers):
    """Answers with a pair in training and with a tensor afterwards, as GoogLeNet does."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return Pair(y, y) if self.training else y


def batches(count: int = 2, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 3, 8, 8, generator=g).to(dtype), torch.arange(8) % 3) for _ in range(count)]


def own(**settings: Any) -> Task:
    return Task.from_loaders(*[batches(dtype=settings.pop("dtype", torch.float32))] * 3, steps=2, batch=8, **settings)


@pytest.mark.parametrize(
    ("made", "outputs", "said"),
    [
        (lambda y: {"loss": 0, "logits": y}, lambda y: y["logits"], "a dict, no tensor: .*outputs=lambda y: y['logits']"),
        (lambda y: {"out": y}, lambda y: y["out"], "y['out']"),
        (lambda y: Output(None, y), lambda y: y.logits, "an? Output, no tensor: .*y.logits"),
        (lambda y: Pair(y, None), lambda y: y.logits, "a Pair, no tensor: .*y.logits"),
        (lambda y: (y, y), lambda y: y[0], "a tuple, no tensor: .*y[0]"),
        (lambda y: [y], lambda y: y[0], "a list, no tensor: .*y[0]"),
    ],
)
def test_what_is_no_tensor_is_read_by_outputs(made: Callable[[Tensor], Any], outputs: Callable[[Any], Tensor], said: str) -> None:
    model, task = Answers(made), own(outputs=outputs)
    stats = measure(fit(model, task), task, model)
    assert stats.accuracy == accuracy(model, task.test, outputs)
    assert classes_of(model, task) == 4
    pattern = said.replace("[", r"\[").replace("]", r"\]")
    for ask in (
        lambda: fit(model, own()),
        lambda: accuracy(model, task.test),
        lambda: measure(model, own()),
        lambda: classes_of(model, own()),
    ):
        with pytest.raises(TypeError, match=pattern):
            ask()


def test_auxiliary_heads_need_outputs_in_training_alone() -> None:
    model = Auxiliary(lambda y: y)
    fit(model, own(outputs=lambda y: y.logits))
    assert 0 <= own().score(model, own().test) <= 1
    with pytest.raises(TypeError, match=r"a Pair, no tensor: .*y\.logits"):
        fit(model, own())


def test_outputs_that_find_nothing_say_so() -> None:
    with pytest.raises(TypeError, match=r"outputs= cannot read a dict \(KeyError: 'logits'\)"):
        own(outputs=lambda y: y["logits"]).logits({"out": torch.zeros(1)})
    with pytest.raises(TypeError, match="a dict, no tensor"):
        own(outputs=lambda y: y["logits"]).logits({"logits": None})


def test_logits_are_no_narrower_than_float32() -> None:
    kinds = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float32, torch.float64: torch.float64}
    assert {kind: numbers(torch.zeros(1, dtype=kind)).dtype for kind in kinds} == kinds


def test_classes_are_the_network_s_whatever_labels_there_are() -> None:
    model = Answers(lambda y: y, classes=7).train()
    model.stem.eval()
    assert classes_of(model, own()) == 7
    assert model.training
    assert not model.stem.training
    with pytest.raises(ValueError, match=r"fc: answers \(1,\) to one image"):
        classes_of(Answers(lambda y: y[:, 0]), own())


@pytest.mark.parametrize("model", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("images", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
def test_images_follow_the_network_s_type(model: torch.dtype, images: torch.dtype) -> None:
    network, task = Answers(lambda y: y).to(model), own(dtype=images)
    assert task.train.images.dtype == (images if images.is_floating_point else torch.float32)
    measure(fit(network, task), task, Answers(lambda y: y))
    assert network.fc.weight.dtype == model
    assert suited(network, task.train.images).dtype == model
    assert len(task.digest) == 16


def test_float16_is_judged_but_not_trained() -> None:
    model = Answers(lambda y: y).half()
    assert 0 <= accuracy(model, own().test) <= 1
    with pytest.raises(ValueError, match=r"fit: weights are float16, .*model\.bfloat16\(\)"):
        fit(model, own())


def test_what_a_type_cannot_do_is_refused_in_a_line() -> None:
    def compress(model: nn.Module, task: Task, config: object) -> nn.Module:
        torch.linalg.svd(task.train.first(1).images)
        return model

    assert on_copies(compress)(Answers(lambda y: y), own(), None)
    with pytest.raises(TypeError, match=r"test_task\.compress: cannot be done in torch\.bfloat16 \(.*\); give it model\.float\(\)"):
        on_copies(compress)(Answers(lambda y: y).bfloat16(), own(), None)


def test_controls_get_a_copy_of_what_they_are_compared_with() -> None:
    @on_copies
    def control_zero(model: nn.Module, task: Task, config: object, like: nn.Module) -> nn.Module:
        return like.requires_grad_(False)

    model, like = Answers(lambda y: y), Answers(lambda y: y).double()
    for got in (control_zero(model, own(), None, like), control_zero(model=model, task=own(), config=None, like=like)):
        assert got is not like
        assert got.fc.weight.dtype == torch.float64
    assert like.fc.weight.requires_grad


def test_copies_hold_what_a_layer_computed() -> None:
    model = nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 2))
    prune.l1_unstructured(model[2], "weight", 0.5)
    x = torch.randn(1, 3, 8, 8)
    model(x)
    twin = copied(model.eval())
    assert torch.equal(twin(x), model(x))
    assert not {*map(id, twin.parameters())} & {*map(id, model.parameters())}


def test_labels_may_be_anything_with_a_loss_and_a_score_of_one_s_own() -> None:
    maps = [(x, (x[:, 0] > 0).long()) for x, _ in batches()]
    numbers_ = [(x, x.mean((2, 3))) for x, _ in batches()]
    for loader, said in (
        (maps, r"int64 \(N, 8, 8\)"),
        (numbers_, r"float32 \(N, 3\)"),
        ([(x, y.float()) for x, y in batches()], r"float32 \(N,\)"),
    ):
        with pytest.raises(DataError, match=f"train: labels are {said}, no classes .*loss= and score="):
            Task.from_loaders(loader, loader, loader, steps=1)
    with pytest.raises(DataError, match="say score= of your own"):
        Task.from_loaders(maps, maps, maps, steps=1, loss=nn.functional.cross_entropy)
    segments = nn.Sequential(nets.conv_bn(3, 8), nn.Conv2d(8, 2, 1))

    @torch.no_grad()
    def right(model: nn.Module, split: Split) -> float:
        return float(torch.cat([(model(x).argmax(1) == y).float().mean((1, 2)) for x, y in split.chunks()]).mean())

    task = Task.from_loaders(maps, maps, maps, steps=20, loss=nn.functional.cross_entropy, score=right)
    before = right(segments, task.test)
    assert measure(fit(segments, task, lr=0.1), task).accuracy > max(before, 0.7)
    task = Task.from_loaders(numbers_, numbers_, numbers_, steps=2, loss=nn.functional.mse_loss, score=lambda model, split: 0.5)
    fit(Answers(lambda y: y, classes=3), task)
    with pytest.raises(ValueError, match=r"A student needs class labels \(N,\), those of the task are float32 \(N, 3\)"):
        task.labels_needed("A student")
    own().labels_needed("A student")


class Counted:
    """A loader that counts how often it is read, and how many batches were asked for."""

    def __init__(self, loader: list[tuple[Tensor, Tensor]]) -> None:
        self.loader, self.read, self.given = loader, 0, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.read += 1
        for batch in self.loader:
            self.given += 1
            yield batch


def test_a_stream_reads_no_more_than_it_needs_and_holds_nothing() -> None:
    loader = Counted(batches(4))
    task = Task.from_loaders(loader, loader, loader, steps=6, stream=True)
    loader.given = 0
    assert len(task.train.first(9)) == 9
    assert loader.given == 2
    assert torch.equal(task.train.first(9).images, own().train.first(9).images)
    assert [len(y) for _, y in task.batches()] == [8] * 6  # once and a half through
    assert [len(y) for _, y in task.train.chunks(5)] == [5, 3] * 4
    assert accuracy(model := Answers(lambda y: y), task.test) == accuracy(model, Split(*map(torch.cat, zip(*batches(4), strict=True))))
    assert {p.dtype for p in fit(model.double(), task).parameters()} == {torch.float64}
    for unknown in (lambda: len(task.train), lambda: task.train.images, lambda: task.train.labels):
        with pytest.raises(DataError, match=r"train: a stream does not tell .*leave out stream=True"):
            unknown()


def test_a_sample_is_drawn_without_repetition_from_all() -> None:
    numbered = [(torch.full((8, 1, 1, 1), 0.0) + torch.arange(8 * k, 8 * k + 8).view(8, 1, 1, 1), torch.arange(8)) for k in range(4)]
    whole, stream = Task.from_loaders(*[numbered] * 3, steps=1).train, Stream(numbered)
    for part in (whole, stream):
        drawn = part.sample(10, seed=1)
        found = drawn.images.flatten().tolist()
        assert len(set(found)) == 10
        assert max(found) > 15
        assert [n % 8 for n in found] == drawn.labels.tolist()
        assert found == part.sample(10, seed=1).images.flatten().tolist() != part.sample(10, seed=2).images.flatten().tolist()
        assert len(part.sample(99, seed=0)) == 32


def test_a_stream_must_be_readable_again() -> None:
    with pytest.raises(DataError, match="validation: can be read only once; a stream wants"):
        Task.from_loaders(batches(), iter(batches()), batches(), steps=1, stream=True)
    with pytest.raises(DataError, match="train: the loader gave no batch"):
        Task.from_loaders([], batches(), batches(), steps=1, stream=True)


def test_a_stream_of_a_data_loader_repeats_itself_in_training() -> None:
    x, y = (torch.cat(part) for part in zip(*batches(4), strict=True))
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    task = Task.from_loaders(loader, loader, loader, steps=3, stream=True)

    def trained() -> Tensor:
        torch.manual_seed(0)
        return fit(Answers(lambda y: y), task).fc.weight

    assert torch.equal(trained(), trained())


def test_each_part_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nets.conv_bn(3, 4), nn.Dropout()).train()
    model[0].eval()
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model] == [False, True]


def test_what_takes_long_says_how_far_it_is(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    fit(Answers(lambda y: y), own())
    assert not caplog.messages
    monkeypatch.setattr(progress, "EVERY", 0.0)
    fit(Answers(lambda y: y), own())
    minimise(lambda step: (value**2).sum(), [value := torch.ones(1, requires_grad=True)], 2, 0.1)
    accuracy(Answers(lambda y: y), own().test)
    assert caplog.messages == [
        "training: step 1 of 2", "training: step 2 of 2", "searching: step 1 of 2", "searching: step 2 of 2", "accuracy: step 1",
    ]  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_a_task_s_device_is_where_everything_happens() -> None:
    task, model = own(device="cuda:0"), Answers(lambda y: y)
    small = on_copies(lambda model, task, config: fit(model, task))(model, task, None)
    assert {p.device.type for p in small.parameters()} == {"cuda"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert {x.device.type for x, _ in task.batches()} == {"cuda"}
    assert measure(small, task).parameters == nets.count(model)

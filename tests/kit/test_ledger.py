"""What making a network took: counted, told in order, and compared."""

from __future__ import annotations

import copy
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from methods.kit import ledger
from methods.kit.lab import Lab
from methods.kit.layout import ask
from methods.kit.ledger import LeakError, blind
from methods.kit.looks import plain
from methods.kit.task import Split, Task, accuracy, on_copies
from methods.kit.testing import odd_network, odd_task, trace
from methods.kit.train import fit, minimise
from methods.kit.watch import iterations

Build = Callable[[nn.Module, Task], nn.Module]


@dataclass(frozen=True)
class Config:
    pass


def method(compress: Build, **controls: Build) -> types.ModuleType:
    """A module of a method that does this, from the odd network."""
    module = types.ModuleType("toy")
    module.Config, module.reference = Config, lambda task: odd_network()  # type: ignore[attr-defined]
    module.compress = on_copies(lambda model, task, config: compress(model, task))  # type: ignore[attr-defined]
    for name, build in controls.items():
        setattr(module, f"control_{name}", on_copies(lambda model, task, config, like, build=build: build(model, task)))
    return module


def numbers(build: Build) -> dict[str, float]:
    return Lab(method(build), odd_task).ledger("method").numbers()


def told(build: Build) -> list[str]:
    return trace(method(build), odd_network(), odd_task(), Config())


def statistics(model: nn.Module, task: Task, count: int = 20) -> nn.Module:
    with torch.no_grad():
        model(task.train.first(count).images)
    return model


def test_training_is_counted() -> None:
    found = numbers(lambda model, task: fit(model, task, lr=0.1))
    assert found | {"seconds": 0} == {
        "steps": 3, "iterations": 0, "images": 48, "labelled": 48, "validation": 0, "evaluations": 0,
        "rate": pytest.approx(0.1), "seconds": 0,
    }  # fmt: skip
    assert 0 < found["seconds"] < 60


def test_what_learns_without_an_optimiser_is_counted() -> None:
    found = numbers(lambda model, task: statistics(model, task))
    assert (found["images"], found["labelled"], found["steps"]) == (20, 0, 0)

    def least_squares(model: nn.Module, task: Task) -> nn.Module:
        torch.linalg.lstsq(task.train.images.flatten(1), torch.nn.functional.one_hot(task.train.labels, 4).float())
        return model

    assert [numbers(least_squares)[name] for name in ("images", "labelled")] == [48, 48]

    def solved(model: nn.Module, task: Task) -> nn.Module:
        minimise(lambda step: p.square().sum(), [p := torch.ones(2, requires_grad=True)], 7, 0.5)
        return model

    assert [numbers(solved)[name] for name in ("iterations", "rate", "images")] == [7, 0.5, 0]

    def settled(model: nn.Module, task: Task) -> nn.Module:
        for turn in iterations(50):
            if turn == 2:
                break
        return model

    assert numbers(settled)["iterations"] == 3


def test_labels_that_nobody_reads_are_no_labels() -> None:
    same = numbers(lambda model, task: fit(model, task, lambda m, x, y: m(x).square().sum(), lr=0.01))
    assert (same["images"], same["labelled"]) == (48, 0)

    def half(model: nn.Module, task: Task) -> nn.Module:
        hidden = torch.where(torch.arange(48) < 24, task.train.labels, -1)
        part = ledger.watched(replace(task, train=Split(torch.zeros(48, 3, 8, 8), hidden))).train
        part.labels.sum()
        return model

    assert numbers(half)["labelled"] == 48 + 24, "a negative label says nothing"


def test_a_look_counts_once_however_it_is_handed_on() -> None:
    def several(model: nn.Module, task: Task) -> nn.Module:
        images = torch.cat([x for x, _ in task.validation.sample(12, 1).chunks(5)])[2:].to(torch.float64).float().contiguous()
        assert len(images) == 10, "shapes are no looks"
        model(task.validation.first(1).images.to(torch.float32))
        assert torch.equal(plain(copy.deepcopy(images)), pickle.loads(pickle.dumps(images)))
        assert images.mean() == images.mean()
        return model

    assert [numbers(several)[name] for name in ("images", "validation")] == [10, 10]


def test_a_search_is_counted() -> None:
    def search(model: nn.Module, task: Task) -> nn.Module:
        assert task.score(model, task.validation) == accuracy(odd_network(), odd_task().validation)
        return model

    found = numbers(search)
    assert [found[name] for name in ("evaluations", "images", "labelled", "validation")] == [1, 20, 20, 20]


def test_nothing_is_counted_outside_and_numbers_are_the_same() -> None:
    task = odd_task()
    alone = fit(odd_network(), task)
    lab = Lab(method(lambda model, task: fit(model, task)), odd_task)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), lab.compressed.parameters(), strict=True))
    before = lab.ledger("method").numbers()
    fit(odd_network(), task)
    assert lab.ledger("method").numbers() == before


LEAKS: dict[str, Build] = {
    "trained": lambda model, task: fit(model, replace(task, train=task.test)),
    "calibrated": lambda model, task: statistics(model, replace(task, train=task.test)),
    "searched": lambda model, task: [task.score(model, task.test), model][1],  # type: ignore[return-value]
    "counted": lambda model, task: [len(task.test), model][1],  # type: ignore[return-value]
    "read": lambda model, task: [task.test.labels, model][1],  # type: ignore[return-value]
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_test_images_raise_for_method_control_reference_and_claim(leak: Build) -> None:
    with pytest.raises(LeakError, match=r"may not look at .*score a network by lab\.score\(model\)|lab\.score"):
        _ = Lab(method(leak), odd_task).compressed
    lab = Lab(method(lambda model, task: model, leaky=leak), odd_task)
    with pytest.raises(LeakError):
        lab.controlled("leaky")
    with pytest.raises(LeakError):
        leak(lab.reference, lab.task)
    lab.method.reference = lambda task: leak(odd_network(), task)  # type: ignore[attr-defined]
    with pytest.raises(LeakError):
        _ = Lab(lab.method, odd_task).reference


def test_the_bench_scores_on_test_images() -> None:
    lab = Lab(method(lambda model, task: model), odd_task)
    assert lab.score(lab.compressed) == lab.after.accuracy == accuracy(odd_network(), odd_task().test)
    assert len(lab.held_out(5)) == 5


def test_what_is_prepared_is_blind_too_and_a_users_task_is_not() -> None:
    module = method(lambda model, task: model)
    module.prepare = lambda task: replace(task, test=task.test.first(4))  # type: ignore[attr-defined]
    lab = Lab(module, odd_task)
    assert lab.after.accuracy in (0, 0.25, 0.5, 0.75, 1)
    with pytest.raises(LeakError):
        len(lab.task.test)
    assert len(blind(odd_task()).validation) == 20
    assert len(odd_task().test) == 12


def distilled(model: nn.Module, task: Task) -> nn.Module:
    learner, teacher = odd_network(), model.eval()
    learner[-1].reset_parameters()  # type: ignore[operator]
    return fit(learner, task, lambda m, x, y: (m(x) - ask(teacher, x)).square().mean(), lr=0.01)


def in_stages(
    model: nn.Module, task: Task, *, skip: bool = False, original: bool = False, lr: float = 0.1, freeze: bool = True
) -> nn.Module:
    start = copy.deepcopy(model)
    model = fit(model, task, lr=lr)
    statistics(start if original else model, task)
    if freeze:
        model[0].requires_grad_(False)  # type: ignore[index]
    return model if skip else fit(model, task, share=2 / 3)


STAGES = [
    "trains the given network on 48 images of train, train mode, rate 0.1, 3 steps",
    "runs the returned network on 20 images of train, eval mode",
    "trains the returned network on 32 images of train, train mode, rate 0.02, frozen: 0.conv.weight, 0.bn.weight, 0.bn.bias, 2 steps",
]


def test_a_trace_tells_what_was_done_in_order() -> None:
    assert told(in_stages) == STAGES
    assert told(distilled) == [
        "trains the returned network on 48 images of train, train mode, rate 0.01, 3 steps;"
        " meanwhile runs the given network on train, eval mode"
    ]  # fmt: skip


FAULTS: dict[str, tuple[Build, str]] = {
    "a skipped stage": (lambda m, t: in_stages(m, t, skip=True), STAGES[2]),
    "the original network": (lambda m, t: in_stages(m, t, original=True), STAGES[1]),
    "another rate": (lambda m, t: in_stages(m, t, lr=0.05), STAGES[0]),
    "a missing freeze": (lambda m, t: in_stages(m, t, freeze=False), STAGES[2]),
    "another split": (lambda m, t: in_stages(m, replace(t, train=t.validation)), STAGES[0]),
    "half of the steps": (lambda m, t: in_stages(m, t.with_steps(2)), STAGES[0]),
}


@pytest.mark.parametrize(("fault", "line"), FAULTS.values(), ids=FAULTS)
def test_a_trace_shows_a_fault(fault: Build, line: str) -> None:
    assert line not in told(fault)


def test_a_trace_shows_train_mode_for_eval() -> None:
    def untidy(model: nn.Module, task: Task) -> nn.Module:
        return distilled_by(model.train(), task)

    def distilled_by(teacher: nn.Module, task: Task) -> nn.Module:
        learner = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        return fit(learner, task, lambda m, x, y: (m(x) - ask(teacher, x).detach()).square().mean(), lr=0.01)

    assert told(untidy)[0].endswith("meanwhile runs the given network on train, train mode")
    assert told(lambda model, task: statistics(model.train(), task)) == ["runs the given network on 20 images of train, train mode"]


def test_what_repeats_is_told_once() -> None:
    lines = ["a", "b", "b", "c", "d", "c", "d", "c", "d", "e"]
    assert ledger.repeated(lines) == ["a", "b (2 times)", "c", "d (3 times these 2 lines)", "e"]


def test_torchs_own_optimisers_are_counted() -> None:
    def descended(model: nn.Module, task: Task) -> nn.Module:
        optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
        for x, y in task.batches():
            optimiser.zero_grad()
            task.loss_of(model, x, y).backward()
            optimiser.step()
        return model

    assert [numbers(descended)[name] for name in ("steps", "images", "rate")] == [3, 48, 0.3]

"""The zoo, what became of a network, and networks handed on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from methods.kit import export, nets
from methods.kit.changes import changes, grouped
from methods.kit.nets import count
from methods.kit.train import fit, minimise
from methods.kit.watch import iterations, rehearsal
from methods.kit.zoo import CLASSES, ZOO, LeNet
from tests.helpers import noise


@pytest.mark.parametrize("name", ZOO)
def test_every_network_runs_and_learns(name: str) -> None:
    animal = ZOO[name]
    torch.manual_seed(0)
    model, images = animal.build(), torch.randn(3, *animal.image, dtype=animal.dtype)
    for mode in (True, False):
        answer = model.train(mode)(images)
        logits = animal.outputs(answer) if animal.outputs else answer
        assert logits.shape == (3, CLASSES)
        assert logits.dtype == animal.dtype
    logits.sum().backward()
    assert count(model) < 40_000
    assert animal.habit


def test_what_became_of_layers() -> None:
    before = nets.resnet(8)
    after = copy.deepcopy(before)
    after.stage1_0.first.conv = nn.Sequential(nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 3, padding=1))
    after.stage2_0.first.conv = nn.Conv2d(16, 20, 3, 2, 1, bias=False)
    with torch.no_grad():
        after.stage2_0.second.conv.weight.mul_(2)
        after.stage3_0.second.conv.weight.copy_(after.stage3_0.second.conv.weight.sign())
        after.stage3_0.first.conv.weight[:32] = 0
    del after.stage3_0.shortcut.conv
    found = {one.name: one for one in changes(before, after)}
    assert found["stem.conv"].what == "Conv2d 3→16 3x3: as it was"
    assert found["stage1_0.first.conv"].what == "Conv2d 16→16 3x3 → Conv2d 16→4 1x1 + Conv2d 4→16 3x3"
    assert found["stage2_0.first.conv"].what == "Conv2d 16→32 3x3 → Conv2d 16→20 3x3"
    assert found["stage2_0.second.conv"].what == "Conv2d 32→32 3x3: other weights"
    assert found["stage3_0.second.conv"].what == "Conv2d 64→64 3x3: other weights, 2 levels"
    assert found["stage3_0.first.conv"].what == "Conv2d 32→64 3x3: other weights, 50% zeros"
    assert found["stage3_0.shortcut.conv"] == ("stage3_0.shortcut.conv", "Conv2d: is gone")
    assert changes(before, LeNet()) == []


def test_layers_alike_stand_together() -> None:
    before = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 2))
    assert grouped(changes(before, before)) == ["0, 1, 2: Linear 4→4: as it was", "3: Linear 4→2: as it was"]


def test_in_rehearsal_nothing_is_trained() -> None:
    model, weight = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 5)), torch.ones(2, requires_grad=True)
    before = copy.deepcopy(model.state_dict())
    with rehearsal() as sizes:
        fit(model, noise(2))
        minimise(lambda step: weight.sum(), [weight], 3, 0.1)
        assert list(iterations(3)) == [0]
    assert list(iterations(3)) == [0, 1, 2]
    assert sizes == [count(model)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert weight.tolist() == [1, 1]
    fit(model, noise(2))
    assert not torch.equal(model[1].weight, before["1.weight"])
    assert sizes == [count(model)]


onnx = pytest.mark.skipif(not export.there(), reason="needs the extra `export`")


@onnx
def test_networks_are_handed_on() -> None:
    model, images = LeNet().eval(), torch.randn(2, 3, 32, 32)
    wanted = model(images)
    torch.testing.assert_close(export.program(model, images).module()(images), wanted)
    torch.testing.assert_close(export.run_onnx(export.onnx(model, images), images), wanted, rtol=1e-5, atol=1e-5)
    assert export.needs(model) == {"torch", "methods"}
    assert export.needs(nn.Sequential(nn.Linear(3, 4))) == {"torch"}


@onnx
def test_what_cannot_be_handed_on_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    for call in (export.program, export.onnx):
        with pytest.raises(export.ExportError, match=r"^Branching cannot be (exported|written as ONNX): .+") as problem:
            call(Branching(), torch.ones(1, 3, 4, 4))
        assert "\n" not in str(problem.value)
    with pytest.raises(export.ExportError, match="Branching cannot be pickled"):
        export.needs(Branching())  # a class inside a function
    with pytest.raises(export.ExportError, match="onnxruntime cannot run it"):
        export.run_onnx(b"nothing", torch.ones(1))
    assert capsys.readouterr() == ("", "")

"""The claims of FitNets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from methods.distillation import fitnets as method
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.measure import multiply_adds
from methods.kit.task import Split, Task
from methods.kit.testing import relative_error, toy_task


def claim_hint_loss(lab: Lab) -> float:
    """Relative difference from half the squared distance, image by image, by numpy."""
    u, r = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    oracle = np.mean([0.5 * np.linalg.norm(a.ravel() - b.ravel()) ** 2 for a, b in zip(u.numpy(), r.numpy(), strict=True)])
    return abs(method.hint_loss(u, r).item() / float(oracle) - 1)


NETWORKS = {"teacher": "111", "FitNet1": "333", "FitNet2": "333", "FitNet3": "443", "FitNet4": "566"}  # convolutions a block, Table 7


def paper_network(blocks: str) -> nn.Sequential:
    """A pooling behind every block of convolutions, then a dense layer and the output, as in Table 7; three channels wide."""
    parts: list[nn.Module] = []
    for place, count in enumerate(blocks, 1):
        parts += [nets.conv_bn(3, 3) for _ in range(int(count))] + [nn.MaxPool2d(2 if place < len(blocks) else 8)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 10))


def claim_middle_layers(lab: Lab, case: str) -> float:
    """Place of the teacher's hint layer, or of a student's guided one."""
    image = torch.zeros(1, 3, 32, 32)
    hint = method.middle(paper_network(NETWORKS["teacher"]), image)[1]
    return (hint if case == "teacher" else method.middle(paper_network(NETWORKS[case]), image, hint=hint)[1]).place


class Shared(nn.Module):
    """A residual block whose two non-linearities are one module, as many have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nets.conv_bn(4, 4, act=None), nets.conv_bn(4, 4, act=None), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + x)


def claim_nothing_passes_by(lab: Lab) -> float:
    """How many of some networks' layers are not the middle ones that one finds by hand: where shortcuts end, where maps fit."""
    image, wrong = torch.zeros(1, 3, 32, 32), 0
    flat = nn.Sequential(
        *(nets.conv_bn(c, 4) for c in (3, 4, 4)), nn.MaxPool2d((2, 1)), nets.conv_bn(4, 4), nn.Flatten(), nn.Linear(2048, 3)
    )
    blocks = nn.Sequential(nets.conv_bn(3, 4), *(Shared() for _ in range(3)), nn.Flatten(), nn.Linear(4096, 3))
    for model, wanted, rows, columns in (
        (nets.resnet(20), "stage2_0", 0, 0), (nets.resnet(8), "stage1_0", 0, 0), (nets.vgg(nets.VGG_WIDE), "conv5", 0, 0),
        (blocks, "1", 0, 0), (nets.vgg(method.THIN), "pool8", 8, 8), (nets.resnet(32), "stage2_1", 16, 9), (flat, "3", 16, 32),
        (nets.resnet(14), "stage1_1", 10, 20),
    ):  # fmt: skip
        wrong += method.middle(model, image, hint=a_layer(9, rows, columns) if rows else None)[0] != wanted
    wrong += method.middle(nets.resnet(20), image, "stage3_1.act")[0] != "stage3_1.act"
    # a shortcut leads past two of these, and the third has no non-linearity
    for model, name in ((nets.resnet(20), "stage2_0.first"), (blocks, "2.relu"), (nets.resnet(20), "stage2_0.second")):
        try:
            wrong += bool(method.middle(model, image, name))
        except ValueError as refusal:
            wrong += f"{name}: " not in str(refusal)
    return wrong


def a_layer(channels: int, rows: int, columns: int, act: nn.Module | None = None) -> method.Layer:
    return method.Layer(1, torch.Size((channels, rows, columns)), act or nn.ReLU())


def claim_regressor_size(lab: Lab) -> list[float]:
    """Largest difference of regressors' output shapes, weights and multiply-adds from what they have to be."""
    found = list[float]()
    for c, rows, columns, o, up, across in ((5, 8, 8, 7, 8, 8), (4, 9, 7, 6, 5, 7), (3, 16, 12, 8, 1, 5)):
        hint, guided = a_layer(o, up, across), a_layer(c, rows, columns)
        r, v = method.regressor(hint, guided), torch.zeros(2, *guided.shape)
        weights = (rows - up + 1) * (columns - across + 1) * o * c  # k_1 k_2 O_h O_g
        found += [float(r(v).shape != (2, *hint.shape)), abs(r[0].weight.numel() - weights)]
        found.append(abs(multiply_adds(r, v[:1]) - weights * up * across))
    return found


def claim_regressor_shares_non_linearity(lab: Lab) -> list[float]:
    """Largest difference of what regressors answer from numpy's non-linearity of their convolutions; 1 where weights start large.

    Just made, a regressor answers with no zeros, so that it can learn; and it is no part of the teacher.
    """
    found, x = list[float](), torch.rand(4, 6, 5, 5)
    kinds: list[tuple[nn.Module, Callable[[Any], Any]]] = [
        (nn.Tanh(), np.tanh), (nn.LeakyReLU(0.3), lambda a: np.where(a > 0, a, 0.3 * a)), (nn.ReLU(), lambda a: np.maximum(a, 0)),
    ]  # fmt: skip
    for act, plain in kinds:
        r = method.regressor(a_layer(7, 3, 3, act), a_layer(6, 5, 5))
        small = 0 < r[0].weight.std() < 0.005 and bool((r(x) > 0).all())
        found.append(float(not small or r[1] is act or float(r[0].weight.detach().mean().abs()) > 0.001))
        nn.init.normal_(r[0].weight)
        found.append(float(np.abs(r(x).detach().numpy() - plain(r[0](x).detach().numpy())).max()))
    return found


def claim_loss_of_second_stage(lab: Lab) -> list[float]:
    """Largest difference from H(y, P_S) + lambda H(P_T, P_S) by scipy, less the entropy of the teacher's answers."""
    (z, v), y, found = torch.randn(2, 8, 5, dtype=torch.float64), torch.arange(8) % 5, list[float]()
    for weight, tau in ((4.0, 3.0), (1.0, 3.0), (2.5, 1.0), (0.0, 7.0)):
        p, q = (log_softmax(x.numpy() / tau, axis=1) for x in (v, z))
        soft = (np.exp(p) * (p - q)).sum(1).mean()
        hard = -log_softmax(z.numpy(), axis=1)[range(8), y.numpy()].mean()
        found.append(abs(method.loss(z, v, y, weight, tau).item() - hard - weight * soft))
    return found


def _toy() -> tuple[nn.Sequential, nn.Sequential, Task]:
    """A teacher, a student and random images. The hint layer is "1", with maps of 4x4, the guided one is "1", with 6x6.

    The grouped convolution keeps training in float32.
    """
    torch.manual_seed(0)
    hinting = nn.Sequential(nn.Conv2d(6, 7, 3), nn.LeakyReLU(0.3))
    teacher = [nets.conv_bn(3, 6, stride=2), hinting, nets.conv_bn(7, 8)]
    learner = [nets.conv_bn(3, 4), nets.Residual(4, 5, 2), nets.conv_bn(5, 5, groups=5), nets.conv_bn(5, 6, stride=2)]
    ends = [[layer for _, layer in nets.head(channels, 3)] for channels in (8, 6)]
    part = Split(torch.randn(40, 3, 12, 12), torch.randint(3, (40,)))
    return (
        nn.Sequential(*teacher, *ends[0]),
        nn.Sequential(*learner, *ends[1]),
        toy_task(part, steps=7, batch=20),
    )


def _changes(model: nn.Module, before: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((value.double() - before[name].double()).abs().max()) for name, value in model.state_dict().items()}


def claim_first_stage_moves_up_to_guided(lab: Lab) -> float:
    """How many weights and statistics of the student one step of the first stage moves, or leaves, wrongly; and layers that ran in vain."""
    teacher, learner, task = _toy()
    ran = list[str]()
    for whose, model in (("teacher", teacher.eval().requires_grad_(False)), ("student", learner)):
        for place, layer in enumerate(model):
            layer.register_forward_hook(lambda m, *_, it=layer, name=f"{whose} {place}": ran.append(name) if m is it else None)
    before = copy.deepcopy(learner.state_dict())
    method.follow_hints(learner, teacher, task.with_steps(1), method.Config(hint="1", guided="1"))
    wrong = sum((change > 0) != (name[0] in "01") for name, change in _changes(learner, before).items())
    return wrong + sum(name not in ("teacher 0", "teacher 1", "student 0", "student 1") for name in ran)


def claim_first_stage_descends(lab: Lab) -> list[float]:
    """Largest relative difference of a step of the first stage from the gradient of Eq. 3, by central differences, on 12 weights."""
    teacher, learner, task = _toy()
    teacher.eval().requires_grad_(False)
    task, config, start = task.with_steps(1), method.Config(), copy.deepcopy(learner)
    torch.manual_seed(1)
    first = method.regressor(a_layer(7, 4, 4, nn.LeakyReLU(0.3)), a_layer(5, 6, 6)).double()
    torch.manual_seed(1)
    last = method.follow_hints(learner, teacher, task, config)
    x = next(task.batches())[0].double()
    start.double().train(), teacher.double()

    def error() -> float:
        with torch.no_grad():
            u, r = teacher[:2](x).numpy(), first(start[:2](x)).numpy()
        return float(0.5 * np.square(u - r).sum() / len(x))

    found = list[float]()
    for old, new in ((start[0].conv, learner[0].conv), (start[1].second.bn, learner[1].second.bn), (first[0], last[0])):
        weight, after = old.weight.data.flatten(), new.weight.detach().double().flatten()
        steps, wanted = [], []
        for i in range(0, len(weight), max(1, len(weight) // 4)):
            value, d = float(weight[i]), 1e-5
            weight[i] = value + d
            up = error()
            weight[i] = value - d
            slope = (up - error()) / (2 * d)
            weight[i] = value
            steps.append(float(after[i]) - value)
            wanted.append(-1.9 * config.hint_lr / 16 * (slope + 5e-4 * value))  # Nesterov's first step, weight decay; 4x4 places
        found.append(relative_error(*torch.tensor([steps, wanted], dtype=torch.float64)))
    return found


def claim_hints_first_then_outputs(lab: Lab) -> float:
    """How many training steps run other parts of the student than they should: in the first stage the lower ones, then all."""
    teacher, learner, task = _toy()
    wrong = 0
    for share, lower in ((0.5, 4), (0.3, 2)):
        ran = list[int]()
        handles = [
            learner[place].register_forward_hook(lambda m, *_, place=place: ran.append(place) if m.training else None) for place in (0, -1)
        ]
        method.distil(learner, teacher, task, method.Config(hints=share))
        for handle in handles:
            handle.remove()
        wanted = [0] * lower + [0, -1] * (task.steps - lower)
        wrong += sum(a != b for a, b in zip(ran, wanted)) + abs(len(ran) - len(wanted))  # noqa: B905
    return wrong


def claim_second_stage_gradient(lab: Lab) -> list[float]:
    """Largest difference, step by step, of the gradient at the logits from (q - y) + lambda (q^tau - p^tau) / tau, by scipy.

    lambda is 4 at the first step and falls along a line to 1. One if some weight does not learn.
    """
    teacher, learner, task = _toy()
    method.frozen(teacher, task)
    logits, slopes = list[Tensor](), list[Tensor]()

    def watch(model: nn.Module, inputs: object, z: Tensor) -> None:
        logits.append(z.detach().double())
        z.register_hook(lambda slope: slopes.append(slope.double()))

    handle, before = learner.register_forward_hook(watch), copy.deepcopy(learner.state_dict())
    method.follow_outputs(learner, teacher, task, method.Config())
    handle.remove()
    found = [float(0 in _changes(learner, before).values())]
    for k, (x, y) in enumerate(task.batches()):
        z, v, weight = logits[k].numpy(), teacher(x).double().numpy(), 4 - 3 * k / task.steps
        wanted = softmax(z, 1) - np.eye(3)[y.numpy()] + weight * (softmax(z / 3, 1) - softmax(v / 3, 1)) / 3
        found.append(float(np.abs(len(x) * slopes[k].numpy() - wanted).max()))
    return found


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a student that learns by hints, or without, disturbs its teacher: weights, statistics, mode and gradients."""
    total = 0.0
    for train in (method.distil, lambda learner, *rest: method.control_distillation(*rest, learner)):
        teacher, learner, task = _toy()
        total += disturbed(teacher, lambda: train(learner, teacher, task.with_steps(2), method.Config()))
    return total


def claim_student_is_thin_and_deep(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's; infinite if a layer is as wide as one of the teacher's or it is not deeper.

    Or if anything is left of the regressor, the answers are about other classes than the teacher's, or a layer missed a stage.
    """
    task, teacher = _toy()[2], nets.vgg(nets.VGG_WIDE, classes=5)
    big = Split(torch.randn(4, 3, 32, 32), torch.arange(4) % 2)
    small = method.compress(teacher, replace(task, train=big, validation=big, test=big, steps=2, batch=4), method.Config())
    wide, thin = ([layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)] for model in (teacher, small))
    as_said = small.state_dict().keys() == method.student(5).state_dict().keys() and small(big.images).shape == (4, 5)
    seen = [int(layer.num_batches_tracked) for layer in small.modules() if isinstance(layer, nn.BatchNorm2d)]
    as_said = as_said and seen == [2] * 6 + [1] * 3  # one step of either stage
    as_said = as_said and len(thin) > len(wide) and all(one <= other for one in thin for other in wide)
    return nets.count(small) / nets.count(teacher) if as_said else float("inf")


def unpredicted(lab: Lab, model: nn.Module) -> float:
    """Share of the hint's variance on test images that the best linear map of the guided layer, fitted on training images, leaves."""
    image = lab.task.train.first(1).images
    h, hint = method.middle(lab.reference, image, lab.config.hint)
    g, _ = method.middle(model, image, lab.config.guided, hint)

    @torch.no_grad()
    def places(network: nn.Module, name: str, x: Tensor) -> Tensor:
        y = method.up_to(network.eval(), name, x.to(lab.task.device)).double().cpu()
        return y.movedim(1, 3).flatten(0, 2)

    part = (lab.task.train.first(128).images, lab.held_out(128).images)
    (v, v_test), (u, u_test) = ([places(network, name, x) for x in part] for network, name in ((model, g), (lab.reference, h)))
    answer = torch.linalg.lstsq(v - v.mean(0), u - u.mean(0)).solution
    left = u_test - u.mean(0) - (v_test - v.mean(0)) @ answer
    return float(left.square().sum() / (u_test - u.mean(0)).square().sum())


def claim_guided_predicts_hint(lab: Lab) -> float:
    return unpredicted(lab, lab.compressed) / unpredicted(lab, lab.controlled("distillation"))


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("distillation").accuracy


def claim_beats_distillation(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("distillation").accuracy


def claim_beats_student_alone(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy

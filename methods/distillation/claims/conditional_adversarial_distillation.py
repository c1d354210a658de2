"""The claims of Conditional adversarial distillation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from methods.distillation import conditional_adversarial_distillation as method
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.task import Split, Task, classes_of
from methods.kit.testing import toy_task
from methods.kit.train import fit, schedule


def claim_discriminator_classes(lab: Lab) -> float:
    """How many discriminators do not have C + 2 answers, layers of C nodes, dropout of 0.3 in each block, and the size that follows."""
    wrong = 0
    for depth, c in ((1, 10), (2, 10), (3, 10), (4, 7)):
        judge = method.discriminator(c, method.Config(depth=depth))
        wrong += judge(torch.randn(6, c)).shape != (6, c + 2)
        wrong += [layer.in_features for layer in judge.modules() if isinstance(layer, nn.Linear)] != depth * [c]
        wrong += [layer.p for layer in judge.modules() if isinstance(layer, nn.Dropout)] != (depth - 1) * [0.3]
        wrong += nets.count(judge) != 2 * c + (depth - 1) * (c * c + 3 * c) + (c + 1) * (c + 2)
    return wrong


Numbers = list[NDArray[np.float64]]


def by_hand(layers: Numbers, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a discriminator with these weights and without dropout answers, in numpy."""

    def normal(x: NDArray[np.float64], scale: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
        return scale * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + shift

    (first_scale, first_shift), blocks, (weight, bias) = layers[:2], layers[2:-2], layers[-2:]
    a = normal(logits, first_scale, first_shift)
    for w, b, scale, shift in zip(*(blocks[k::4] for k in range(4)), strict=True):
        a = np.maximum(0, a + normal(a @ w.T + b, scale, shift))
    return np.asarray(a @ weight.T + bias)


def likelihoods(layers: Numbers, t: NDArray[np.float64], s: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[float, float]:
    """L_A and L_DS, by scipy: image by image, as printed."""
    a, ds = [], []
    for real, fake, label in zip(by_hand(layers, t), by_hand(layers, s), y, strict=True):
        classes = len(real) - 2
        a.append(log_softmax(real[classes:])[0] + log_softmax(fake[classes:])[1])
        ds.append(log_softmax(real[:classes])[label] + log_softmax(fake[:classes])[label])
    return float(np.mean(a)), float(np.mean(ds))


def numbers(network: nn.Module) -> Numbers:
    return [p.detach().double().numpy().copy() for p in network.parameters()]


def cross_entropy(s: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    return -float(log_softmax(s, axis=1)[range(len(y)), y].mean())


@torch.no_grad()
def claim_losses_by_hand(lab: Lab) -> list[float]:
    """Largest difference of L_A, L_DS and what the two players optimise from numpy and scipy, for several depths."""
    found = list[float]()
    for depth, classes in ((1, 5), (3, 4), (4, 10)):
        judge = method.discriminator(classes, method.Config(dropout=0.0, depth=depth)).double()
        for p in judge.parameters():
            p.add_(torch.randn_like(p))
        (t, s), y = 3 * torch.randn(2, 24, classes, dtype=torch.float64), torch.arange(24) % classes
        a, ds = likelihoods(numbers(judge), t.numpy(), s.numpy(), y.numpy())
        far = np.mean([sum(abs(s[i, j].item() - t[i, j].item()) for j in range(classes)) for i in range(24)])
        pairs = [
            (method.origin(judge(t), judge(s)), a), (method.category(judge(t), judge(s), y), ds),
            (method.judge_gain(judge, t, s, y), (a + ds) / 2), (method.gan_loss(judge, t, s, y), (a - ds) / 2),
            (method.distance(s, t), far), (method.student_loss(judge, t, s, y), cross_entropy(s.numpy(), y.numpy()) + far + (a - ds) / 2),
        ]  # fmt: skip
        found += [*(abs(float(ours) - theirs) for ours, theirs in pairs)]
    return found


def toy(steps: int, kind: torch.dtype = torch.float32) -> Task:
    """Random images of three classes, all of them in every batch."""
    part = Split(torch.randn(16, 3, 8, 8, dtype=kind), torch.arange(16) % 3)
    return toy_task(part, steps=steps, batch=16)


def slopes(value: Callable[[Numbers], float], at: Numbers, step: float = 1e-6) -> Numbers:
    """Central differences by every number."""
    found = [np.zeros_like(array) for array in at]
    for array, slope in zip(at, found, strict=True):
        for place in np.ndindex(array.shape):
            middle = array[place]
            ends = []
            for end in (middle + step, middle - step):
                array[place] = end
                ends.append(value(at))
            array[place], slope[place] = middle, (ends[0] - ends[1]) / (2 * step)
    return found


def claim_turns_by_hand(lab: Lab) -> list[float]:
    """Largest relative difference of what three iterations change in either player from what central differences of the equations say."""
    task, config = toy(3, torch.float64), method.Config(dropout=0.0, lr=0.01, judge_lr=0.05)
    task = replace(task, train=Split(task.train.images[:, :, :1, :2], task.train.labels))
    teacher, learner = (nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double() for _ in range(2))
    judge = method.discriminator(3, config)
    x, y = task.train.images.flatten(1).numpy(), task.train.labels.numpy()
    weight, bias = numbers(teacher)
    t, starts = x @ weight.T + bias, [numbers(judge), numbers(learner)]
    d, f = numbers(judge), numbers(learner)

    def gain(d: Numbers) -> float:
        return sum(likelihoods(d, t, x @ f[0].T + f[1], y)) / 2

    def loss(f: Numbers) -> float:
        s = x @ f[0].T + f[1]
        a, ds = likelihoods(d, t, s, y)
        return cross_entropy(s, y) + float(np.abs(s - t).sum(1).mean()) + (a - ds) / 2

    velocities = [[np.zeros_like(array) for array in player] for player in starts]
    for share in (1.0, 1.0, 0.5):  # one cosine over three steps
        for player, velocity, value, lr in ((d, velocities[0], lambda d: -gain(d), 0.05), (f, velocities[1], loss, 0.01)):
            for array, speed, slope in zip(player, velocity, slopes(value, player), strict=True):
                slope += 5e-4 * array
                speed *= 0.9
                speed += slope
                array -= lr * share * (slope + 0.9 * speed)
    method.play(learner, teacher, judge, task, config)
    errors = list[float]()
    for ours, theirs, start in zip((numbers(judge), numbers(learner)), (d, f), starts, strict=True):
        for found, wanted, before in zip(ours, theirs, start, strict=True):
            errors.append(float(np.linalg.norm(found - wanted) / (np.linalg.norm(wanted - before) + 1e-3)))
    return errors


def claim_same_schedule(lab: Lab) -> list[float]:
    """Largest difference of a discriminator's rate, over its initial one, from the student's; infinite where that is not smaller.

    As it takes nothing for real, the bias of that answer has a slope of a half, and where it has moved tells the rate.
    """
    found = [0.0 if method.Config().judge_lr < method.Config().lr else float("inf")]
    for total in (1, 7, 40):
        teacher, learner = (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in range(2))
        judge, places = nn.Linear(3, 5), list[float]()
        judge.bias.data[3] = -400
        judge.register_forward_hook(lambda layer, *_, places=places: places.append(layer.bias[3].item()))
        method.play(learner, teacher, judge, toy(total), method.Config(judge_lr=1.0))
        speed, before = 0.0, places[0]
        for step, place in enumerate(places[2::4], 1):  # the student's turn, in which it answers twice again
            slope = 5e-4 * before - 0.5
            speed = 0.9 * speed + slope
            found.append(abs((before - place) / (slope + 0.9 * speed) - schedule(step, total)))
            before = place
    return found


@torch.no_grad()
def claim_equal_logits_leave_chance(lab: Lab) -> list[float]:
    """By how much the best guess at the origin of equal logits differs from 2 log 1/2, over guesses; and the distance of equal logits."""
    t = 4 * torch.randn(64, 5)
    guesses = []
    for tilt in np.linspace(-3, 3, 61):
        judge, head = method.discriminator(5, method.Config(depth=1)), nn.Linear(5, 7)
        head.weight *= abs(tilt)
        head.bias[-2:] = torch.tensor([tilt, -tilt])
        judge[-1] = head
        guesses.append(float(method.origin(judge(t), judge(t))))
    return [abs(float(np.max(guesses)) - 2 * math.log(0.5)), float(method.distance(t, t))]


@torch.no_grad()
def claim_swapped_classes_cost_category_alone(lab: Lab) -> float:
    """Change of L_A where a student takes each class for the next, infinite unless L_DS falls by a unit at least."""
    y = torch.arange(64) % 4
    t = 5.0 * F.one_hot(y, 4) + torch.randn(64, 4)
    judge, head = method.discriminator(4, method.Config(depth=1)), nn.Linear(4, 6)
    head.weight[:4] = 3 * torch.eye(4)
    judge[-1] = head
    swapped = t[torch.arange(64).roll(1)]  # answers for other images, the same on the whole
    falls = method.category(judge(t), judge(t), y) - method.category(judge(t), judge(swapped), y)
    change = abs(float(method.origin(judge(t), judge(t)) - method.origin(judge(t), judge(swapped))))
    return change if falls > 1 else float("inf")


@torch.no_grad()
def claim_noise_is_dropout(lab: Lab) -> list[float]:
    """Largest distance from 0.3 of the share of zeros that each block's second convolution gets in training beyond the ReLU's.

    Infinite if two answers agree in training or differ afterwards, or if a student without dropout is let in.
    """
    task = toy(1)
    network, shares, seen = method.student(task, method.Config(), 3), list[float](), list[Tensor]()
    for block in (layer for layer in network.modules() if isinstance(layer, nets.Residual)):
        block.first[2].register_forward_hook(lambda layer, inputs, output: seen.append(output.clone()))
        block.second.register_forward_pre_hook(lambda layer, inputs: shares.append(float((inputs[0][seen.pop() > 0] == 0).float().mean())))
    x = torch.randn(64, 3, 16, 16)
    noisy = [network.train()(x) for _ in range(2)]
    found = [abs(share - 0.3) for share in shares]
    calm = [network.eval()(x) for _ in range(2)]
    good = len(found) == 2 * 3 and not torch.equal(*noisy) and torch.equal(*calm)
    try:
        with torch.enable_grad():
            method.distil(nets.resnet(8, 3), nets.resnet(8, 3), task, method.Config())
    except ValueError:
        return found if good else [float("inf")]
    return [float("inf")]


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a learning student disturbs its teacher: weights, statistics, mode and gradients."""
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    learner, judge = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), method.discriminator(3, method.Config())
    return disturbed(teacher, lambda: method.play(learner, teacher, judge, toy(4), method.Config()))


def claim_student_is_small(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's.

    Infinite if it answers as the teacher does, with other classes, changed it, learned nothing, or did not get there by the game.
    """
    task = toy(2)
    big = nets.resnet(20, classes=5)
    before = copy.deepcopy(big.state_dict())
    torch.manual_seed(0)
    fresh, judge = method.student(task, method.Config(), 5), method.discriminator(5, method.Config())
    played = method.play(copy.deepcopy(fresh), copy.deepcopy(big), judge, task, method.Config())
    torch.manual_seed(0)
    small = method.compress(big, task, method.Config())
    answers = [model(task.train.images) for model in (big.eval(), small)]
    told = answers[0].shape == answers[1].shape and not torch.equal(*answers) and not small.training
    told = told and all(torch.equal(value, before[key]) for key, value in big.state_dict().items())
    for ours, start, wanted in zip(small.parameters(), fresh.parameters(), played.parameters(), strict=True):
        told = told and not torch.equal(ours, start) and torch.equal(ours, wanted)
    return nets.count(small) / nets.count(big) if told else float("inf")


@torch.no_grad()
def claim_closer_to_teacher(lab: Lab) -> float:
    """L1 distance of the student's logits from its teacher's on test images, over that of the student that learned alone."""
    networks = (lab.reference, lab.compressed, lab.controlled("alone"))
    parts = [[model(x.to(lab.task.device)) for model in networks] for x, _ in lab.held_out(256).chunks()]
    teacher, taught, alone = (torch.cat(logits) for logits in zip(*parts, strict=True))
    return float(method.distance(taught, teacher) / method.distance(alone, teacher))


def claim_beats_hinton_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("hinton").accuracy


def claim_beats_hinton(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("hinton").accuracy


def claim_beats_student_alone(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_game_adds_to_distance(lab: Lab) -> float:
    """Accuracy over that of the same student with L_S + L_L1 and no discriminator."""
    task, config, teacher = lab.task, lab.config, lab.reference
    torch.manual_seed(task.seed)
    learner = method.student(task, config, classes_of(teacher, task))

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            t = teacher(x).float()
        s = network(x).float()
        return F.cross_entropy(s, y) + method.distance(s, t)

    return lab.after.accuracy - lab.score(fit(learner, task, loss, lr=config.lr))

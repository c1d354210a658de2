"""Conditional adversarial distillation (Xu, Hsu and Huang, BMVC 2018).

How far a student is from its teacher is learned instead of fixed. A small discriminator sees logits and has two tasks: to tell
whether teacher (real) or student (fake) gave them, and which class they stand for. The student fits the labels, stays close to
the teacher's logits image by image, and hides where its own come from without losing the class; dropout is its only noise. The
two take turns, the discriminator first, and the student alone is kept.

Departures: the kit's networks (a ResNet-8 with dropout in its blocks for a wide residual network) and training (Nesterov
momentum, weight decay, one cosine, for both players); the teacher answers anew where the paper stores its logits. Where the
paper is silent: the last of the discriminator's three layers gives the answers, teacher's and student's logits pass it one batch
after the other, and its batch norm and dropout stay in training mode. In a smoke run the student has already learned from the
labels and learns slower, the discriminator faster.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from methods.distillation import hinton_distillation as hinton
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.layout import ask
from methods.kit.task import Split, Task, classes_of, on_copies
from methods.kit.train import descend, fit, schedule


@dataclass(frozen=True)
class Config:
    dropout: float = 0.3  # of the student and of the discriminator, §4.1
    depth: int = 3  # layers of the discriminator, §4.1 and Table 4
    lr: float = 0.1  # of the student, §4.1
    judge_lr: float = 1e-3  # of the discriminator, §4.1
    temperature: float = 5.0  # of the control, Table 5
    student: str = "random"  # where it starts; "labels": from the committed weights, trained on labels alone


SMOKE = (Config(lr=0.001, judge_lr=0.02, student="labels"), 20)  # steps; from random weights a student learns too little in seconds
LONG = (Config(), 400)  # more take more than five minutes
SWEEP = tuple((Config(), steps) for steps in (50, 100, 200, 400))


def reference(task: Task) -> nn.Module:
    """The teacher."""
    return nets.trained("resnet20", task.name)


def student(task: Task, config: Config, classes: int) -> nn.Module:
    """The small network, with dropout between the two convolutions of every residual block (Figure 2, left)."""
    network = hinton.student(task, hinton.Config(student=config.student), classes)
    for block in network.children():  # equivalent: a Sequential's
        if isinstance(block, nets.Residual):
            block.first.append(nn.Dropout(config.dropout))
    return network


class Block(nn.Module):
    """a_{l+1} = ReLU(a_l + dropout(BN(linear(a_l)))), Figure 2, right."""

    def __init__(self, nodes: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(nodes, nodes), nn.BatchNorm1d(nodes), nn.Dropout(dropout))

    def forward(self, a: Tensor) -> Tensor:
        return F.relu(a + self.branch(a))


def discriminator(classes: int, config: Config) -> nn.Sequential:
    """D: logits (N, C) to answers (N, C + 2), first the C classes, then real and fake; as many nodes in a layer as classes, §3.3.2."""
    blocks = [Block(classes, config.dropout) for _ in range(config.depth - 1)]
    return nn.Sequential(nn.BatchNorm1d(classes), *blocks, nn.Linear(classes, classes + 2))  # batch norm before the MLP, §4.1


def origin(of_teacher: Tensor, of_student: Tensor) -> Tensor:
    """L_A = 1/N sum_i log P(real | D(t_i)) + log P(fake | D(F(x_i))) of answers (N, C + 2), §3.3.2."""
    real, fake = of_teacher[:, -2:].log_softmax(1), of_student[:, -2:].log_softmax(1)
    return real[:, 0].mean() + fake[:, 1].mean()


def category(of_teacher: Tensor, of_student: Tensor, y: Tensor) -> Tensor:
    """L_DS = 1/N sum_i log P(l_i | D(t_i)) + log P(l_i | D(F(x_i))), §3.3.2."""
    return -F.cross_entropy(of_teacher[:, :-2], y) - F.cross_entropy(of_student[:, :-2], y)


def judge_gain(judge: nn.Module, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """(L_A + L_DS) / 2, which the discriminator maximises (Eq. 5)."""
    answers = judge(t), judge(s)
    return (origin(*answers) + category(*answers, y)) / 2


def gan_loss(judge: nn.Module, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """L_GAN = (L_A - L_DS) / 2, which the student minimises (Eq. 7): no origin, but a class."""
    answers = judge(t), judge(s)
    return (origin(*answers) - category(*answers, y)) / 2


def distance(s: Tensor, t: Tensor) -> Tensor:
    """L_L1 = 1/N sum_i || F(x_i) - t_i ||_1: a sum over classes (Eq. 6)."""
    return (s - t).abs().sum(1).mean()


def student_loss(judge: nn.Module, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """L_S + L_L1 + L_GAN, without weights (Eq. 7)."""
    return F.cross_entropy(s, y) + distance(s, t) + gan_loss(judge, t, s, y)  # equivalent: a distance is symmetric


def play(learner: nn.Module, teacher: nn.Module, judge: nn.Module, task: Task, config: Config) -> nn.Module:
    """Update the discriminator, then the student, on every batch (§3.3.3); the teacher is frozen. Logits are compared in float32."""
    teacher.to(task.device).eval().requires_grad_(False)  # equivalent: on the CPU .to() moves nothing
    params = list(judge.to(task.device).train().parameters())  # equivalent: on the CPU .to() moves nothing, and it starts in training mode
    velocity, step = dict[Tensor, Tensor | None](), count(1)

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        t, s = task.logits(ask(teacher, x)).float(), task.logits(network(x)).float()
        with torch.autocast(x.device.type, enabled=False):
            gain = judge_gain(judge, t, s.detach(), y)  # equivalent: F is fixed anyway, as gradients are asked of D alone
            for p, gradient in zip(params, torch.autograd.grad(-gain, params), strict=True):
                p.grad = gradient
            descend(params, velocity, config.judge_lr * schedule(next(step), task.steps), weight_decay=5e-4)  # "the same scheduler", §4.1
            return student_loss(judge, t, s, y)  # with D fixed: `fit` moves the student alone

    return fit(learner, task, loss, lr=config.lr)


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train any student that has dropout with any teacher. Raises ValueError where the two cannot play."""
    task.labels_needed("Adversarial distillation")  # equivalent: tests refuse by name
    classes, own = classes_of(teacher, task), classes_of(learner, task)
    last = [name for name, layer in learner.named_modules() if hasattr(layer, "weight")][-1]  # equivalent: wording
    if own != classes:
        raise ValueError(f"student: {last} tells {own} classes apart, the teacher {classes}; logits are compared one by one (Eq. 6)")
    if not any(isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.p for layer in learner.modules()):
        raise ValueError(f"student: no dropout in any layer up to {last}, the generator's only noise (§3.1); add nn.Dropout to its blocks")
    if (highest := max(int(y.max()) for _, y in task.train.chunks())) >= classes:
        raise ValueError(f"teacher: tells {classes} classes apart, but there are labels up to {highest}")
    return play(learner, teacher, discriminator(classes, config), task, config)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student, in which dropout is off."""
    return distil(student(task, config, classes_of(model, task)), model, task, config)


@on_copies
def control_hinton(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student on the same batches, distilled by fixed distance: L_S / 2 + T^2 L_KD (Eq. 4)."""
    fixed = hinton.Config(temperature=config.temperature, hard_weight=0.5, lr=config.lr)
    return hinton.distil(student(task, config, classes_of(model, task)), model, task, fixed)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights on the same batches, without a teacher."""
    return fit(student(task, config, classes_of(model, task)), task, lr=config.lr)


def claim_discriminator_classes(lab: Lab) -> float:
    """How many discriminators do not have C + 2 answers, layers of C nodes, dropout of 0.3 in each block, and the size that follows."""
    wrong = 0
    for depth, c in ((1, 10), (2, 10), (3, 10), (4, 7)):
        judge = discriminator(c, Config(depth=depth))
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
def claim_losses_by_hand(lab: Lab) -> float:
    """Largest difference of L_A, L_DS and what the two players optimise from numpy and scipy, for several depths."""
    worst = 0.0
    for depth, classes in ((1, 5), (3, 4), (4, 10)):
        judge = discriminator(classes, Config(dropout=0.0, depth=depth)).double()
        for p in judge.parameters():
            p.add_(torch.randn_like(p))
        (t, s), y = 3 * torch.randn(2, 24, classes, dtype=torch.float64), torch.arange(24) % classes
        a, ds = likelihoods(numbers(judge), t.numpy(), s.numpy(), y.numpy())
        far = np.mean([sum(abs(s[i, j].item() - t[i, j].item()) for j in range(classes)) for i in range(24)])
        pairs = [
            (origin(judge(t), judge(s)), a), (category(judge(t), judge(s), y), ds), (judge_gain(judge, t, s, y), (a + ds) / 2),
            (gan_loss(judge, t, s, y), (a - ds) / 2), (distance(s, t), far),
            (student_loss(judge, t, s, y), cross_entropy(s.numpy(), y.numpy()) + far + (a - ds) / 2),
        ]  # fmt: skip
        worst = max(worst, *(abs(float(ours) - theirs) for ours, theirs in pairs))
    return worst


def toy(steps: int, kind: torch.dtype = torch.float32) -> Task:
    """Random images of three classes, all of them in every batch."""
    part = Split(torch.randn(16, 3, 8, 8, dtype=kind), torch.arange(16) % 3)
    return Task("toy", part, part, part, steps=steps, batch=16, augmented=False)


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


def claim_turns_by_hand(lab: Lab) -> float:
    """Largest relative difference of what three iterations change in either player from what central differences of the equations say."""
    task, config = toy(3, torch.float64), Config(dropout=0.0, lr=0.01, judge_lr=0.05)
    task = replace(task, train=Split(task.train.images[:, :, :1, :2], task.train.labels))
    teacher, learner = (nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double() for _ in range(2))
    judge = discriminator(3, config)
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
    play(learner, teacher, judge, task, config)
    worst = 0.0
    for ours, theirs, start in zip((numbers(judge), numbers(learner)), (d, f), starts, strict=True):
        for found, wanted, before in zip(ours, theirs, start, strict=True):
            worst = max(worst, float(np.linalg.norm(found - wanted) / (np.linalg.norm(wanted - before) + 1e-3)))
    return worst


def claim_same_schedule(lab: Lab) -> float:
    """Largest difference of a discriminator's rate, over its initial one, from the student's; infinite where that is not smaller.

    As it takes nothing for real, the bias of that answer has a slope of a half, and where it has moved tells the rate.
    """
    worst = 0.0 if Config().judge_lr < Config().lr else float("inf")
    for total in (1, 7, 40):
        teacher, learner = (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in range(2))
        judge, places = nn.Linear(3, 5), list[float]()
        judge.bias.data[3] = -400
        judge.register_forward_hook(lambda layer, *_, places=places: places.append(layer.bias[3].item()))
        play(learner, teacher, judge, toy(total), Config(judge_lr=1.0))
        speed, before = 0.0, places[0]
        for step, place in enumerate(places[2::4], 1):  # the student's turn, in which it answers twice again
            slope = 5e-4 * before - 0.5
            speed = 0.9 * speed + slope
            worst = max(worst, abs((before - place) / (slope + 0.9 * speed) - schedule(step, total)))
            before = place
    return worst


@torch.no_grad()
def claim_equal_logits_leave_chance(lab: Lab) -> float:
    """By how much the best guess at the origin of equal logits differs from 2 log 1/2, over guesses; and the distance of equal logits."""
    t = 4 * torch.randn(64, 5)
    guesses = []
    for tilt in np.linspace(-3, 3, 61):
        judge, head = discriminator(5, Config(depth=1)), nn.Linear(5, 7)
        head.weight *= abs(tilt)
        head.bias[-2:] = torch.tensor([tilt, -tilt])
        judge[-1] = head
        guesses.append(float(origin(judge(t), judge(t))))
    return max(abs(max(guesses) - 2 * math.log(0.5)), float(distance(t, t)))


@torch.no_grad()
def claim_swapped_classes_cost_category_alone(lab: Lab) -> float:
    """Change of L_A where a student takes each class for the next, infinite unless L_DS falls by a unit at least."""
    y = torch.arange(64) % 4
    t = 5.0 * F.one_hot(y, 4) + torch.randn(64, 4)
    judge, head = discriminator(4, Config(depth=1)), nn.Linear(4, 6)
    head.weight[:4] = 3 * torch.eye(4)
    judge[-1] = head
    swapped = t[torch.arange(64).roll(1)]  # answers for other images, the same on the whole
    falls = category(judge(t), judge(t), y) - category(judge(t), judge(swapped), y)
    change = abs(float(origin(judge(t), judge(t)) - origin(judge(t), judge(swapped))))
    return change if falls > 1 else float("inf")


@torch.no_grad()
def claim_noise_is_dropout(lab: Lab) -> float:
    """Largest distance from 0.3 of the share of zeros that each block's second convolution gets in training beyond the ReLU's.

    Infinite if two answers agree in training or differ afterwards, or if a student without dropout is let in.
    """
    task = toy(1)
    network, shares, seen = student(task, Config(), 3), list[float](), list[Tensor]()
    for block in (layer for layer in network.modules() if isinstance(layer, nets.Residual)):
        block.first[2].register_forward_hook(lambda layer, inputs, output: seen.append(output.clone()))
        block.second.register_forward_pre_hook(lambda layer, inputs: shares.append(float((inputs[0][seen.pop() > 0] == 0).float().mean())))
    x = torch.randn(64, 3, 16, 16)
    noisy = [network.train()(x) for _ in range(2)]
    share, blocks = max(abs(share - 0.3) for share in shares), len(shares) // 2
    calm = [network.eval()(x) for _ in range(2)]
    good = blocks == 3 and not torch.equal(*noisy) and torch.equal(*calm)
    try:
        with torch.enable_grad():
            distil(nets.resnet(8, 3), nets.resnet(8, 3), task, Config())
    except ValueError:
        return share if good else float("inf")
    return float("inf")


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a learning student disturbs its teacher: weights, statistics, mode and gradients."""
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    learner, judge = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), discriminator(3, Config())
    return disturbed(teacher, lambda: play(learner, teacher, judge, toy(4), Config()))


def claim_student_is_small(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's.

    Infinite if it answers as the teacher does, with other classes, changed it, learned nothing, or did not get there by the game.
    """
    task = toy(2)
    big = nets.resnet(20, classes=5)
    before = copy.deepcopy(big.state_dict())
    torch.manual_seed(0)
    fresh, judge = student(task, Config(), 5), discriminator(5, Config())
    played = play(copy.deepcopy(fresh), copy.deepcopy(big), judge, task, Config())
    torch.manual_seed(0)
    small = compress(big, task, Config())
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
    parts = [[model(x.to(lab.task.device)) for model in networks] for x, _ in lab.task.test.first(256).chunks()]
    teacher, taught, alone = (torch.cat(logits) for logits in zip(*parts, strict=True))
    return float(distance(taught, teacher) / distance(alone, teacher))


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
    learner = student(task, config, classes_of(teacher, task))

    def loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            t = teacher(x).float()
        s = network(x).float()
        return F.cross_entropy(s, y) + distance(s, t)

    return lab.after.accuracy - task.score(fit(learner, task, loss, lr=config.lr), task.test)

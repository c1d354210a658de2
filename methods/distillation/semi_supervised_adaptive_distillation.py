"""Adaptive distillation (Tang et al., BMVC 2019).

A one-stage detector scores every place of an image, and countless easy places drown what a teacher has to say of the few others.
Each score of the student is weighted by its distance from the teacher's and by the teacher's own doubt, as the focal loss weights
what labels say. On images without labels the teacher's detections are the annotations, and all images mix in one training.

Departures: 2x2 mosaics of small images, a quarter of the cells empty, in the place of COCO, half of them without labels; one
map with one square anchor a place, and a head of two convolutions that classes and boxes share, in the place of a pyramid with
nine anchors and two heads of five; boxes are offsets of corners; the teacher is a classifier whose body stays as it is under a
new head, which learns from labelled mosaics for 240 steps of its own; a step sees an eighth of the task's batch, in mosaics;
the student starts from random weights, in smoke and long runs from those of a classifier, as in the paper, in the first at a lower rate;
the teacher's detections are found in passing, not stored; the temperature, which is 1 in the released set-up, is left out; the
kit's training.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import entr, expit, log_expit, rel_entr
from torch import Tensor, nn

from methods.distillation.hinton_distillation import soft_loss
from methods.kit import nets
from methods.kit.detection import apart, average_precision, detections, head, in_mosaics, labels_of, objects, retinanet_loss, targets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.layout import ask
from methods.kit.task import Split, Task, classes_of, on_copies
from methods.kit.train import autocast, fit


@dataclass(frozen=True)
class Config:
    gamma: float = 2.0  # of the adaptive weight; the authors' configs/focal_distillation, like alpha, theta and lr
    beta: float = 1.0  # of the teacher's entropy in it: their operator weighs by the cross-entropy, KL + H
    alpha: float = 0.5  # balance of the teacher's yes and no
    theta: float = 1.8  # power of the teacher's scores in the normaliser
    soft: float = 1.0  # weight of the teacher's scores beside the annotations; 0 leaves data distillation, hard targets alone
    sure: float = 0.4  # score from which a detection is an annotation; the authors' configs/model_comp
    lr: float = 0.01
    student: str = "random"  # where its body starts; "labels": from the committed classifier


LEARNING = Config(lr=0.02)
SMOKE = (Config(lr=0.006, student="labels"), 32)  # steps; from random weights nothing is detected in seconds
LONG = (Config(student="labels"), 300)  # within five minutes
SWEEP = tuple((LEARNING, steps) for steps in (50, 100, 200, 400))

HEAD_STEPS = 240  # of the teacher's head


def prepare(task: Task) -> Task:
    """Detection in mosaics; the second half of the training has no labels, which -1 says."""
    task = in_mosaics(task)
    task.train.labels[len(task.train) // 2 :] = -1
    return task


def labelled(task: Task) -> Task:
    """The part of the training that has labels."""
    known = task.train.labels >= 0
    return replace(task, train=Split(task.train.images[known], task.train.labels[known]))


def reference(task: Task) -> nn.Module:
    """The teacher: a trained classifier's body, and a head that learns from the labelled mosaics."""
    body, few = nets.trained("resnet20", task.name)[:-3].to(task.device), labelled(task)
    with torch.no_grad(), autocast(task.device):  # as the head learns
        features = torch.cat([body(x.to(task.device)).float().cpu() for x, _ in few.train.chunks()])
    few = replace(few, train=Split(features, few.train.labels), steps=HEAD_STEPS)
    top = fit(head(64, 10), few, lambda m, x, y: label_loss(m(x).float(), y), lr=0.02)
    return nn.Sequential(OrderedDict(body=body, head=top))


def student(task: Task, config: Config, classes: int) -> nn.Module:
    """A smaller body under the same head."""
    if classes < 1:
        raise ValueError(f"teacher: answers {classes + 4} numbers a place, a detector's are a score for each class and four offsets")
    image = task.train.first(1).images
    body = nets.trained("resnet8", task.name) if config.student == "labels" else nets.resnet(8, colours=image.shape[1])
    return nn.Sequential(OrderedDict(body=body[:-3], head=head(64, classes))).to(image)  # type: ignore[index]


def label_loss(maps: Tensor, y: Tensor) -> Tensor:
    """What labels alone teach."""
    return retinanet_loss(maps, *targets(maps, *objects(y)))


def adaptive_loss(x: Tensor, v: Tensor, counted: Tensor, config: Config) -> Tensor:
    """ADW [-alpha q log p - (1 - alpha)(1 - q) log(1 - p)] / N of the `counted` places; p and q are the scores of logits x and v.

    ADW = (1 - exp(-(KL + beta H(q))))^gamma passes its gradient; N, the sum of q^theta, stands for the number of objects.
    """
    q = v.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(v, q, reduction="none")
    kl = F.binary_cross_entropy_with_logits(x, q, reduction="none") - entropy
    weight = (-torch.expm1(-(kl + config.beta * entropy))).clamp_min(0) ** config.gamma
    cross = config.alpha * q * F.softplus(-x) + (1 - config.alpha) * (1 - q) * F.softplus(x)
    return (weight * cross)[counted].sum() / (q**config.theta).sum().clamp_min(1)


def annotations(y: Tensor, told: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Classes (N, K) and boxes (N, K, 4) that the labels give, and where there are none the teacher's detections."""
    scores, classes, boxes = detections(told)
    given = [F.pad(part, (0, 0) * (part.ndim - 2) + (0, classes.shape[1] - 4)) for part in objects(y)]
    known = (y >= 0)[:, None]
    return torch.where(known, given[0], classes * (scores >= config.sure)), torch.where(known[..., None], given[1], boxes)


def loss(maps: Tensor, told: Tensor, y: Tensor, config: Config) -> Tensor:
    """What the annotations teach on every image, and the teacher's scores."""
    found, offsets = targets(maps, *annotations(y, told, config))
    return retinanet_loss(maps, found, offsets) + config.soft * adaptive_loss(apart(maps)[0], apart(told)[0], found >= 0, config)


def agreed(learner: nn.Module, teacher: nn.Module, task: Task) -> None:
    """Raises ValueError where teacher and student do not answer alike, or nothing is labelled."""
    image = task.train.first(1).images.to(task.device)
    with torch.no_grad():
        told, said = (task.logits(model.to(task.device).eval()(image)).shape for model in (teacher, learner))
    if told != said:
        last = [name for name, _ in teacher.named_modules()][-1]
        raise ValueError(f"{last}: answers {tuple(told)}, but a teacher must answer {tuple(said)}: every place's scores and four offsets")
    if not (task.train.labels > 4095).any():
        raise ValueError("train: no label says what is where; make mosaics with `prepare(task)`")


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train any detector for the task's budget with any teacher, which is frozen. All losses are computed in float32."""
    teacher.to(task.device).eval().requires_grad_(False)  # equivalent: on the CPU .to() moves nothing
    agreed(learner, teacher, task)
    return fit(learner, task, lambda m, x, y: loss(task.logits(m(x)), task.logits(ask(teacher, x)), y, config), lr=config.lr)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student."""
    return distil(student(task, config, classes_of(model, task) - 4), model, task, config)


@on_copies
def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights for as many steps with labels alone: every image has them."""
    few, learner = labelled(task), student(task, config, classes_of(model, task) - 4)
    return fit(learner, few, lambda m, x, y: label_loss(m(x).float(), y), lr=config.lr)


@on_copies
def control_plain(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same with a teacher whose scores all count alike."""
    return compress(model, task, replace(config, gamma=0.0))


def _scores(shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits of student and teacher (2, 7, 3), float64, and which places count."""
    x, v = torch.randn(2, 2, 7, 3, dtype=torch.float64)
    return x.requires_grad_(), v + shift, torch.rand(2, 7) < 0.7


ODD = Config(gamma=1.5, beta=0.3, alpha=0.2, theta=1.2)


def claim_loss_is_the_operators(lab: Lab) -> float:
    """Largest relative difference from the authors' formula by scipy, also where the teacher sees hardly any object."""
    worst = []
    for config, shift in ((Config(), 0.0), (ODD, 0.0), (ODD, -6.0)):
        x, v, counted = _scores(shift)
        z, q = x.detach().numpy(), expit(v.numpy())
        h = entr(q) + entr(1 - q)
        kl = rel_entr(q, expit(z)) + rel_entr(1 - q, expit(-z))
        cross = -config.alpha * q * log_expit(z) - (1 - config.alpha) * (1 - q) * log_expit(-z)
        each = (1 - np.exp(-(kl + config.beta * h))) ** config.gamma * cross
        oracle = each[counted.numpy()].sum() / max(1.0, float((q**config.theta).sum()))
        worst.append(abs(adaptive_loss(x, v, counted, config).item() / oracle - 1))
    return max(worst)


def claim_mimicking_costs_nothing(lab: Lab) -> float:
    """Loss of a student that scores as its teacher, and its largest derivative, without the entropy term; and nearly so, in float32."""
    _, v, counted = _scores()
    x, near = v.clone().requires_grad_(), v.float() + 1e-4
    value = adaptive_loss(x, v, counted, Config(beta=0.0)) + adaptive_loss(near, v.float(), counted, Config(gamma=1.5, beta=0.0))
    return float(value.detach().abs() + torch.autograd.grad(value, x)[0].abs().max())


def claim_doubt_keeps_its_weight(lab: Lab) -> float:
    """Loss of that student with the entropy term, at scores of 50% over that at 99%, a single score each."""
    doubtful, certain = (torch.full((1, 1, 1), value, dtype=torch.float64) for value in (0.0, math.log(99)))
    one = torch.ones(1, 1, dtype=torch.bool)
    return float(adaptive_loss(doubtful, doubtful, one, Config()) / adaptive_loss(certain, certain, one, Config()))


def claim_plain_at_gamma_zero(lab: Lab) -> float:
    """Difference from Hinton's loss over yes and no at temperature 1, summed, halved and divided by N, up to the teacher's entropy."""
    x, v, _ = _scores()
    every = torch.ones(2, 7, dtype=torch.bool)
    z, t = (torch.stack([part, torch.zeros_like(part)], 3).flatten(0, 2) for part in (x, v))
    q = expit(v.numpy())
    oracle = (soft_loss(z, t, 1.0).item() * len(z) + (entr(q) + entr(1 - q)).sum()) / 2 / max(1.0, float((q**1.8).sum()))
    return float(abs(adaptive_loss(x, v, every, Config(gamma=0.0)).item() - oracle))


def claim_gradient_passes_the_weight(lab: Lab) -> float:
    """Largest difference between the derivative of the loss by a logit and central differences."""
    x, v, counted = _scores()
    stated = torch.autograd.grad(adaptive_loss(x, v, counted, Config()), x)[0].flatten()
    with torch.no_grad():
        steps = (1e-5 * torch.eye(x.numel(), dtype=torch.float64)).view(-1, *x.shape)
        up, down = (torch.stack([adaptive_loss(x + sign * d, v, counted, Config()) for d in steps]) for sign in (1, -1))
    return float((stated - (up - down) / 2e-5).abs().max())


def _labels(count: int, classes: int = 3) -> Tensor:
    """Random labels of mosaics."""
    return labels_of(torch.randint(4096, (count,)), torch.randint(classes + 1, (count, 4)))


def _ramps(count: int = 400, classes: int = 3) -> Task:
    """Images (3, 16, 12) that tell their class, and how far right and down each pixel is; some are left over."""
    labels = torch.arange(count) % classes
    y, x = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(12) + 0.5) / 12, indexing="ij")
    part = Split(torch.stack([torch.stack([10.0 + c + 0 * x, x, y]) for c in labels.tolist()]), labels)
    return Task("toy", part, part, part, steps=20, batch=64)


def claim_half_has_no_labels(lab: Lab) -> float:
    """Training mosaics that have a label and should not, or none and should, and others that have none."""
    task, whole = prepare(_ramps(64)), in_mosaics(_ramps(64))
    hidden, half = whole.train.labels.clone(), len(whole.train) // 2
    hidden[half:] = -1
    wrong = sum(int((a != b).sum()) for a, b in ((task.train.labels, hidden), (labelled(task).train.labels, hidden[:half])))
    return wrong + sum(int((part.labels < 0).sum()) for part in (task.validation, task.test))


def _planted(y: Tensor, score: float, rows: int = 8, columns: int = 9) -> Tensor:
    """Maps of a teacher that knows every object and is as sure as `score`."""
    found, offsets = targets(torch.zeros(len(y), 7, rows, columns), *objects(y))
    logits = torch.full((len(y), rows * columns, 3), -9.0)
    logits[F.one_hot(found.clamp_min(0), 4)[..., 1:] > 0] = math.log(score / (1 - score))
    return torch.cat([logits, offsets], 2).mT.unflatten(2, (rows, columns))


def claim_detections_stand_for_labels(lab: Lab) -> float:
    """Relative distance of the loss without labels from that with them, where the teacher is sure; where not, from an empty image's.

    Half of the images keep their labels, of which the teacher knows nothing.
    """
    y, maps = _labels(8), torch.randn(8, 7, 8, 9)
    half, none = torch.cat([y[:4], y.new_full((4,), -1)]), torch.cat([y[:4], y[4:] & 4095])
    worst = 0.0
    for score, same in ((0.95, y), (0.41, y), (0.39, none)):
        told = _planted(y, score)
        told[:4] = -9
        found, offsets = targets(maps, *objects(same))
        parts = [retinanet_loss(maps, found, offsets), adaptive_loss(apart(maps)[0], apart(told)[0], found >= 0, Config())]
        worst = max(worst, abs(float(loss(maps, told, half, Config()) / sum(parts)) - 1))
        worst = max(worst, abs(float(loss(maps, told, half, Config(soft=0.0)) / parts[0]) - 1))
    return worst


def _toy() -> tuple[nn.Module, nn.Module, Task]:
    """A teacher and a student with batch norm that answer maps of 8x6 places, and mosaics to learn from."""
    torch.manual_seed(0)
    teacher, learner = (nn.Sequential(nets.conv_bn(3, 12, 5, 4), head(12, 3)) for _ in range(2))
    return teacher, learner, prepare(_ramps(256))


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a learning student disturbs its teacher: weights, statistics, mode and gradients."""
    teacher, learner, task = _toy()
    return disturbed(teacher, lambda: distil(learner, teacher, task, Config()))


def claim_student_follows(lab: Lab) -> float:
    """Adaptive loss on all mosaics after a few steps, over that before."""
    teacher, learner, task = _toy()
    fit(teacher, labelled(task), lambda m, x, y: label_loss(m(x).float(), y), lr=0.05)
    every = torch.ones(len(task.train), 48, dtype=torch.bool)

    def left() -> float:
        with torch.no_grad():
            x, v = (apart(model.eval()(task.train.images))[0] for model in (learner, teacher))
            return float(adaptive_loss(x, v, every, Config()))

    before = left()
    distil(learner, teacher, task, Config(lr=0.02))
    return left() / before


def claim_student_is_small(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's; infinite if it is not what adaptive distillation makes of a smaller network."""
    task = prepare(_ramps(64)).with_steps(2)
    big = nn.Sequential(OrderedDict(body=nets.resnet(20)[:-3], head=head(64, 3)))
    before = copy.deepcopy(big.state_dict())
    networks = []
    for build in (lambda: compress(big, task, Config()), lambda: distil(student(task, Config(), 3), big, task, Config())):
        torch.manual_seed(0)
        networks.append(build().state_dict())
    same = all(torch.equal(*values) for values in zip(*(state.values() for state in networks), strict=True))
    same = same and all(torch.equal(value, before[key]) for key, value in big.state_dict().items())
    return sum(value.numel() for value in networks[0].values()) / sum(value.numel() for value in before.values()) if same else float("inf")


def claim_beats_labels_alone(lab: Lab) -> float:
    """Difference of average precision; in a smoke run the control, which has the focal loss alone, finds next to nothing yet."""
    return lab.after.accuracy - lab.control("alone").accuracy


def claim_beats_hard_targets(lab: Lab) -> float:
    """Difference of average precision from the same student, images and annotations without the teacher's scores."""
    torch.manual_seed(lab.task.seed)
    hard = compress(copy.deepcopy(lab.reference), lab.task, replace(lab.config, soft=0.0))
    return lab.after.accuracy - average_precision(hard, lab.task.test)


def claim_weight_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("plain").accuracy


def claim_beats_plain_distillation(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("plain").accuracy


def claim_overtakes_teacher(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy

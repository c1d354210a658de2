"""The claims of Adaptive distillation."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import entr, expit, log_expit, rel_entr
from torch import Tensor, nn

from methods.distillation import semi_supervised_adaptive_distillation as method
from methods.distillation.hinton_distillation import soft_loss
from methods.kit import nets
from methods.kit.detection import apart, head, in_mosaics, labels_of, objects, retinanet_loss, targets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.task import Split, Task
from methods.kit.testing import toy_task
from methods.kit.train import fit


def _scores(shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits of student and teacher (2, 7, 3), float64, and which places count."""
    x, v = torch.randn(2, 2, 7, 3, dtype=torch.float64)
    return x.requires_grad_(), v + shift, torch.rand(2, 7) < 0.7


ODD = method.Config(gamma=1.5, beta=0.3, alpha=0.2, theta=1.2)


def claim_loss_is_the_operators(lab: Lab) -> list[float]:
    """Largest relative difference from the authors' formula by scipy, also where the teacher sees hardly any object."""
    found = list[float]()
    for config, shift in ((method.Config(), 0.0), (ODD, 0.0), (ODD, -6.0)):
        x, v, counted = _scores(shift)
        z, q = x.detach().numpy(), expit(v.numpy())
        h = entr(q) + entr(1 - q)
        kl = rel_entr(q, expit(z)) + rel_entr(1 - q, expit(-z))
        cross = -config.alpha * q * log_expit(z) - (1 - config.alpha) * (1 - q) * log_expit(-z)
        each = (1 - np.exp(-(kl + config.beta * h))) ** config.gamma * cross
        oracle = each[counted.numpy()].sum() / np.maximum(1.0, (q**config.theta).sum())
        found.append(abs(method.adaptive_loss(x, v, counted, config).item() / oracle - 1))
    return found


def claim_mimicking_costs_nothing(lab: Lab) -> float:
    """Loss of a student that scores as its teacher, and its largest derivative, without the entropy term; and nearly so, in float32."""
    _, v, counted = _scores()
    x, near = v.clone().requires_grad_(), v.float() + 1e-4
    value = method.adaptive_loss(x, v, counted, method.Config(beta=0.0)) + method.adaptive_loss(
        near, v.float(), counted, method.Config(gamma=1.5, beta=0.0)
    )
    return float(value.detach().abs() + torch.autograd.grad(value, x)[0].abs().max())


def claim_doubt_keeps_its_weight(lab: Lab) -> float:
    """Loss of that student with the entropy term, at scores of 50% over that at 99%, a single score each."""
    doubtful, certain = (torch.full((1, 1, 1), value, dtype=torch.float64) for value in (0.0, math.log(99)))
    one = torch.ones(1, 1, dtype=torch.bool)
    return float(
        method.adaptive_loss(doubtful, doubtful, one, method.Config()) / method.adaptive_loss(certain, certain, one, method.Config())
    )


def claim_plain_at_gamma_zero(lab: Lab) -> float:
    """Difference from Hinton's loss over yes and no at temperature 1, summed, halved and divided by N, up to the teacher's entropy."""
    x, v, _ = _scores()
    every = torch.ones(2, 7, dtype=torch.bool)
    z, t = (torch.stack([part, torch.zeros_like(part)], 3).flatten(0, 2) for part in (x, v))
    q = expit(v.numpy())
    oracle = (soft_loss(z, t, 1.0).item() * len(z) + (entr(q) + entr(1 - q)).sum()) / 2 / np.maximum(1.0, (q**1.8).sum())
    return float(abs(method.adaptive_loss(x, v, every, method.Config(gamma=0.0)).item() - oracle))


def claim_gradient_passes_the_weight(lab: Lab) -> float:
    """Largest difference between the derivative of the loss by a logit and central differences."""
    x, v, counted = _scores()
    stated = torch.autograd.grad(method.adaptive_loss(x, v, counted, method.Config()), x)[0].flatten()
    with torch.no_grad():
        steps = (1e-5 * torch.eye(x.numel(), dtype=torch.float64)).view(-1, *x.shape)
        up, down = (torch.stack([method.adaptive_loss(x + sign * d, v, counted, method.Config()) for d in steps]) for sign in (1, -1))
    return float((stated - (up - down) / 2e-5).abs().max())


def _labels(count: int, classes: int = 3) -> Tensor:
    """Random labels of mosaics."""
    return labels_of(torch.randint(4096, (count,)), torch.randint(classes + 1, (count, 4)))


def _ramps(count: int = 400, classes: int = 3) -> Task:
    """Images (3, 16, 12) that tell their class, and how far right and down each pixel is; some are left over."""
    labels = torch.arange(count) % classes
    y, x = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(12) + 0.5) / 12, indexing="ij")
    part = Split(torch.stack([torch.stack([10.0 + c + 0 * x, x, y]) for c in labels.tolist()]), labels)
    toy = toy_task(part, steps=20, batch=64, augmented=True)
    return replace(toy, test=toy.validation)  # `prepare` makes mosaics of all splits


def claim_half_has_no_labels(lab: Lab) -> float:
    """Training mosaics that have a label and should not, or none and should, and others that have none."""
    task, whole = method.prepare(_ramps(64)), in_mosaics(_ramps(64))
    hidden, half = whole.train.labels.clone(), len(whole.train) // 2
    hidden[half:] = -1
    wrong = sum(int((a != b).sum()) for a, b in ((task.train.labels, hidden), (method.labelled(task).train.labels, hidden[:half])))
    return wrong + sum(int((part.labels < 0).sum()) for part in (task.validation, task.test))


def _planted(y: Tensor, score: float, rows: int = 8, columns: int = 9) -> Tensor:
    """Maps of a teacher that knows every object and is as sure as `score`."""
    found, offsets = targets(torch.zeros(len(y), 7, rows, columns), *objects(y))
    logits = torch.full((len(y), rows * columns, 3), -9.0)
    logits[F.one_hot(found.clamp_min(0), 4)[..., 1:] > 0] = math.log(score / (1 - score))
    return torch.cat([logits, offsets], 2).mT.unflatten(2, (rows, columns))


def claim_detections_stand_for_labels(lab: Lab) -> list[float]:
    """Relative distance of the loss without labels from that with them, where the teacher is sure; where not, from an empty image's.

    Half of the images keep their labels, of which the teacher knows nothing.
    """
    y, maps = _labels(8), torch.randn(8, 7, 8, 9)
    half, none = torch.cat([y[:4], y.new_full((4,), -1)]), torch.cat([y[:4], y[4:] & 4095])
    errors = list[float]()
    for score, same in ((0.95, y), (0.41, y), (0.39, none)):
        told = _planted(y, score)
        told[:4] = -9
        found, offsets = targets(maps, *objects(same))
        parts = [retinanet_loss(maps, found, offsets), method.adaptive_loss(apart(maps)[0], apart(told)[0], found >= 0, method.Config())]
        errors.append(abs(float(method.loss(maps, told, half, method.Config()) / sum(parts)) - 1))
        errors.append(abs(float(method.loss(maps, told, half, method.Config(soft=0.0)) / parts[0]) - 1))
    return errors


def _toy() -> tuple[nn.Module, nn.Module, Task]:
    """A teacher and a student with batch norm that answer maps of 8x6 places, and mosaics to learn from."""
    torch.manual_seed(0)
    teacher, learner = (nn.Sequential(nets.conv_bn(3, 12, 5, 4), head(12, 3)) for _ in range(2))
    return teacher, learner, method.prepare(_ramps(256))


def claim_teacher_stays_still(lab: Lab) -> float:
    """How far a learning student disturbs its teacher: weights, statistics, mode and gradients."""
    teacher, learner, task = _toy()
    return disturbed(teacher, lambda: method.distil(learner, teacher, task, method.Config()))


def claim_student_follows(lab: Lab) -> float:
    """Adaptive loss on all mosaics after a few steps, over that before."""
    teacher, learner, task = _toy()
    fit(teacher, method.labelled(task), lambda m, x, y: method.label_loss(m(x).float(), y), lr=0.05)
    every = torch.ones(len(task.train), 48, dtype=torch.bool)

    def left() -> float:
        with torch.no_grad():
            x, v = (apart(model.eval()(task.train.images))[0] for model in (learner, teacher))
            return float(method.adaptive_loss(x, v, every, method.Config()))

    before = left()
    method.distil(learner, teacher, task, method.Config(lr=0.02))
    return left() / before


def claim_student_is_small(lab: Lab) -> float:
    """Parameters of what comes back over the teacher's; infinite if it is not what adaptive distillation makes of a smaller network."""
    task = method.prepare(_ramps(64)).with_steps(2)
    big = nn.Sequential(OrderedDict(body=nets.resnet(20)[:-3], head=head(64, 3)))
    before = copy.deepcopy(big.state_dict())
    networks = []
    for build in (
        lambda: method.compress(big, task, method.Config()),
        lambda: method.distil(method.student(task, method.Config(), 3), big, task, method.Config()),
    ):
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
    hard = method.compress(copy.deepcopy(lab.reference), lab.task, replace(lab.config, soft=0.0))
    return lab.after.accuracy - lab.score(hard)


def claim_weight_helps_from_the_start(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("plain").accuracy


def claim_beats_plain_distillation(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("plain").accuracy


def claim_overtakes_teacher(lab: Lab) -> float:
    return lab.after.accuracy - lab.before.accuracy

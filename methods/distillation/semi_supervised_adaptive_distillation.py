"""Adaptive distillation (Tang et al., BMVC 2019).

A one-stage detector scores every place of an image, and countless easy places drown what a teacher has to say of the few others.
Each score of the student is weighted by its distance from the teacher's and by the teacher's own doubt, as the focal loss weights
what labels say. On images without labels the teacher's detections are the annotations, and all images mix in one training.

Departures: 2x2 mosaics of small images, a quarter of the cells empty, in the place of COCO, half of them without labels; one
map with one square anchor a place, and a head of two convolutions that classes and boxes share, in the place of a pyramid with
nine anchors and two heads of five; boxes are offsets of corners; the teacher is a classifier whose body stays as it is under a
new head, which learns from labelled mosaics for 240 steps of its own; a step sees an eighth of the task's batch, in mosaics;
the student starts from random weights, in a smoke run from those of a classifier, as in the paper, and learns at a lower rate;
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
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from methods.distillation.hinton_distillation import classes_of, soft_loss
from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.layers import disturbed
from methods.kit.task import Split, Task
from methods.kit.train import fast_bfloat16, fit


@dataclass(frozen=True)
class Config:
    gamma: float = 2.0  # of the adaptive weight; the authors' configs/focal_distillation, like alpha, theta and lr
    beta: float = 1.0  # of the teacher's entropy in it: their operator weighs by the cross-entropy, KL + H
    alpha: float = 0.5  # balance of the teacher's yes and no
    theta: float = 1.8  # power of the teacher's scores in the normaliser
    soft: float = 1.0  # weight of the teacher's scores beside the annotations; 0 leaves data distillation, hard targets alone
    focal_gamma: float = 2.0  # of the focal loss, Lin et al., ICCV 2017
    focal_alpha: float = 0.25  # ibid.
    sure: float = 0.4  # score from which a detection is an annotation; the authors' configs/model_comp
    lr: float = 0.01
    student: str = "random"  # where its body starts; "labels": from the committed classifier


LEARNING = Config(lr=0.02)
SMOKE = (Config(lr=0.006, student="labels"), 32)  # steps; from random weights nothing is detected in seconds
LONG = (Config(student="labels"), 300)  # more take more than five minutes
SWEEP = tuple((LEARNING, steps) for steps in (50, 100, 200, 400))

EMPTY, CLUTTER = 0.25, 0.5  # share of cells without an object; deviation of the noise around objects
SIDE = 3 / 8  # of the anchors; boxes (left, top, right, bottom) are in sides of the mosaic, as all lengths here
HEAD_STEPS = 240  # of the teacher's head
MOST = 100  # detections in an image, as in Detectron
CELLS = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]]) / 2  # their upper left corners, twice


def layouts() -> Tensor:
    """Boxes (4096, 4, 4) of the object in each cell: five eighths of the cell or more, anywhere in it."""
    chance = torch.Generator().manual_seed(0)
    side = 1 - 3 / 8 * torch.rand(4096, 4, 1, generator=chance)
    corner = (1 - side) * torch.rand(4096, 4, 2, generator=chance)
    return CELLS + torch.cat([corner, corner + side], 2) / 2


LAYOUTS = layouts()


def objects(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (N, 4) from 1, 0 where a cell is empty, and boxes (N, 4, 4). Twelve bits a class are over twelve of the layout."""
    shifts = torch.arange(12, 60, 12, device=labels.device)
    return labels[:, None] >> shifts & 4095, LAYOUTS.to(labels.device)[labels & 4095]  # equivalent: on the CPU .to() moves nothing


def mosaics(split: Split, chance: torch.Generator) -> Split:
    """Each four images (C, H, W), made smaller and moved, on a canvas (C, 2H, 2W) of noise, or left out."""
    count = len(split) // 4
    images, layout = split.images[: 4 * count], torch.arange(count) % 4096
    shown = torch.rand(count, 4, generator=chance) >= EMPTY
    low, high = (2 * (LAYOUTS[layout] - CELLS)).flatten(0, 1).chunk(2, 1)  # in the cell
    side, centre = high - low, low + high - 1  # affine_grid measures from -1 to 1
    grid = F.affine_grid(torch.cat([torch.diag_embed(1 / side), -(centre / side)[..., None]], 2), list(images.shape), align_corners=False)
    inside = (grid.abs().amax(3) <= 1) & shown.view(-1, 1, 1)
    drawn = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    cells = torch.where(inside[:, None], drawn, CLUTTER * torch.randn(images.shape, generator=chance))
    canvas = cells.unflatten(0, (count, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    classes = (split.labels[: 4 * count].view(count, 4) + 1) * shown
    return Split(canvas, layout + (classes << torch.arange(12, 60, 12)).sum(1))


def prepare(task: Task) -> Task:
    """Detection in mosaics, whatever the seed the same; the second half of the training has no labels, which -1 says."""
    chance = torch.Generator().manual_seed(0)
    train, validation, test = (mosaics(split, chance) for split in (task.train, task.validation, task.test))
    train.labels[len(train) // 2 :] = -1
    batch = max(1, task.batch // 8)  # equivalent: max is symmetric
    changes = {"train": train, "validation": validation, "test": test, "batch": batch}
    return replace(task, **changes, augmented=False, score=average_precision)  # a shift would leave the boxes behind


def labelled(task: Task) -> Task:
    """The part of the training that has labels."""
    known = task.train.labels >= 0
    return replace(task, train=Split(task.train.images[known], task.train.labels[known]))


def head(channels: int, classes: int) -> nn.Sequential:
    """A score for each class and four offsets at every place; scores begin at 1% (Lin et al., §4.1)."""
    out = nn.Conv2d(channels, classes + 4, 3, padding=1)
    nn.init.normal_(out.weight, std=0.01)
    nn.init.zeros_(out.bias)
    nn.init.constant_(out.bias[:classes], -math.log(99))
    return nn.Sequential(nets.conv_bn(channels, channels), out)


def reference(task: Task) -> nn.Module:
    """The teacher: a trained classifier's body, and a head that learns from the labelled mosaics."""
    body, few = nets.trained("resnet20", task.name)[:-3].to(task.device), labelled(task)
    halves = fast_bfloat16(task.device, body)
    with torch.no_grad(), torch.autocast(task.device.split(":")[0], torch.bfloat16, enabled=halves):  # as the head learns
        features = torch.cat([body(x.to(task.device)).float().cpu() for x, _ in few.train.chunks()])
    few = replace(few, train=Split(features, few.train.labels), steps=HEAD_STEPS)
    top = fit(head(64, 10), few, lambda m, x, y: retinanet_loss(m(x).float(), y, Config()), lr=0.02)
    return nn.Sequential(OrderedDict(body=body, head=top))


def student(task: Task, config: Config, classes: int) -> nn.Module:
    """A smaller body under the same head."""
    body = nets.trained("resnet8", task.name) if config.student == "labels" else nets.resnet(8)
    return nn.Sequential(OrderedDict(body=body[:-3], head=head(64, classes)))  # type: ignore[index]


def anchors(maps: Tensor) -> Tensor:
    """Boxes (places, 4) around the places of maps (N, channels, rows, columns), row by row."""
    y, x = ((torch.arange(count, device=maps.device) + 0.5) / count for count in maps.shape[2:])
    centre = torch.cartesian_prod(y, x).flip(1)
    return torch.cat([centre - SIDE / 2, centre + SIDE / 2], 1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (..., A, B) of boxes (..., A, 4) and (..., B, 4)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    common = torch.cat([torch.maximum(a, b)[..., :2], torch.minimum(a, b)[..., 2:]], -1)  # equivalent: both are symmetric
    one, other, both = ((box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b, common))
    return both / (one + other - both)


def apart(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, places, classes) and offsets (N, places, 4)."""
    flat = maps.flatten(2).transpose(1, 2)
    return flat[..., :-4], flat[..., -4:]


def targets(maps: Tensor, classes: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """For every place its object's class (N, places) and offsets (N, places, 4): overlap of a half or more; 0 below 0.4, -1 between."""
    around = anchors(maps)
    overlap, which = (iou(around, boxes) * (classes > 0)[:, None]).max(2)
    found = torch.where(overlap >= 0.5, classes.gather(1, which), torch.where(overlap < 0.4, 0, -1))
    return found, (boxes.take_along_dim(which[..., None], 1) - around) / SIDE


def detections(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest scores (N, K), with classes from 1 and boxes (N, K, 4); 0 where a higher score of the class overlaps by half."""
    logits, offsets = apart(maps)
    pairs = logits.sigmoid().flatten(1)
    scores, index = pairs.topk(min(MOST, pairs.shape[1]))  # equivalent: min is symmetric
    place, classes = index // logits.shape[2], index % logits.shape[2] + 1
    boxes = (anchors(maps) + SIDE * offsets).take_along_dim(place[..., None], 1)
    rivals = (iou(boxes, boxes) > 0.5) & (classes[:, :, None] == classes[:, None])
    kept = torch.ones_like(scores, dtype=torch.bool)
    for k in range(scores.shape[1]):
        kept[:, k + 1 :] &= ~(rivals[:, k, k + 1 :] & kept[:, k, None])
    return scores * kept, classes, boxes


@torch.no_grad()
def average_precision(model: nn.Module, split: Split) -> float:
    """Mean over classes: precision at the rank of each object found, overlapping by half or more, summed over the number of objects."""
    mode, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    parts = [detections(model(x.to(device)).float().cpu()) for x, _ in split.chunks()]  # equivalent: moves nothing on the CPU
    model.train(mode)
    scores, classes, boxes = (torch.cat(part) for part in zip(*parts, strict=True))
    true, places = objects(split.labels)
    overlap, which = (iou(boxes, places) * (classes[:, :, None] == true[:, None])).max(2)
    which += 4 * torch.arange(len(true))[:, None]  # objects of all images, numbered
    precisions = []
    for c in true[true > 0].unique():
        mine = (classes == c) & (scores > 0)
        rank = scores[mine].argsort(descending=True)
        hits = (overlap >= 0.5)[mine][rank].numpy()  # equivalent: numpy reads tensors, too
        _, first = np.unique(which[mine][rank].numpy()[hits], return_index=True)  # an object is found once
        ranks = np.sort(np.flatnonzero(hits)[first]) + 1
        precisions.append((np.arange(1, len(ranks) + 1) / ranks).sum() / int((true == c).sum()))
    return float(np.mean(precisions)) if precisions else 0.0


def focal_loss(x: Tensor, found: Tensor, config: Config) -> Tensor:
    """FL = -alpha_t (1 - p_t)^gamma log p_t of logits x (N, places, classes), summed where `found` is not -1 (Lin et al., Eq. 5)."""
    y = F.one_hot(found.clamp_min(0), x.shape[2] + 1)[..., 1:].to(x)
    p, balance = x.sigmoid(), config.focal_alpha * y + (1 - config.focal_alpha) * (1 - y)
    wrong = y * (1 - p) + (1 - y) * p
    return (balance * wrong**config.focal_gamma * F.binary_cross_entropy_with_logits(x, y, reduction="none"))[found >= 0].sum()


def label_loss(maps: Tensor, found: Tensor, offsets: Tensor, config: Config) -> Tensor:
    """Focal loss and smooth L1 of the offsets, over the number of places with an object: RetinaNet's."""
    (logits, moves), some = apart(maps), found > 0
    regression = F.smooth_l1_loss(moves[some], offsets[some], reduction="sum", beta=1 / 9)  # equivalent: it is symmetric
    return (focal_loss(logits, found, config) + regression) / some.sum().clamp_min(1)


def retinanet_loss(maps: Tensor, y: Tensor, config: Config) -> Tensor:
    """What labels alone teach."""
    return label_loss(maps, *targets(maps, *objects(y)), config)


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
    return label_loss(maps, found, offsets, config) + config.soft * adaptive_loss(apart(maps)[0], apart(told)[0], found >= 0, config)


def agreed(learner: nn.Module, teacher: nn.Module, task: Task) -> None:
    """Raises ValueError where teacher and student do not answer alike, or nothing is labelled."""
    image = task.train.images[:1].to(task.device)
    with torch.no_grad():
        told, said = teacher(image).shape, learner.to(task.device).eval()(image).shape  # equivalent: on the CPU .to() moves nothing
    if told != said:
        last = [name for name, _ in teacher.named_modules()][-1]
        raise ValueError(f"{last}: answers {tuple(told)}, but a teacher must answer {tuple(said)}: every place's scores and four offsets")
    if not (task.train.labels > 4095).any():
        raise ValueError("train: no label says what is where; make mosaics with `prepare(task)`")


def distil(learner: nn.Module, teacher: nn.Module, task: Task, config: Config) -> nn.Module:
    """Train any detector for the task's budget with any teacher, which is frozen. All losses are computed in float32."""
    teacher.to(task.device).eval().requires_grad_(False)  # equivalent: on the CPU .to() moves nothing
    agreed(learner, teacher, task)
    return fit(learner, task, lambda m, x, y: loss(m(x).float(), teacher(x).float(), y, config), lr=config.lr)


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """`model` is the teacher; returns the trained student."""
    return distil(student(task, config, classes_of(model, task) - 4), model, task, config)


def control_alone(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same student from the same weights for as many steps with labels alone: every image has them."""
    few, learner = labelled(task), student(task, config, classes_of(model, task) - 4)
    return fit(learner, few, lambda m, x, y: retinanet_loss(m(x).float(), y, config), lr=config.lr)


def control_plain(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same with a teacher whose scores all count alike."""
    return compress(model, task, replace(config, gamma=0.0))


def _scores(shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits of student and teacher (2, 7, 3), float64, and which places count."""
    x, v = torch.randn(2, 2, 7, 3, dtype=torch.float64)
    return x.requires_grad_(), v + shift, torch.rand(2, 7) < 0.7


ODD = Config(gamma=1.5, beta=0.3, alpha=0.2, theta=1.2, focal_gamma=1.3, focal_alpha=0.4)


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


def claim_labels_teach_as_in_retinanet(lab: Lab) -> float:
    """Largest relative difference from focal loss and smooth L1, place by place, also of images without an object."""
    worst = []
    for config, most in ((Config(), 4), (ODD, 4), (Config(), 1)):
        maps, found, offsets = torch.randn(2, 7, 3, 4).double(), torch.randint(-1, most, (2, 12)), torch.randn(2, 12, 4).double()
        total = 0.0
        for n, k in np.ndindex(2, 12):
            here = maps[n, :, k // 4, k % 4].numpy()
            for c in range(3 if found[n, k] >= 0 else 0):
                sign, alpha = (1, config.focal_alpha) if found[n, k] == c + 1 else (-1, 1 - config.focal_alpha)
                total -= alpha * expit(-sign * here[c]) ** config.focal_gamma * log_expit(sign * here[c])
            for distance in abs(here[3:] - offsets[n, k].numpy()) if found[n, k] > 0 else ():
                total += distance - 1 / 18 if distance > 1 / 9 else 9 / 2 * distance**2
        worst.append(abs(label_loss(maps, found, offsets, config).item() / (total / max(1, int((found > 0).sum()))) - 1))
    return max(worst)


def _overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two boxes, in plain numbers."""
    (left, top, right, bottom), (west, north, east, south) = a.tolist(), b.tolist()
    both = max(0.0, min(right, east) - max(left, west)) * max(0.0, min(bottom, south) - max(top, north))
    return both / ((right - left) * (bottom - top) + (east - west) * (south - north) - both)


def _labels(count: int, classes: int = 3) -> Tensor:
    """Random labels of mosaics."""
    return torch.randint(4096, (count,)) + (torch.randint(classes + 1, (count, 4)) << torch.arange(12, 60, 12)).sum(1)


def claim_places_get_their_objects(lab: Lab) -> float:
    """How many places of 5x6 have the wrong class, place by place, or offsets that lead elsewhere than to the object."""
    y, wrong = _labels(20), 0
    classes, boxes = objects(y)
    found, offsets = targets(torch.zeros(20, 7, 5, 6), classes, boxes)
    for n, row, column in np.ndindex(20, 5, 6):
        x, y_, k = (column + 0.5) / 6, (row + 0.5) / 5, 6 * row + column
        place = torch.tensor([x - 3 / 16, y_ - 3 / 16, x + 3 / 16, y_ + 3 / 16])
        overlap, cell = max((_overlap(place, boxes[n, cell]) * bool(classes[n, cell] > 0), cell) for cell in range(4))
        wrong += int(found[n, k]) != (int(classes[n, cell]) if overlap >= 0.5 else -1 if overlap >= 0.4 else 0)
        wrong += overlap >= 0.5 and not torch.allclose(place + 3 / 8 * offsets[n, k], boxes[n, cell], atol=1e-6)
    return wrong


class _Says(nn.Module):
    """A detector that answers with given maps, in turn, when it is asked to judge."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps, self.told = maps, 0

    def forward(self, x: Tensor) -> Tensor:
        self.told += len(x)
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.maps[self.told - len(x) : self.told]


def claim_average_precision_is_sklearns(lab: Lab) -> float:
    """Largest difference from rivals removed one by one and scikit-learn's precision, times the share of objects found."""
    worst = []
    for rows, spread in ((3, 1.0), (6, 0.1)):
        y = _labels(70)
        classes, boxes = objects(y)
        maps = torch.randn(70, 7, rows, 6)
        found, offsets = targets(maps, classes, boxes)
        maps[:, :3] += F.one_hot(found.clamp_min(0), 4)[..., 1:].mT.reshape(70, 3, rows, 6)
        maps[:, 3:] = offsets.mT.reshape(70, 4, rows, 6) + spread * maps[:, 3:] / 4
        around, kept = anchors(maps), list[tuple[int, float, int, Tensor]]()
        for n in range(70):
            mine = list[tuple[int, float, int, Tensor]]()
            pairs = maps[n, :3].flatten(1)
            for index in pairs.flatten().argsort(descending=True)[:100].tolist():
                c, place = divmod(index, 6 * rows)
                box = around[place] + 3 / 8 * maps[n, 3:].flatten(1)[:, place]
                if all(other[2] != c + 1 or _overlap(other[3], box) <= 0.5 for other in mine):
                    mine.append((n, float(pairs.flatten()[index]), c + 1, box))
            kept += mine
        precisions = []
        for c in (1, 2, 3):
            taken, hits, scores = set[tuple[int, int]](), list[bool](), list[float]()
            for n, score, _, box in sorted((d for d in kept if d[2] == c), key=lambda d: -d[1]):
                cells = {(n, k) for k in range(4) if classes[n, k] == c and _overlap(box, boxes[n, k]) >= 0.5} - taken
                taken |= cells
                hits.append(bool(cells))
                scores.append(score)
            precisions.append(average_precision_score(hits, scores) * len(taken) / int((classes == c).sum()))
        worst.append(average_precision(_Says(maps), Split(torch.zeros(70, 1), y & 4095)))  # nothing there to be found
        model = _Says(maps)
        worst.append(abs(average_precision(model, Split(torch.zeros(70, 1), y)) - float(np.mean(precisions))) + (not model.training))
    return max(worst)


def _ramps(count: int = 400, classes: int = 3) -> Task:
    """Images (3, 16, 12) that tell their class, and how far right and down each pixel is; some are left over."""
    labels = torch.arange(count) % classes
    y, x = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(12) + 0.5) / 12, indexing="ij")
    part = Split(torch.stack([torch.stack([10.0 + c + 0 * x, x, y]) for c in labels.tolist()]), labels)
    return Task("toy", part, part, part, steps=20, batch=64)


def claim_annotations_fit_the_mosaics(lab: Lab) -> float:
    """How many pixels show another class, place or size than what the label says, or an object where it says none; what else is off."""
    raw = _ramps(4 * 200 + 3)
    task = prepare(raw)
    images, (classes, boxes) = task.test.images, objects(task.test.labels)
    y, x = torch.meshgrid((torch.arange(32) + 0.5) / 32, (torch.arange(24) + 0.5) / 24, indexing="ij")
    left, top, right, bottom = (side[..., None, None] for side in boxes.unbind(2))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom) & (classes > 0)[..., None, None]
    wrong, drawn = int(((images[:, 0] > 5) != inside.any(1)).sum()), raw.test.labels[:800].view(200, 4) + 1
    wrong += int((classes != drawn * (classes > 0)).sum())  # cell by cell the next image
    across, down = ((x - left) / (right - left)).clamp(1 / 24, 23 / 24), ((y - top) / (bottom - top)).clamp(1 / 32, 31 / 32)
    for channel, wanted in enumerate((9.0 + classes[..., None, None] + 0 * across, across, down)):
        wrong += int(((images[:, channel, None] - wanted).abs()[inside] > 1e-3).sum())
    background = images.movedim(1, 3)[~inside.any(1)]
    wrong += abs(float(background.std()) / 0.5 - 1) > 0.02
    sides = 2 * (right - left).flatten()
    wrong += not (0.62 < float(sides.min()) < 0.64 and 0.99 < float(sides.max()) <= 1 and 0.2 < float((classes == 0).float().mean()) < 0.3)
    wrong += int((task.train.labels[:100] < 0).sum() + (task.train.labels[100:] != -1).sum())
    wrong += task.augmented or task.batch != 8 or task.score is not average_precision or task.steps != raw.steps
    return wrong + (prepare(replace(raw, batch=4)).batch != 1)


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
        parts = [label_loss(maps, found, offsets, Config()), adaptive_loss(apart(maps)[0], apart(told)[0], found >= 0, Config())]
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
    fit(teacher, labelled(task), lambda m, x, y: retinanet_loss(m(x).float(), y, Config()), lr=0.05)
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


def claim_scores_begin_at_one_percent(lab: Lab) -> float:
    """Largest relative distance of a new head's scores from 1% where nothing comes in, and of its offsets from 0; its weights are small."""
    out = head(64, 10)[-1]
    assert isinstance(out, nn.Conv2d)
    scores, offsets = out.bias.detach().split([10, 4])
    away = max(float((scores.sigmoid() / 0.01 - 1).abs().max()), float(offsets.abs().max()))
    return away + (abs(float(out.weight.detach().std()) / 0.01 - 1) > 0.05)


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

"""A one-stage detector's task, on mosaics of small images: boxes, RetinaNet's head and loss, average precision.

A label holds what is where in one integer, so that a `Split` of mosaics is one like any other. Maps (N, classes + 4, rows, columns) are
what a detector answers: for every place, which has one square anchor, a logit for each class and the offsets of a box's corners. Lengths
are in sides of the mosaic, boxes are (left, top, right, bottom). Lin et al., Focal loss for dense object detection, ICCV 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.layout import evaluating, suited
from methods.kit.task import Split, Stream, Task, as_it_is, numbers

EMPTY, CLUTTER = 0.25, 0.5  # share of cells without an object; deviation of the noise around objects
SIDE = 3 / 8  # of the anchors
MOST = 100  # detections in an image, as in Detectron
CELLS = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]]) / 2  # their upper left corners, twice


def layouts() -> Tensor:
    """Boxes (4096, 4, 4) of the object in each cell: five eighths of the cell or more, anywhere in it."""
    chance = torch.Generator().manual_seed(0)
    side = 1 - 3 / 8 * torch.rand(4096, 4, 1, generator=chance)
    corner = (1 - side) * torch.rand(4096, 4, 2, generator=chance)
    return CELLS + torch.cat([corner, corner + side], 2) / 2


LAYOUTS = layouts()


def labels_of(layout: Tensor, classes: Tensor) -> Tensor:
    """What is where, as one integer (N): twelve bits for each of the classes (N, 4) over twelve of the layout (N)."""
    return layout + (classes << torch.arange(12, 60, 12)).sum(1)


def objects(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (N, 4) from 1, 0 where a cell is empty, and boxes (N, 4, 4), of labels (N)."""
    shifts = torch.arange(12, 60, 12, device=labels.device)
    return labels[:, None] >> shifts & 4095, LAYOUTS.to(labels.device)[labels & 4095]


def mosaics(split: Split | Stream, chance: torch.Generator) -> Split:
    """Each four images (C, H, W), made smaller and moved, on a canvas (C, 2H, 2W) of noise, or left out."""
    count = len(split) // 4
    images, layout = split.images[: 4 * count].float(), torch.arange(count) % 4096
    shown = torch.rand(count, 4, generator=chance) >= EMPTY
    low, high = (2 * (LAYOUTS[layout] - CELLS)).flatten(0, 1).chunk(2, 1)  # in the cell
    side, centre = high - low, low + high - 1  # affine_grid measures from -1 to 1
    grid = F.affine_grid(torch.cat([torch.diag_embed(1 / side), -(centre / side)[..., None]], 2), list(images.shape), align_corners=False)
    inside = (grid.abs().amax(3) <= 1) & shown.view(-1, 1, 1)
    drawn = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    cells = torch.where(inside[:, None], drawn, CLUTTER * torch.randn(images.shape, generator=chance))
    canvas = cells.unflatten(0, (count, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    classes = (split.labels[: 4 * count].view(count, 4) + 1) * shown
    return Split(canvas, labels_of(layout, classes))


def in_mosaics(task: Task) -> Task:
    """The task as detection, whatever the seed the same; a batch is an eighth as many mosaics, at least one.

    Raises ValueError where images have no classes, `DataError` where they are streamed.
    """
    task.labels_needed("A detector's mosaic")
    chance = torch.Generator().manual_seed(0)
    train, validation, test = (mosaics(split, chance) for split in (task.train, task.validation, task.test))
    batch = max(1, task.batch // 8)
    shifted = False  # it would leave the boxes behind
    return replace(
        task,
        train=train,
        validation=validation,
        test=test,
        batch=batch,
        augmented=shifted,
        score=partial(average_precision, outputs=task.outputs),
    )


def head(channels: int, classes: int) -> nn.Sequential:
    """A score for each class and four offsets at every place; scores begin at 1% (§4.1)."""
    out = nn.Conv2d(channels, classes + 4, 3, padding=1)
    nn.init.normal_(out.weight, std=0.01)
    out.bias = nn.Parameter(torch.cat([torch.full((classes,), -math.log(99)), torch.zeros(4)]))
    return nn.Sequential(nets.conv_bn(channels, channels), out)


def anchors(maps: Tensor) -> Tensor:
    """Boxes (places, 4) around the places of maps (N, channels, rows, columns), row by row."""
    y, x = ((torch.arange(count, device=maps.device) + 0.5) / count for count in maps.shape[2:])
    centre = torch.cartesian_prod(y, x).flip(1)
    return torch.cat([centre - SIDE / 2, centre + SIDE / 2], 1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (..., A, B) of boxes (..., A, 4) and (..., B, 4)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    common = torch.cat([torch.maximum(a, b)[..., :2], torch.minimum(a, b)[..., 2:]], -1)
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
    scores, index = pairs.topk(min(MOST, pairs.shape[1]))
    place, classes = index // logits.shape[2], index % logits.shape[2] + 1
    boxes = (anchors(maps) + SIDE * offsets).take_along_dim(place[..., None], 1)
    rivals = (iou(boxes, boxes) > 0.5) & (classes[:, :, None] == classes[:, None])
    kept = torch.ones_like(scores, dtype=torch.bool)
    for k in range(scores.shape[1]):
        kept[:, k + 1 :] &= ~(rivals[:, k, k + 1 :] & kept[:, k, None])
    return scores * kept, classes, boxes


@torch.no_grad()
def average_precision(model: nn.Module, split: Split | Stream, outputs: Callable[[Any], Tensor] = as_it_is) -> float:
    """Mean over classes: precision at the rank of each object found, overlapping by half or more, summed over the number of objects."""
    with evaluating(model):
        parts = [(*detections(numbers(model(suited(model, x)), outputs).cpu()), y) for x, y in split.chunks()]
    scores, classes, boxes, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    true, places = objects(labels)
    overlap, which = (iou(boxes, places) * (classes[:, :, None] == true[:, None])).max(2)
    which += 4 * torch.arange(len(true))[:, None]  # objects of all images, numbered
    precisions = []
    for c in true[true > 0].unique():
        mine = (classes == c) & (scores > 0)
        rank = scores[mine].argsort(descending=True)
        hits = (overlap >= 0.5)[mine][rank].numpy()
        _, first = np.unique(which[mine][rank].numpy()[hits], return_index=True)  # an object is found once
        ranks = np.sort(np.flatnonzero(hits)[first]) + 1
        precisions.append((np.arange(1, len(ranks) + 1) / ranks).sum() / int((true == c).sum()))
    return float(np.mean(precisions)) if precisions else 0.0


def focal_loss(x: Tensor, found: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """FL = -alpha_t (1 - p_t)^gamma log p_t of logits x (N, places, classes), summed where `found` is not -1 (Eq. 5)."""
    y = F.one_hot(found.clamp_min(0), x.shape[2] + 1)[..., 1:].to(x)
    p, balance = x.sigmoid(), alpha * y + (1 - alpha) * (1 - y)
    wrong = y * (1 - p) + (1 - y) * p
    return (balance * wrong**gamma * F.binary_cross_entropy_with_logits(x, y, reduction="none"))[found >= 0].sum()


def retinanet_loss(maps: Tensor, found: Tensor, offsets: Tensor) -> Tensor:
    """Focal loss and smooth L1 of the offsets, over the number of places with an object (§4.1); `found` and `offsets` are `targets`."""
    (logits, moves), some = apart(maps), found > 0
    regression = F.smooth_l1_loss(moves[some], offsets[some], reduction="sum", beta=1 / 9)
    return (focal_loss(logits, found) + regression) / some.sum().clamp_min(1)

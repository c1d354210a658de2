"""The detector's task: every part against a slow and plain one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, log_expit
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from methods.kit.detection import anchors, average_precision, head, in_mosaics, labels_of, objects, retinanet_loss, targets
from methods.kit.task import Split, Task
from tests.helpers import noise


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def some_labels(count: int, classes: int = 3) -> Tensor:
    return labels_of(torch.randint(4096, (count,)), torch.randint(classes + 1, (count, 4)))


def overlap_of(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two boxes, in plain numbers."""
    (left, top, right, bottom), (west, north, east, south) = a.tolist(), b.tolist()
    both = max(0.0, min(right, east) - max(left, west)) * max(0.0, min(bottom, south) - max(top, north))
    return both / ((right - left) * (bottom - top) + (east - west) * (south - north) - both)


@pytest.mark.parametrize("most", [4, 1])
def test_labels_teach_as_in_retinanet(most: int) -> None:
    """Focal loss and smooth L1, place by place; also of images without an object."""
    maps, found, offsets = torch.randn(2, 7, 3, 4).double(), torch.randint(-1, most, (2, 12)), torch.randn(2, 12, 4).double()
    total = 0.0
    for n, k in np.ndindex(2, 12):
        here = maps[n, :, k // 4, k % 4].numpy()
        for c in range(3 if found[n, k] >= 0 else 0):
            sign, alpha = (1, 0.25) if found[n, k] == c + 1 else (-1, 0.75)
            total -= alpha * expit(-sign * here[c]) ** 2 * log_expit(sign * here[c])
        for distance in abs(here[3:] - offsets[n, k].numpy()) if found[n, k] > 0 else ():
            total += distance - 1 / 18 if distance > 1 / 9 else 9 / 2 * distance**2
    assert retinanet_loss(maps, found, offsets).item() == pytest.approx(total / max(1, int((found > 0).sum())), rel=1e-10)


def test_a_place_belongs_to_the_object_that_its_anchor_overlaps_by_half() -> None:
    """And to the background below 0.4; between, it is ignored. Offsets lead to the object."""
    y = some_labels(20)
    classes, boxes = objects(y)
    found, offsets = targets(torch.zeros(20, 7, 5, 6), classes, boxes)
    for n, row, column in np.ndindex(20, 5, 6):
        x, y_, k = (column + 0.5) / 6, (row + 0.5) / 5, 6 * row + column
        place = torch.tensor([x - 3 / 16, y_ - 3 / 16, x + 3 / 16, y_ + 3 / 16])
        overlap, cell = max((overlap_of(place, boxes[n, cell]) * bool(classes[n, cell] > 0), cell) for cell in range(4))
        assert int(found[n, k]) == (int(classes[n, cell]) if overlap >= 0.5 else -1 if overlap >= 0.4 else 0)
        assert overlap < 0.5 or torch.allclose(place + 3 / 8 * offsets[n, k], boxes[n, cell], atol=1e-6)


class Says(nn.Module):
    """A detector that answers with given maps, in turn, when it is asked to judge."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps, self.told = maps, 0

    def forward(self, x: Tensor) -> Tensor:
        self.told += len(x)
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.maps[self.told - len(x) : self.told]


@pytest.mark.parametrize(("rows", "spread"), [(3, 1.0), (6, 0.1)])
def test_average_precision_is_sklearns(rows: int, spread: float) -> None:
    """Rivals removed one by one, then scikit-learn's precision, times the share of objects found."""
    y = some_labels(70)
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
            if all(other[2] != c + 1 or overlap_of(other[3], box) <= 0.5 for other in mine):
                mine.append((n, float(pairs.flatten()[index]), c + 1, box))
        kept += mine
    precisions = []
    for c in (1, 2, 3):
        taken, hits, scores = set[tuple[int, int]](), list[bool](), list[float]()
        for n, score, _, box in sorted((d for d in kept if d[2] == c), key=lambda d: -d[1]):
            cells = {(n, k) for k in range(4) if classes[n, k] == c and overlap_of(box, boxes[n, k]) >= 0.5} - taken
            taken |= cells
            hits.append(bool(cells))
            scores.append(score)
        precisions.append(average_precision_score(hits, scores) * len(taken) / int((classes == c).sum()))
    model = Says(maps)
    assert average_precision(model, Split(torch.zeros(70, 1), y)) == pytest.approx(float(np.mean(precisions)), abs=1e-10)
    assert model.training  # as it was
    assert average_precision(Says(maps), Split(torch.zeros(70, 1), y & 4095)) == 0  # nothing there to be found


def ramps(count: int, classes: int = 3) -> Task:
    """Images (3, 16, 12) that tell their class, and how far right and down each pixel is."""
    labels = torch.arange(count) % classes
    y, x = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(12) + 0.5) / 12, indexing="ij")
    part = Split(torch.stack([torch.stack([10.0 + c + 0 * x, x, y]) for c in labels.tolist()]), labels)
    return Task("toy", part, part, part, steps=20, batch=64)


def test_labels_tell_where_each_image_of_a_mosaic_was_drawn() -> None:
    raw = ramps(4 * 200 + 3)  # three are left over
    task = in_mosaics(raw)
    images, (classes, boxes) = task.test.images, objects(task.test.labels)
    y, x = torch.meshgrid((torch.arange(32) + 0.5) / 32, (torch.arange(24) + 0.5) / 24, indexing="ij")
    left, top, right, bottom = (side[..., None, None] for side in boxes.unbind(2))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom) & (classes > 0)[..., None, None]
    assert torch.equal(images[:, 0] > 5, inside.any(1))
    drawn = raw.test.labels[:800].view(200, 4) + 1
    assert torch.equal(classes, drawn * (classes > 0))  # cell by cell the next image
    across, down = ((x - left) / (right - left)).clamp(1 / 24, 23 / 24), ((y - top) / (bottom - top)).clamp(1 / 32, 31 / 32)
    for channel, wanted in enumerate((9.0 + classes[..., None, None] + 0 * across, across, down)):
        assert ((images[:, channel, None] - wanted).abs()[inside] <= 1e-3).all()
    background, sides = images.movedim(1, 3)[~inside.any(1)], 2 * (right - left).flatten()
    assert background.std() == pytest.approx(0.5, rel=0.02)
    assert 0.62 < sides.min() < 0.64
    assert 0.99 < sides.max() <= 1
    assert 0.2 < (classes == 0).float().mean() < 0.3
    assert (task.augmented, task.batch, task.steps, task.score.func) == (False, 8, raw.steps, average_precision)
    assert in_mosaics(replace(raw, batch=4)).batch == 1


def test_scores_begin_at_one_percent() -> None:
    out = head(64, 10)[-1]
    assert isinstance(out, nn.Conv2d)
    assert out.bias is not None
    scores, offsets = out.bias.detach().split([10, 4])
    assert torch.allclose(scores.sigmoid(), torch.tensor(0.01))
    assert not offsets.any()
    assert out.weight.detach().std() == pytest.approx(0.01, rel=0.05)


def test_nothing_found_is_no_precision() -> None:
    class Blank(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 7, 6, 6), -9.0)

    task = in_mosaics(noise(steps=1))
    assert average_precision(Blank(), task.test) <= 0.05
    assert average_precision(Blank(), Split(task.test.images, torch.arange(len(task.test)))) == 0.0


def test_mosaics_need_no_square_images_and_leave_out_what_is_over() -> None:
    split = Split(torch.randn(7, 3, 10, 14), torch.arange(7))
    task = in_mosaics(Task("own", split, split, split, steps=1))
    assert task.train.images.shape == (1, 3, 20, 28)
    assert head(8, 3)(torch.randn(1, 8, 5, 7)).shape == (1, 7, 5, 7)

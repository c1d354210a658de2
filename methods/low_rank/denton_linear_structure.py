"""Biclustering and SVD (Denton et al., NIPS 2014).

Filters of a trained network are alike, so they are clustered before they are factorised. In the first layer each filter
looks at nearly one colour, and equal clusters of filters share theirs: a few colours, then filters of one channel. In
later layers input and output channels fall into equal clusters, and each block of the kernel becomes low-rank, by an SVD on
either side or by a sum of outer products. What counts as near is weighed by gradients or by the layer's inputs. Layers
are done from the bottom up; each is then fixed with all below it, and the layers above are tuned.

Departures: gradients weigh a patch times an output, where the paper weighs every number on its own, which leaves nothing
low-rank once the weights are divided out. The output side of an SVD sees the whole covariance of its block's inputs; its
input side, outer products and colours see that of channels times that of places. The number of clusters is the largest divisor of
the channels up to the wanted one; ranks are shares of a cluster, as in the authors' scripts. What would save nothing stays, and
so do dense layers, which the paper cuts by an ordinary SVD. Fine-tuning is the kit's, shared evenly among the layers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import tensorly as tl
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from tensorly.decomposition import parafac
from torch import Tensor, nn
from torch.func import functional_call

from methods.kit.lab import Lab
from methods.kit.layers import (
    chunks,
    entering,
    filled,
    geometry,
    name_the_kept,
    patches,
    replaceable,
    replaced,
    responses,
    run,
    runs,
    small_enough,
    truncated_svd,
    within,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.nets import count, trained
from methods.kit.task import Task, on_copies
from methods.kit.testing import images_only
from methods.kit.train import fit

Metric = tuple[Tensor, Tensor]  # weighs patches (C d e, C d e) and output channels (F)
Blocks = tuple[Tensor, Tensor, Tensor]  # of all clusters: (G, H, K1, C/G) in, (G, H, K2, K1 or 1, d e), (G, H, F/H, K2) out


@dataclass(frozen=True)
class Config:
    colours: int = 6  # C' for 96 filters, §4
    block: str = "svd"  # or "outer", §3.4
    inputs: int = 2  # G; 48 with outer products
    outputs: int = 2  # H
    k1: float = 0.4  # 19 of 48 channels; authors' scripts
    k2: float = 0.5  # 64 of 128 channels; authors' scripts
    terms: int = 8  # K of outer products; authors' scripts
    metric: str = "covariance"  # or "mahalanobis" or "frobenius", §3.1
    images: int = 128  # that the metric sees
    wrong: int = 2  # h, wrong labels an image, §3.1; authors' scripts
    rate: float = 0.01  # of fine-tuning


SMOKE = Config(colours=16, k1=0.25, k2=0.25, images=64)  # 3x3 filters share fewer colours; harsher, so that the controls hurt
SWEEP = (replace(SMOKE, k1=0.5, k2=0.6), replace(SMOKE, k1=0.4, k2=0.4), SMOKE, replace(SMOKE, k1=0.3, k2=0.15))


def reference(task: Task) -> nn.Module:
    """Many channels and no shortcuts, like the paper's network."""
    return trained("vgg_wide", task.name)


def weighed(patch: Tensor, output: Tensor) -> Metric:
    """A metric from weights of squares, on a common scale; outputs that never counted count a little, to be divided out again."""
    patch, output = patch.double(), output.double()
    return patch / patch.diagonal().mean().clamp(min=1e-30), (output / output.mean().clamp(min=1e-30)).clamp(min=1e-6).sqrt()


def frobenius(layer: nn.Conv2d, *_: object) -> Metric:
    """Every weight counts the same."""
    return weighed(torch.ones_like(layer.weight[0]).flatten().diag(), torch.ones_like(layer.weight[:, 0, 0, 0]))


def covariance(layer: nn.Conv2d, model: nn.Module, task: Task, config: Config) -> Metric:
    """|| Sigma^1/2 W_F ||_F^2 = E || W x ||^2 over what images feed the layer (§3.1); not centred, as no bias takes up a mean."""
    images, total = task.train.first(config.images).images.to(task.device), torch.zeros(())
    (name,) = [name for name, part in model.named_modules() if part is layer]
    for x, y in entering(model, chunks(model, images), name):
        for some in small_enough(x, 4 * layer.weight[0].numel() * y[0, 0].numel()):
            seen = patches(layer, some).flatten(0, 1).float()
            total = total.to(seen) + seen.T @ seen
    return weighed(total, torch.ones_like(layer.weight[:, 0, 0, 0]))


def mahalanobis(layer: nn.Conv2d, model: nn.Module, task: Task, config: Config) -> Metric:
    """alpha_p^2 = sum_n,l d_nl(p)^2: gradients towards the h wrong labels that the network thinks most likely (§3.1)."""
    task.labels_needed("The Mahalanobis metric")  # equivalent: tests refuse by name
    split, squares = task.train.first(config.images), torch.zeros_like(layer.weight)
    for image, label in zip(split.images.to(task.device), split.labels.to(task.device), strict=True):
        logits = task.logits(model.eval()(image[None]))
        for mistake in logits[0].index_fill(0, label, -torch.inf).topk(config.wrong).indices:
            squares += torch.autograd.grad(F.cross_entropy(logits, mistake[None]), layer.weight, retain_graph=True)[0].square()
    return weighed(squares.flatten(1).mean(0).diag(), squares.flatten(1).mean(1))


def roots(patch: Tensor, channels: int) -> list[Tensor]:
    """Square root and inverse, for channels and for places, of patch (..., C P, C P) summed over the other, up to a scale."""
    split, found = patch.unflatten(-1, (channels, -1)).unflatten(-3, (channels, -1)), list[Tensor]()
    for part in (torch.einsum("...cpdp->...cd", split), torch.einsum("...cpcq->...pq", split)):
        values, vectors = torch.linalg.eigh(part)
        values = values.clamp(min=1e-6)[..., None, :]  # equivalent: any little, so that there is an inverse
        found += [vectors * values**power @ vectors.mT for power in (0.5, -0.5)]
    return found


def lines(rows: Tensor) -> Tensor:
    """The unit vector (..., M) to which rows (..., N, M) are nearest, whatever their signs."""
    return F.normalize((torch.linalg.eigh(rows @ rows.mT)[1][..., -1:].mT @ rows).squeeze(-2), dim=-1)


def clustered(rows: Tensor, most: int) -> Tensor:
    """K-means with clusters of equal size and the distance from a cluster's line (§3.4): indices (count, N / count)."""
    count = max(k for k in range(1, min(len(rows), most) + 1) if len(rows) % k == 0)
    values, vectors = torch.linalg.eigh((rows @ rows.T).cpu())  # equivalent: on a CPU
    rows = vectors * values.clamp(min=0).sqrt()  # as few columns as rows, the same distances
    chance, found = torch.Generator().manual_seed(0), list[tuple[float, Tensor]]()  # equivalent: other starts
    for _ in range(4):  # equivalent: more starts
        members = torch.randperm(len(rows), generator=chance)[:count, None]
        for _ in range(50):  # equivalent: most stand still long before
            along = (rows @ lines(rows[members]).T).square()  # squared norm less squared distance
            seats = linear_sum_assignment(along.repeat_interleave(len(rows) // count, 1), maximize=True)[1]
            cluster = torch.from_numpy(seats) // (len(rows) // count)
            before, members = members, cluster.argsort(stable=True).view(count, -1)
            if torch.equal(before, members):  # equivalent: symmetric
                break
        found.append((float(along.T.gather(1, members).sum()), members))
    return max(found, key=lambda pair: pair[0])[1]


class Order(nn.Module):
    """The same channels in another order."""

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.get_buffer("order"))


def restored(chain: nn.Sequential, order: Tensor) -> nn.Sequential:
    """The chain, whose last convolution gives the layer's outputs in this order, and then the layer's own order."""
    last: Any = chain[-1]
    if last.bias is not None:
        last.bias.data = last.bias.data[order]
    return chain.append(Order(order.argsort())).to(last.weight.device)  # equivalent: there already on a CPU


def monochromatic(layer: nn.Conv2d, metric: Metric, config: Config) -> nn.Sequential:
    """W_f = U S V^T, cut to u_f s_f v_f; each cluster of filters shares one u (§3.3): colours, then filters of one channel."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    channel, back, place, undo = roots(patch, inputs)
    seen = channel @ (layer.weight.detach().flatten(2) * output[:, None, None]) @ place
    u, s, v = torch.linalg.svd(seen, full_matrices=False)  # equivalent: the first triple is the same
    members = clustered(u[:, :, 0], config.colours)
    colours, order = lines(u[members, :, 0]), members.flatten()
    sign = torch.einsum("kmc,kc->km", u[members, :, 0], colours).sign().flatten()
    filters = (sign * s[order, 0] / output[order])[:, None] * v[order, 0] @ undo
    parts = [
        nn.Conv2d(inputs, len(members), 1, bias=False),
        nn.Conv2d(len(members), outputs, **geometry(layer), groups=len(members), bias=layer.bias is not None),
    ]
    return restored(filled(layer, parts, [colours @ back, filters]), order)


def svd_blocks(blocks: Tensor, patch: Tensor, config: Config) -> Blocks:
    """Two SVDs, one after the other: to K2 outputs under the whole metric, then to K1 inputs (§3.2): blocks (G, H, F/H, C/G, d e)."""
    *_, outputs, inputs, places = blocks.shape
    k1, k2 = (max(1, int(share * size)) for share, size in ((config.k1, inputs), (config.k2, outputs)))
    flat = blocks.flatten(3)
    v = torch.linalg.eigh(flat @ patch[:, None] @ flat.mT).eigenvectors[..., -min(k2, inputs * places) :]  # of W_F^T Sigma W_F
    narrow = (v.mT @ flat).unflatten(3, (inputs, places))  # (G, H, K2, C/G, d e)
    channel, back, place, _ = roots(patch, inputs)
    seen = torch.einsum("gcd,ghkdp,gpq->ghckq", channel, narrow, place).flatten(3)
    u = torch.linalg.svd(seen, full_matrices=False)[0][..., :k1]  # (G, H, C/G, K1)
    core = torch.einsum("ghdj,gdc,ghkcp->ghkjp", u, channel, narrow)
    return torch.einsum("gcd,ghdj->ghjc", back, u), core, v


def outer_blocks(blocks: Tensor, patch: Tensor, config: Config) -> Blocks:
    """A sum of K outer products, each the best for what those before it leave (§3.2), by alternating least squares."""
    channel, back, place, undo = roots(patch, blocks.shape[3])
    left, terms = torch.einsum("gcd,ghfdp,gpq->ghfcq", channel, blocks, place), list[Blocks]()
    for _ in range(config.terms):
        u, _, w = torch.linalg.svd(torch.linalg.svd(left.flatten(3), full_matrices=False)[2][..., 0, :].unflatten(-1, left.shape[3:]))
        b, q = u[..., 0], w[..., 0, :]
        for _ in range(20):
            f = F.normalize(torch.einsum("ghfcp,ghc,ghp->ghf", left, b, q), dim=-1)
            b = F.normalize(torch.einsum("ghfcp,ghf,ghp->ghc", left, f, q), dim=-1)
            scaled = torch.einsum("ghfcp,ghf,ghc->ghp", left, f, b)
            q = F.normalize(scaled, dim=-1)
        left = left - torch.einsum("ghf,ghc,ghp->ghfcp", f, b, scaled)
        terms.append((b, scaled, f))
    b, q, f = (torch.stack(vectors, 2) for vectors in zip(*terms, strict=True))
    return b @ back[:, None], (q @ undo[:, None]).unsqueeze(3), f.mT


METRICS: dict[str, Callable[..., Metric]] = {"frobenius": frobenius, "mahalanobis": mahalanobis, "covariance": covariance}
BLOCKS = {"svd": svd_blocks, "outer": outer_blocks}


def biclustered(layer: nn.Conv2d, metric: Metric, config: Config, partition: Callable[[Tensor, int], Tensor] = clustered) -> nn.Sequential:
    """Cluster rows of W_C and columns of W_F, make every block W_gh low-rank (§3.4): 1x1 by inputs, blocks, 1x1 by outputs."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    kernel = layer.weight.detach().flatten(2) * output[:, None, None]
    weighty = kernel * patch.diagonal().view(inputs, -1).sqrt()
    into, out = partition(weighty.transpose(0, 1).flatten(1), config.inputs), partition(weighty.flatten(1), config.outputs)
    blocks = kernel[out[None, :, :, None], into[:, None, None, :]]  # (G, H, F/H, C/G, d e)
    numbers = torch.arange(len(patch)).view(inputs, -1)[into].flatten(1)  # (G, C/G d e)
    inward, core, outward = BLOCKS[config.block](blocks, patch[numbers[:, :, None], numbers[:, None]], config)
    outward = outward / output[out][None, :, :, None]
    (g, h), k1, (k2, width) = core.shape[:2], inward.shape[2], core.shape[2:4]
    parts = [
        nn.Conv2d(inputs, g * h * k1, 1, groups=g, bias=False),
        nn.Conv2d(g * h * k1, g * h * k2, **geometry(layer), groups=g * h * k1 // width, bias=False),
        nn.Conv2d(g * h * k2, outputs, 1, groups=h, bias=layer.bias is not None),
    ]
    first, middle, last = filled(layer, parts, [inward, core, outward.permute(1, 2, 3, 0)])
    shuffle = nn.ChannelShuffle(g)  # (G, H K2) to (H K2, G), so that a cluster of outputs finds its blocks together
    return restored(nn.Sequential(Order(into.flatten()), first, middle, shuffle, last), out.flatten())


def approximated(model: nn.Module, name: str, task: Task, config: Config) -> nn.Sequential:
    """Colours for the network's first convolution, blocks for any other, under the metric that the network as it is gives it."""
    layer: Any = model.get_submodule(name)
    ran = map(model.get_submodule, runs(model, task.train.first(1).images.to(task.device)))
    build = monochromatic if layer is next(part for part in ran if isinstance(part, nn.Conv2d)) else biclustered
    return build(layer, METRICS[config.metric](layer, model, task, config), config)


def work(chain: Any) -> int:
    """Multiply-adds for one output place; what leads in runs at every place before the stride."""
    first, second, *rest = (part for part in chain if isinstance(part, nn.Conv2d))
    return math.prod(second.stride) * first.weight.numel() + sum(part.weight.numel() for part in (second, *rest))


def plan(model: nn.Module, config: Config, **given: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Which layers get cheaper, and the reason why each other layer stays as it is."""

    def why_not(layer: nn.Conv2d, first: bool) -> str:
        blank = copy.deepcopy(layer)
        nn.init.zeros_(blank.weight)  # equivalent: the cost is one of shapes, and zeros are quickly clustered
        chain = (monochromatic if first else biclustered)(blank, frobenius(blank), config)
        return "" if work(chain) < layer.weight.numel() else "would cost as much in clusters"

    return replaceable(model, why_not, **given)


def cascade(model: nn.Module, task: Task, config: Config, approximate: Callable[[nn.Module, str], nn.Module]) -> nn.Module:
    """From the bottom up: approximate a layer, fix all that runs up to it, statistics too, and tune what runs after it (§3.5, §4)."""
    layers, kept = plan(model, config, **within(task))
    parts, ran = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))], list[str]()
    run(model, task.train.first(1).images.to(task.device), lambda name, x, y: ran.append(name), parts)  # equivalent: on a CPU
    names = [name for name in ran if name in layers]
    name_the_kept("biclustering needs a convolution of many channels", names, kept)  # equivalent: tests refuse by name
    done = list[nn.Module]()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        for part in done:
            part.eval()
        return task.loss_of(model, x, y)

    model.requires_grad_(True)  # equivalent: unless someone has frozen it
    for place, name in enumerate(names):
        turn = replace(task, seed=task.seed + 1000 * place)  # equivalent: other batches each time
        model = replaced(model, {name: approximate(model, name)})
        done = [model.get_submodule(part) for part in ran[: ran.index(name) + 1]]
        for part in done:
            part.requires_grad_(False)
        if len(done) < len(ran):
            fit(model, turn, loss, share=1 / len(names), lr=config.rate)
    return model.eval().requires_grad_(True)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Colours for the first layer, blocks for the others, each from the weights and under the metric that tuning left (§4)."""
    return cascade(model, task, config, partial(approximated, task=task, config=config))


@on_copies
def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """A truncated SVD of every flattened kernel at the multiply-adds of its blocks, without clusters or metric; tuned alike."""

    def approximate(model: nn.Module, name: str) -> nn.Module:
        layer: Any = model.get_submodule(name)
        rank = work(like.get_submodule(name)) / (layer.weight[0].numel() + len(layer.weight))
        return truncated_svd(layer, max(1, round(rank)))

    return cascade(model, task, config, approximate)


@torch.no_grad()
def claim_cost_formula(lab: Lab) -> float:
    """Largest difference from C C' + d e F, G H (C/G K1 + K1 d e K2 + K2 F/H) and G H K (C/G + d e + F/H), numbers and multiply-adds."""
    worst = 0.0
    for c, f, d, stride in ((12, 24, 3, 1), (12, 24, (5, 3), (3, 2))):
        layer, image = nn.Conv2d(c, f, d, stride, (2, 1), bias=False), torch.zeros(1, c, 12, 12)
        area, places = layer.weight[0, 0].numel(), layer(image)[0, 0].numel()
        cases: list[tuple[Callable[..., Any], Config, int, int]] = [
            (monochromatic, Config(colours=7), c * 6, area * f),
            (biclustered, Config(inputs=4, outputs=5, k1=0.7, k2=0.5), 16 * 3 * 2, 16 * (2 * area * 3 + 3 * 6)),
            (biclustered, Config(inputs=c, outputs=1, k1=0.01), c, c * min(12, area) * (area + f)),  # K1 at least 1, K2 at most a rank
            (biclustered, Config(inputs=1, outputs=1, k1=1, k2=0.01), c * min(12, area), min(12, area) * area + f),
            (biclustered, Config(block="outer", inputs=5, outputs=2, terms=3), 8 * 3 * 3, 8 * 3 * (area + 12)),
        ]
        for build, config, before, after in cases:
            part = build(layer, frobenius(layer), config)
            worst = max(worst, abs(count(part) - before - after), abs(multiply_adds(part, image) - 144 * before - places * after))
            worst = max(worst, abs(work(part) - before * layer.stride[0] * layer.stride[1] - after))
    return worst


def kernel_of(chain: nn.Module, layer: nn.Conv2d) -> Tensor:
    """The kernel (F, C, d, e) that a chain amounts to: its answers to patches with a single point."""
    points = torch.eye(layer.weight[0].numel()).to(layer.weight).view(-1, *layer.weight.shape[1:])
    answers: Tensor = chain(points)[:, :, int(layer.padding[0]), int(layer.padding[1])]
    return answers.T.view_as(layer.weight)


def clusters_of(chain: Any, g: int, h: int) -> tuple[Any, Any]:
    """Input channels (G, C/G) and output channels (H, F/H) of a biclustered layer."""
    return chain[0].order.view(g, -1), chain[-1].order.argsort().view(h, -1)


def dropped(matrix: Any, rank: int) -> float:
    """Squares of the singular values beyond a rank."""
    return float((np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum())


def product_metric(layer: nn.Conv2d) -> tuple[Metric, Any]:
    """Random weights for channels, places and outputs, and the layer's kernel scaled by their roots."""
    channel, place, output = (torch.rand(n).double() + 0.1 for n in (layer.in_channels, layer.weight[0, 0].numel(), layer.out_channels))
    patch = torch.kron(channel, place)
    return (patch.diag(), output), (output[:, None] * patch.sqrt()).view_as(layer.weight)


@torch.no_grad()
def claim_dropped_spectrum(lab: Lab) -> float:
    """Relative distance of the squared error to the spectrum that both SVDs drop in every block, weighted or not."""
    torch.manual_seed(0)
    worst, layer = 0.0, nn.Conv2d(8, 15, (3, 2), bias=False).double()
    for metric, scale in ((frobenius(layer), 1), product_metric(layer)):
        chain = biclustered(layer, metric, Config(inputs=2, outputs=3, k1=0.5, k2=0.4))
        wanted, left = (scale * layer.weight).numpy(), scale * (layer.weight - kernel_of(chain, layer))
        into, out = clusters_of(chain, 2, 3)
        total = 0.0
        for rows, columns in product(out, into):
            block = wanted[rows][:, columns].reshape(5, -1)
            _, s, w = np.linalg.svd(block, full_matrices=False)
            narrow = (s[:2, None] * w[:2]).reshape(2, 4, 6).swapaxes(0, 1).reshape(4, -1)
            total += dropped(block, 2) + dropped(narrow, 2)
        worst = max(worst, abs(float(left.square().sum()) / total - 1))
    return worst


@torch.no_grad()
def claim_least_response_error(lab: Lab) -> float:
    """Largest ratio of the output error to that of the best kernel of the rank, sought by alternating least squares on the responses."""
    torch.manual_seed(0)
    chance, ratios = np.random.default_rng(0), []
    images = torch.einsum("cs,nshw->nchw", torch.randn(6, 6), torch.randn(40, 6, 7, 7).cumsum(3)).double() + 1
    for layer, k1, k2 in ((nn.Conv2d(6, 10, 3, padding=1, bias=False), 1.0, 0.3), (nn.Conv2d(6, 10, 1, bias=False), 0.5, 1.0)):
        config, seen = Config(inputs=1, outputs=1, k1=k1, k2=k2, images=30), images[:30]
        model: Any = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), layer).double()
        nn.init.dirac_(model[0].weight)  # hands the images on
        chain = approximated(model, "1", images_only(images), config)
        x, y = patches(layer, seen).flatten(0, 1).numpy(), layer(seen).flatten(2).transpose(1, 2).flatten(0, 1).numpy()
        best = np.inf
        for _ in range(3):
            b = chance.standard_normal((3, 10))
            for _ in range(30):
                a = np.linalg.lstsq(x, y @ np.linalg.pinv(b), rcond=None)[0]
                b = np.linalg.lstsq(x @ a, y, rcond=None)[0]
            best = min(best, float(np.linalg.norm(y - x @ a @ b)))
        ratios.append(float((chain(seen) - layer(seen)).norm()) / best)
    return max(ratios)


def claim_gradients_of_likely_mistakes(lab: Lab) -> float:
    """Largest relative error of the weights of patches and outputs, beside finite differences of the loss on wrong labels."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 2)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(12, 5)).double()
    images, labels, step = torch.randn(4, 2, 3, 3).double(), torch.arange(4), 1e-5
    patch, output = mahalanobis(layer, model, images_only(images, labels), Config(images=3, wrong=2))

    def losses(move: Tensor) -> Tensor:
        moved = {"0.weight": layer.weight + move.view_as(layer.weight)}
        return -functional_call(model, moved, images[:3]).log_softmax(1)

    ranked = model(images[:3]).argsort(descending=True).tolist()
    wrong = torch.tensor([[k for k in row if k != label][:2] for label, row in enumerate(ranked)])
    slopes = [(losses(move) - losses(-move)) / (2 * step) for move in step * torch.eye(24).double()]
    alpha = torch.stack([slope.detach().gather(1, wrong).square().sum() for slope in slopes]).view(3, 8)
    wanted = [alpha.mean(0) / alpha.mean(), (alpha.mean(1) / alpha.mean()).sqrt()]
    return max(float((found / want - 1).abs().max()) for found, want in zip((patch.diagonal(), output), wanted, strict=True))


def least_distance(rows: Any, left: list[int], size: int) -> float:
    """The least sum of squared distances from clusters' lines, of all ways to cut these rows into clusters of this size."""
    ways = combinations(left[1:], size - 1) if left else ()
    rest = ((others, [k for k in left[1:] if k not in others]) for others in ways)
    return min((dropped(rows[[left[0], *others]], 1) + least_distance(rows, after, size) for others, after in rest), default=0.0)


def claim_clusters_by_enumeration(lab: Lab) -> float:
    """Largest ratio of the squared distance from the clusters' lines to that of the best of all partitions into equal clusters."""

    def ratio(rows: Any, members: Tensor, clusters: int) -> float:
        everyone = list(range(len(rows)))
        if len(members) != clusters or sorted(members.flatten().tolist()) != everyone:
            return math.inf
        found = sum(dropped(rows[cluster], 1) for cluster in members.tolist())
        return (found + 1e-9) / (least_distance(rows, everyone, len(rows) // clusters) + 1e-9)

    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 2, bias=False).double()
    metric, scale = product_metric(layer)
    weighty, chance = (scale * layer.weight).detach().numpy(), np.random.default_rng(0)
    into, out = clusters_of(biclustered(layer, metric, Config(inputs=2, outputs=3)), 2, 3)
    worst = max(ratio(weighty.swapaxes(0, 1).reshape(6, -1), into, 2), ratio(weighty.reshape(6, -1), out, 3))
    colours: Any = monochromatic(layer, frobenius(layer), Config(colours=3))
    first = np.linalg.svd(layer.weight.detach().flatten(2).numpy())[0][:, :, 0]
    worst = max(worst, ratio(first, colours[-1].order.argsort().view(3, -1), 3))
    for number, clusters, width, uneven in ((8, 2, 3, 0), (6, 3, 2, 0), (9, 3, 20, 0), (4, 4, 2, 0), (8, 2, 3, 1), (9, 3, 5, 1)):
        planted = np.minimum(np.arange(number) % (clusters + uneven), clusters - 1)
        centres = chance.standard_normal((clusters, width))[chance.permutation(planted)]
        rows = centres * chance.choice([-2, -1, 1, 2], (number, 1)) + 0.2 * chance.standard_normal((number, width))
        worst = max(worst, ratio(rows, clustered(torch.from_numpy(rows), clusters), clusters))
    return worst


@torch.no_grad()
def claim_outer_products_as_good_as_parafac(lab: Lab) -> float:
    """Largest ratio of the weighted error to that of tensorly's best rank-one terms, one after the other, in the same blocks."""
    torch.manual_seed(0)
    ratios, config = [], Config(block="outer", inputs=2, outputs=2, terms=2)
    for _ in range(2):
        layer = nn.Conv2d(6, 8, (3, 2), bias=False).double()
        metric, scale = product_metric(layer)
        chain, theirs = biclustered(layer, metric, config), 0.0
        into, out = clusters_of(chain, 2, 2)
        for rows, columns in product(out, into):
            left = (scale * layer.weight)[rows][:, columns].flatten(2).numpy()
            for _ in range(config.terms):
                with tl.backend_context("numpy"):
                    left = left - tl.cp_to_tensor(parafac(left, 1, n_iter_max=200, tol=1e-12, init="svd"))
            theirs += float((left**2).sum())
        ratios.append(float((scale * (layer.weight - kernel_of(chain, layer))).square().sum()) / theirs)
    return max(ratios)


LAYERS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": (2, 1), "padding": (1, 2)},
    {"kernel_size": (3, 5), "padding": 2, "dilation": (1, 2), "bias": False},
    {"kernel_size": (2, 3), "padding": "same", "padding_mode": "circular"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


def largest_difference(layer: nn.Conv2d, build: Callable[..., nn.Module], config: Config, images: Tensor) -> float:
    """Of the outputs, relative to the largest, under each metric on these images."""
    model, wanted, worst = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3)), layer(images).detach(), 0.0
    model(images)
    for metric in METRICS.values():
        chain = build(layer, metric(layer, model, images_only(images), config), config)
        worst = max(worst, float((chain(images).detach() - wanted).abs().max() / wanted.abs().max()))
    return worst


def claim_monochromatic_filters_reproduced(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output, where clusters of filters really share colours."""
    torch.manual_seed(0)
    worst = 0.0
    for settings in LAYERS:
        layer = nn.Conv2d(3, 12, **settings)
        colours = torch.randn(4, 3)[torch.randperm(12) % 4]
        layer.weight.data = torch.einsum("fc,fij->fcij", colours, torch.randn_like(layer.weight[:, 0]))
        worst = max(worst, largest_difference(layer, monochromatic, Config(colours=5, images=6, wrong=1), torch.randn(6, 3, 9, 10)))
    return worst


@torch.no_grad()
def claim_filters_keep_their_first_triple(lab: Lab) -> float:
    """Largest distance of filters' norms to their first singular values, or of a shared colour to the line nearest to its filters'."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 12, (3, 2), bias=False).double()
    chain: Any = monochromatic(layer, frobenius(layer), Config(colours=3))
    kernel, (u, s, _) = kernel_of(chain, layer), np.linalg.svd(layer.weight.flatten(2).numpy(), full_matrices=False)
    if (kernel * layer.weight).flatten(1).sum(1).min() <= 0:  # turned the other way
        return math.inf
    worst = float(np.abs(kernel.flatten(1).norm(dim=1).numpy() / s[:, 0] - 1).max())
    for members, colour in zip(chain[-1].order.argsort().view(3, -1), F.normalize(chain[0].weight.flatten(1)), strict=True):
        worst = max(worst, 1 - abs(float(np.linalg.svd(u[members, :, 0])[2][0] @ colour.numpy())))
    return worst


def claim_blocks_of_low_rank_reproduced(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output, for blocks that are outer products and for full ranks."""
    torch.manual_seed(0)
    worst, images = 0.0, torch.randn(6, 6, 9, 10)
    hidden = images * torch.tensor([1, 1, 0, 1, 1, 1])[:, None, None]  # a channel that never shows
    for settings in LAYERS:
        layer = nn.Conv2d(6, 8, **settings)
        worst = max(worst, largest_difference(layer, biclustered, Config(inputs=5, outputs=5, k1=1, k2=1, images=6), hidden))
        f, c, p = torch.randn(3, 8), torch.randn(2, 6), torch.randn(3, 2, *layer.kernel_size)
        into, out = torch.randperm(6) % 2, torch.randperm(8) % 2
        layer.weight.data = torch.einsum("f,c,fcij->fcij", f[0], c[0], p[out][:, into])
        for block in BLOCKS:
            worst = max(worst, largest_difference(layer, biclustered, Config(block=block, k1=0.1, k2=0.1, terms=1, images=6), images))
    return worst


class Backwards(nn.Module):
    """Names its layers in another order than it runs them in, and has a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.second, self.norm, self.first = nn.Linear(12, 3), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(8), nn.Conv2d(4, 8, 3)
        self.third, self.scale = nn.Conv2d(12, 12, 2), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        return self.fc(self.third(self.second(x).relu()).mean((2, 3))) * self.scale


def claim_tunes_what_is_above(lab: Lab) -> float:
    """How many tensors change that are fixed, or stay that are tuned, after each layer's turn, in the order in which they run."""
    torch.manual_seed(0)
    states: dict[str, dict[str, Tensor]] = {}

    def approximate(model: nn.Module, name: str) -> nn.Module:
        states[name] = {key.replace(".0.", "."): value.clone() for key, value in model.state_dict().items()}
        return nn.Sequential(model.get_submodule(name)) if name != "end" else model

    batches = [(torch.randn(8, 4, 8, 8), torch.arange(8) % 3)]
    model = cascade(Backwards(), Task.from_loaders(batches, batches, batches, steps=6, batch=8), Config(rate=0.1), approximate)
    approximate(model, "end")
    wrong = int(states["end"]["norm.num_batches_tracked"] != 2)  # a third of the steps
    wrong += sum(not p.requires_grad for p in model.parameters())
    turns, run_order = list(states), ["first", "norm", "second", "third", "fc", "scale"]
    if turns != ["first", "second", "third", "end"]:
        return math.inf
    for turn, after in pairwise(turns):
        for key, value in states[turn].items():
            above = run_order.index(key.split(".")[0]) > run_order.index(turn)
            wrong += torch.equal(value, states[after][key]) == above
    return wrong


def claim_each_layer_its_approximation(lab: Lab) -> float:
    """How many layers of a network are planned wrongly, or replaced by something else than planned."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 10, 1)), nn.Conv2d(10, 24, 3, stride=2), nn.Conv2d(24, 24, 3, groups=2), nn.Conv2d(24, 18, 1),
        nn.Conv2d(18, 4, 2, stride=3), nn.ConvTranspose2d(4, 9, 3), nn.Linear(40, 30),
    )  # fmt: skip
    shapes = {"0.0": [(5, 3), (10, 1)], "1": [(8, 5), (24, 2), (24, 12)], "3": [(16, 12), (16, 4), (18, 8)]}
    config = Config(metric="frobenius")
    layers, kept = plan(model, config)
    wrong = (set(layers) != set(shapes)) + (set(kept) != {"2", "4", "5", "6"})
    for name, sizes in shapes.items():
        part = approximated(model, name, images_only(torch.zeros(1, 3, 11, 231)), config)
        wrong += [tuple(convolution.weight.shape[:2]) for convolution in part if isinstance(convolution, nn.Conv2d)] != sizes
    return wrong


@torch.no_grad()
def claim_clusters_fit_better(lab: Lab) -> float:
    """Error of the blocks' kernels, of that of blocks of consecutive channels: the geometric mean of the second and third layer."""

    def consecutive(rows: Tensor, count: int) -> Tensor:
        return torch.arange(len(rows)).view(count, -1)

    ratio = 1.0
    for layer in list(plan(lab.reference, lab.config)[0].values())[1:3]:
        for partition, power in ((clustered, 0.5), (consecutive, -0.5)):
            chain = biclustered(layer, frobenius(layer), lab.config, partition)
            ratio *= float((layer.weight - kernel_of(chain, layer)).norm()) ** power
    return ratio


@cache
def untuned(lab: Lab, metric: str, name: str) -> nn.Module:
    """A layer of the reference as the metric approximates it."""
    return approximated(lab.reference, name, lab.task, replace(lab.config, metric=metric))


def alone(lab: Lab, metric: str) -> Iterator[tuple[str, nn.Module]]:
    """The network with one of its first two layers approximated and nothing tuned."""
    for name in list(plan(lab.reference, lab.config)[0])[:2]:
        yield name, replaced(lab.reference, {name: untuned(lab, metric, name)})


def claim_covariance_lowers_response_error(lab: Lab) -> float:
    """Output error of the first two layers on held-out images, each on its own, of that under the Frobenius norm: the geometric mean."""
    images, ratio = lab.task.test.images[:64].to(lab.task.device), 1.0
    wanted = responses(lab.reference, images, list(plan(lab.reference, lab.config)[0])[:2])
    for metric, power in (("covariance", 0.5), ("frobenius", -0.5)):
        for name, small in alone(lab, metric):
            ratio *= float((responses(small, images, [name])[name] - wanted[name]).norm()) ** power
    return ratio


def claim_metric_keeps_accuracy(lab: Lab, case: str) -> float:
    """Accuracy with one of the first two layers approximated and nothing tuned, less that under the Frobenius norm: the mean."""
    ours, theirs = ([lab.task.score(net, lab.task.test) for _, net in alone(lab, metric)] for metric in (case, "frobenius"))
    return float(np.mean(ours) - np.mean(theirs))


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_fine_tuning_helps(lab: Lab) -> float:
    """Share of the accuracy lost in the approximation of all layers that fine-tuning wins back."""
    parts = {name: untuned(lab, lab.config.metric, name) for name in plan(lab.reference, lab.config)[0]}
    cut = lab.task.score(replaced(lab.reference, parts), lab.task.test)
    return (lab.after.accuracy - cut) / (lab.before.accuracy - cut)


def claim_beats_truncated_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy

"""Biclustering and SVD (Denton et al., NIPS 2014).

Filters of a trained network are alike, so they are clustered before they are factorised. In the first layer each filter
looks at nearly one colour, and equal clusters of filters share theirs: a few colours, then filters of one channel. In
later layers input and output channels fall into equal clusters, and each block of the kernel becomes low-rank, by an SVD on
either side or by a sum of outer products. What counts as near is weighed by gradients or by the layer's inputs. Layers
are done from the bottom up; each is then fixed with all below it, and the layers above are tuned.

Departures: gradients weigh a patch times an output. The paper weighs every number on its own, and what is low-rank is so no
more once such weights are divided out. Each block is weighed by its own inputs; the output side of its SVD sees their whole
covariance, its input side, outer products and colours that of channels times that of places. The number of clusters is the
largest divisor of the channels below the wanted one. Ranks are shares of a cluster, as in the authors' scripts, so that they
suit all layers. A layer stays as it is where nothing would be saved, and dense layers, which the paper cuts by an ordinary
SVD, stay too. Fine-tuning is the kit's, shared evenly among the layers, in a smoke run for seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorly as tl
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from tensorly.decomposition import parafac
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import filled, geometry, name_the_kept, patches, replaceable, replaced, responses, run, truncated_svd
from methods.kit.measure import multiply_adds
from methods.kit.nets import count, trained
from methods.kit.task import Split, Task
from methods.kit.train import cross_entropy, fit

Metric = tuple[Tensor, Tensor]  # weighs patches (C d e, C d e) and output channels (F)
Partition = Callable[[Tensor, int], Tensor]
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


def frobenius(model: nn.Module, name: str, task: Task, config: Config) -> Metric:
    """Every weight counts the same."""
    weight: Any = model.get_submodule(name).weight
    return weighed(torch.ones_like(weight[0]).flatten().diag(), torch.ones(len(weight)).to(weight))


def covariance(model: nn.Module, name: str, task: Task, config: Config) -> Metric:
    """|| Sigma^1/2 W_F ||_F^2 = E || W x ||^2 over what images feed the layer (§3.1); not centred, as no bias takes up a mean."""
    layer: Any = model.get_submodule(name)
    seen, images = list[Tensor](), task.train.images[: config.images].to(task.device)
    run(model, images, lambda _, x, y: seen.append(patches(layer, x).flatten(0, 1).float()), [name])
    return weighed(seen[0].T @ seen[0], torch.ones(len(layer.weight)).to(seen[0]))


def mahalanobis(model: nn.Module, name: str, task: Task, config: Config) -> Metric:
    """alpha_p^2 = sum_n,l d_nl(p)^2: gradients towards the h wrong labels that the network thinks most likely (§3.1)."""
    weight: Any = model.eval().get_submodule(name).weight
    split, squares = task.train.first(config.images), torch.zeros_like(weight)
    for image, label in zip(split.images.to(task.device), split.labels.to(task.device), strict=True):
        logits = model(image[None])
        for mistake in logits[0].index_fill(0, label, -torch.inf).topk(config.wrong).indices:
            squares += torch.autograd.grad(F.cross_entropy(logits, mistake[None]), weight, retain_graph=True)[0].square()
    return weighed(squares.flatten(1).mean(0).diag(), squares.flatten(1).mean(1))


METRICS = {"frobenius": frobenius, "mahalanobis": mahalanobis, "covariance": covariance}


def roots(patch: Tensor, channels: int) -> list[Tensor]:
    """Square root and inverse, for channels and for places, of the product nearest to patch (..., C P, C P), up to a scale."""
    split = patch.unflatten(-1, (channels, -1)).unflatten(-3, (channels, -1))
    found = []
    for part in (torch.einsum("...cpdp->...cd", split), torch.einsum("...cpcq->...pq", split)):
        values, vectors = torch.linalg.eigh(part)
        values = values.clamp(min=1e-6)[..., None, :]  # equivalent: any little, so that there is an inverse
        found += [vectors * values**power @ vectors.mT for power in (0.5, -0.5)]
    return found


def lines(rows: Tensor) -> Tensor:
    """The unit vector (..., M) to which rows (..., N, M) are nearest, whatever their signs."""
    return F.normalize((torch.linalg.eigh(rows @ rows.mT)[1][..., -1:].mT @ rows).squeeze(-2), dim=-1)


def clustered(rows: Tensor, count: int, starts: int = 4) -> Tensor:  # equivalent: more starts
    """K-means with clusters of equal size and the distance from a cluster's line (§3.4): indices (count, N / count)."""
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    rows = vectors * values.clamp(min=0).sqrt()  # as few columns as rows, the same distances
    chance, found = torch.Generator().manual_seed(0), list[tuple[float, Tensor]]()  # equivalent: other starts
    for _ in range(starts):
        members = torch.randperm(len(rows), generator=chance)[:count, None].to(rows.device)
        for _ in range(50):  # equivalent: they stand still long before
            along = (rows @ lines(rows[members]).T).square()  # squared norm less squared distance
            seats = linear_sum_assignment(along.repeat_interleave(len(rows) // count, 1).cpu(), maximize=True)[1]  # equivalent: on a CPU
            before, members = members, torch.from_numpy(seats).argsort().view(count, -1).to(rows.device)
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
        return x.index_select(1, self.order)


def divisor(number: int, most: int) -> int:
    """The largest divisor that is no more."""
    return max(k for k in range(1, min(number, most) + 1) if number % k == 0)


def restored(chain: Iterable[nn.Module], order: Tensor) -> nn.Sequential:
    """The chain, whose last convolution gives the layer's outputs in this order, and then the layer's own order."""
    *before, last = chain
    if last.bias is not None:
        last.bias.data = last.bias.data[order]
    return nn.Sequential(*before, last, Order(order.argsort()))


def monochromatic(layer: nn.Conv2d, metric: Metric, config: Config, partition: Partition = clustered) -> nn.Sequential:
    """W_f = U S V^T, cut to u_f s_f v_f; each cluster of filters shares one u (§3.3): colours, then filters of one channel."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    channel, back, place, undo = roots(patch, inputs)
    seen = channel @ (layer.weight.detach().flatten(2) * output[:, None, None]) @ place
    u, s, v = torch.linalg.svd(seen, full_matrices=False)  # equivalent: the first triple is the same
    members = partition(u[:, :, 0], divisor(outputs, config.colours))
    colours = lines(u[members, :, 0])
    order = members.flatten()
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
    k1, k2 = svd_ranks(outputs, inputs, places, config)
    flat = blocks.flatten(3)
    v = torch.linalg.eigh(flat @ patch[:, None] @ flat.mT).eigenvectors[..., -k2:]  # of W_F^T Sigma W_F
    narrow = (v.mT @ flat).unflatten(3, (inputs, places))  # (G, H, K2, C/G, d e)
    channel, back, place, _ = roots(patch, inputs)
    seen = torch.einsum("gcd,ghkdp,gpq->ghckq", channel, narrow, place).flatten(3)
    u = torch.linalg.svd(seen, full_matrices=False)[0][..., :k1]  # (G, H, C/G, K1)
    core = torch.einsum("ghdj,gdc,ghkcp->ghkjp", u, channel, narrow)
    return torch.einsum("gcd,ghdj->ghjc", back, u), core, v


def outer_blocks(blocks: Tensor, patch: Tensor, config: Config, sweeps: int = 20) -> Blocks:
    """A sum of K outer products, each the best for what those before it leave (§3.2), by alternating least squares."""
    channel, back, place, undo = roots(patch, blocks.shape[3])
    left, terms = torch.einsum("gcd,ghfdp,gpq->ghfcq", channel, blocks, place), list[Blocks]()
    for _ in range(config.terms):
        w = torch.linalg.svd(left.flatten(3), full_matrices=False)[2][..., 0, :].unflatten(-1, left.shape[3:])
        b, q = (vectors[..., 0] for vectors in (torch.linalg.svd(w)[0], torch.linalg.svd(w)[2].mT))
        for _ in range(sweeps):
            f = F.normalize(torch.einsum("ghfcp,ghc,ghp->ghf", left, b, q), dim=-1)
            b = F.normalize(torch.einsum("ghfcp,ghf,ghp->ghc", left, f, q), dim=-1)
            q = torch.einsum("ghfcp,ghf,ghc->ghp", left, f, b)
            scale, q = q.norm(dim=-1, keepdim=True), F.normalize(q, dim=-1)
        left = left - torch.einsum("ghf,ghc,ghp->ghfcp", f, b, scale * q)
        terms.append((b, scale * q, f))
    b, q, f = (torch.stack(vectors, 2) for vectors in zip(*terms, strict=True))
    return b @ back[:, None], (q @ undo[:, None]).unsqueeze(3), f.mT


def svd_ranks(outputs: int, inputs: int, places: int, config: Config) -> tuple[int, int]:
    """K1 and K2 of a block."""
    k2 = min(max(1, int(config.k2 * outputs)), inputs * places)  # equivalent: min is symmetric
    return min(max(1, int(config.k1 * inputs)), k2 * places), k2  # equivalent: min is symmetric


BLOCKS = {"svd": svd_blocks, "outer": outer_blocks}


def biclustered(layer: nn.Conv2d, metric: Metric, config: Config, partition: Partition = clustered) -> nn.Sequential:
    """Cluster rows of W_C and columns of W_F, make every block W_gh low-rank (§3.4): 1x1 by inputs, blocks, 1x1 by outputs."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    g, h = divisor(inputs, config.inputs), divisor(outputs, config.outputs)
    kernel = layer.weight.detach().flatten(2) * output[:, None, None]
    weighty = kernel * patch.diagonal().view(inputs, -1).sqrt()
    into, out = partition(weighty.transpose(0, 1).flatten(1), g), partition(weighty.flatten(1), h)
    blocks = kernel[out[None, :, :, None], into[:, None, None, :]]  # (G, H, F/H, C/G, d e)
    within = patch.unflatten(1, (inputs, -1)).unflatten(0, (inputs, -1))[into[:, :, None], :, into[:, None, :]]
    within = within.transpose(2, 3).flatten(3).flatten(1, 2)  # equivalent: symmetric; (G, C/G d e, C/G d e)
    inward, core, outward = BLOCKS[config.block](blocks, within, config)
    outward = outward / output[out][None, :, :, None]
    middle, last = g * h * inward.shape[2], g * h * core.shape[2]
    parts = [
        nn.Conv2d(inputs, middle, 1, groups=g, bias=False),
        nn.Conv2d(middle, last, **geometry(layer), groups=middle // core.shape[3], bias=False),
        nn.Conv2d(last, outputs, 1, groups=h, bias=layer.bias is not None),
    ]
    chain = filled(layer, parts, [inward, core, outward.permute(1, 2, 0, 3)])
    turn = torch.arange(last).view(g, h, -1).transpose(0, 1).flatten().to(into.device)  # equivalent: there already on a CPU
    return restored([Order(into.flatten()), *chain[:2], Order(turn), chain[2]], out.flatten())


def approximated(model: nn.Module, name: str, first: bool, task: Task, config: Config) -> nn.Sequential:
    """What takes a layer's place, under the metric that the network as it is gives it."""
    layer: Any = model.get_submodule(name)
    return (monochromatic if first else biclustered)(layer, METRICS[config.metric](model, name, task, config), config)


def work(layer: nn.Conv2d, first: bool, config: Config) -> int:
    """Multiply-adds for one output place; what leads in runs at every place before the stride."""
    outputs, inputs, d, e = layer.weight.shape
    before = layer.stride[0] * layer.stride[1]
    if first:  # C C' + d e F
        return before * inputs * divisor(outputs, config.colours) + d * e * outputs
    g, h = divisor(inputs, config.inputs), divisor(outputs, config.outputs)
    if config.block == "outer":  # G H K (C/G + d e + F/H)
        return g * h * config.terms * (before * inputs // g + d * e + outputs // h)
    k1, k2 = svd_ranks(outputs // h, inputs // g, d * e, config)  # G H (C/G K1 + K1 d e K2 + K2 F/H)
    return g * h * (before * inputs // g * k1 + k1 * d * e * k2 + k2 * outputs // h)


def plan(model: nn.Module, config: Config) -> tuple[dict[str, bool], dict[str, str]]:
    """Which layers get cheaper, each with whether it is the first, and the reason why each other layer stays as it is."""
    firsts: dict[nn.Conv2d, bool] = {}

    def why_not(layer: nn.Conv2d, first: bool) -> str:
        firsts[layer] = first
        return "" if work(layer, first, config) < layer.weight.numel() else "would cost as much in clusters"

    layers, kept = replaceable(model, why_not)
    return {name: firsts[layer] for name, layer in layers.items()}, kept


def as_they_run(model: nn.Module, task: Task) -> list[str]:
    """The names of modules with parameters of their own, in the order in which they first run."""
    names, ran = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))], list[str]()
    image = task.train.images[:1].to(task.device)  # equivalent: on a CPU
    run(model, image, lambda name, x, y: ran.append(name), names)
    return ran


def tune_above(model: nn.Module, name: str, task: Task, rate: float, share: float) -> nn.Module:
    """Fix the layer and all that runs before it, statistics too, and train what runs after it (§3.5)."""
    parts = [model.get_submodule(part) for part in as_they_run(model, task)]
    inside = set(model.get_submodule(name).modules())  # equivalent: flat chains hold all their modules themselves
    cut = 1 + max(place for place, part in enumerate(parts) if part in inside)
    for place, part in enumerate(parts):
        part.requires_grad_(place >= cut)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        for part in parts[:cut]:
            part.eval()
        return cross_entropy(model, x, y)

    if parts[cut:]:
        fit(model, task, loss, share=share, lr=rate)
    return model.requires_grad_(True)


def cascade(model: nn.Module, task: Task, config: Config, approximate: Callable[[nn.Module, str, bool], nn.Module]) -> nn.Module:
    """From the bottom up: approximate a layer, then tune all layers above it (§4)."""
    firsts, kept = plan(model, config)
    model.requires_grad_(True)  # equivalent: unless someone has frozen it
    names = [name for name in as_they_run(model, task) if name in firsts]
    idle = {name: "never runs" for name in firsts if name not in names}
    name_the_kept("biclustering needs a convolution of many channels", names, kept | idle)  # equivalent: tests refuse by name
    for place, name in enumerate(names):
        turn = replace(task, seed=task.seed + 1000 * place)  # equivalent: other batches each time
        model = replaced(model, {name: approximate(model, name, firsts[name])})
        model = tune_above(model, name, turn, config.rate, 1 / len(names))
    return model


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Colours for the first layer, blocks for the others, each from the weights and under the metric that tuning left (§4)."""
    return cascade(model, task, config, partial(approximated, task=task, config=config))


def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """A truncated SVD of every flattened kernel at the multiply-adds of its blocks, without clusters or metric; tuned alike."""

    def approximate(model: nn.Module, name: str, first: bool) -> nn.Module:
        layer: Any = model.get_submodule(name)
        return truncated_svd(layer, max(1, round(work(layer, first, config) / (layer.weight[0].numel() + len(layer.weight)))))

    return cascade(model, task, config, approximate)


Rows = np.ndarray[Any, Any]


def kernel_of(chain: nn.Module, layer: nn.Conv2d) -> Tensor:
    """The kernel (F, C, d, e) that a chain without stride amounts to, read off its answers to single points."""
    (d, e), inputs = layer.kernel_size, layer.in_channels
    points = torch.zeros(inputs, inputs, 2 * d - 1, 2 * e - 1).to(layer.weight)
    points[range(inputs), range(inputs), d - 1, e - 1] = 1
    answer = chain(points)
    top, left = (answer.shape[2] - d) // 2, (answer.shape[3] - e) // 2  # of what padding adds
    return answer[:, :, top : top + d, left : left + e].transpose(0, 1).flip(2, 3)


def clusters_of(chain: nn.Sequential, g: int, h: int) -> tuple[Tensor, Tensor]:
    """Input channels (G, C/G) and output channels (H, F/H) of a biclustered layer."""
    return chain[0].order.view(g, -1), chain[-1].order.argsort().view(h, -1)


def dropped(matrix: Rows, rank: int) -> float:
    """Squares of the singular values beyond a rank."""
    return float((np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum())


def product_metric(layer: nn.Conv2d) -> Metric:
    """Random weights for channels, places and outputs."""
    channel, place, output = (torch.rand(n).double() + 0.1 for n in (layer.in_channels, layer.weight[0, 0].numel(), layer.out_channels))
    return torch.kron(channel, place).diag(), output


def some_task(images: Tensor, labels: Tensor | None = None) -> Any:
    """What a metric sees of a task."""
    return SimpleNamespace(train=Split(images, torch.zeros(len(images)) if labels is None else labels), device="cpu", seed=0)


@torch.no_grad()
def claim_dropped_spectrum(lab: Lab) -> float:
    """Relative distance of the squared error to the spectrum that both SVDs drop in every block, weighted or not."""
    torch.manual_seed(0)
    worst, config = 0.0, Config(inputs=2, outputs=3, k1=0.5, k2=0.4)
    for metric in (frobenius, None):
        layer = nn.Conv2d(8, 15, (3, 2), bias=False).double()
        patch, output = metric(nn.Sequential(layer), "0", lab, config) if metric else product_metric(layer)
        chain = biclustered(layer, (patch, output), config)
        scale = (output[:, None] * patch.diagonal().sqrt()).view_as(layer.weight).numpy()
        wanted, left = scale * layer.weight.numpy(), scale * (layer.weight - kernel_of(chain, layer)).numpy()
        into, out = clusters_of(chain, 2, 3)
        total = 0.0
        for rows in out.tolist():
            for columns in into.tolist():
                block = wanted[rows][:, columns].reshape(5, -1)
                _, s, w = np.linalg.svd(block, full_matrices=False)
                narrow = (s[:2, None] * w[:2]).reshape(2, 4, 6).swapaxes(0, 1).reshape(4, -1)
                total += dropped(block, 2) + dropped(narrow, 2)
        worst = max(worst, abs(float((left**2).sum()) / total - 1))
    return worst


@torch.no_grad()
def claim_least_response_error(lab: Lab) -> float:
    """Largest ratio of the output error to that of the best kernel of the rank, sought by alternating least squares on the responses."""
    torch.manual_seed(0)
    chance, ratios = np.random.default_rng(0), []
    images = torch.einsum("cs,nshw->nchw", torch.randn(6, 6), torch.randn(40, 6, 7, 7).cumsum(3)).double() + 1
    for layer, k1, k2, rank in ((nn.Conv2d(6, 10, 3, padding=1, bias=False), 1.0, 0.3, 3), (nn.Conv2d(6, 10, 1, bias=False), 0.5, 1.0, 3)):
        config = Config(inputs=1, outputs=1, k1=k1, k2=k2, images=30)
        chain = biclustered(layer.double(), covariance(nn.Sequential(layer), "0", some_task(images), config), config)
        seen = images[:30]
        x, y = patches(layer, seen).flatten(0, 1).numpy(), layer(seen).flatten(2).transpose(1, 2).flatten(0, 1).numpy()
        best = np.inf
        for _ in range(3):
            b = chance.standard_normal((rank, 10))
            for _ in range(30):
                a = np.linalg.lstsq(x, y @ np.linalg.pinv(b), rcond=None)[0]
                b = np.linalg.lstsq(x @ a, y, rcond=None)[0]
            best = min(best, float(np.linalg.norm(y - x @ a @ b)))
        ratios.append(float((chain(seen) - layer(seen)).norm()) / best)
    return max(ratios)


def claim_gradients_of_likely_mistakes(lab: Lab) -> float:
    """Largest relative error of the weights of patches and outputs, beside finite differences of the loss on wrong labels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5)).double()
    images, labels, h, step = torch.randn(4, 2, 3, 3).double(), torch.arange(4), 2, 1e-5
    patch, output = mahalanobis(model, "0", some_task(images, labels), Config(images=3, wrong=h))
    weight, squares = model[0].weight.data.view(-1), torch.zeros(24).double()
    with torch.no_grad():
        for image, label in zip(images[:3], labels[:3], strict=True):
            ranked = [k for k in model(image[None])[0].argsort(descending=True).tolist() if k != label]
            for p in range(24):
                losses = []
                for move in (step, -2 * step):
                    weight[p] += move
                    losses.append(-model(image[None]).log_softmax(1)[0, ranked[:h]])
                weight[p] += step
                squares[p] += ((losses[0] - losses[1]) / (2 * step)).square().sum()
    alpha = squares.view(3, 8)
    wanted = [alpha.mean(0) / alpha.mean(), (alpha.mean(1) / alpha.mean()).sqrt()]
    return max(float((found / want - 1).abs().max()) for found, want in zip((patch.diagonal(), output), wanted, strict=True))


def claim_clusters_by_enumeration(lab: Lab) -> float:
    """Largest ratio of the squared distance from the clusters' lines to that of the best of all partitions into equal clusters."""

    def far(rows: Rows) -> float:
        return dropped(rows, 1)

    def partitions(left: frozenset[int], size: int) -> Iterator[list[list[int]]]:
        if not left:
            yield []
            return
        for others in combinations(sorted(left)[1:], size - 1):
            cluster = [min(left), *others]
            yield from ([cluster, *rest] for rest in partitions(left - set(cluster), size))

    def ratio(rows: Rows, members: Tensor) -> float:
        (clusters, size), number = members.shape, len(rows)
        if clusters * size != number or sorted(members.flatten().tolist()) != list(range(number)):
            return math.inf
        best = min(sum(far(rows[cluster]) for cluster in split) for split in partitions(frozenset(range(number)), size))
        return (sum(far(rows[cluster]) for cluster in members.tolist()) + 1e-9) / (best + 1e-9)

    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 2, bias=False).double()
    patch, output = metric = product_metric(layer)
    weighty = (layer.weight.flatten(2) * output[:, None, None] * patch.diagonal().view(6, 4).sqrt()).detach().numpy()
    chance, chain = np.random.default_rng(0), biclustered(layer, metric, Config(inputs=2, outputs=3))
    into, out = clusters_of(chain, 2, 3)
    worst = max(ratio(weighty.swapaxes(0, 1).reshape(6, -1), into), ratio(weighty.reshape(6, -1), out))
    for number, clusters, width, uneven in ((8, 2, 3, 0), (6, 3, 2, 0), (9, 3, 20, 0), (4, 4, 2, 0), (8, 2, 3, 1), (9, 3, 5, 1)):
        planted = np.minimum(np.arange(number) % (clusters + uneven), clusters - 1)
        centres = chance.standard_normal((clusters, width))[chance.permutation(planted)]
        rows = centres * chance.choice([-2, -1, 1, 2], (number, 1)) + 0.2 * chance.standard_normal((number, width))
        members = clustered(torch.from_numpy(rows), clusters)
        worst = max(worst, ratio(rows, members) if len(members) == clusters else math.inf)
    return worst


@torch.no_grad()
def claim_outer_products_as_good_as_parafac(lab: Lab) -> float:
    """Largest ratio of the weighted error to that of tensorly's best rank-one terms, one after the other, in the same blocks."""
    torch.manual_seed(0)
    ratios, config = [], Config(block="outer", inputs=2, outputs=2, terms=2)
    for _ in range(2):
        layer = nn.Conv2d(6, 8, (3, 2), bias=False).double()
        patch, output = metric = product_metric(layer)
        chain = biclustered(layer, metric, config)
        scale = (output[:, None] * patch.diagonal().sqrt()).view_as(layer.weight)
        ours, theirs = float((scale * (layer.weight - kernel_of(chain, layer))).square().sum()), 0.0
        into, out = clusters_of(chain, 2, 2)
        for rows in out:
            for columns in into:
                left = (scale * layer.weight)[rows][:, columns].flatten(2).numpy()
                for _ in range(config.terms):
                    with tl.backend_context("numpy"):
                        left = left - tl.cp_to_tensor(parafac(left, 1, n_iter_max=200, tol=1e-12, init="svd"))
                theirs += float((left**2).sum())
        ratios.append(ours / theirs)
    return max(ratios)


LAYERS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": (2, 1), "padding": (1, 2)},
    {"kernel_size": (3, 5), "padding": 2, "dilation": (1, 2), "bias": False},
    {"kernel_size": (2, 3), "padding": "same", "padding_mode": "circular"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


@torch.no_grad()
def largest_difference(layer: nn.Conv2d, build: Callable[..., nn.Module], config: Config, images: Tensor) -> float:
    """Of the outputs, relative to the largest, under each metric on these images."""
    model, worst = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3)), 0.0
    model(images)
    for metric in METRICS.values():
        with torch.enable_grad():
            chain = build(layer, metric(model, "0", some_task(images, torch.zeros(len(images)).long()), config), config)
        worst = max(worst, float((chain(images) - layer(images)).abs().max() / layer(images).abs().max()))
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
    """Largest relative distance of a filter's norm to its first singular value, where filters share colours that are not theirs."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 12, (3, 2), bias=False).double()
    kernel = kernel_of(
        monochromatic(layer, frobenius(nn.Sequential(layer), "0", some_task(torch.zeros(0)), Config()), Config(colours=3)), layer
    )
    if (kernel * layer.weight).flatten(1).sum(1).min() <= 0:  # turned the other way
        return math.inf
    first = np.linalg.svd(layer.weight.flatten(2).numpy(), compute_uv=False)[:, 0]
    return float(np.abs(kernel.flatten(1).norm(dim=1).numpy() / first - 1).max())


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


def claim_cost_formula(lab: Lab) -> float:
    """Largest difference from C C' + d e F, G H (C/G K1 + K1 d e K2 + K2 F/H) and G H K (C/G + d e + F/H), numbers and multiply-adds."""
    worst = 0.0
    for c, f, d, stride in ((12, 24, 3, 1), (12, 24, (5, 3), (3, 2))):
        layer, image = nn.Conv2d(c, f, d, stride, (2, 1), bias=False), torch.zeros(1, c, 12, 12)
        area, places = layer.weight[0, 0].numel(), layer(image)[0, 0].numel()
        for build, config, before, after in (
            (monochromatic, Config(colours=7), c * 6, area * f),
            (biclustered, Config(inputs=4, outputs=5, k1=0.7, k2=0.5), 16 * 3 * 2, 16 * (2 * area * 3 + 3 * 6)),
            (biclustered, Config(block="outer", inputs=5, outputs=2, terms=3), 8 * 3 * 3, 8 * 3 * (area + 12)),
        ):
            part, first = build(layer, frobenius(nn.Sequential(layer), "0", lab, config), config), build is monochromatic  # type: ignore[arg-type]
            worst = max(worst, abs(count(part) - before - after), abs(multiply_adds(part, image) - 144 * before - places * after))
            worst = max(worst, abs(work(layer, first, config) - before * layer.stride[0] * layer.stride[1] - after))
    few = [
        (12, 1, 1, 1.0, 0.5),
        (4, 12, 1, 1.0, 0.1),
        (8, 12, 9, 0.01, 0.5),
        (8, 12, 9, 0.5, 0.01),
    ]  # at least one, and no more than a rank
    return worst + ([svd_ranks(f, c, p, Config(k1=k1, k2=k2)) for f, c, p, k1, k2 in few] != [(1, 1), (1, 1), (1, 4), (6, 1)])


class Backwards(nn.Module):
    """Names its layers in another order than it runs them in."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.second, self.norm, self.first = nn.Linear(12, 3), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(8), nn.Conv2d(4, 8, 3)
        self.third = nn.Conv2d(12, 12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        return self.fc(self.third(self.second(x).relu()).mean((2, 3)))


def claim_tunes_what_is_above(lab: Lab) -> float:
    """How many tensors change that are fixed, or stay that are tuned, after each layer's turn, in the order in which they run."""
    torch.manual_seed(0)
    states: dict[str, dict[str, Tensor]] = {}

    def snapshot(model: nn.Module, name: str) -> None:
        states[name] = {key.replace(".0.", "."): value.clone() for key, value in model.state_dict().items()}

    def approximate(model: nn.Module, name: str, first: bool) -> nn.Module:
        snapshot(model, name)
        return nn.Sequential(model.get_submodule(name))

    batches = [(torch.randn(8, 4, 8, 8), torch.arange(8) % 3)]
    model = cascade(Backwards(), Task.from_loaders(batches, batches, batches, steps=6, batch=8), Config(rate=0.1), approximate)
    snapshot(model, "end")
    wrong = int(states["end"]["norm.num_batches_tracked"] != 2)  # a third of the steps
    wrong += sum(not p.requires_grad for p in model.parameters())
    turns, run_order = list(states), ["first", "norm", "second", "third", "fc"]
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
        nn.Sequential(nn.Conv2d(3, 10, 3)), nn.Conv2d(10, 24, 3, stride=2), nn.Conv2d(24, 24, 3, groups=2), nn.Conv2d(24, 18, 1),
        nn.Conv2d(18, 4, 2, stride=3), nn.ConvTranspose2d(4, 9, 3), nn.Linear(40, 30),
    )  # fmt: skip
    config = Config(metric="frobenius")
    firsts, kept = plan(model, config)
    wrong = (firsts != {"0.0": True, "1": False, "3": False}) + (set(kept) != {"2", "4", "5", "6"})
    for name, sizes in {"0.0": [(5, 3), (10, 1)], "1": [(8, 5), (24, 2), (24, 12)], "3": [(16, 12), (16, 4), (18, 8)]}.items():
        part = approximated(model, name, firsts[name], some_task(torch.zeros(0)), config)
        wrong += [tuple(convolution.weight.shape[:2]) for convolution in part if isinstance(convolution, nn.Conv2d)] != sizes
    return wrong


@torch.no_grad()
def claim_clusters_fit_better(lab: Lab) -> float:
    """Error of the blocks' kernels, of that of blocks of consecutive channels: the geometric mean of the second and third layer."""

    def consecutive(rows: Tensor, count: int) -> Tensor:
        return torch.arange(len(rows)).view(count, -1)

    ratios = []
    for name in list(plan(lab.reference, lab.config)[0])[1:3]:
        layer, metric = lab.reference.get_submodule(name), frobenius(lab.reference, name, lab.task, lab.config)
        ours, theirs = (
            float((layer.weight - kernel_of(biclustered(layer, metric, lab.config, partition), layer)).norm())
            for partition in (clustered, consecutive)
        )
        ratios.append(ours / theirs)
    return float(np.exp(np.mean(np.log(ratios))))


@torch.no_grad()
def claim_covariance_lowers_response_error(lab: Lab) -> float:
    """Output error of the first two layers on held-out images, each on its own, of that under the Frobenius norm: the geometric mean."""
    images, model, ratios = lab.task.test.images[:64].to(lab.task.device), lab.reference, []
    for name, first in list(plan(model, lab.config)[0].items())[:2]:
        errors = []
        for metric in ("covariance", "frobenius"):
            small = replaced(model, {name: approximated(model, name, first, lab.task, replace(lab.config, metric=metric))})
            wanted, found = (responses(net, images, [name])[name] for net in (model, small))
            errors.append(float((found - wanted).norm()))
        ratios.append(errors[0] / errors[1])
    return float(np.exp(np.mean(np.log(ratios))))


def claim_metric_keeps_accuracy(lab: Lab, case: str) -> float:
    """Accuracy with one of the first two layers approximated and nothing tuned, less that under the Frobenius norm: the mean."""
    model, task = lab.reference, lab.task
    scores = []
    for name, first in list(plan(model, lab.config)[0].items())[:2]:
        nets = [
            replaced(model, {name: approximated(model, name, first, task, replace(lab.config, metric=metric))})
            for metric in (case, "frobenius")
        ]
        scores.append(task.score(nets[0], task.test) - task.score(nets[1], task.test))
    return sum(scores) / len(scores)


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_fine_tuning_helps(lab: Lab) -> float:
    """Share of the accuracy lost in the approximation of all layers that fine-tuning wins back."""
    firsts = plan(lab.reference, lab.config)[0]
    parts = {name: approximated(lab.reference, name, first, lab.task, lab.config) for name, first in firsts.items()}
    cut = lab.task.score(replaced(lab.reference, parts), lab.task.test)
    return (lab.after.accuracy - cut) / (lab.before.accuracy - cut)


def claim_beats_truncated_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy

"""Biclustering and SVD (Denton et al., NIPS 2014).

Filters of a trained network are alike, so they are clustered before they are factorised. In the first layer each filter
looks at nearly one colour, and equal clusters of filters share theirs: a few colours, then filters of one channel. In
later layers input and output channels fall into equal clusters, and each block of the kernel becomes low-rank, by an SVD on
either side or by a sum of outer products. What counts as near is weighed by gradients or by the layer's inputs. Layers
are done from the bottom up; each is then fixed with all below it, and the layers above are tuned.

Algorithms: monochromatic filters; biclustering with an SVD on either side, and with outer products; the metrics of both.

Departures: gradients weigh a patch times an output, where the paper weighs every number on its own, which leaves nothing
low-rank once the weights are divided out. The output side of an SVD sees the whole covariance of its block's inputs; its
input side, outer products and colours see that of channels times that of places. The number of clusters is the largest divisor of
the channels up to the wanted one; ranks are shares of a cluster, as in the authors' scripts. What would save nothing stays, and
so do dense layers, which the paper cuts by an ordinary SVD. Fine-tuning is the kit's, shared evenly among the layers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from methods.kit.layers import (
    chunks,
    entering,
    filled,
    geometry,
    name_the_kept,
    patches,
    replaceable,
    replaced,
    run,
    runs,
    small_enough,
    truncated_svd,
    within,
)  # fmt: skip
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.kit.watch import iterations

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
    task.labels_needed("The Mahalanobis metric")
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
        values = values.clamp(min=1e-6)[..., None, :]
        found += [vectors * values**power @ vectors.mT for power in (0.5, -0.5)]
    return found


def lines(rows: Tensor) -> Tensor:
    """The unit vector (..., M) to which rows (..., N, M) are nearest, whatever their signs."""
    return F.normalize((torch.linalg.eigh(rows @ rows.mT)[1][..., -1:].mT @ rows).squeeze(-2), dim=-1)


def clustered(rows: Tensor, most: int) -> Tensor:
    """K-means with clusters of equal size and the distance from a cluster's line (§3.4): indices (count, N / count)."""
    count = max(k for k in range(1, min(len(rows), most) + 1) if len(rows) % k == 0)
    values, vectors = torch.linalg.eigh((rows @ rows.T).cpu())
    rows = vectors * values.clamp(min=0).sqrt()  # as few columns as rows, the same distances
    chance, found = torch.Generator().manual_seed(0), list[tuple[float, Tensor]]()
    for _ in range(4):
        members = torch.randperm(len(rows), generator=chance)[:count, None]
        for _ in iterations(50):
            along = (rows @ lines(rows[members]).T).square()  # squared norm less squared distance
            seats = linear_sum_assignment(along.repeat_interleave(len(rows) // count, 1), maximize=True)[1]
            cluster = torch.from_numpy(seats) // (len(rows) // count)
            before, members = members, cluster.argsort(stable=True).view(count, -1)
            if torch.equal(before, members):
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
    return chain.append(Order(order.argsort())).to(last.weight.device)


def monochromatic(layer: nn.Conv2d, metric: Metric, config: Config) -> nn.Sequential:
    """W_f = U S V^T, cut to u_f s_f v_f; each cluster of filters shares one u (§3.3): colours, then filters of one channel."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    channel, back, place, undo = roots(patch, inputs)
    seen = channel @ (layer.weight.detach().flatten(2) * output[:, None, None]) @ place
    u, s, v = torch.linalg.svd(seen, full_matrices=False)
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
        for _ in iterations(20):
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
        nn.init.zeros_(blank.weight)
        chain = (monochromatic if first else biclustered)(blank, frobenius(blank), config)
        return "" if work(chain) < layer.weight.numel() else "would cost as much in clusters"

    return replaceable(model, why_not, **given)


def cascade(model: nn.Module, task: Task, config: Config, approximate: Callable[[nn.Module, str], nn.Module]) -> nn.Module:
    """From the bottom up: approximate a layer, fix all that runs up to it, statistics too, and tune what runs after it (§3.5, §4)."""
    layers, kept = plan(model, config, **within(task))
    parts, ran = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))], list[str]()
    run(model, task.train.first(1).images.to(task.device), lambda name, x, y: ran.append(name), parts)
    names = [name for name in ran if name in layers]
    name_the_kept("biclustering needs a convolution of many channels", names, kept)
    done = list[nn.Module]()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        for part in done:
            part.eval()
        return task.loss_of(model, x, y)

    model.requires_grad_(True)
    for place, name in enumerate(names):
        turn = replace(task, seed=task.seed + 1000 * place)
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

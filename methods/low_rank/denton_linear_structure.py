"""Biclustering and SVD (Denton et al., NIPS 2014).

Filters of a trained network are alike, so they are clustered before they are factorised. In the first layer each filter
looks at nearly one colour, and equal clusters of filters share theirs: a few colours, then filters of one channel. In
later layers input and output channels fall into equal clusters, and each block of the kernel becomes low-rank, by an SVD on
either side or by a sum of outer products. What counts as near is weighed by gradients or by the layer's inputs. Layers
are done from the bottom up; each is then fixed with all below it, and the layers above are tuned.

Departures: gradients weigh a patch times an output, since weights that are free for every number, as in the paper, leave a
kernel of full rank when they are divided out again. The output side of an SVD sees the whole covariance of the patches, the
input side and outer products see its channels' times its places'. Clusters are counted by the largest divisor of the
channels. Ranks are shares of a cluster, as in the authors' scripts, so that they suit all layers. A layer stays as it is
where this would save nothing, and dense layers, which the paper cuts by an ordinary SVD, stay too. Fine-tuning is the
kit's. In a smoke run seconds of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from methods.kit.layers import filled, geometry, name_the_kept, patches, replaceable, replaced, run, truncated_svd
from methods.kit.nets import trained
from methods.kit.task import Task
from methods.kit.train import cross_entropy, fit

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
    terms: int = 8  # K of outer products
    metric: str = "covariance"  # or "mahalanobis" or "frobenius", §3.1
    images: int = 128  # that the metric sees
    wrong: int = 2  # h, wrong labels an image, §3.1; authors' scripts
    rate: float = 0.01  # of fine-tuning


SMOKE = Config()


def reference(task: Task) -> nn.Module:
    """Many channels and no shortcuts, like the paper's network."""
    return trained("vgg_wide", task.name)


def weighed(patch: Tensor, output: Tensor) -> Metric:
    """A metric on a common scale; what never counted still counts a little, so that it can be divided out."""
    little = 1e-6
    patch = patch.double() / patch.diagonal().double().mean().clamp(min=1e-30)
    output = output.double() / output.double().mean().clamp(min=1e-30)
    return patch + little * torch.eye(len(patch), dtype=patch.dtype, device=patch.device), (output + little).sqrt()


def frobenius(model: nn.Module, name: str, task: Task, config: Config) -> Metric:
    """Every weight counts the same."""
    weight = model.get_submodule(name).weight.detach().flatten(1)
    return weighed(torch.eye(weight.shape[1]).to(weight), torch.ones_like(weight[:, 0]))


def covariance(model: nn.Module, name: str, task: Task, config: Config) -> Metric:
    """|| Sigma^1/2 W_F ||_F = E || W x ||^2 over what images feed the layer (§3.1); not centred, as no bias takes up a mean."""
    layer, seen = model.get_submodule(name), list[Tensor]()
    run(model, task.train.images[: config.images].to(task.device), lambda _, x, y: seen.append(patches(layer, x).flatten(0, 1)), [name])
    return weighed(seen[0].T @ seen[0], torch.ones_like(layer.weight[:, 0, 0, 0]))


def mahalanobis(model: nn.Module, name: str, task: Task, config: Config) -> Metric:
    """alpha_p^2 = sum_n,l d_nl(p)^2: gradients towards the h wrong labels that the network thinks most likely (§3.1)."""
    weight, split = model.eval().get_submodule(name).weight, task.train.first(config.images)
    squares = torch.zeros_like(weight)
    for image, label in zip(split.images.to(task.device), split.labels.to(task.device), strict=True):
        logits = model(image[None])
        for mistake in logits[0].index_fill(0, label, -torch.inf).topk(config.wrong).indices:
            squares += torch.autograd.grad(F.cross_entropy(logits, mistake[None]), weight, retain_graph=True)[0].square()
    return weighed(squares.flatten(1).mean(0).diag(), squares.flatten(1).mean(1))


METRICS = {"frobenius": frobenius, "mahalanobis": mahalanobis, "covariance": covariance}


def roots(patch: Tensor, channels: int) -> list[Tensor]:
    """Square root and inverse, for channels and for places, of the nearest product: patch (..., C P, C P) ~ channels x places."""
    split = patch.unflatten(-1, (channels, -1)).unflatten(-3, (channels, -1))
    found = []
    for part in (torch.einsum("...cpdp->...cd", split), torch.einsum("...cpcq->...pq", split) / channels):
        values, vectors = torch.linalg.eigh(part)
        found += [vectors * values[..., None, :] ** power @ vectors.mT for power in (0.5, -0.5)]
    return found


def lines(rows: Tensor) -> Tensor:
    """The unit vector (..., M) to which rows (..., N, M) are nearest, whatever their signs."""
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    return F.normalize((vectors[..., -1:].mT @ rows).squeeze(-2), dim=-1)


def clustered(rows: Tensor, count: int, starts: int = 4) -> Tensor:
    """K-means with clusters of equal size and the distance to a cluster's line (§3.4): indices (count, N / count)."""
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    rows = vectors * values.clamp(min=0).sqrt()  # as few columns as rows, the same distances
    size, chance, best = len(rows) // count, torch.Generator().manual_seed(0), (torch.inf, torch.arange(len(rows)).view(count, -1))
    for _ in range(starts):
        members, before = torch.randperm(len(rows), generator=chance)[:count, None].to(rows.device), torch.inf
        for _ in range(50):
            far = rows.square().sum(1, keepdim=True) - (rows @ lines(rows[members]).T).square()
            _, seats = linear_sum_assignment(far.repeat_interleave(size, 1).cpu())
            members = torch.from_numpy(seats).argsort().view(count, size).to(rows.device)
            total = float(far[members, torch.arange(count)[:, None]].sum())
            if total > before * (1 - 1e-9):
                break
            before = total
        best = min(best, (total, members), key=lambda found: found[0])
    return best[1]


Partition = Callable[[Tensor, int], Tensor]


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


def monochromatic(layer: nn.Conv2d, metric: Metric, config: Config, partition: Partition = clustered) -> nn.Sequential:
    """W_f = U S V^T, cut to u_f s_f v_f; each cluster of filters shares one u (§3.3): colours, then filters of one channel."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    channel, back, place, undo = roots(patch, inputs)
    u, s, v = torch.linalg.svd(channel @ (layer.weight.detach().double().flatten(2) * output[:, None, None]) @ place, full_matrices=False)
    members = partition(u[:, :, 0], divisor(outputs, config.colours))
    colours = lines(u[members, :, 0])
    order = members.flatten()
    sign = torch.einsum("kmc,kc->km", u[members, :, 0], colours).sign().flatten()
    filters = (sign * s[order, 0] / output[order])[:, None] * v[order, 0] @ undo
    parts = [
        nn.Conv2d(inputs, len(members), 1, bias=False),
        nn.Conv2d(len(members), outputs, **geometry(layer), groups=len(members), bias=layer.bias is not None),
    ]
    return sorted_back(filled(layer, parts, [colours @ back, filters]), order)


def sorted_back(chain: nn.Sequential, order: Tensor, before: Tensor | None = None) -> nn.Sequential:
    """..."""
    last = chain[-1]
    if last.bias is not None:
        last.bias.data = last.bias.data[order]
    return chain.append(Order(order.argsort()))


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
    k2 = min(max(1, int(config.k2 * outputs)), inputs * places)
    return min(max(1, int(config.k1 * inputs)), k2 * places), k2


BLOCKS = {"svd": svd_blocks, "outer": outer_blocks}


def biclustered(layer: nn.Conv2d, metric: Metric, config: Config, partition: Partition = clustered) -> nn.Sequential:
    """Cluster rows of W_C and columns of W_F, make every block W_gh low-rank (§3.4): 1x1 by inputs, blocks, 1x1 by outputs."""
    (outputs, inputs), (patch, output) = layer.weight.shape[:2], metric
    g, h = divisor(inputs, config.inputs), divisor(outputs, config.outputs)
    kernel = layer.weight.detach().double().flatten(2) * output[:, None, None]
    weighty = kernel * patch.diagonal().view(inputs, -1).sqrt()
    into, out = partition(weighty.transpose(0, 1).flatten(1), g), partition(weighty.flatten(1), h)
    blocks = kernel[out[None, :, :, None], into[:, None, None, :]]  # (G, H, F/H, C/G, d e)
    within = patch.unflatten(1, (inputs, -1)).unflatten(0, (inputs, -1))[into[:, :, None], :, into[:, None, :]]
    inward, core, outward = BLOCKS[config.block](blocks, within.transpose(2, 3).flatten(3).flatten(1, 2), config)
    outward = outward / output[out][None, :, :, None]
    middle, last = g * h * inward.shape[2], g * h * core.shape[2]
    parts = [
        nn.Conv2d(inputs, middle, 1, groups=g, bias=False),
        nn.Conv2d(middle, last, **geometry(layer), groups=middle // core.shape[3], bias=False),
        nn.Conv2d(last, outputs, 1, groups=h, bias=layer.bias is not None),
    ]
    chain = filled(layer, parts, [inward, core, outward.permute(1, 2, 0, 3)])
    turn = torch.arange(last).view(g, h, -1).transpose(0, 1).flatten().to(into.device)
    return sorted_back(nn.Sequential(Order(into.flatten()), *chain[:2], Order(turn), chain[2]), out.flatten())


def approximated(model: nn.Module, name: str, first: bool, task: Task, config: Config) -> nn.Sequential:
    metric = METRICS[config.metric](model, name, task, config)
    return (monochromatic if first else biclustered)(model.get_submodule(name), metric, config)


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
    run(model, task.train.images[:1].to(task.device), lambda name, x, y: ran.append(name), names)
    return ran


def tune_above(model: nn.Module, name: str, task: Task, config: Config, share: float) -> nn.Module:
    """Fix the layer and all that runs before it, statistics too, and train what runs after it (§3.5)."""
    ran = as_they_run(model, task)
    cut = 1 + max(place for place, part in enumerate(ran) if part.startswith(name))
    fixed, above = ([model.get_submodule(part) for part in parts] for parts in (ran[:cut], ran[cut:]))
    model.requires_grad_(False)
    for part in above:
        part.requires_grad_(True)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        for part in fixed:
            part.eval()
        return cross_entropy(model, x, y)

    if above:
        fit(model, task, loss, share=share, lr=config.rate)
    return model.requires_grad_(True)


def cascade(model: nn.Module, task: Task, config: Config, approximate: Callable[[nn.Module, str, bool], nn.Module]) -> nn.Module:
    """From the bottom up: approximate a layer, then tune all layers above it (§4)."""
    firsts, kept = plan(model, config)
    name_the_kept("Biclustering needs a convolution of many channels", firsts, kept)
    names = [name for name in as_they_run(model, task) if name in firsts]
    for place, name in enumerate(names):
        model = replaced(model, {name: approximate(model, name, firsts[name])})
        turn = replace(task, seed=task.seed + 1000 * place)  # other batches each time
        model = tune_above(model, name, turn, config, 1 / len(names))
    return model


def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    return cascade(model, task, config, lambda model, name, first: approximated(model, name, first, task, config))


def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    def cut(model: nn.Module, name: str, first: bool) -> nn.Module:
        layer = model.get_submodule(name)
        unit = layer.weight[0].numel() + len(layer.weight)
        return truncated_svd(layer, max(1, round(work(layer, first, config) / unit)))

    return cascade(model, task, config, cut)


def control_frobenius(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    return compress(model, task, replace(config, metric="frobenius"))

"""Asymmetric 3D (Zhang et al., IEEE TPAMI 2016).

A convolution becomes one of fewer filters and a 1x1 convolution, chosen so that what leaves the ReLU stays the same.
With an auxiliary response for every sampled one, two easy problems alternate: a regression of reduced rank, solved by a
generalised SVD, and a choice for each number by itself. Layers follow from the first to the last: what comes in has
passed the approximated layers, the aim is the original answer. Ranks keep the largest product of PCA energies within a
budget of multiply-adds. A third factor comes from splitting the square kernels into columns and rows.

Departures: batch norm is first folded into its convolution, so that a response is what the ReLU sees; a layer that no
ReLU follows alone (one before a shortcut's sum) takes the linear solution; the budget counts the 1x1 convolutions too;
a few places of each map are sampled, our number; the first convolution stays, and so do grouped ones, dense layers and,
where columns and rows are wanted, kernels of one column or row. In a smoke run fewer images and iterations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from methods.kit import quant
from methods.kit.layers import (
    chunks,
    entering,
    filled,
    geometry,
    name_the_kept,
    replaceable,
    replaced,
    run,
    truncated_svd,
    within,
)  # fmt: skip
from methods.kit.nets import trained
from methods.kit.task import Task, on_copies
from methods.low_rank.jaderberg_low_rank import scheme2

Factors = tuple[Tensor, Tensor, Tensor]  # P (d, d'), Q^T (d', d) and b (d): y ~ P Q^T y + b
Ranks = tuple[int, int]  # d' filters, and d'' maps between columns and rows; 0 where the kernel stays square
Rule = Callable[..., dict[str, int]]  # ranks from what `select` gets
Feed = Callable[[nn.Module, nn.Module], nn.Module]  # which network feeds the next layer, of the approximated and the original one


@dataclass(frozen=True)
class Config:
    speedup: float = 4.0  # multiply-adds of the layers over those of their factors; abstract, there of the whole network
    spatial: float = 0.5  # exponent of the part that columns and rows take: sqrt(r), §3.5; 0 keeps the kernels square
    images: int = 3000  # unlabelled, Figure 2
    places: int = 5  # of each map
    penalties: tuple[float, ...] = 25 * (0.01,) + 25 * (1.0,)  # lambda, one an iteration, §3.2; none for the linear solution


# A speed-up of 4 costs this network little, whoever factors it, and thousands of images take minutes.
SMOKE = Config(speedup=10, images=96, places=16, penalties=4 * (0.01,) + 4 * (1.0,))
SWEEP = tuple(replace(SMOKE, speedup=r) for r in (2, 3, 5, 12))


def reference(task: Task) -> nn.Module:
    """Full convolutions and no shortcuts, like the paper's networks."""
    return trained("vgg_wide", task.name)


def regression(y: Tensor, inverse: Tensor, z: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """min over M of sum_i || z_i - zbar - M y_i ||^2 with rank(M) <= d' (§3.2): centred y (n, d), (Y Y^T)^-1 and z (n, d)."""
    cross = z.T @ y  # Z Y^T: y is centred
    best = cross @ inverse  # of any rank: Z Y^T (Y Y^T)^-1 = U S V^T with U^T U = I and V^T Y Y^T V = I
    p = torch.linalg.eigh(best @ cross.T)[1][:, -rank:]  # U_d': this is U S^2 U^T
    return p, p.T @ best  # M = U_d' S_d' V_d'^T = U_d' U_d'^T best


def nearest(y: Tensor, guess: Tensor, penalty: float) -> Tensor:
    """min over z of (r(y) - r(z))^2 + lambda (z - y')^2 for each number (§3.2): the better of the best z <= 0 and z >= 0."""
    goal = y.relu()
    low, high = guess.clamp(max=0), ((penalty * guess + goal) / (penalty + 1)).relu()
    worse = goal**2 + penalty * (low - guess) ** 2 > (goal - high) ** 2 + penalty * (high - guess) ** 2
    return torch.where(worse, high, low)


def approximation(seen: Tensor, y: Tensor, rank: int, penalties: Iterable[float]) -> Factors:
    """min sum_i || r(y_i) - r(M yhat_i + b) ||^2 (§3.2, §3.3) from the linear solution on; without penalties that one."""
    mean = seen.mean(0)
    seen = seen - mean
    inverse = torch.linalg.pinv(seen.T @ seen, rtol=1e-10, hermitian=True)
    (p, q), b = regression(seen, inverse, y, rank), y.mean(0)
    for penalty in penalties:
        z = nearest(y, seen @ q.T @ p.T + b, penalty)
        (p, q), b = regression(seen, inverse, z, rank), z.mean(0)  # b = zbar - M ybar
    return p, q, b - p @ (q @ mean)


def sampled(maps: Tensor, places: int, seed: int) -> Tensor:
    """Responses (N, d, H, W) at some places of each image's maps, the same ones for the same seed: (N places, d)."""
    flat, chance = maps.flatten(2), torch.Generator().manual_seed(seed)
    pick = torch.rand(len(flat), 1, flat.shape[2], generator=chance).argsort()[..., :places]
    pick = pick.to(maps.device).expand(-1, flat.shape[1], -1)
    return flat.gather(2, pick).transpose(1, 2).flatten(0, 1).double()


def thinned(chain: nn.Sequential, factors: Factors) -> nn.Sequential:
    """The last layer of the chain with d' filters, W' = Q^T W, and a 1x1 convolution P behind it (§3.1)."""
    (*columns, last), (p, q, b) = chain, factors
    thin = nn.Conv2d(last.in_channels, len(q), **geometry(last), bias=False)
    weight = torch.einsum("rd,d...->r...", q, last.weight.double())
    parts = filled(last, [thin, nn.Conv2d(len(q), len(p), 1)], [weight, p])
    parts[1].bias = nn.Parameter((p @ q @ quant.bias_of(last).double() + b).to(last.weight))
    return nn.Sequential(*columns, *parts)


def energies(y: Tensor) -> Tensor:
    """Eigenvalues of Y Y^T, centred, the largest first (§3.1)."""
    y = y - y.mean(0)
    return torch.linalg.eigvalsh(y.T @ y).flip(0).clamp(min=1e-30)


def select(spectra: dict[str, Tensor], unit: dict[str, float], whole: dict[str, float], speedup: float) -> dict[str, int]:
    """max prod_l sum_{a <= d'_l} sigma_l,a under a budget (§3.4): again and again drop the eigenvalue that costs least energy.

    `unit` is what one unit of a layer's rank costs, `whole` the layer. Raises ValueError where rank one is too much.
    """
    ranks, kept = {name: len(spectrum) for name, spectrum in spectra.items()}, {name: s.cumsum(0) for name, s in spectra.items()}
    while sum(unit[name] * rank for name, rank in ranks.items()) > sum(whole.values()) / speedup:
        measure = {name: float(spectra[name][k - 1] / kept[name][k - 1]) / unit[name] for name, k in ranks.items() if k > 1}
        if not measure:
            raise ValueError(f"a speed-up of {speedup:g} cannot be had: with one filter each, layers cost more")
        ranks[min(measure, key=lambda name: measure[name])] -= 1
    return ranks


def between(layer: nn.Conv2d, rank: int, share: float) -> int:
    """Maps d'' that make columns and d' rows cost this share of d' square filters (§3.5); columns run before the row's stride."""
    c, d, e = layer.weight.shape[1:]
    return int(share * c * d * e * rank / (c * d * layer.stride[1] + e * rank)) if share < 1 else 0


def plan(network: nn.Module, task: Task, config: Config, rule: Rule = select) -> tuple[dict[str, Ranks], dict[str, Tensor]]:
    """The ranks of every layer that gets cheaper, and its original responses; logs why each other layer stays as it is."""
    share = config.speedup**-config.spatial
    some, unit, whole = dict[str, list[Tensor]](), dict[str, float](), dict[str, float]()

    def why_not(layer: nn.Conv2d, first: bool) -> str:
        reason = "a kernel of {}x{} has no columns and rows to split into".format(*layer.kernel_size)
        return "sees raw pixels, where there is little work to save" if first else reason if share < 1 and 1 in layer.kernel_size else ""

    def note(name: str, x: Tensor, y: Tensor) -> None:
        weight, area = layers[name].weight, y[0, 0].numel()
        some.setdefault(name, []).append(sampled(y, config.places, task.seed + len(some.get(name, []))))
        unit[name], whole[name] = area * (share * weight[0].numel() + len(weight)), area * weight.numel()

    layers, kept = replaceable(network, why_not, **within(task))
    for part in chunks(network, task.train.first(config.images).images.to(task.device)):
        run(network, part, note, layers)
    answers = {name: torch.cat(parts) for name, parts in some.items()}
    chosen = rule({name: energies(y) for name, y in answers.items()}, unit, whole, config.speedup)
    kept |= {name: f"a rank of {rank} saves nothing" for name, rank in chosen.items() if unit[name] * rank >= whole[name]}
    ranks = {name: (rank, between(layers[name], rank, share)) for name, rank in chosen.items() if name not in kept}
    name_the_kept("asymmetric reconstruction needs a wide convolution behind the first", ranks, kept)
    return ranks, answers


def relu_follows(network: fx.GraphModule) -> set[str]:
    """The layers whose answer goes to a ReLU and nowhere else."""
    readers = {str(node.target): list(node.users) for node in quant.layer_nodes(network)}
    return {name for name, users in readers.items() if len(users) == 1 and quant.operation(network, users[0]) in quant.RELU}


@torch.no_grad()
def rebuild(model: nn.Module, task: Task, config: Config, rule: Rule = select, feed: Feed = lambda small, whole: small) -> nn.Module:
    """Fold batch norm, choose ranks; then let each layer aim at its original answer, whatever comes in (§3.3).

    `feed` says which network feeds the next layer: the approximated one makes it asymmetric.
    """
    images = task.train.first(config.images).images.to(task.device)
    network = quant.fold_batch_norm(model, task.exclude, images[:1])[0]
    ranks, answers = plan(network, task, config, rule)
    small, nonlinear, parts = copy.deepcopy(network), relu_follows(network), chunks(network, images)
    for name, (rank, maps) in ranks.items():
        layer = network.get_submodule(name)
        chain = scheme2(layer, maps) if maps else nn.Sequential(layer)  # columns and rows that come closest to the kernel (§3.5)
        fed = enumerate(entering(feed(small, network), parts, name))
        seen = torch.cat([sampled(chain(x), config.places, task.seed + number) for number, (x, _) in fed])
        thin = thinned(chain, approximation(seen, answers[name], rank, config.penalties if name in nonlinear else ()))
        small = replaced(small, {name: thin})
    return small.eval()


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Asymmetric reconstruction with ranks by PCA energy."""
    return rebuild(model, task, config)


def renewed(small: nn.Module, network: nn.Module) -> list[str]:
    """The convolutions of the network that are chains in the small one."""
    every = (name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    return [name for name in every if isinstance(small.get_submodule(name), nn.Sequential)]


@on_copies
def control_svd(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same layers as truncated SVDs of their weights, of as many multiply-adds; no data."""
    network, parts = quant.fold_batch_norm(model, task.exclude)[0], dict[str, nn.Module]()
    for name in renewed(like, network):
        layer, (*columns, thin, mix) = network.get_submodule(name), [part.weight.numel() for part in like.get_submodule(name)]
        work = layer.stride[1] * sum(columns) + thin + mix  # for one place; columns run at every place of a row, before its stride
        parts[name] = truncated_svd(layer, max(1, round(work / (layer.weight[0].numel() + len(layer.weight)))))
    return replaced(network, parts)


@on_copies
def control_linear(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same without the ReLU in the aim."""
    return rebuild(model, task, replace(config, penalties=()))


@on_copies
def control_symmetric(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same with every layer fitted to what the original network feeds it."""
    return rebuild(model, task, config, feed=lambda small, whole: whole)


@on_copies
def control_square(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The same multiply-adds without columns and rows."""
    return rebuild(model, task, replace(config, spatial=0.0))

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
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, fx, nn

from methods.kit import quant
from methods.kit.lab import Lab
from methods.kit.layers import (
    chunks,
    entering,
    filled,
    geometry,
    name_the_kept,
    replaceable,
    replaced,
    responses,
    run,
    truncated_svd,
    within,
)  # fmt: skip
from methods.kit.measure import multiply_adds
from methods.kit.nets import Residual, conv_bn, trained
from methods.kit.task import Task, on_copies
from methods.kit.testing import images_only
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
    low, high = guess.clamp(max=0), ((penalty * guess + goal) / (penalty + 1)).relu()  # equivalent: a negative one never wins
    worse = goal**2 + penalty * (low - guess) ** 2 > (goal - high) ** 2 + penalty * (high - guess) ** 2
    return torch.where(worse, high, low)


def approximation(seen: Tensor, y: Tensor, rank: int, penalties: Iterable[float]) -> Factors:
    """min sum_i || r(y_i) - r(M yhat_i + b) ||^2 (§3.2, §3.3) from the linear solution on; without penalties that one."""
    mean = seen.mean(0)
    seen = seen - mean
    inverse = torch.linalg.pinv(seen.T @ seen, rtol=1e-10, hermitian=True)  # equivalent: any cut above rounding
    (p, q), b = regression(seen, inverse, y, rank), y.mean(0)
    for penalty in penalties:
        z = nearest(y, seen @ q.T @ p.T + b, penalty)
        (p, q), b = regression(seen, inverse, z, rank), z.mean(0)  # b = zbar - M ybar
    return p, q, b - p @ (q @ mean)


def sampled(maps: Tensor, places: int, seed: int) -> Tensor:
    """Responses (N, d, H, W) at some places of each image's maps, the same ones for the same seed: (N places, d)."""
    flat, chance = maps.flatten(2), torch.Generator().manual_seed(seed)  # equivalent: other places of the same maps
    pick = torch.rand(len(flat), 1, flat.shape[2], generator=chance).argsort()[..., :places]
    pick = pick.to(maps.device).expand(-1, flat.shape[1], -1)  # equivalent: on the CPU already
    return flat.gather(2, pick).transpose(1, 2).flatten(0, 1).double()  # equivalent: two dimensions swap either way


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
    return torch.linalg.eigvalsh(y.T @ y).flip(0).clamp(min=1e-30)  # equivalent: only dead layers have none, and any tiny one will do


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
        weight, area = layers[name].weight, y[0, 0].numel()  # equivalent: all maps are alike
        some.setdefault(name, []).append(sampled(y, config.places, task.seed + len(some.get(name, []))))
        unit[name], whole[name] = area * (share * weight[0].numel() + len(weight)), area * weight.numel()

    layers, kept = replaceable(network, why_not, **within(task))
    for part in chunks(network, task.train.first(config.images).images.to(task.device)):  # equivalent: on the CPU already
        run(network, part, note, layers)
    answers = {name: torch.cat(parts) for name, parts in some.items()}
    chosen = rule({name: energies(y) for name, y in answers.items()}, unit, whole, config.speedup)
    kept |= {name: f"a rank of {rank} saves nothing" for name, rank in chosen.items() if unit[name] * rank >= whole[name]}
    ranks = {name: (rank, between(layers[name], rank, share)) for name, rank in chosen.items() if name not in kept}
    name_the_kept("asymmetric reconstruction needs a wide convolution behind the first", ranks, kept)
    return ranks, answers


def relu_follows(network: fx.GraphModule) -> set[str]:
    """The layers whose answer goes to a ReLU and nowhere else."""
    readers = {str(node.target): list(node.users) for node in quant.layer_nodes(network)}  # equivalent: a string already
    return {name for name, users in readers.items() if len(users) == 1 and quant.operation(network, users[0]) in quant.RELU}


@torch.no_grad()
def rebuild(model: nn.Module, task: Task, config: Config, rule: Rule = select, feed: Feed = lambda small, whole: small) -> nn.Module:
    """Fold batch norm, choose ranks; then let each layer aim at its original answer, whatever comes in (§3.3).

    `feed` says which network feeds the next layer: the approximated one makes it asymmetric.
    """
    images = task.train.first(config.images).images.to(task.device)  # equivalent: on the CPU already
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


@torch.no_grad()
def claim_symmetric_linear_is_pca(lab: Lab) -> float:
    """Largest difference from the responses that NumPy's singular vectors restore, of the largest, and from their energies."""
    torch.manual_seed(0)
    y = torch.randn(300, 12).double() @ torch.randn(12, 12).double() + 3
    mean = y.numpy().mean(0)
    u, spectrum, axes = np.linalg.svd(y.numpy() - mean, full_matrices=False)  # scores and axes of the PCA
    worst = float(np.abs(energies(y).numpy() / spectrum**2 - 1).max())
    for rank in (1, 5, 11):
        p, q, b = approximation(y, y, rank, [])
        restored = (u * spectrum)[:, :rank] @ axes[:rank] + mean
        worst = max(worst, float(np.abs((y @ q.T @ p.T + b).numpy() - restored).max() / y.abs().max()))
    return worst


def claim_regression_is_optimal(lab: Lab) -> float:
    """Largest relative difference of the squared error from the least that quasi-Newton steps over P, Q and b find."""
    chance, worst = np.random.default_rng(0), 0.0
    for n, d, rank, dims in ((40, 4, 2, 4), (30, 5, 1, 3)):
        seen = 2 + chance.standard_normal((n, dims)) @ chance.standard_normal((dims, d))
        z = seen @ chance.standard_normal((d, d)) + chance.standard_normal((n, d)) - 5

        def error(v: Any, z: Any = z, seen: Any = seen, shape: tuple[int, int] = (d, rank)) -> float:
            q, p, b = np.split(v, [math.prod(shape), 2 * math.prod(shape)])
            return float(np.square(z - seen @ q.reshape(shape) @ p.reshape(shape).T - b).sum())

        p, q, b = approximation(torch.from_numpy(seen), torch.from_numpy(z), rank, [])
        least = min(minimize(error, chance.standard_normal(2 * d * rank + d)).fun for _ in range(2))
        worst = max(worst, abs(error(torch.cat([q.T.flatten(), p.flatten(), b]).numpy()) / least - 1))
    return worst


def claim_nearest_is_best(lab: Lab) -> float:
    """Most by which any number of a fine grid beats the closed form."""
    grid, worst = torch.linspace(-4, 4, 801).double(), 0.0
    values = torch.linspace(-3, 3, 13).double()
    y, guess = (part.flatten() for part in torch.meshgrid(values, values + 0.1, indexing="ij"))

    def cost(z: Tensor, penalty: float) -> Tensor:
        return (y.clamp(min=0) - z.clamp(min=0)) ** 2 + penalty * (z - guess) ** 2

    for penalty in (0.01, 0.3, 1.0, 20.0):
        least = torch.stack([cost(z, penalty) for z in grid]).amin(0)
        worst = max(worst, float((cost(nearest(y, guess, penalty), penalty) - least).max()))
    return worst


def claim_ignores_what_relu_cuts(lab: Lab) -> float:
    """Error behind the ReLU, of the linear solution's, where the responses that vary most never get through."""
    torch.manual_seed(0)
    y = torch.cat([torch.randn(400, 3) @ torch.randn(3, 6), 4 * torch.randn(400, 3) @ torch.randn(3, 6) - 40], 1).double()

    def error(penalties: Iterable[float]) -> float:
        p, q, b = approximation(y, y, 3, penalties)
        return float(((y @ q.T @ p.T + b).relu() - y.relu()).norm())

    return error(Config().penalties) / error(())


@torch.no_grad()
def claim_rounds_lower_relaxed_error(lab: Lab) -> float:
    """Largest ratio of the relaxed error after a round to that before it, and of a penalty to the next; more where a mean is off."""
    torch.manual_seed(0)
    y, penalties = torch.randn(300, 8).double() @ torch.randn(8, 8).double() + 0.5, Config().penalties[19:31]  # six of each
    seen, worst = y + 0.3 * torch.randn_like(y) + 2, 0.0

    def relaxed(factors: Factors, penalty: float) -> tuple[Tensor, Tensor, float]:
        """What takes the place of the responses, the best z for it, and their error."""
        p, q, b = factors
        z = nearest(y, guess := seen @ q.T @ p.T + b, penalty)
        return guess, z, float((y.relu() - z.relu()).square().sum() + penalty * (z - guess).square().sum())

    rounds = itertools.pairwise(approximation(seen, y, 3, penalties[:done]) for done in range(len(penalties) + 1))
    for penalty, (old, new) in zip(penalties, rounds, strict=True):
        (_, z, before), (guess, _, after) = relaxed(old, penalty), relaxed(new, penalty)
        worst = max(worst, after / before, 1 + float((guess.mean(0) - z.mean(0)).abs().max()))  # b = zbar - M ybar
    return max(worst, *(before / after for before, after in itertools.pairwise(Config().penalties)))


@torch.no_grad()
def claim_full_rank_reproduces_layer(lab: Lab) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    torch.manual_seed(0)
    worst, images = 0.0, torch.randn(60, 6, 9, 10)
    cases = [
        (nn.Conv2d(6, 8, 3, stride=(1, 2), padding=(2, 1)), 8, 0),
        (nn.Conv2d(6, 7, (3, 2), dilation=(1, 2), padding=2, padding_mode="circular", bias=False), 7, 14),
        (nn.Conv2d(6, 5, 3, stride=(2, 1), padding="valid"), 5, 15),
        (nn.Conv2d(6, 9, 1, stride=2), 6, 0),
        (nn.Conv2d(6, 8, 3, padding="same").double(), 8, 18),
    ]
    cases[0][0].weight.data[1:3] = cases[0][0].weight.data[:1]  # not of full rank
    for layer, rank, maps in cases:
        x = images.to(layer.weight)
        chain = scheme2(layer, maps) if maps else nn.Sequential(layer)
        chain = thinned(chain, approximation(sampled(chain(x), 20, 0), sampled(layer(x), 20, 0), rank, [0.01, 1]))
        worst = max(worst, float((chain(x) - layer(x)).abs().max() / layer(x).abs().max()))
    return worst


def stack(act: type[nn.Module]) -> nn.Module:
    """Four convolutions, the first three with a batch norm that has something to fold."""
    torch.manual_seed(0)
    model = nn.Sequential(
        conv_bn(3, 12, act=act), conv_bn(12, 16, 3, 2, 1, act), conv_bn(16, 20, act=act), nn.Conv2d(20, 24, 3), act()
    ).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                torch.nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]
    return model


@torch.no_grad()
def claim_means_are_kept(lab: Lab) -> float:
    """Largest distance of an approximated layer's mean answer from the original one's, in deviations, on the images it was fitted to."""
    model, worst, images = stack(nn.Tanh), 0.0, torch.randn(40, 3, 12, 12)  # no ReLU: linear solutions
    small = compress(model, images_only(images), Config(speedup=3, places=1000))
    wanted, found = responses(model, images, ["1.bn", "2.bn", "3"]), responses(small, images, ["1.conv", "2.conv", "3"])
    for before, after in zip(wanted.values(), found.values(), strict=True):
        shift = (before.mean((0, 2, 3)) - after.mean((0, 2, 3))).abs() / before.std((0, 2, 3))
        worst = max(worst, float(shift.max()), float(torch.equal(before, after)))
    return worst


@torch.no_grad()
def claim_relu_and_order_count(lab: Lab) -> float:
    """Error that is left behind the last ReLU, of that of the linear or the symmetric reconstruction, on the images fitted to."""
    model, images = stack(nn.ReLU), torch.randn(40, 3, 12, 12)
    task, config = images_only(images), Config(speedup=3, spatial=0.0, places=1000, penalties=5 * (0.01,) + 5 * (1.0,))
    small = compress(model, task, config)
    nets = (small, control_linear(model, task, config, small), control_symmetric(model, task, config, small))
    ours, *others = (float((net(images) - model(images)).norm()) for net in nets)
    return ours / min(others)


def claim_greedy_ranks_nearly_best(lab: Lab) -> float:
    """Least product of energies, of the largest among all ranks that cost no more; 0 where the budget is missed or not used."""
    chance, worst = np.random.default_rng(0), 1.0
    for _ in range(12):
        spectra = {name: torch.from_numpy(np.sort(chance.exponential(size=7) ** chance.uniform(0.2, 1))[::-1].copy()) for name in "abc"}
        unit = {name: float(chance.uniform(1, 4)) for name in spectra}
        whole = {name: 5 * unit[name] for name in spectra}

        def cost(ranks: Iterable[int], unit: dict[str, float] = unit) -> float:
            return sum(price * rank for price, rank in zip(unit.values(), ranks, strict=True))

        def energy(ranks: Iterable[int], spectra: dict[str, Tensor] = spectra) -> float:
            return math.prod(float(s[:rank].sum()) for s, rank in zip(spectra.values(), ranks, strict=True))

        spent = cost(ranks := select(spectra, unit, whole, speedup := float(chance.uniform(1.2, 4))).values())
        best = max(energy(other) for other in itertools.product(range(1, 8), repeat=3) if cost(other) <= spent)
        budget = sum(whole.values()) / speedup
        worst = min(worst, energy(ranks) / best * (spent <= budget < spent + max(unit.values())))
    return worst


def alike(spectra: dict[str, Tensor], unit: dict[str, float], whole: dict[str, float], speedup: float) -> dict[str, int]:
    """The ranks that make every layer so much cheaper."""
    return {name: max(1, int(whole[name] / speedup / unit[name])) for name in spectra}


@torch.no_grad()
def claim_each_layer_its_ranks(lab: Lab) -> float:
    """How many layers are planned wrongly or take other than d'' k (c + d') + d' d multiply-adds a place, or are not worth it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 24, (5, 3), (1, 2), (0, 1)), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=2),
        nn.Conv2d(24, 18, 1), nn.ReLU(), nn.Conv2d(18, 20, (1, 5)), nn.ReLU(), nn.Conv2d(20, 40, 3, padding=1),
        nn.Conv2d(40, 1, 3, padding=1), nn.Flatten(), nn.Linear(156, 30),
    ).eval()  # fmt: skip
    wrong, images = 0, torch.randn(24, 3, 20, 40)
    task, folded = images_only(images), quant.fold_batch_norm(model)[0]
    area = {name: y[0, 0].numel() for name, y in responses(model, images, ["2", "5", "7", "9", "10"]).items()}
    for spatial, names in ((0.5, ["2", "9", "10"]), (0.0, ["2", "7", "9"])):
        config = Config(speedup=3.0, spatial=spatial, penalties=())
        (ranks, answers), (same, _) = (plan(folded, task, config, rule) for rule in (select, alike))
        chosen, uniform = (math.prod(float(energies(answers[name])[: some[name][0]].sum()) for name in ranks) for some in (ranks, same))
        wrong += (not chosen > uniform) + any(len(answer) != len(images) * config.places for answer in answers.values())
        small = compress(model, task, config)
        wrong += (list(ranks) != names) + (renewed(small, model) != names)
        saved = spent = slack = 0.0
        for name, (rank, maps) in ranks.items():
            layer, widths = model.get_submodule(name), [len(part.weight) for part in small.get_submodule(name)]
            (n, c, d, e), price = layer.weight.shape, layer.weight[0].numel() * rank
            if spatial:
                strip = c * d * layer.stride[1] + e * rank  # columns and rows by way of one map
                wrong += not 0 <= price / 3**spatial - maps * strip < strip
                price = maps * strip
            wrong += widths != [*([maps] if spatial else []), rank, n]
            spent, saved = spent + area[name] * (price + rank * n), saved + area[name] * (layer.weight.numel() - price - rank * n)
            slack += area[name] * (layer.weight[0].numel() + n) / 2
        whole = sum(area[name] * model.get_submodule(name).weight.numel() for name in ({*names, "10"} if spatial else area))
        wrong += not 0.7 < 3 * spent / whole <= 1
        costs = [multiply_adds(net, images[:1]) for net in (model, small, control_svd(model, task, config, small))]
        wrong += (costs[0] - costs[1] != saved) + (abs(costs[2] - costs[1]) > slack)  # the control's ranks are rounded
    return wrong


def claim_knows_what_relu_sees(lab: Lab) -> float:
    """How many layers of a network are taken wrongly for followed, or not followed, by a ReLU alone."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.a, self.b = conv_bn(3, 8), Residual(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(self.block(self.stem(x))))
            return (y := self.b(x)) * y.relu()

    return len(relu_follows(quant.fold_batch_norm(Mixed())[0]) ^ {"stem.conv", "block.first.conv", "a"})


@torch.no_grad()
def claim_lower_error_than_linear(lab: Lab) -> float:
    """Error behind the ReLU on held-out images, of that of the linear solution: the geometric mean over layers."""
    images, names = lab.task.test.images[:128].to(lab.task.device), renewed(lab.compressed, lab.reference)
    whole = quant.fold_batch_norm(lab.reference)[0]
    wanted, found, linear = (responses(network, images, names) for network in (whole, lab.compressed, lab.controlled("linear")))
    errors = [[float((some[name].relu() - wanted[name].relu()).norm()) for name in names] for some in (found, linear)]
    return float(np.exp(np.mean(np.log(errors[0]) - np.log(errors[1]))))


@torch.no_grad()
def claim_makes_up_for_earlier_layers(lab: Lab) -> float:
    """Error of the logits on held-out images, of that of the symmetric reconstruction."""
    images = lab.task.test.images[:128].to(lab.task.device)
    wanted = lab.reference(images)
    return float((lab.compressed(images) - wanted).norm() / (lab.controlled("symmetric")(images) - wanted).norm())


def claim_saves_multiply_adds(lab: Lab) -> float:
    return lab.after.multiply_adds / lab.before.multiply_adds


def claim_beats_weight_svd(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("svd").accuracy


def claim_columns_and_rows_help(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("square").accuracy


def claim_chosen_ranks_help(lab: Lab) -> float:
    """Accuracy with chosen ranks over that with one speed-up for all layers, both with square kernels as in Table 6."""
    uniform = rebuild(lab.reference, lab.task, replace(lab.config, spatial=0.0), rule=alike)
    return lab.control("square").accuracy - lab.task.score(uniform, lab.task.test)


def claim_nonlinear_keeps_more_accuracy(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("linear").accuracy


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy

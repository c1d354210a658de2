"""The claims of LASSO channel pruning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import lasso_path
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.measure import multiply_adds
from methods.kit.surgery import by_l1_norm, first_ones, narrower, norm_after, readers, widths
from methods.kit.testing import odd_network, odd_task, relative_error, trace
from methods.kit.watch import rehearsal
from methods.pruning import lasso_channel_pruning as method

MAKER = nn.Conv2d(1, 1, 1)


def claim_lasso_as_by_coordinate_descent(lab: Lab) -> float:
    """How many channels are chosen otherwise than by scikit-learn's coordinate descent with a penalty that grows until few enough stay."""
    chance, wrong = np.random.default_rng(0), 0
    for channels, counts in ((6, (1, 3, 5)), (12, (2, 6, 9))):
        z = chance.standard_normal((200, channels)) @ chance.standard_normal((channels, channels)) + 0.5
        y = z.sum(1) + chance.standard_normal(200)
        penalties = np.abs(z.T @ y).max() / 200 * np.geomspace(1, 1e-4, 2000)
        betas = lasso_path(z, y, alphas=penalties, tol=1e-10, max_iter=100_000)[1]
        for count in counts:
            few = np.flatnonzero((betas != 0).sum(0) <= count)[-1]
            found = method.lasso("", MAKER, torch.from_numpy(z.T @ z), torch.from_numpy(z.T @ y), count)
            wrong += len(set(np.flatnonzero(betas[:, few])) - set(found)) + (len(found) != count)
    return wrong


Cases = list[tuple[Any, Tensor, tuple[int, ...]]]


def _layers() -> Cases:
    """Layers, which channel each input is, and the size of their maps."""
    each = torch.arange(4)
    return [
        (nn.Conv2d(4, 3, 3, stride=(2, 1), padding=(1, 2)).double(), each, (7, 6)),
        (nn.Conv2d(6, 5, (1, 2), bias=False, padding="same", padding_mode="circular").double(), torch.tensor([-1, 0, 1, 2, 3, -1]), (5, 5)),
        (nn.Linear(8, 3).double(), each.repeat_interleave(2), ()),
    ]


def _unfolded(layer: Any, x: Tensor) -> Tensor:
    """What the layer multiplies at every place (places, C d e), by convolutions with a single one."""
    if isinstance(layer, nn.Linear):
        return x
    ones = torch.eye(layer.weight[0].numel()).double().view(-1, *layer.weight.shape[1:])
    probe = copy.deepcopy(layer)
    probe.weight, probe.bias, probe.out_channels = nn.Parameter(ones), None, len(ones)
    return probe(x).permute(0, 2, 3, 1).flatten(0, 2)


def _flat(answer: Tensor) -> Tensor:
    return answer if answer.ndim == 2 else answer.permute(0, 2, 3, 1).flatten(0, 2)


def _posed(seed: int = 0) -> list[tuple[Any, Tensor, Tensor, Tensor, method.Samples]]:
    """Layers, their channels, images (N, C, ...), answers to aim at (M, N), and the sums that the method works on."""
    torch.manual_seed(seed)
    found = []
    with torch.no_grad():
        for layer, whose, size in _layers():
            x = torch.randn(40, len(whose), *size).double()
            wanted, taken = _flat(layer(x + 0.2 * torch.randn_like(x))), _unfolded(layer, x)
            found.append((layer, whose, x, wanted, (taken.T @ taken, taken.T @ (wanted - _flat(layer(x))))))
    return found


@torch.no_grad()
def claim_regression_of_contributions(lab: Lab) -> list[float]:
    """Largest difference of Z^T Z and Z^T y from those of the layer's own answers to one channel alone, of the largest."""
    errors = list[float]()
    for layer, whose, x, wanted, samples in _posed():

        def answer(mine: Tensor, layer: Any = layer, x: Tensor = x) -> Tensor:
            some = x * (mine.view(1, -1, *[1] * (x.ndim - 2)))
            return _flat(layer(some) - layer(torch.zeros_like(x)))

        z = torch.stack([answer(whose == channel).flatten() for channel in range(4)], 1)
        aim = (wanted - _flat(layer(torch.zeros_like(x))) - answer(whose < 0)).flatten()
        for found, truth in zip(method.regression(layer, whose, samples), (z.T @ z, z.T @ aim), strict=True):
            errors.append(relative_error(found, truth))
    return errors


@torch.no_grad()
def claim_rebuilt_by_least_squares(lab: Lab) -> list[float]:
    """Largest relative difference of the squared error from that of NumPy's least squares; 1 where other weights have moved."""
    found = list[float]()
    for layer, whose, x, wanted, samples in _posed():
        stays, old, each = [2, 0], layer.weight.detach().clone(), layer.weight[0, 0].numel()
        kept = np.repeat(np.isin(whose.numpy(), stays), each)
        others = _unfolded(layer, x) * torch.from_numpy(np.repeat((whose < 0).numpy(), each)).double()
        bias = 0 if layer.bias is None else layer.bias
        aim = (wanted - bias - others @ old.flatten(1).T).numpy()
        least = np.linalg.lstsq(_unfolded(layer, x).numpy()[:, kept], aim, rcond=None)[0]
        method.reconstruct(layer, whose, samples, stays)
        new = layer.weight.detach().flatten(1).T.numpy()
        found.append(float(np.abs(new[kept] - least).max() / np.abs(least).max()))
        found.append(float((new[~kept] != old.flatten(1).T.numpy()[~kept]).any()))
    return found


@torch.no_grad()
def claim_no_worse_than_masking(lab: Lab) -> list[float]:
    """Squared error with rebuilt weights, of that with the old ones, whatever channels stay."""
    found = list[float]()
    for seed, stays in enumerate(([0], [1, 3], [0, 1, 2])):
        for layer, whose, x, wanted, samples in _posed(seed):
            inputs = torch.isin(whose, torch.tensor([*stays, -1])).view(1, -1, *[1] * (x.ndim - 2))
            before = (_flat(layer(x * inputs)) - wanted).square().sum()
            method.reconstruct(layer, whose, samples, stays)
            found.append(float((_flat(layer(x * inputs)) - wanted).square().sum() / before))
    return found


class Joined(nn.Module):
    """A branch (N, 4, H, W) whose last layer's answer meets a shortcut, in one of the ways in which people write it."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.join = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.bn(self.conv(x)), x)


@torch.no_grad()
def claim_shortcut_in_the_aim(lab: Lab) -> list[float]:
    """Largest difference of the answer to aim at, through its batch norm, from the sum behind it; without a sum, from the answer alone."""
    torch.manual_seed(0)
    found, x = list[float](), torch.randn(3, 4, 5, 5)
    ways: list[Callable[[Tensor, Tensor], Tensor]] = [torch.add, lambda y, x: y + x, lambda y, x: x + y, Tensor.add_]
    for join in ways:
        model = Joined(join).eval()
        for values in (model.bn.weight, model.bn.running_var):
            nn.init.uniform_(values, 0.5, 2)  # type: ignore[arg-type]
        seen, answer, added = method.passing(model, x, "conv", "bn")
        found += [float((model.bn(answer) - model(x)).abs().max()), float((seen - x).abs().max()), float(not added)]
    model = Joined(lambda y, x: F.relu(y) + x).eval()
    _, answer, added = method.passing(model, x, "conv", "bn")
    return [*found, float((answer - model.conv(x)).abs().max()), float(added)]


@torch.no_grad()
def claim_makes_up_for_the_shortcut(lab: Lab) -> float:
    """Largest difference of X^T R from that of what two networks' outputs, which are sums, differ by; of the largest. One place a map."""
    torch.manual_seed(0)
    whole, x = nn.Sequential(nn.Conv2d(4, 4, 1), Joined(torch.add)).double().eval(), torch.randn(30, 4, 1, 1).double()
    nn.init.uniform_(whole[1].bn.weight, 0.5, 2)  # type: ignore[union-attr, arg-type]
    small = copy.deepcopy(whole)
    nn.init.normal_(small[0].weight)  # type: ignore[arg-type]
    lack = (whole(x) - small(x)).flatten(1) / method.scale(small[1].bn).flatten()  # type: ignore[arg-type]
    wanted = 5 * F.pad(small[0](x), [1] * 4).flatten(1).T @ lack
    found = method.statistics(small, whole, {"1.conv": "1.bn"}, x, 5, 0)["1.conv"][1]
    return relative_error(found, wanted)


@torch.no_grad()
def claim_answers_at_the_places_of_inputs(lab: Lab) -> list[float]:
    """Largest difference of X^T R from X^T X times what two networks' kernels differ by, of the largest, where they alone differ."""
    torch.manual_seed(0)
    cases: list[tuple[Any, Tensor]] = [
        (nn.Conv2d(4, 3, 3, stride=(2, 1), padding=(1, 2)), torch.randn(6, 4, 7, 6)),
        (nn.Conv2d(4, 2, (1, 2), dilation=2, padding="same", padding_mode="reflect"), torch.randn(6, 4, 5, 8)),
        (nn.Linear(4, 3), torch.randn(6, 5, 4)),
    ]
    found = list[float]()
    for layer, x in cases:
        whole = nn.Sequential(layer).double()
        small = copy.deepcopy(whole)
        nn.init.normal_(small[0].weight)  # type: ignore[arg-type]
        products, lack = method.statistics(small, whole, {"0": "0"}, x.double(), 20, 0)["0"]
        wanted = products @ (layer.weight.flatten(1) - small[0].weight.flatten(1)).T  # type: ignore[union-attr, operator]
        found.append(relative_error(lack, wanted))
    return found


@torch.no_grad()
def claim_each_makes_up_for_those_before(lab: Lab) -> list[float]:
    """Largest difference of an output, of the largest, from a network whose layers NumPy fits to the original sums from what comes in."""
    model, task = odd_network().double(), odd_task()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
    task = task.to(torch.float64)
    config = method.Config(kept=0.4, shallow=0.5, images=48, places=60)
    images, image = task.train.sample(48, task.seed).images, task.train.first(1).images
    norms = norm_after(model, image)
    with rehearsal():
        small = method.compress(model, task, config)
    left, now = narrower(model, image, small), copy.deepcopy(model)
    for name, count in left.items():
        read = readers(now, image, [name])[name]
        lasts = {reader: norms.get(reader, reader) for reader in read}
        samples = method.statistics(now, model, lasts, images, config.places, task.seed)
        sums = [method.regression(now.get_submodule(reader), whose, samples[reader]) for reader, whose in read.items()]  # type: ignore[arg-type]
        stays = method.lasso(name, MAKER, sum(gram for gram, _ in sums), sum(cross for _, cross in sums), count)  # type: ignore[arg-type]
        for reader, whose in read.items():
            layer: Any = now.get_submodule(reader)
            kept = torch.isin(whose, torch.tensor(stays))
            products, lack = samples[reader]
            each = layer.weight[0, 0].numel()
            aim = lack + products @ layer.weight.flatten(1).T  # X^T of the answer to aim at, less the bias
            keep = kept.repeat_interleave(each).numpy()
            new = np.zeros((len(keep), len(layer.weight)))
            new[keep] = np.linalg.lstsq(products.numpy()[keep][:, keep], aim.numpy()[keep], rcond=None)[0]
            layer.weight.copy_(torch.from_numpy(new).T.reshape(layer.weight.shape))
    wanted, seen = now(images), small(images)
    wrong = [widths(small)[name] != count for name, count in {"0.conv": 10, "1.first.conv": 16, "2.conv": 17}.items()]
    return [relative_error(seen, wanted), float(sum(wrong))]


STAGES = [  # §3.2: the network as it is now beside the original one, layer after layer; the first is read by two
    "runs the given network on 40 images of train, eval mode (4 times)",
    "runs a network of 29,182 parameters on 40 images of train, eval mode",
    "runs the given network on 40 images of train, eval mode",
    "runs a network of 18,334 parameters on 40 images of train, eval mode",
    "runs the given network on 40 images of train, eval mode",
    "trains the returned network on 48 images of train, train mode, rate 0.01, 3 steps",  # §4.1.2
]


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from §3.2: layer after layer, the network as it is now beside the original one; one training at the end."""
    return float(trace(method, odd_network(), odd_task(), method.Config(kept=0.4, images=40, places=4, rate=0.01)) != STAGES)


def claim_speedup(lab: Lab) -> float:
    """Multiply-adds of the convolutions of VGG-16 over those of the released network."""
    whole, thin = (
        multiply_adds(nets.on_meta(lambda v=v: method.build(v)), torch.empty(1, 3, 224, 224, device="meta")) for v in ("vgg16", "vgg16_5x")
    )
    return whole / thin


@cache
def _posed_by(lab: Lab) -> list[tuple[str, int, dict[str, Tensor], dict[str, method.Samples], dict[str, method.Samples]]]:
    """Of every layer of the reference how many channels stay, by whom they are read, and sums of the images looked at and held out."""
    model, task, config = lab.reference, lab.task, lab.config
    images = [some.images.to(task.device) for some in (task.train.sample(config.images, task.seed), lab.held_out(128))]
    left, norms, found = narrower(model, images[0][:1], lab.compressed), norm_after(model, images[0][:1]), []
    for name, read in readers(model, images[0][:1], left).items():
        lasts = {reader: norms.get(reader, reader) for reader in read}
        fitted, judged = (method.statistics(model, model, lasts, some, config.places, task.seed) for some in images)
        found.append((name, left[name], read, fitted, judged))
    return found


def _errors(lab: Lab, choose: method.Choose, rebuilt: bool = True) -> Tensor:
    """Logarithm of the error that each layer's cut alone leaves in what the next one answers to held-out images."""
    found = list[float]()
    for name, count, read, fitted, judged in _posed_by(lab):
        layers: dict[str, Any] = {reader: copy.deepcopy(lab.reference.get_submodule(reader)) for reader in read}
        sums = [method.regression(layers[reader], whose, fitted[reader]) for reader, whose in read.items()]
        maker: Any = lab.reference.get_submodule(name)
        stays = choose(name, maker, sum(gram for gram, _ in sums), sum(cross for _, cross in sums), count)  # type: ignore[arg-type]
        for reader, whose in read.items():
            old = method.kernels(layers[reader])
            if rebuilt:
                method.reconstruct(layers[reader], whose, fitted[reader], stays)
            gone = ~torch.isin(whose, torch.tensor(stays)) & (whose >= 0)
            new = method.kernels(layers[reader]) * ~gone.repeat_interleave(len(old) // len(whose))[:, None]
            products, far = judged[reader][0], new - old
            found.append(float((far * (products @ far)).sum() / (old * (products @ old)).sum()))
    return torch.tensor(found).log()


def _over(lab: Lab, choose: method.Choose, rebuilt: bool = True) -> float:
    return float((_errors(lab, method.lasso) - _errors(lab, choose, rebuilt)).mean().exp())


def claim_lower_error_than_first(lab: Lab) -> float:
    """Geometric mean of the layers' errors, over that of the first channels."""
    return _over(lab, method.the_first(first_ones))


def claim_lower_error_than_response(lab: Lab) -> float:
    """Geometric mean of the layers' errors, over that of the channels whose filters are largest."""
    return _over(lab, method.the_first(by_l1_norm))


def claim_rebuilding_lowers_error(lab: Lab) -> float:
    """Geometric mean of the layers' errors, over that of the same channels with their old weights."""
    return _over(lab, method.lasso, rebuilt=False)


def claim_beats_first(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("first").accuracy


def claim_beats_response(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("response").accuracy


def claim_rebuilding_helps(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("masked").accuracy


def claim_beats_first_in_minutes(lab: Lab) -> float:
    return claim_beats_first(lab)


def claim_beats_response_in_minutes(lab: Lab) -> float:
    return claim_beats_response(lab)


def claim_rebuilding_helps_in_minutes(lab: Lab) -> float:
    return claim_rebuilding_helps(lab)


def claim_keeps_accuracy(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy

"""The claims of T-Net."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from itertools import product

import numpy as np
import tensorly as tl
import torch
from tensorly.decomposition import tensor_train
from tensorly.tenalg import mode_dot
from torch import Tensor, nn

from methods.kit.lab import Lab
from methods.kit.layers import fresh
from methods.kit.nets import count
from methods.kit.task import Task
from methods.kit.testing import relative_error
from methods.kit.train import fit
from methods.low_rank import t_net as method


@torch.no_grad()
def claim_full_rank_reproduces_every_layer(lab: Lab) -> list[float]:
    """Largest difference of the outputs, relative to the largest output."""
    torch.manual_seed(0)
    mixed = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(6, 6, 3, padding="same"), nn.Conv2d(6, 6, 3, padding=(1, 2), stride=(1, 2), padding_mode="circular"),
        nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
    )  # fmt: skip
    errors, images = list[float](), torch.randn(2, 3, 32, 32)
    for model in (mixed, method.hourglasses(classes=5, width=6).eval()):
        for form in ("tucker", "train"):
            small = method.Tied(model, {tuple(method.plan(model)[0]): method.Config(form, channels=1.0)}).to(
                memory_format=torch.channels_last
            )  # as in training
            errors.append(relative_error(small(images), model(images)))
    return errors


GRID = tuple(f"stack{s}.depth.{d}.{b}.{n}.conv" for s, d, b, n in product((0, 1, 2), (0, 1), ("encoder", "decoder"), (0, 1)))
LENGTHS = (3, 2, 2, 2, 6, 6, 3, 3)
PARTLY = (method.Config(positions=0.5, channels=0.4, windows=0.7), method.Config("train", positions=0.6, channels=0.3, windows=0.5))


def regular(config: method.Config) -> tuple[nn.Module, method.Tied]:
    """A small network in float64, and the same with its layers tied."""
    torch.manual_seed(0)
    model = method.hourglasses(classes=5, width=6, stacks=3).double().eval()
    return model, method.Tied(model, {tuple(method.plan(model)[0]): config})


def stacked(kernels: Iterable[Tensor]) -> Tensor:
    """Kernels of the small network, in the order of GRID, as one tensor."""
    return torch.stack(list(kernels)).reshape(LENGTHS)


def multiplied_out(tensor: nn.Module, **other: Tensor) -> Tensor:
    """The full tensor as tensorly multiplies it out, some of its parts replaced."""
    parts = [other.get(name, part.detach()).numpy() for name, part in tensor.named_parameters()]
    with tl.backend_context("numpy"):
        if isinstance(tensor, method.Tucker):
            return torch.from_numpy(tl.tucker_to_tensor((parts[0].reshape([u.shape[1] for u in parts[1:]]), parts[1:])))
        return torch.from_numpy(tl.tt_to_tensor(parts))


@torch.no_grad()
def claim_kernels_are_slices(lab: Lab) -> list[float]:
    """Largest difference of a layer's kernel from its place in the tensor that tensorly multiplies out, relative to the largest."""
    errors = list[float]()
    for config in PARTLY:
        _, small = regular(config)
        for part in small.tensors.parameters():
            part.normal_()
        kernels, wanted = small.kernels(), multiplied_out(small.tensors[0])
        found = stacked(kernels[f"{name}.weight"] for name in GRID)
        errors.append(relative_error(found, wanted))
    return errors


def claim_gradients_add_up(lab: Lab) -> list[float]:
    """Largest relative difference, over all parts, of the loss's slope from that of the layers' own kernels, by tensorly.

    The tensor is linear in each part: a step of one part moves it by the same product with the step in the part's place.
    """
    found, images = list[float](), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for config in PARTLY:
        model, small = regular(config)
        tensor = small.tensors[0]
        model.load_state_dict(small.kernels(), strict=False)
        for network in (model, small):
            network(images).square().sum().backward()
        slopes = stacked(model.get_submodule(name).weight.grad for name in GRID)
        for name, part in tensor.named_parameters():
            step = torch.randn_like(part)
            found.append(abs(float((part.grad * step).sum() / (slopes * multiplied_out(tensor, **{name: step})).sum()) - 1))
    return found


def claim_parameter_formula(lab: Lab) -> list[float]:
    """Largest difference from prod R_k + sum I_k R_k (Tucker) and sum R_(k-1) I_k R_k (tensor-train), the other layers apart."""
    found = list[float]()
    for p, c, w in ((0.5, 0.4, 0.7), (0.6, 0.3, 0.5), (1.0, 1.0, 1.0), (0.01, 0.01, 0.01)):
        ranks = [max(1, round(share * length)) for share, length in zip([p, p, p, p, c, c, w, w], LENGTHS, strict=True)]
        bonds = [1]
        for k, share in enumerate((p, p, p, p, c, w, w), 1):
            largest = min(math.prod(LENGTHS[:k]), math.prod(LENGTHS[k:]))
            bonds.append(min(max(1, round(share * largest)), bonds[-1] * LENGTHS[k - 1]))
        formulas = {
            "tucker": math.prod(ranks) + sum(length * rank for length, rank in zip(LENGTHS, ranks, strict=True)),
            "train": sum(left * length * right for left, length, right in zip(bonds, LENGTHS, [*bonds[1:], 1], strict=True)),
        }
        for form, formula in formulas.items():
            model, small = regular(method.Config(form, p, c, w))
            found.append(abs(count(small) - count(model) + math.prod(LENGTHS) - formula))
    return found


@torch.no_grad()
def claim_starts_as_truncated_svd(lab: Lab) -> list[float]:
    """Largest relative difference from numpy's higher-order SVD and tensorly's TT-SVD at the kernels' norm, and of the parts' norms."""
    found = list[float]()
    for config in PARTLY:
        model, small = regular(config)
        tensor = small.tensors[0]
        kernels = stacked(model.get_submodule(name).weight for name in GRID).numpy()
        with tl.backend_context("numpy"):
            if config.form == "tucker":
                cut = kernels
                for mode, u in enumerate(tensor.factors):
                    unfolded = tl.unfold(kernels, mode)
                    first = np.linalg.eigh(unfolded @ unfolded.T)[1][:, -u.shape[1] :]
                    cut = mode_dot(cut, first @ first.T, mode)
            else:
                cut = tl.tt_to_tensor(tensor_train(kernels, [*(len(g) for g in tensor.cores), 1]))
        wanted = torch.from_numpy(cut * (np.linalg.norm(kernels) / np.linalg.norm(cut)))
        norms = [float(part.norm()) for part in tensor.parameters()]
        found += [float((multiplied_out(tensor) - wanted).norm() / wanted.norm()), float(np.max(norms) / np.min(norms)) - 1]
    return found


def few() -> Task:
    """Two steps on eight images of two classes."""
    batches = [(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)]
    return Task.from_loaders(batches, batches, batches, steps=2, batch=8)


def claim_one_tensor_of_order_eight(lab: Lab) -> float:
    """How many networks get another tensor than they should, or tie other layers."""
    net, small = regular(method.Config(channels=1.0))
    wrong = ([tuple(map(len, tensor.factors)) for tensor in small.tensors] != [LENGTHS]) + (tuple(method.plan(net)[0]) != GRID)
    mixed = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Sequential(nn.Conv2d(6, 6, 3)), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 6, 3),
        *(nn.Conv2d(6, 6, 1) for _ in range(5)), nn.Conv2d(6, 40, 5), nn.ConvTranspose2d(40, 6, 3), nn.Conv2d(6, 6, 3).double(),
        nn.Linear(6, 6), nn.Conv2d(6, 6, (3, 4)), nn.Conv2d(6, 6, (3, 4)),
    )  # fmt: skip
    names, kept = method.plan(mixed)
    wrong += (names != ["1", "2.0", "4"]) + (set(kept) != {"0", "3", *"56789", "10", "11", "12", "13", "14", "15"})
    wrong += method.plan(mixed[2:5])[0] != ["2.0", "4"]
    try:
        method.compress(mixed[:2], few(), method.Config())
        wrong += 1
    except ValueError as reason:
        wrong += "1: the only kernel" not in str(reason)
    wrong += method.places(names) != ((3,), [(0,), (1,), (2,)])
    wrong += method.places(["a.x", "a.y", "b.x", "b.y"]) != ((2, 2), [(0, 0), (0, 1), (1, 0), (1, 1)])
    wrong += method.places(["a.x.c", "b.x.c"]) != ((2,), [(0,), (1,)])
    wrong += method.places(["a.x", "a.y", "b.x"]) != ((3,), [(0,), (1,), (2,)])
    wrong += method.places(["a.x", "b.y", "a.x.c", "b.x"])[0] != (4,)
    return wrong + (method.places(["a.x"]) != ((), [()]))


def claim_trained_from_scratch(lab: Lab) -> list[float]:
    """Difference of the result from a tied fresh network after two steps, whatever was given, and how many parameters they leave."""
    errors = list[float]()
    for config in PARTLY:
        given = [method.hourglasses(classes=2, width=4, stacks=3) for _ in range(2)]
        torch.manual_seed(0)
        start = method.Tied(fresh(given[0]), {GRID: config})
        wanted = dict(fit(copy.deepcopy(start), few(), lr=config.lr).named_parameters())
        errors.append(sum(torch.equal(part, wanted[name]) for name, part in start.named_parameters()))
        for model in given:
            torch.manual_seed(0)
            found = method.compress(model, few(), config)
            errors += [float((part - wanted[name]).detach().abs().max()) for name, part in found.named_parameters()]
    return errors


def claim_saves_parameters(lab: Lab) -> float:
    return lab.after.parameters / lab.before.parameters


def claim_no_worse_than_layerwise(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("layerwise").accuracy


def claim_better_than_layerwise(lab: Lab) -> float:
    return claim_no_worse_than_layerwise(lab)


def claim_keeps_accuracy(lab: Lab, case: str) -> float:
    """Accuracy lost against the network with kernels of its own: Tucker and tensor-train at mild, Tucker at high compression."""
    if case == "tucker":
        return lab.before.accuracy - lab.after.accuracy
    mild = method.Config("train", channels=0.16)  # about as many parameters as Config()
    small = method.compress(lab.reference, lab.task, {"train": mild, "high": method.SMOKE}[case])
    return lab.before.accuracy - lab.score(small)

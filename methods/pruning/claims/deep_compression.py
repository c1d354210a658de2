"""The claims of Deep Compression."""

from __future__ import annotations

import copy
import gzip
import itertools
import math
import struct
import warnings
import zlib
from collections import Counter
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.lab import Lab
from methods.kit.masks import fit_masked, of_all
from methods.kit.task import Split
from methods.kit.testing import odd_network, odd_task, toy_task, trace
from methods.pruning import deep_compression as method


def _layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def opened(file: bytes) -> tuple[dict[str, method.Array], dict[str, list[int]]]:
    """A `.dc` file read from its description alone, bit by bit, without the method's code: its tensors, and the gaps of shared ones."""
    place = 8 + 4

    def number(kind: str) -> int:
        nonlocal place
        place += struct.calcsize("<" + kind)
        return int(struct.unpack_from("<" + kind, file, place - struct.calcsize("<" + kind))[0])

    def take(count: int) -> bytes:
        nonlocal place
        place += count
        return file[place - count : place]

    def stream(count: int) -> list[int]:
        lengths, symbols, code, last = list(take(number("H"))), {}, -1, 0
        for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
            code, last = (code + 1) << (length - last), length
            symbols[length, code] = symbol
        digits = "".join(f"{byte:08b}" for byte in take(number("I")))
        found = list[int]()
        start, end = 0, 1
        while len(found) < count:
            if (key := (end - start, int(digits[start:end], 2))) in symbols:
                found.append(symbols[key])
                start = end
            end += 1
        return found

    assert file[:4] == b"DC01"
    assert zlib.crc32(file[12:]) == struct.unpack_from("<I", file, 4)[0]
    assert len(file) == 12 + struct.unpack_from("<I", file, 8)[0]
    tensors, all_gaps = {}, {}
    for _ in range(number("H")):
        name, kind = take(number("B")).decode(), take(3).decode()
        shape = [number("I") for _ in range(number("B"))]
        size = np.dtype(kind).itemsize
        if number("B") == 0:
            values = np.frombuffer(take(math.prod(shape) * size), kind)
        else:
            centroids = [0.0, *np.frombuffer(take(number("H") * size), kind)]
            count, at = number("I"), -1
            values = np.zeros(math.prod(shape), kind)
            codes, gaps = stream(count), [gap + 1 for gap in stream(count)]
            for code, gap in zip(codes, gaps, strict=True):
                at += gap
                values[at] = centroids[code]
            all_gaps[name] = gaps
        tensors[name] = values.reshape(shape)
    assert place == len(file)
    return tensors, all_gaps


def _shared_network() -> nn.Module:
    """A network with shared weights, many and few centroids, a single one behind many zeros; a layer of floats, and one of zeros."""
    model = odd_network()
    masks = method.masks_at(model, odd_task(), 0.2)
    model = method.set_weights(model, method.share_weights(model, masks, method.Config(conv_bits=4)))
    chance = torch.Generator().manual_seed(0)
    alone, sparse = nn.Linear(60, 50), nn.Conv2d(20, 40, 3)
    with torch.no_grad():
        alone.weight.zero_()[49, 59] = 0.5  # behind 2,999 zeros: many fillers
        sparse.weight.copy_(torch.randint(1, 201, sparse.weight.shape, generator=chance) / 64)
        sparse.weight.mul_(torch.rand(sparse.weight.shape, generator=chance) < 0.004)
    floats, empty = nn.Conv2d(3, 20, 5), nn.Linear(4, 4)
    nn.init.zeros_(empty.weight)
    return nn.ModuleList([model, alone, sparse, floats, empty, nn.Linear(7, 5).double()])


def claim_file_round_trips(lab: Lab) -> float:
    """How many tensors of a file, as a reader of its own and as `unpack` read it, differ from the network's in any bit."""
    model = _shared_network()
    state = {key: value.numpy() for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    file, blank = method.pack(model), copy.deepcopy(model)
    for value in blank.state_dict().values():
        value.fill_(7)
    (found, gaps), again = opened(file), method.unpack(file, blank).state_dict()
    wrong = len(found.keys() ^ state.keys())
    wrong += sum(int(np.max(some)) > (2**8 if found[key].ndim > 2 else 2**5) for key, some in gaps.items())  # §2
    wrong += gaps["1.weight"] != [32] * 93 + [24]  # the single weight behind 2,999 zeros
    for key, value in state.items():
        for other in (found[key], again[key].numpy()):
            wrong += other.dtype != value.dtype or other.tobytes() != value.tobytes()
    shared = sum(key.endswith("weight") and file.find(value.tobytes()) < 0 for key, value in state.items())
    return float(wrong) if shared == 8 else float("inf")  # the odd network's six kernels, and the two sparse layers


def claim_damaged_files_refused(lab: Lab) -> float:
    """How many files, cut off at any byte, longer, with any byte changed or of another network, are read without a clear error."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    with torch.no_grad():
        _layer(model, "0").weight.copy_(torch.tensor([0.5, 0, 0.25, 0, 0, 0.5]).view(3, 2, 1, 1))
    file = method.pack(model)
    broken = [file[:end] for end in range(len(file))] + [file + b"\0"]
    broken += [file[:at] + bytes([file[at] ^ bit]) + file[at + 1 :] for at, bit in zip(range(len(file)), itertools.cycle((1, 128)))]
    others = [nn.Sequential(nn.Conv2d(2, 3, 1)), nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))]
    tries: list[tuple[bytes, nn.Module]] = [*((some, model) for some in broken), *((file, other) for other in others)]
    return float(sum(not _refused(*one) for one in tries))


def _refused(file: bytes, model: nn.Module) -> bool:
    """Whether the error is one that says what is wrong with a .dc file."""
    try:
        method.unpack(file, copy.deepcopy(model))
    except ValueError as problem:
        return ".dc file" in str(problem)
    return False


SOURCES = ([5, 1, 1, 1], [40, 30, 20, 9, 1], [1], [3, 0, 3], [1, 1, 2, 3, 5, 8, 13, 21], [10] * 16, [0, 0, 7, 900, 1])


def claim_huffman_near_entropy(lab: Lab) -> list[float]:
    """Bits a symbol beyond the entropy, or one too many where they are below it."""
    found = []
    for counts in SOURCES:
        shares = np.array(counts) / sum(counts)
        entropy = -sum(share * math.log2(share) for share in shares if share)
        over = float(shares @ method.code_lengths(np.array(counts))) - entropy
        found.append(over if over > -1e-9 else 2.0)
    return found


def claim_huffman_is_optimal(lab: Lab) -> list[float]:
    """Bits beyond the shortest code that an enumeration of Kraft's lengths finds, and bytes beyond codes of one length."""
    found = []
    for counts in ([5, 1, 1, 1], [40, 30, 20, 9, 1], [8, 5, 3, 2, 1], [3, 3, 2, 2, 2]):
        all_lengths = itertools.product(range(1, len(counts)), repeat=len(counts))
        best = min(sum(map(int.__mul__, counts, lengths)) for lengths in all_lengths if sum(2.0**-n for n in lengths) <= 1)
        lengths = method.code_lengths(np.array(counts))
        valid = sum(2.0 ** -float(n) for n in lengths) <= 1
        found.append(float(np.dot(counts, lengths) - best) if valid else float("inf"))
    return found + _beyond_fixed()


def _beyond_fixed() -> list[float]:
    """Bytes of a stream, without its table, beyond those of codes of one length."""
    chance, found = np.random.default_rng(0), []
    for counts in SOURCES[:2] + SOURCES[4:]:
        symbols = chance.permutation(np.repeat(np.arange(len(counts)), counts))
        body = len(method.encode(symbols)) - (2 + len(counts) + 4)
        fixed = math.ceil(math.log2(sum(count > 0 for count in counts))) * len(symbols)
        found.append(float(body - math.ceil(fixed / 8)))
    return found


def claim_relative_index(lab: Lab) -> list[float]:
    """Differences from Figure 2's numbers in three bits, and from a loop on random places."""
    gaps, real = method.gaps_of(np.array([0, 3, 14]), 8)
    wrong = [float(gaps.tolist() != [1, 3, 8, 3]) + (real.tolist() != [0, 1, 3])]
    chance = np.random.default_rng(0)
    for most in (8, 32, 256):
        places = np.sort(chance.permutation(5000)[:60])
        wanted, at = [], -1
        for place in places:
            while place - at > most:
                wanted.append((most, False))
                at += most
            wanted.append((int(place) - at, True))
            at = int(place)
        gaps, real = method.gaps_of(places, most)
        wrong.append(float(list(zip(gaps.tolist(), np.isin(np.arange(len(gaps)), real).tolist(), strict=True)) != wanted))
    return wrong


def claim_weight_sharing_rate(lab: Lab) -> float:
    """Of the paper's example, 16 weights that share four values: 32 bits a weight over the bits of centroids and codes."""
    codes = np.array([3, 0, 2, 1, 1, 1, 0, 3, 0, 3, 1, 0, 3, 1, 2, 2])
    return 16 * 32 / (4 * 32 + int(method.code_lengths(np.array([4, 4, 4, 4]))[codes].sum()))


def _lloyd(values: method.Array, start: method.Array) -> tuple[method.Array, method.Array]:
    """Scipy's means and each value's; where no value is near, a mean stays where it started."""
    with warnings.catch_warnings(action="ignore"):
        means, labels = kmeans2(values, start, iter=50, minit="matrix", missing="warn")
    return means, labels


def claim_clusters_by_kmeans(lab: Lab) -> list[float]:
    """Largest difference from scipy's k-means, and of a layer's weights from its means, from centroids at equal distances."""
    chance, found = np.random.default_rng(0), []
    for count, k in ((300, 8), (2000, 32), (40, 16)):
        values = np.sign(chance.standard_normal(count)) * (0.2 + np.abs(chance.standard_normal(count)))  # with a gap, as pruned ones
        start = np.linspace(values.min(), values.max(), k)
        found.append(float(np.abs(method.linear(torch.from_numpy(values), k).numpy() - start).max()))
        ours, (theirs, labels) = method.clustered(torch.from_numpy(values), torch.from_numpy(start)), _lloyd(values, start)
        codes = method.nearest(torch.from_numpy(values), ours).numpy()
        found += [float(np.abs(ours.numpy() - theirs).max()), float((codes != labels).sum())]
    return found


def claim_weights_share_by_layer(lab: Lab) -> float:
    """How many weights of a network are not the mean of their cluster in their own layer, or are not zero where they were pruned."""
    model = odd_network()
    masks = method.masks_at(model, odd_task(), 0.3)
    before = {name: _layer(model, name).weight.detach().double().numpy().copy() for name in masks}
    config, wrong = method.Config(conv_bits=3, dense_bits=2), 0
    method.set_weights(model, method.share_weights(model, masks, config))
    for name, old in before.items():
        layer = _layer(model, name)
        stays, new = masks[name].numpy(), layer.weight.detach().double().numpy()
        values, k = old[stays], 4 if isinstance(layer, nn.Linear) else 8
        means, labels = _lloyd(values, np.linspace(values.min(), values.max(), k))
        wrong += int((np.abs(new[stays] - means[labels]) > 1e-6).sum()) + int((new[~stays] != 0).sum())
    return float(wrong)


def claim_one_quality_factor(lab: Lab) -> float:
    """How many weights numpy prunes otherwise: those below one factor times their layer's deviation."""
    model = odd_network()
    with torch.no_grad():
        _layer(model, "0.conv").weight.mul_(5)  # a layer of larger weights loses no fewer for it
    masks = method.masks_at(model, odd_task(), 0.3)
    weights = {name: _layer(model, name).weight.detach().double().numpy() for name in masks}
    sizes = {name: np.abs(value) / value.std() for name, value in weights.items()}
    every = np.sort(np.concatenate([size.ravel() for size in sizes.values()]))
    factor = every[-round(0.3 * len(every))]
    layers = {name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    wrong = sum(int(((sizes[name] >= factor * (1 - 1e-6)) != masks[name].numpy()).sum()) for name in masks)
    return float(wrong) if layers == masks.keys() else float("inf")


def _toy() -> tuple[nn.Module, Split, dict[str, method.Shared]]:
    """A network of two layers in double precision, some images, and what its weights share."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)).double()
    part = Split(torch.randn(16, 2, 6, 6).double(), torch.arange(16) % 3)
    masks = {"0": torch.rand(5, 2, 3, 3) < 0.7, "3": torch.rand(3, 80) < 0.3}
    shared = method.share_weights(model, masks, method.Config(conv_bits=2, dense_bits=3))
    return method.set_weights(model, shared), part, shared


def claim_gradient_is_the_sum(lab: Lab) -> list[float]:
    """Largest relative difference of a centroid's first step from the rate times the sum, by numpy, of its weights' gradients.

    And of that sum from central differences of the loss.
    """
    model, part, shared = _toy()
    task, rate = toy_task(part, batch=16), 1e-3
    task.loss_of(model, part.images, part.labels).backward()
    sums: dict[str, method.Array] = {}
    before = {name: layer.centroids.detach().clone() for name, layer in shared.items()}
    for name, layer in shared.items():
        sums[name] = np.zeros(len(layer.centroids) + 1)
        np.add.at(sums[name], layer.codes.numpy().ravel(), _layer(model, name).weight.grad.numpy().ravel())
    slopes, step = [], 1e-5
    for place in range(len(before["0"])):
        losses = []
        for shift in (step, -step):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                _layer(moved, "0").weight[shared["0"].codes == place + 1] += shift
                losses.append(float(task.loss_of(moved, part.images, part.labels)))
        slopes.append((losses[0] - losses[1]) / (2 * step))
    found = [float(np.abs(sums["0"][1:] - slopes).max() / np.abs(slopes).max())]
    method.fit_centroids(model, task, shared, method.Config(retrain=0.0, centroid_rate=rate))
    for name, layer in shared.items():
        step_taken = (before[name] - layer.centroids.detach()).numpy() / (1.9 * rate)  # Nesterov momentum of 0.9
        found.append(float(np.abs(step_taken - sums[name][1:]).max() / np.abs(sums[name]).max()))
    return found


def claim_assignments_stay(lab: Lab) -> float:
    """How many weights, after centroids were trained, are not what their centroid is, or are no longer zero; biases that have moved."""
    model, part, shared = _toy()
    old = {name: _layer(model, name).weight.detach().clone() for name in shared}
    biases = [_layer(model, "0").bias.detach().clone(), _layer(model, "3").bias.detach().clone()]
    model = method.fit_centroids(model, toy_task(part, steps=8, batch=8), shared, method.Config(retrain=0.0, centroid_rate=1e-2))
    wrong = sum(int((now != then).sum()) for now, then in zip((_layer(model, "0").bias, _layer(model, "3").bias), biases, strict=True))
    for name, layer in shared.items():
        weight = _layer(model, name).weight.detach()
        pairs = Counter(zip(old[name].ravel().tolist(), weight.ravel().tolist(), strict=True))
        wrong += len(pairs) - len({then for then, _ in pairs}) + int((weight[layer.codes == 0] != 0).sum())
        wrong += 1000 * int(torch.equal(weight, old[name]))
    return float(wrong)


STAGES = [  # Figure 1
    "trains the returned network on 32 images of train, train mode, rate 0.01, 2 steps (2 times)",  # prune, train weights, again (§2)
    "trains the returned network on 64 images of train, train mode, rate 0.0002, frozen: 17 parameters, 4 steps",  # the code book (§3)
]


def claim_stages(lab: Lab) -> float:
    """Whether the trace differs from Figure 1: prune and train weights, in two rounds; then cluster, and retrain the code book."""
    config = method.Config(kept=0.4, rounds=2, conv_bits=3, dense_bits=2, retrain=0.5, rate=0.01, centroid_rate=2e-4)
    return float(trace(method, odd_network(), odd_task(8), config) != STAGES)


def claim_clusters_what_was_retrained(lab: Lab) -> float:
    """How many weights of method and random start, centroids left as k-means puts them, are none of the pruned and trained network's means.

    It is pruned and trained in the rounds of §2, written out.
    """
    config = method.Config(kept=0.3, rounds=2, conv_bits=3, dense_bits=2, retrain=0.5, rate=0.05, centroid_rate=0.0)
    model, task = odd_network(), odd_task(8)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    some = {"method": method.compress(model, task, config), "forgy": method.control_forgy(model, task, config, model)}
    masks: dict[str, Tensor] = {}
    for kept in (0.3**0.5, 0.3):
        masks = of_all(
            {name: layer.weight.detach().abs() / layer.weight.detach().std(correction=0) for name, layer in layers.items()}, kept
        )
        fit_masked(model, task, masks, share=0.25, lr=0.05)
    wrong = 0
    for name, layer in layers.items():
        values, k = layer.weight.detach()[masks[name]].double(), 4 if isinstance(layer, nn.Linear) else 8
        starts = {"method": np.linspace(float(values.min()), float(values.max()), k), "forgy": method.forgy(values, k).numpy()}
        for who, start in starts.items():
            means, labels = _lloyd(values.numpy(), start)
            weight = _layer(some[who], name).weight.detach()
            wrong += int((np.abs(weight[masks[name]].numpy() - means[labels]) > 1e-5).sum()) + int((weight[~masks[name]] != 0).sum())
    return float(wrong)


RETRAINED = "trains the returned network on 64 images of train, train mode, rate 0.01, 4 steps"
CONTROLS = {
    "unshared": [STAGES[0], RETRAINED],
    "untrained": [STAGES[0], RETRAINED],
    "forgy": STAGES,
}


def claim_controls(lab: Lab) -> list[float]:
    """How many controls train otherwise than the method but for what they lack, prune other weights, or share too many values.

    And how many layers without trained centroids are not the clustered ones of the network without sharing.
    """
    config = method.Config(kept=0.4, rounds=2, conv_bits=3, dense_bits=2, retrain=0.5, rate=0.01, centroid_rate=2e-4)
    model, task = odd_network(), odd_task(8)
    made, wrong = {"method": method.compress(model, task, config)}, 0
    for name, stages in CONTROLS.items():
        wrong += trace(method, model, task, config, name) != stages
        made[name] = getattr(method, f"control_{name}")(model, task, config, made["method"])
    clustered = copy.deepcopy(made["unshared"])
    masks = {name: layer.weight != 0 for name, layer in clustered.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    method.set_weights(clustered, method.share_weights(clustered, masks, config))
    for name, mask in masks.items():
        weights = {who: _layer(network, name).weight.detach() for who, network in made.items()}
        most = 4 if name == "5" else 8
        wrong += sum(int(((weight != 0) != mask).sum()) for weight in weights.values())
        wrong += sum((len(weight[mask].unique()) > most) != (who == "unshared") for who, weight in weights.items())
        wrong += not torch.equal(weights["untrained"], _layer(clustered, name).weight)
        wrong += int(torch.equal(weights["forgy"], weights["method"]))
    return [float(wrong), _forgy_draws_weights()]


def _forgy_draws_weights() -> float:
    """How many of a random start's centroids are no weights, are drawn twice, or are not in ascending order."""
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    start = method.forgy(values, 16)
    wrong = int((~torch.isin(start, values)).sum()) + 16 - len(start.unique()) + int((start.diff() < 0).sum())
    wrong += int(not torch.equal(start, method.forgy(values, 16)))  # chance is seeded
    return float(wrong + int(torch.equal(start, values[:16].sort().values)))


def claim_sizes(lab: Lab, variant: str) -> float:
    """Kilobytes of the float32 weights, biases included."""
    return 4 * nets.count(nets.on_meta(lambda: method.build(variant))) / 1000


def claim_sharing_loses_nothing(lab: Lab) -> float:
    """Accuracy that sharing weights costs, against the same pruned network with weights of their own."""
    return lab.control("unshared").accuracy - lab.after.accuracy


def claim_sharing_loses_nothing_in_minutes(lab: Lab) -> float:
    return claim_sharing_loses_nothing(lab)


def claim_smaller_than_gzip(lab: Lab) -> float:
    """Bytes of the pruned network's floats, gzipped, over those of the file."""
    state = lab.controlled("unshared").state_dict()
    floats = b"".join(value.numpy().tobytes() for key, value in state.items() if not key.endswith("num_batches_tracked"))
    return len(gzip.compress(floats, 9)) / lab.after.file_bytes


def claim_trained_centroids_help(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("untrained").accuracy


def claim_trained_centroids_help_in_minutes(lab: Lab) -> float:
    return claim_trained_centroids_help(lab)


def claim_linear_start_helps(lab: Lab) -> float:
    return lab.after.accuracy - lab.control("forgy").accuracy


def claim_linear_start_helps_in_minutes(lab: Lab) -> float:
    return claim_linear_start_helps(lab)


def _ratio(lab: Lab, file_bytes: int) -> float:
    """Bytes of the reference's floats, batch norm's included, over those of a file."""
    state = lab.reference.state_dict()
    return sum(value.nbytes for key, value in state.items() if not key.endswith("num_batches_tracked")) / file_bytes


def claim_times_smaller(lab: Lab) -> float:
    return _ratio(lab, lab.after.file_bytes)


def claim_loses_nothing(lab: Lab) -> float:
    return lab.before.accuracy - lab.after.accuracy


def claim_huffman_saves(lab: Lab) -> float:
    """Share that Huffman codes, tables included, save of codes and gaps of fixed lengths, which need none."""
    fixed = coded = 0
    for layer in lab.compressed.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            values, most = layer.weight.detach().numpy().ravel(), method.GAP_BITS[layer.weight.ndim > 2]
            gaps, real = method.gaps_of(np.flatnonzero(values), 2**most)
            codes = np.zeros(len(gaps), np.int64)
            codes[real] = 1 + np.unique(values[values != 0], return_inverse=True)[1]
            fixed += len(gaps) * (most + (lab.config.dense_bits if isinstance(layer, nn.Linear) else lab.config.conv_bits)) / 8
            coded += len(method.encode(codes)) + len(method.encode(gaps - 1))
    return 1 - coded / fixed


_curve: WeakKeyDictionary[Lab, dict[str, tuple[float, float]]] = WeakKeyDictionary()
POINTS = {"kept_0.25": 0.25, "kept_0.05": 0.05}


def _at(lab: Lab, point: str) -> tuple[float, float]:
    """Accuracy lost, and times smaller, with another share of the weights kept."""
    known = _curve.setdefault(lab, {})
    if point not in known:
        with torch.enable_grad():
            network = method.compress(lab.reference, lab.task, replace(lab.config, kept=POINTS[point]))
        known[point] = lab.before.accuracy - lab.score(network), _ratio(lab, len(method.pack(network)))
    return known[point]


def claim_curve_lost(lab: Lab, point: str) -> float:
    return _at(lab, point)[0]


def claim_curve_times_smaller(lab: Lab, point: str) -> float:
    return _at(lab, point)[1]

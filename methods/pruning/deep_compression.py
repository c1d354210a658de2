"""Deep Compression (Han, Mao, Dally, ICLR 2016).

Small weights are pruned and the others trained again; those of a layer are then clustered, and share one value a cluster,
which is trained further by the sum of its weights' gradients; at last the clusters' codes and the gaps between weights that
are left are Huffman coded. The savings of the three stages multiply, and the file holds nothing else.

Algorithms: pruning with retraining (§2), k-means with trained centroids (§3), relative indices and Huffman codes in a file (§4).

Departures: one factor times the deviation of its weights is the threshold of each layer, where the paper chooses a share for
each by hand; the gaps run through the whole layer, as in the authors' decoder, not row by row; centroids without weights are left
out; only centroids learn in the last training, while batch norm's statistics go on; layers that share a weight stay as they are.
Training is the kit's (Nesterov momentum, one cosine each). In a smoke run fewer weights go and clusters are few, so that stages
show in seconds; in a long run convolutions have five bits, as the paper's large dense layers do: nearly all weights are there,
and so many weights go that the file is 35 times smaller.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.kit import nets
from methods.kit.masks import Masks, fit_masked, magnitudes, of_all, prunable
from methods.kit.pack import as_array
from methods.kit.task import Task, on_copies
from methods.kit.train import fit
from methods.kit.watch import iterations

Array = np.ndarray[Any, Any]
Start = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Config:
    kept: float = 0.11  # share of the weights, AlexNet, Table 4
    rounds: int = 1  # of pruning and retraining, Figure 1; Han et al. 2015, whom §2 follows, take several
    conv_bits: int = 8  # of a code in convolutions, Table 4
    dense_bits: int = 5  # in dense layers, Table 4
    retrain: float = 0.75  # share of the steps for the pruned network, the rest trains centroids; ours
    rate: float = 0.02  # of retraining, the kit's
    centroid_rate: float = 1e-4  # ours: a centroid's gradient is the sum over all its weights


SMOKE = (Config(kept=0.3, conv_bits=2, dense_bits=2), 16)  # seconds do not repair a cut to 11%; few values show where they lie
LONG = (Config(kept=0.08, conv_bits=5, retrain=0.85, rate=0.05), 60)  # so that the file is 35 times smaller; within five minutes


def reference(task: Task) -> nn.Module:
    """A small VGG in the place of AlexNet and VGG-16."""
    return nets.trained("vgg_wide", task.name)


def build(variant: str) -> nn.Module:
    """The paper's own networks, to be counted: those of Caffe, AlexNet with its two groups."""
    shapes: Any = {
        "lenet_300_100": [(300, 784), (100, 300), (10, 100)],
        "lenet_5": [(20, 1, 5), (50, 20, 5), (500, 800), (10, 500)],
        "alexnet": [(96, 3, 11), (256, 48, 5), (384, 256, 3), (384, 192, 3), (256, 192, 3), *DENSE[1:], (4096, 9216)],
        "vgg16": [*((n, c, 3) for c, n in pairwise([3, *(s for s in nets.VGG16 if s != "pool")])), *DENSE],
    }[variant]
    return nn.ModuleList(nn.Linear(s[1], s[0]) if len(s) == 2 else nn.Conv2d(s[1], s[0], s[2]) for s in shapes)


DENSE = [(4096, 25088), (4096, 4096), (1000, 4096)]


# Pruning (§2)


def masks_at(model: nn.Module, task: Task, kept: float) -> dict[str, Tensor]:
    """Weights above the layer's threshold: a quality factor, one for all layers, times the deviation of its weights."""
    layers = prunable(model, task, "deep compression needs a Conv2d or a Linear")
    return of_all({name: size / layers[name].weight.detach().std(correction=0) for name, size in magnitudes(layers).items()}, kept)


def pruned(model: nn.Module, task: Task, config: Config) -> tuple[nn.Module, Masks]:
    """Prune the small weights and train the others, in rounds of as many steps each, each leaving the same share of the last."""
    masks: dict[str, Tensor] = {}
    for turn in range(1, config.rounds + 1):
        masks = masks_at(model, task, config.kept ** (turn / config.rounds))
        model = fit_masked(model, task, masks, share=config.retrain / config.rounds, lr=config.rate)
    return model, masks


# Trained quantization (§3)


@dataclass
class Shared:
    """A layer's weights: centroids (k,), and in the weight's shape which of them each weight is, from 1 on; 0 is none."""

    centroids: nn.Parameter
    codes: Tensor

    @property
    def weight(self) -> Tensor:
        """W_ij = C[I_ij]. Its derivative sums the gradients of all weights that share a centroid (Eq. 3)."""
        return F.pad(self.centroids, (1, 0))[self.codes]


def linear(values: Tensor, count: int) -> Tensor:
    """Centroids at equal distances from the least weight to the largest (§3.2)."""
    return torch.linspace(float(values.min()), float(values.max()), count, dtype=values.dtype, device=values.device)


def forgy(values: Tensor, count: int) -> Tensor:
    """Centroids at weights drawn by chance (§3.2)."""
    chance = torch.Generator().manual_seed(len(values))
    return values[torch.randperm(len(values), generator=chance)[:count].to(values.device)].sort().values


def nearest(values: Tensor, centroids: Tensor) -> Tensor:
    """Which of ascending centroids is nearest to each value."""
    return torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)


def clustered(values: Tensor, centroids: Tensor, sweeps: int = 50) -> Tensor:
    """argmin sum_i sum_{w in c_i} |w - c_i|^2 (Eq. 2) by Lloyd's algorithm, from ascending centroids, which stay ascending."""
    for _ in iterations(sweeps):
        codes = nearest(values, centroids)
        sizes = codes.bincount(minlength=len(centroids))
        centroids = torch.where(sizes > 0, codes.bincount(values, len(centroids)) / sizes, centroids)
    return centroids


def share_weights(model: nn.Module, masks: Masks, config: Config, start: Start = linear) -> dict[str, Shared]:
    """Cluster each layer's weights; layers share nothing among them (§3.1)."""
    found = {}
    for name, stays in masks.items():
        layer: Any = model.get_submodule(name)
        values = layer.weight.detach()[stays].double()
        bits = config.dense_bits if isinstance(layer, nn.Linear) else config.conv_bits
        centroids = clustered(values, start(values, 2**bits))
        used, of = nearest(values, centroids).unique(return_inverse=True)
        codes = torch.zeros_like(stays, dtype=torch.long)
        codes[stays] = 1 + of
        found[name] = Shared(nn.Parameter(centroids[used].to(layer.weight)), codes)
    return found


@torch.no_grad()
def set_weights(model: nn.Module, shared: Mapping[str, Shared]) -> nn.Module:
    """Give each layer the values that its weights share."""
    for name, layer in shared.items():
        cast(Any, model.get_submodule(name)).weight.copy_(layer.weight)
    return model


def fit_centroids(model: nn.Module, task: Task, shared: Mapping[str, Shared], config: Config) -> nn.Module:
    """Train the shared values by C_k <- C_k - lr dL/dC_k; which weights share one stays as it is (§3.3)."""

    def loss(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights = {f"{name}.weight": layer.weight for name, layer in shared.items()}
        return task.loss_of(cast(nn.Module, lambda x: torch.func.functional_call(m, weights, (x,))), x, y)

    centroids = [layer.centroids for layer in shared.values()]
    fit(model, task, loss, share=1 - config.retrain, lr=config.centroid_rate, weight_decay=0.0, params=centroids)
    return set_weights(model, shared)


@on_copies
def compress(model: nn.Module, task: Task, config: Config) -> nn.Module:
    """Prune and retrain, share weights and train what they share (Figure 1). `pack` does the rest."""
    model, masks = pruned(model, task, config)
    return fit_centroids(model, task, share_weights(model, masks, config), config)


def pruned_for_longer(model: nn.Module, task: Task, config: Config) -> tuple[nn.Module, Masks]:
    """As many steps as the method, all of them for the pruned network's own weights."""
    model, masks = pruned(model, task, config)
    return fit_masked(model, task, masks, share=1 - config.retrain, lr=config.rate), masks


@on_copies
def control_unshared(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Pruning alone: as many weights, each with a float of its own. Differs: bytes x6.8 (32 bits a weight, in the kit's file)."""
    return pruned_for_longer(model, task, config)[0]


@on_copies
def control_untrained(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """Clusters at the end: centroids stay where k-means puts them, and the steps go to the weights before.

    Differs: bytes x1.1 (the kit's file, with a bit for each weight instead of gaps).
    """
    model, masks = pruned_for_longer(model, task, config)
    return set_weights(model, share_weights(model, masks, config))


@on_copies
def control_forgy(model: nn.Module, task: Task, config: Config, like: nn.Module) -> nn.Module:
    """The method from centroids drawn among the weights, the usual start of k-means (§3.2, Figure 8).

    Differs: bytes x1.1 (the kit's file, with a bit for each weight instead of gaps).
    """
    model, masks = pruned(model, task, config)
    return fit_centroids(model, task, share_weights(model, masks, config, forgy), config)


# Huffman codes and the file (§2, Figure 2; §4)

MAGIC, HEAD = b"DC01", struct.Struct("<4sII")
GAP_BITS = {True: 8, False: 5}  # of a gap in a convolution, and in a dense layer (§2)
MOST = 256  # centroids that a tensor can have to be written as shared


def gaps_of(places: Array, most: int) -> tuple[Array, Array]:
    """Gaps 1 ... `most` to the next entry, filler zeros put in where one is larger (Figure 2), and which entries are none."""
    gaps = np.diff(places, prepend=-1)
    fillers = (gaps - 1) // most
    real = np.cumsum(fillers + 1) - 1
    found = np.full(real[-1] + 1, most)
    found[real] = gaps - fillers * most
    return found, real


def code_lengths(counts: Array) -> Array:
    """Bits of each symbol's Huffman code; 0 where it does not occur."""
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    lengths = np.zeros(len(counts), np.int64)
    lengths[[symbol for _, symbol, _ in heap]] = len(heap) == 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (few, tie, some), (more, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[some + others] += 1
        heapq.heappush(heap, (few + more, tie, some + others))
    return lengths


def canonical(lengths: Array) -> tuple[Array, Array, int]:
    """Symbols in the order of their codes, the codes filled up with zeros to the longest one's length, and that length."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order, longest = order[lengths[order] > 0], int(lengths.max())
    spans = 1 << (longest - lengths[order])
    return order, np.cumsum(spans) - spans, longest


def encode(symbols: Array) -> bytes:
    """A stream, its table included."""
    lengths = code_lengths(np.bincount(symbols))
    order, codes, longest = canonical(lengths)
    of = np.zeros(len(lengths), np.int64)
    of[order] = codes
    digits = (of[symbols, None] >> np.arange(longest)[::-1]) & 1
    body = np.packbits(digits[np.arange(longest) < lengths[symbols, None]].astype(np.uint8)).tobytes()
    return struct.pack("<H", len(lengths)) + lengths.astype(np.uint8).tobytes() + struct.pack("<I", len(body)) + body


class Reader:
    """Takes a file apart from its beginning."""

    def __init__(self, file: bytes) -> None:
        self.file, self.place = file, 0

    def take(self, count: int) -> bytes:
        self.place += count
        return self.file[self.place - count : self.place]

    def numbers(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))

    def array(self, kind: str, count: int) -> Array:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind)

    def stream(self, count: int) -> Array:
        """So many symbols."""
        lengths = self.array("u1", *self.numbers("H")).astype(np.int64)
        bits = np.unpackbits(self.array("u1", *self.numbers("I")))
        order, codes, longest = canonical(lengths)
        padded, windows = np.append(bits, np.zeros(longest, np.uint8)), np.zeros(len(bits), np.int64)
        for shift in range(longest):  # what the next bits say at every place
            windows = 2 * windows + padded[shift : shift + len(bits)]
        which = order[np.searchsorted(codes, windows, "right") - 1]
        steps, place, places = lengths[which].tolist(), 0, []
        for _ in range(count):
            places.append(place)
            place += steps[place]
        return np.asarray(which[places])

    def shared(self, kind: str, count: int) -> Array:
        """A tensor of kind 1."""
        centroids, full = self.array(kind, *self.numbers("H")), np.zeros(count, kind)
        (entries,) = self.numbers("I")
        codes, places = self.stream(entries), np.cumsum(self.stream(entries) + 1) - 1
        full[places[codes > 0]] = centroids[codes[codes > 0] - 1]
        return full


def stored(model: nn.Module) -> dict[str, Tensor]:
    """What inference needs of a network's state, a shared tensor once."""
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    once = {(value.data_ptr(), value.shape, value.stride()) if value.numel() else key: key for key, value in reversed(state.items())}
    return {key: value for key, value in state.items() if key in once.values()}


def packed(name: str, tensor: Tensor) -> bytes:
    """One tensor: as shared where that is shorter."""
    array, known = as_array(tensor), name.encode()
    values = array.reshape(-1)
    bodies, places = [b"\0" + values.tobytes()], np.flatnonzero(values)
    centroids, codes = np.unique(values[places], return_inverse=True)
    if array.ndim > 1 and 0 < len(centroids) <= MOST:
        gaps, real = gaps_of(places, 2 ** GAP_BITS[array.ndim > 2])
        symbols = np.zeros(len(gaps), np.int64)
        symbols[real] = codes + 1
        head = struct.pack("<H", len(centroids)) + centroids.tobytes() + struct.pack("<I", len(gaps))
        bodies.append(b"\1" + head + encode(symbols) + encode(gaps - 1))
    shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return struct.pack("<B", len(known)) + known + array.dtype.str.replace("|", "<").encode() + shape + min(bodies, key=len)


def pack(model: nn.Module) -> bytes:
    """The network's state as a `.dc` file.

    Little endian: `DC01`, u32 CRC-32 of all behind the next number, u32 how many bytes those are, u16 tensors. A tensor: u8 length of
    its name, the name, its numpy type in 3 letters (`<f4`), u8 dimensions, u32 each, u8 kind. Kind 0: the numbers. Kind 1: u16
    centroids, the centroids in the tensor's type, u32 entries, then two streams with a symbol for each entry: first codes (0 a filler
    zero, i the i-th centroid, counted from 1), then gaps less one (from an entry's place in row order to the next one's; the first
    counts from the place before the tensor). Places without an entry are zero. A stream: u16 symbols, u8 the length of each one's code
    (0: does not occur), u32 bytes, the bytes, filled from their highest bit on. Codes are canonical: in the order of length, then
    symbol, each is the one before plus one, with zeros appended to its length. What torch keeps in the network's state, biases and
    batch norms included, is in the file, a shared tensor once; batch norm's count of batches is not.
    """
    tensors = [packed(name, value) for name, value in stored(model).items()]
    body = struct.pack("<H", len(tensors)) + b"".join(tensors)
    return HEAD.pack(MAGIC, zlib.crc32(body), len(body)) + body


def read(file: bytes) -> dict[str, Array]:
    """The tensors of a `.dc` file. Raises ValueError where it is none, is cut off or damaged."""
    if len(file) < HEAD.size or not file.startswith(MAGIC):
        raise ValueError(f"no .dc file: {len(file)} bytes that do not begin with {MAGIC.decode()} and {HEAD.size - 4} bytes more")
    (_, sum_, length), body = HEAD.unpack_from(file), file[HEAD.size :]
    if len(body) != length:
        raise ValueError(f"a .dc file of {HEAD.size + length} bytes, of which {len(file)} are there; copy it again")
    if zlib.crc32(body) != sum_:
        raise ValueError(f"a damaged .dc file: the CRC-32 of its {length} bytes is {zlib.crc32(body):08x}, not {sum_:08x}; copy it again")
    reader, found = Reader(body), {}
    for _ in range(*reader.numbers("H")):
        name, kind = reader.take(*reader.numbers("B")).decode(), reader.take(3).decode()
        shape = reader.numbers("{}I".format(*reader.numbers("B")))
        take = (reader.array, reader.shared)[reader.numbers("B")[0]]
        found[name] = take(kind, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    return found


@torch.no_grad()
def unpack(file: bytes, model: nn.Module) -> nn.Module:
    """Load a `.dc` file into a network of the same layers, in place. Raises ValueError where it is none or another network's."""
    tensors, state = read(file), stored(model)
    if wrong := sorted(state.keys() ^ tensors.keys()) or [name for name in state if as_array(state[name]).shape != tensors[name].shape]:
        raise ValueError(f"a .dc file of another network: {', '.join(wrong)}; build the network that was packed")
    for name, value in state.items():
        value.copy_(torch.from_numpy(tensors[name].copy()).view(value.dtype))
    return model

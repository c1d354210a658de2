"""A network as one file: every tensor in the cheapest of a few plain codings, read back to equal numbers.

Codings of a weight: its own numbers; a codebook of its distinct levels with bit-packed codes; integers on the grid
of a stored scale. A module that holds `weight` and a buffer `weight_scale` of n entries says: cut into n equal runs
(n = 1 a tensor, n = output channels, n buckets), run i is a whole multiple of entry i. Zeros may be left out and marked
in a bit mask. Nothing is declared: a coding counts only if decoding it gives equal numbers back.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]
MAGIC = b"smallprint1"
MOST_LEVELS = 1 << 12  # a codebook of more levels is no saving on networks of this size


@dataclass(frozen=True)
class Coded:
    """A tensor as bytes. `bits` is what one code takes (32 for float32 numbers as they are)."""

    kind: str  # "plain", "codebook", "grid"
    bits: int
    body: bytes
    low: int = 0  # smallest integer of a grid
    sparse: bool = False


def to_bits(codes: Array, bits: int) -> bytes:
    """Non-negative integers, `bits` bits each, packed without gaps."""
    return np.packbits((codes[:, None] >> np.arange(bits, dtype=codes.dtype)) & 1).tobytes() if bits else b""


def from_bits(body: bytes, count: int, bits: int) -> Array:
    """The inverse of `to_bits`."""
    if not bits:
        return np.zeros(count, np.int64)
    digits = np.unpackbits(np.frombuffer(body, np.uint8), count=count * bits).reshape(count, bits).astype(np.int64)
    return np.asarray((digits << np.arange(bits)).sum(1))


def width(levels: int) -> int:
    """Bits of a code that tells so many levels apart."""
    return math.ceil(math.log2(levels)) if levels > 1 else 0


def grid_of(values: Array, scale: Array | None) -> Array | None:
    """Integers k with values == k * scale run by run, exactly in float32; None if there are none."""
    if scale is None or not scale.size or values.size % scale.size or not (scale > 0).all():
        return None
    runs = values.reshape(scale.size, -1)
    steps = np.rint(runs.astype(np.float64) / scale.reshape(-1, 1))
    if abs(steps).max(initial=0) > 2**24 or not np.array_equal(steps.astype(np.float32) * scale.reshape(-1, 1), runs):
        return None
    return steps.astype(np.int64).reshape(-1)


def encode(tensor: Tensor, scale: Tensor | None = None, sparse: bool = True) -> Coded:
    """The cheapest coding that gives the tensor back exactly; `sparse=False` keeps the zeros in line."""
    values = as_array(tensor).reshape(-1)
    plain = Coded("plain", 8 * values.itemsize, values.tobytes())
    options = [plain]
    if values.size > 1:
        levels, codes = np.unique(values, return_inverse=True)
        if len(levels) <= min(MOST_LEVELS, values.size) and not np.isnan(levels.astype(np.float64)).any():
            bits = width(len(levels))
            head = len(levels).to_bytes(2, "little") + levels.tobytes()
            options.append(Coded("codebook", bits, head + to_bits(codes.astype(np.int64), bits)))
        steps = grid_of(values, None if scale is None or tensor.dtype == torch.bfloat16 else scale.detach().cpu().numpy().reshape(-1))
        if steps is not None:
            low = int(steps.min())
            bits = width(int(steps.max()) - low + 1)
            options.append(Coded("grid", bits, to_bits(steps - low, bits), low))
        if sparse:
            options += list(_without_zeros(values, steps))
    return min(options, key=lambda option: len(option.body))


def _without_zeros(values: Array, steps: Array | None) -> Iterator[Coded]:
    kept = values != 0
    if kept.all():
        return
    mask = np.packbits(kept).tobytes()
    rest = torch.from_numpy(values[kept])
    inner = encode(rest, sparse=False)
    yield Coded(inner.kind, inner.bits, mask + inner.body, inner.low, True)
    if steps is not None and kept.any():
        low = int(steps[kept].min())
        bits = width(int(steps[kept].max()) - low + 1)
        yield Coded("grid", bits, mask + to_bits(steps[kept] - low, bits), low, True)


def as_array(tensor: Tensor) -> Array:
    """Numpy has no bfloat16: its bits are as good as any other name for the numbers."""
    tensor = tensor.detach().cpu().contiguous()
    return np.asarray((tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy())


def decode(coded: Coded, like: Tensor, scale: Tensor | None = None) -> Tensor:
    """The tensor again, in the shape and type of `like`."""
    dtype = as_array(like).dtype
    count, body = like.numel(), coded.body
    kept = np.ones(count, bool)
    if coded.sparse:
        size = -(-count // 8)
        kept = np.unpackbits(np.frombuffer(body[:size], np.uint8), count=count).astype(bool)
        body = body[size:]
    number = int(kept.sum())
    if coded.kind == "plain":
        values = np.frombuffer(body, dtype)
    elif coded.kind == "codebook":
        size = int.from_bytes(body[:2], "little")
        levels = np.frombuffer(body[2:], dtype, size)
        values = levels[from_bits(body[2 + size * dtype.itemsize :], number, coded.bits)]
    else:
        assert scale is not None
        spread = np.repeat(scale.detach().cpu().numpy().reshape(-1), count // scale.numel())[kept]
        values = (from_bits(body, number, coded.bits) + coded.low).astype(np.float32) * spread
    full = np.zeros(count, dtype)
    full[kept] = values
    tensor = torch.from_numpy(full).reshape(like.shape)
    return tensor.view(torch.bfloat16) if like.dtype == torch.bfloat16 else tensor


def _scale_key(key: str) -> str:
    return key + "_scale"


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """What inference needs: the state without batch norm's step counters."""
    return {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor) and not k.endswith("num_batches_tracked")}


def pack(model: nn.Module) -> bytes:
    """The network's state as a file: magic, length of header, compressed header, tensors one after the other."""
    state, places, coded = _stored(model), dict[tuple[Any, ...], int](), list[Coded]()
    for key, value in state.items():
        place = places.setdefault((value.data_ptr(), value.shape, value.stride(), value.numel() or key), len(coded))
        same = place < len(coded)  # a shared tensor is stored once
        coded.append(Coded("same", 0, b"", place) if same else encode(value, state.get(_scale_key(key))))
    header = [[key, c.kind, c.bits, c.low, int(c.sparse), len(c.body)] for key, c in zip(state, coded, strict=True)]
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    return MAGIC + len(packed).to_bytes(4, "little") + packed + b"".join(c.body for c in coded)


def unpack(file: bytes, model: nn.Module) -> nn.Module:
    """Load a packed file into a network of the same layers, in place. Raises ValueError for a file that is not ours."""
    if not file.startswith(MAGIC):
        raise ValueError("not a packed network")
    start = len(MAGIC) + 4
    size = int.from_bytes(file[start - 4 : start], "little")
    place = start + size
    state, scaled = _stored(model), []
    header = json.loads(zlib.decompress(file[start:place]))
    with torch.no_grad():
        for key, kind, bits, low, sparse, length in header:
            coded = Coded(kind, bits, file[place : place + length], low, bool(sparse))
            place += length
            if kind == "grid":
                scaled.append((key, coded))  # its scale may come later
            elif kind != "same":
                state[key].copy_(decode(coded, state[key]))
        for key, coded in scaled:
            state[key].copy_(decode(coded, state[key], state[_scale_key(key)]))
        for key, kind, _, low, *_ in header:
            if kind == "same":
                state[key].copy_(state[header[low][0]])
    return model


def weight_codes(model: nn.Module) -> dict[str, tuple[Tensor, Coded, int]]:
    """Every parameter, or buffer called weight, of two or more dimensions: the tensor, its dense coding, the bytes of its scales."""
    state = _stored(model)
    learned = {key for key, _ in model.named_parameters()}  # a shared one once
    every = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    found = {}
    for key, value in state.items():
        buffer = key.rsplit(".")[-1].startswith("weight") and not key.endswith("_scale") and key not in every
        if value.ndim >= 2 and (key in learned or buffer):
            scale = state.get(_scale_key(key))
            coded = encode(value, scale, sparse=False)
            found[key] = (value, coded, 0 if scale is None or coded.kind != "grid" else 4 * scale.numel())
    return found

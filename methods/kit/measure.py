"""What a network costs and how well it does, read off the network itself: nothing here is declared by a method."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from methods.kit import pack as packing
from methods.kit.layout import Watching, laid_out
from methods.kit.task import Task, numbers, suited


@dataclass(frozen=True)
class Stats:
    """One network's numbers. `latency` is its time over the reference's; the rest are absolute."""

    accuracy: float  # share of test images
    parameters: int  # numbers in parameters and in buffers called weight or bias
    nonzeros: int
    bits: float  # stored bits per weight of two or more dimensions, scales and codebooks counted, zeros in line
    multiply_adds: float  # executed for one image
    bit_operations: float  # multiply-adds, each times its weight's bits and its input's bits
    file_bytes: int  # of a file written and read back
    latency: float = float("nan")


QUANTITIES = [quantity.name for quantity in fields(Stats)]


def measure(
    model: nn.Module,
    task: Task,
    reference: nn.Module | None = None,
    *,
    pack: Callable[[nn.Module], bytes] | None = None,
    unpack: Callable[[bytes, nn.Module], nn.Module] | None = None,
) -> Stats:
    """Measure a network on a task's test images; `pack` and `unpack` are the method's own file, else the kit's.

    Raises ValueError when the file, read back, is not the network.
    """
    model.eval()
    numbers = list(_numbers(model))  # with the number that stands for zero
    images = suited(model, task.test.first(16).images)
    multiply_adds, bit_operations = executed_work(model, images)
    return Stats(
        accuracy=task.score(model, task.test),
        parameters=sum(n.numel() for n, _ in numbers),
        nonzeros=sum(int((n != zero).sum()) for n, zero in numbers),
        bits=weight_bits(model),
        multiply_adds=multiply_adds,
        bit_operations=bit_operations,
        file_bytes=len(round_trip(model, images, pack or packing.pack, unpack or packing.unpack, task.logits)),
        latency=float("nan") if reference is None else latency(model, reference, images[:8]),
    )


def _numbers(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Each shared tensor once; codes of a stored integer weight have the buffer `weight_zero` for their zero."""
    yield from ((parameter, 0) for parameter in model.parameters())
    buffers = dict(model.named_buffers())
    for name, buffer in buffers.items():
        if name.rsplit(".")[-1] in ("weight", "bias"):
            yield buffer, int(buffers.get(name + "_zero", torch.zeros(())))


def weight_bits(model: nn.Module) -> float:
    """Stored bits per weight, over all weights of two or more dimensions."""
    codes = packing.weight_codes(model).values()
    count = sum(weight.numel() for weight, _, _ in codes)
    return sum(8 * (len(coded.body) + scales) for _, coded, scales in codes) / count if count else float("nan")


def round_trip(
    model: nn.Module,
    images: Tensor,
    pack: Callable[[nn.Module], bytes],
    unpack: Callable[[bytes, nn.Module], nn.Module],
    logits: Callable[[Any], Tensor] = numbers,
) -> bytes:
    """The network's file, after checking that a network read from it answers the same, as far as `logits` reads the answer."""
    file = pack(model)
    blank = copy.deepcopy(model)
    with torch.no_grad():
        for module in blank.modules():  # not only what the state names: nothing may travel beside the file
            for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
                if isinstance(value, Tensor):
                    value.zero_()
                elif isinstance(value, np.ndarray):
                    value.fill(0)
        again = unpack(file, blank).eval()
        same = torch.equal(logits(again(images)).nan_to_num(), logits(model(images)).nan_to_num())
    if not same:
        raise ValueError(f"the file of {type(model).__name__}, read back, gives other outputs than the network that was written")
    return file


Product = int | tuple[int, ...]  # the address of a stored weight, else which product of the run it is, and the weight's shape


class _Work(Watching):
    """Counts multiply-adds as they are executed, and bit operations by the levels that weights and inputs really take."""

    def __init__(self, weight_bits: dict[int, int]) -> None:
        super().__init__()
        self.stored = weight_bits  # of the weights that the network stores, by address
        self.made: dict[Product, int] = {}  # of those that it makes as it runs
        self.place = 0  # how many products this image has had
        self.done: dict[Product, float] = {}  # multiply-adds
        self.inputs: dict[Product, list[Tensor]] = {}  # what came in, until it is more than enough to know the levels
        self.other = self.other_bits = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None and isinstance(result, Tensor):
            work = count(*args, **(kwargs or {}), out_val=result) / 2  # it counts multiply and add apart
            bias_first = func._overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.baddbmm)
            inputs, weight = args[1:3] if bias_first else args[:2]
            self.add(work, inputs, weight)
        return result

    def add(self, work: float, inputs: Tensor, weight: Tensor) -> None:
        if inputs.data_ptr() in self.stored and weight.data_ptr() not in self.stored:
            inputs, weight = weight, inputs  # W x instead of x W
        self.place += 1
        key: Product = weight.data_ptr()
        if key not in self.stored:  # its address will be another tensor's soon
            key = (self.place, *weight.shape)
            if key not in self.made:
                self.made[key] = _level_bits(weight)
        self.done[key] = self.done.get(key, 0.0) + work
        seen = self.inputs.setdefault(key, [])
        if sum(map(len, seen)) < 1 << 20:
            seen.append(inputs.detach().flatten().clone())

    def totals(self) -> tuple[float, float]:
        """Multiply-adds and bit operations."""
        plain, bits = self.other, self.other_bits
        for key, work in self.done.items():
            plain += work
            bits += work * (self.stored | self.made)[key] * _level_bits(torch.cat(self.inputs[key]))
        return plain, bits


def _level_bits(values: Tensor) -> int:
    """Bits that tell the values apart; 32 where they are so many, or repeat so little, that they are plain floats.

    Zeros do not count as repeated: what a ReLU switched off repeats without being quantized.
    """
    levels, count = len(np.unique(packing.as_array(values))), int(values.count_nonzero())  # torch's own `unique` takes eight times as long
    return 32 if levels > 1 << 16 or 2 * levels > count > 1 else max(1, packing.width(levels))


_COUNTING: list[_Work] = []


def executed(multiply_adds: float, weight_bits: int, input_bits: int) -> None:
    """Called by a kernel that torch cannot see (integer, bit-packed, numpy): adds its work where work is being counted."""
    for work in _COUNTING:
        work.other += multiply_adds
        work.other_bits += multiply_adds * weight_bits * input_bits


@contextmanager
def _counting(model: nn.Module) -> Iterator[_Work]:
    known = {weight.data_ptr(): max(1, coded.bits) for weight, coded, _ in packing.weight_codes(model).values()}
    work = _Work(known)
    _COUNTING.append(work)
    try:
        with torch.no_grad(), work:
            yield work
    finally:
        _COUNTING.remove(work)


def executed_work(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Multiply-adds and bit operations for one image: the mean over `images` (N, C, H, W), each run alone."""
    model.eval()
    with _counting(model) as work:
        for image in images.split(1):
            work.place = 0
            model(image)
    plain, bits = work.totals()
    return plain / len(images), bits / len(images)


def multiply_adds(model: nn.Module, image: Tensor) -> float:
    """Multiply-adds of one forward pass. A network and image on the meta device run in empty memory.

    To run them there is slower: torch imports symbolic algebra first.
    """
    total = 0.0
    if image.is_meta:
        model, image = copy.deepcopy(model).to_empty(device="cpu"), torch.zeros_like(image, device="cpu")

    class Count(Watching):
        def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
            nonlocal total
            result = func(*args, **(kwargs or {}))
            count = flop_registry.get(func._overloadpacket)
            if count is not None:
                total += count(*args, **(kwargs or {}), out_val=result) / 2
            return result

    model.eval()
    with torch.no_grad(), Count():
        model(image)
    return total


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


SURE = 0.01  # of the ratio: a standard error as small as this needs no further pair


def latency(model: nn.Module, reference: nn.Module, images: Tensor, pairs: int = 9) -> float:
    """Time of `model` over that of `reference` on the same images, one thread: the median over interleaved pairs.

    At most so many, at least four: fewer where they agree. Each network runs in the layout that suits it.
    """

    def seconds(network: nn.Module, images: Tensor) -> float:
        if images.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        network(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with one_thread(), torch.no_grad(), laid_out(model, images[:1]) as ours, laid_out(reference, suited(reference, images[:1])) as theirs:
        mine, others = images.to(memory_format=ours), suited(reference, images).to(memory_format=theirs)
        for network, batch in ((model, mine), (reference, others)):
            network.eval()(batch)
        ratios = list[float]()
        while len(ratios) < pairs:
            ratios.append(seconds(model, mine) / seconds(reference, others))
            if len(ratios) >= 4 and statistics.stdev(ratios) <= SURE * statistics.fmean(ratios) * len(ratios) ** 0.5:
                break
        return statistics.median(ratios)

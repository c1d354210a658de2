"""What a network costs and how well it does, read off the network itself: nothing here is declared by a method."""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.kit import pack as packing
from methods.kit import products
from methods.kit.layers import refuse_reparametrized, unmasked
from methods.kit.layout import evaluating, laid_out, suited
from methods.kit.task import Task
from methods.kit.watch import unseen


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


def measure(model: nn.Module, task: Task, reference: nn.Module | None = None) -> Stats:
    """Measure a network on a task's test images, beside a reference or alone.

    A multiply-add is one multiplication and the addition of its product in a convolution, a dense layer or another product of
    matrices, both products of attention included (whole, masked or not); biases, norms, softmax and pooling are none.
    A weight under a pruning mask is its product with the mask; other weights that are computed from others are refused.
    Images are given in the network's own floating type. Logs what is larger or slower than the reference.

    Raises ValueError when the file, read back, is not the network, and naming the layer where a weight is computed from others.
    """
    stats = measured(model, task, reference)
    if reference is not None and (more := grown(stats, reference, task.test.first(1).images)):
        logging.getLogger(__name__).warning("more than what it was made from: %s", more)
    return stats


def measured(
    model: nn.Module,
    task: Task,
    reference: nn.Module | None = None,
    *,
    pack: Callable[[nn.Module], bytes] = packing.pack,
    unpack: Callable[[bytes, nn.Module], nn.Module] = packing.unpack,
) -> Stats:
    """As `measure`, without a word about what is larger or slower; `pack` and `unpack` are the method's own file, else the kit's."""
    model = unmasked(model)
    refuse_reparametrized(model)
    stored = list(counted(model))  # with the number that stands for zero
    images = suited(model, task.test.first(16).images)
    with evaluating(model), torch.no_grad():
        multiply_adds, bit_operations = executed_work(model, images)
        return Stats(
            accuracy=task.score(model, task.test),
            parameters=sum(n.numel() for n, _ in stored),
            nonzeros=sum(int((n != zero).sum()) for n, zero in stored),
            bits=weight_bits(model),
            multiply_adds=multiply_adds,
            bit_operations=bit_operations,
            file_bytes=len(round_trip(model, images, pack, unpack)),
            latency=float("nan") if reference is None else latency(model, reference, images[:8]),
        )


GROWN, SLOWER = 1.01, 1.25  # from how many times the reference's a cost, and the time, which varies, is said to be more


def grown(stats: Stats, reference: nn.Module, image: Tensor) -> str:
    """What of a network is more than its reference's, in words; bytes are those of the reference's state, not packed."""
    state = {value.data_ptr(): value.nbytes for value in reference.state_dict().values() if isinstance(value, Tensor)}
    ratios = {
        "multiply-adds": stats.multiply_adds / max(multiply_adds(reference, image), 1),
        "parameters": stats.parameters / max(sum(number.numel() for number, _ in counted(reference)), 1),
        "bytes": stats.file_bytes / max(sum(state.values()), 1),
    }
    more = {name: ratio for name, ratio in ratios.items() if ratio > GROWN}
    if stats.latency > SLOWER:
        more["time"] = stats.latency
    return ", ".join(f"{ratio:.2f} times the {name}" for name, ratio in more.items())


def counted(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """The tensors that count as parameters, a shared one once, each with its zero: `weight_zero` beside a stored integer weight."""
    seen, buffers = set[tuple[int, int]](), dict(model.named_buffers())
    for name, value in (*model.named_parameters(), *buffers.items()):
        place = (value.data_ptr(), value.numel())  # also of two parameters that are views of one tensor
        if (name in buffers and name.rsplit(".")[-1] not in ("weight", "bias")) or (value.numel() and place in seen):
            continue
        seen.add(place)
        yield value, int(buffers.get(name + "_zero", torch.zeros(())))


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
) -> bytes:
    """The network's file, after checking that a network read from it answers the same.

    What else the network holds is blanked before: nothing may travel beside the file. Only buffers that are not saved stay, for
    the constructor makes them (tables of positions, masks of attention), unless they are called weight or bias.
    """
    file, images = pack(model), suited(model, images)
    blank = copy.deepcopy(model)
    state, plain, beside = {id(value) for value in (*blank.parameters(), *blank.buffers())}, vars(nn.Module()), list[str]()
    with torch.no_grad():
        for name, module in blank.named_modules():
            made = module._non_persistent_buffers_set - {"weight", "bias"}
            saved = [value for key, value in (*module._parameters.items(), *module._buffers.items()) if key not in made]
            others = {key: list(_tensors(held)) for key, held in vars(module).items() if key not in plain}
            hidden = {key: [value for value in held if id(value) not in state] for key, held in others.items()}
            beside += [f"{name}.{key}".lstrip(".") for key, held in hidden.items() if held]
            for value in (*saved, *(value for held in hidden.values() for value in held)):
                if isinstance(value, np.ndarray):
                    value.fill(0)
                elif value is not None:
                    value.zero_()
        again = unpack(file, blank).eval()
        same = _equal(again(images), model(images))
    if not same:
        cure = f"; what is not in its state is not in the file: make buffers of {', '.join(beside)}" if beside else ""
        raise ValueError(f"the file of {type(model).__name__}, read back, gives other outputs than the network that was written{cure}")
    return file


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors and arrays in a value: itself, or what lists, tuples, dictionaries and dataclasses hold."""
    if isinstance(value, Tensor | np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        yield from (found for part in value.values() for found in _tensors(part))
    elif isinstance(value, list | tuple):
        yield from (found for part in value for found in _tensors(part))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _tensors([getattr(value, part.name) for part in fields(value)])


def _equal(ours: Any, theirs: Any) -> bool:
    """Whether two answers hold equal tensors, whatever they are wrapped in."""
    pairs = list(_tensors(ours)), list(_tensors(theirs))
    return len(pairs[0]) == len(pairs[1]) and all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*pairs, strict=True))


Product = int | tuple[int, ...]  # the address of a stored weight, else which product of the run it is, and the weight's shape


class _Work:
    """Adds up multiply-adds as they are executed, and bit operations by the levels that weights and inputs really take."""

    def __init__(self, weight_bits: dict[int, int]) -> None:
        self.stored = weight_bits  # of the weights that the network stores, by address
        self.made: dict[Product, int] = {}  # of those that it makes as it runs
        self.place = 0  # how many products this image has had
        self.done: dict[Product, float] = {}  # multiply-adds
        self.inputs: dict[Product, list[Tensor]] = {}  # what came in, until it is more than enough to know the levels
        self.other = self.other_bits = 0.0

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
    """Bits that tell the values apart; all of their type where they are so many, or repeat so little, that they are plain numbers.

    So many: more than half of a floating type's bits tell apart. Zeros do not count as repeated: what a ReLU switched off
    repeats without being quantized.
    """
    whole = 8 * values.element_size()
    most = 1 << (whole // 2 if values.is_floating_point() else 16)
    exact = values.float() if values.dtype in packing.NOT_OF_NUMPY else values
    levels, count = len(np.unique(packing.as_array(exact))), int(exact.count_nonzero())  # torch's own `unique` takes eight times as long
    return whole if levels > most or 2 * levels > count > 1 else min(whole, max(1, packing.width(levels)))


_COUNTING: list[_Work] = []


def executed(multiply_adds: float, weight_bits: int, input_bits: int) -> None:
    """Called by a kernel that torch cannot see (integer, bit-packed, numpy): adds its work where work is being counted."""
    for work in _COUNTING:
        work.other += multiply_adds
        work.other_bits += multiply_adds * weight_bits * input_bits


@contextmanager
def _counting(model: nn.Module) -> Iterator[_Work]:
    codes = packing.weight_codes(model)  # kept to the end: no other tensor gets their addresses
    work = _Work({weight.data_ptr(): max(1, coded.bits) for weight, coded, _ in codes.values()})
    _COUNTING.append(work)
    try:
        with evaluating(model), torch.no_grad(), products.in_the_open(), products.Counting(work.add):
            yield work
    finally:
        _COUNTING.remove(work)


def executed_work(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Multiply-adds and bit operations for one image: the mean over `images` (N, C, H, W), each run alone."""
    with _counting(model) as work:
        for image in suited(model, images).split(1):
            work.place = 0
            model(image)
    plain, bits = work.totals()
    return plain / len(images), bits / len(images)


def multiply_adds(model: nn.Module, image: Tensor) -> float:
    """Multiply-adds of one forward pass, as `measure` defines them. A network and image on the meta device run in empty memory.

    To run them there is slower: torch imports symbolic algebra first.
    """
    total = 0.0
    if image.is_meta:
        model, image = copy.deepcopy(model).to_empty(device="cpu"), torch.zeros_like(image, device="cpu")

    def add(work: float, *_: Tensor) -> None:
        nonlocal total
        total += work

    with evaluating(model), torch.no_grad(), unseen(), products.in_the_open(), products.Counting(add):
        model(suited(model, image))
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
    return statistics.median(mine / theirs for mine, theirs in paired(model, reference, images, pairs))


def milliseconds(model: nn.Module, reference: nn.Module, images: Tensor) -> float:
    """Time of `model` for a batch of images, one thread: the median of what `latency` compares."""
    return 1000 * statistics.median(mine for mine, _ in paired(model, reference, images))


def paired(model: nn.Module, reference: nn.Module, images: Tensor, pairs: int = 9) -> list[tuple[float, float]]:
    """Seconds of both on the same images, in turn."""

    def seconds(network: nn.Module, images: Tensor) -> float:
        if images.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        network(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    mine, others = suited(model, images), suited(reference, images)
    with (
        one_thread(),
        evaluating(model, reference),
        torch.no_grad(),
        laid_out(model, mine[:1]) as ours,
        laid_out(reference, others[:1]) as theirs,
    ):
        mine, others = mine.to(memory_format=ours), others.to(memory_format=theirs)
        for network, batch in ((model, mine), (reference, others)):
            network(batch)
        times = list[tuple[float, float]]()
        while len(times) < pairs:
            times.append((seconds(model, mine), seconds(reference, others)))
            ratios = [one / other for one, other in times]
            if len(ratios) >= 4 and statistics.stdev(ratios) <= SURE * statistics.fmean(ratios) * len(ratios) ** 0.5:
                break
        return times

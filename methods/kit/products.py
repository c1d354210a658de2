"""The products of matrices that a network executes, however it asks for them: what multiply-adds are counted from.

A multiply-add is one multiplication and the addition of its product in a convolution, a dense layer or another product of
matrices; both products of attention are such, whole, also where a mask hides half of them. Biases, norms, activations,
softmax, pooling, interpolation, look-ups in a table and products number by number are none.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods.kit.layout import Watching

Product = tuple[float, Tensor, Tensor]  # multiply-adds, and what is multiplied: input and weight, or two things made as it runs
MATRICES = dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm"), 0)  # where the left factor stands
MATRICES |= dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"), 1)
CONVOLUTIONS = ("convolution", "_convolution", "convolution_overrideable")
RECURRENT = ("_cudnn_rnn", "miopen_rnn")
FUSED = re.compile("_scaled_dot_product_(flash_attention_for_cpu|(flash|efficient|cudnn|fused)_attention(_overrideable)?)")
HIDING = re.compile(r"attention|transformer|trilinear|linear|conv(?!ert)|rnn|lstm|gru|mm(_|$)|mm_v\d|matmul|dot|mv$|cdist|euclidean")
FREE = re.compile(r"_?upsample|_thnn|.*flatten_weight|.*reorder|.*search$|.*backward")  # names that only sound like products


def of(name: str, args: tuple[Any, ...], result: Any) -> list[Product] | None:
    """The products inside one of torch's operations, by its name without the underscore of "in place"; None if it is not known."""
    if name in MATRICES:
        left, right = args[MATRICES[name] :][:2]
        return [(left.numel() * (right.shape[-1] if right.ndim > 1 else 1), left, right)]
    if name in CONVOLUTIONS:
        places = args[0] if args[6] else result  # a transposed one multiplies at every place of its input
        return [(places.numel() * args[1].shape[1:].numel(), args[0], args[1])]
    if name == "conv_tbc":
        return [(result.numel() * args[1].shape[:2].numel(), args[0], args[1])]
    if name == "_trilinear":  # of `nn.Bilinear`: rows times weight, and what comes out times the other rows
        rows, (outputs, left, right) = args[0].numel() // args[0].shape[-1], args[1].shape
        return [(rows * outputs * left * right, args[0], args[1]), (rows * outputs * right, args[2], result)]
    if name == "mkldnn_rnn_layer":
        steps = args[0].numel() // args[0].shape[-1]
        return [(steps * args[1].numel(), args[0], args[1]), (steps * args[2].numel(), result[0], args[2])]
    if name in RECURRENT:
        steps = args[0].numel() // args[0].shape[-1]
        matrices = [weight for weight in args[1] if weight.ndim == 2]
        return [(steps * w.numel(), args[0] if w.shape[1] == args[0].shape[-1] else result[0], w) for w in matrices]
    if FUSED.fullmatch(name):  # nobody sees the shares; like the answers, they are not quantized
        query, key, value = args[:3]
        places = query.numel() // query.shape[-1] * key.shape[-2]
        return [(places * query.shape[-1], query, key), (places * value.shape[-1], result[0], value)]
    return None


class Counting(Watching):
    """Hands every product that runs to `seen`. Logs once what may have products inside that nobody can count."""

    def __init__(self, seen: Callable[[float, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.seen = seen
        self.unknown = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = func._overloadpacket.__name__.rstrip("_")
        if name not in MATRICES and name not in CONVOLUTIONS:  # in inference mode whole ones arrive, such as `linear`
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        result = func(*args, **(kwargs or {}))
        found = of(name, args, result) if func.namespace == "aten" else None
        for product in found or ():
            self.seen(*product)
        if found is None and hides(func.namespace, name):
            self.tell(f"{func.namespace}.{name}")
        return result

    def tell(self, name: str) -> None:
        if name not in self.unknown:
            self.unknown.add(name)
            advice = "call methods.kit.measure.executed beside it if it multiplies matrices"
            logging.getLogger(__name__).warning("the multiply-adds inside of %s are not counted; %s", name, advice)


def hides(namespace: str, name: str) -> bool:
    """Whether an operation without a formula may multiply matrices: by its name, or because it is not torch's own."""
    if namespace == "aten":
        return bool(HIDING.search(name)) and not FREE.match(name)
    return namespace not in ("prim", "prims", "profiler")


@contextmanager
def in_the_open() -> Iterator[None]:
    """Attention runs as the products that it consists of, in the model's own type, instead of as one fused operation."""
    fast, halves = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(halves)

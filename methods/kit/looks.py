"""Images that know where they come from: they are counted where something is computed of them, not where they are handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.kit.watch import Watcher, watcher


@dataclass(eq=False)
class Look:
    """Images (N, C, H, W) or labels (N, ...) that were picked from a split, and whether anybody has looked at them."""

    split: str
    of_labels: bool
    rank: int  # dimensions where there are several
    picked: Tensor
    counted: bool = False

    def count(self) -> int:
        """How many; of whole labels those below zero say nothing, and are none."""
        if self.of_labels and not self.picked.is_floating_point():
            known = self.picked >= 0
            return int(known.sum()) if known.ndim <= 1 else len(known)
        return len(self.picked) if self.picked.ndim >= self.rank else 1


class Looking(Watcher):
    """Whoever counts looks: `looked` is called once for each."""

    def looked(self, look: Look) -> None:
        raise NotImplementedError

    def handed_on(self, make: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return _marked(make(plain(images)), images.looks) if isinstance(images, Seen) else make(images)


# fmt: off
SHAPE = {  # what tells a shape or a place, not what is in the images
    "__len__", "size", "dim", "ndimension", "stride", "numel", "nelement", "element_size", "storage_offset", "data_ptr", "untyped_storage",
    "is_contiguous", "is_floating_point", "is_complex", "get_device", "__repr__", "__format__", "__hash__", "requires_grad_",
}
PICK = {"__getitem__", "__iter__", "split", "tensor_split", "chunk", "unbind", "narrow", "index_select", "select"}
MOVE = {
    "to", "cpu", "cuda", "float", "double", "half", "bfloat16", "long", "contiguous", "clone", "detach", "cat", "concatenate", "stack",
    "unsqueeze",
}
# fmt: on
ONE = slice(None, 1)  # one image of many is asked for to see a shape, or what runs: it is no look


class Seen(Tensor):
    """A tensor of a watched split. What picks from it or moves it gives another; anything else is a look and gives a plain tensor."""

    looks: tuple[Look, ...] = ()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            answer = func(*args, **(kwargs or {}))
            name = func.__name__
            if name in SHAPE or (name == "__get__" and not isinstance(answer, Tensor)):
                return answer
            looks = looks_of(args)
            if not looks or (name == "__getitem__" and isinstance(args[1], slice) and args[1] == ONE):
                return answer
            if name in PICK and looks == looks_of(args[:1]):
                return _each(answer, lambda part: _marked(part, (_again(looks, part),)))
            if name in MOVE or name == "__get__":
                return _each(answer, lambda part: _marked(part, looks))
            if isinstance(counter := watcher(), Looking):
                for look in looks:
                    if not look.counted:
                        look.counted = True
                        counter.looked(look)
            return answer

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:  # of a network that keeps images
        return memo.setdefault(id(self), _marked(plain(self).clone(), self.looks))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)


def looks_of(values: Any) -> tuple[Look, ...]:
    """Those of all watched tensors among arguments, or in a list among them."""
    flat = (part for value in values for part in (value if isinstance(value, list | tuple) else (value,)))
    return tuple(look for part in flat if isinstance(part, Seen) for look in part.looks)


def seen(tensor: Tensor, split: str, of_labels: bool = False) -> Tensor:
    return _marked(tensor, (Look(split, of_labels, tensor.ndim, tensor),))


def plain(tensor: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(Tensor) if isinstance(tensor, Seen) else tensor


def _again(looks: tuple[Look, ...], part: Tensor) -> Look:
    return Look(" and ".join(sorted({look.split for look in looks})), looks[0].of_labels, looks[0].rank, part)


def _marked(tensor: Tensor, looks: tuple[Look, ...]) -> Tensor:
    if isinstance(tensor, Seen) and tensor.looks == looks:
        return tensor
    marked = tensor.as_subclass(Seen)
    marked.looks = looks
    return marked


def _each(answer: Any, mark: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(answer, Tensor):
        return mark(answer)
    parts = (mark(part) for part in answer)
    return tuple(parts) if isinstance(answer, list | tuple) else iter(list(parts))

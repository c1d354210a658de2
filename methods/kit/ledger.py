"""What it took to make a network, counted while it is made: the ledger; and what was done in which order: the trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn, cast
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from methods.kit.looks import Look, Looking, Seen, seen
from methods.kit.task import Split, Task
from methods.kit.watch import watched_by, watcher


class LeakError(Exception):
    """The test images, which judge, were looked at by what is judged."""


class _Unseen:
    def to(self, kind: torch.dtype) -> _Unseen:
        return self

    def __len__(self) -> int:
        self._refuse("how many there are")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(name)

    def _refuse(self, what: str) -> NoReturn:
        cure = "a claim scores a network by lab.score(model), a method searches on task.validation"
        raise LeakError(f"looked at images that it may not look at ({what}); {cure}")


UNSEEN = cast(Split, _Unseen())  # images at which a look is an error


def blind(task: Task) -> Task:
    """The task without its test images: to look at them is an error."""
    return replace(task, test=UNSEEN)


Known = Mapping[str, nn.Module]


@dataclass
class Event:
    """Something that happened to networks, in order. `who` is told in words when it happens; it may turn out to be what was returned."""

    what: str
    who: str = ""
    network: Callable[[], nn.Module | None] = lambda: None
    details: list[str] = field(default_factory=list)
    split: str = ""
    images: int = 0
    inner: list[Event] = field(default_factory=list)

    def same(self, other: Event) -> bool:
        mine, theirs = ((e.what, e.who, id(e.network()), e.split, e.details, e.inner) for e in (self, other))
        return mine == theirs


@dataclass
class Ledger(Looking):
    """What one network took: each number counts, but `rate`, the highest learning rate, and `seconds`.

    Images count each time they are picked and something is computed of them; `validation` are those of that split, `labelled` those
    whose labels were looked at as well. `steps` are an optimiser's, `iterations` a solver's, `evaluations` those of a task's score.
    """

    steps: int = 0
    iterations: int = 0
    images: int = 0
    labelled: int = 0
    validation: int = 0
    evaluations: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    events: list[Event] = field(default_factory=list, repr=False)
    known: Known = field(default_factory=dict, repr=False)
    running: int = field(default=0, repr=False)  # modules, one within the other
    inside: int = field(default=0, repr=False)  # events, one within the other

    def note(self, *, steps: int = 0, iterations: int = 0, rate: float = 0.0) -> None:
        self.steps += steps
        self.iterations += iterations
        self.rate = max(self.rate, rate)
        if steps and not self.inside:
            self.add(Event("steps", details=[f"rate {rate:.3g}"]))

    @contextmanager
    def during(self, what: str, network: nn.Module | None = None, **details: Any) -> Iterator[None]:
        """One event of a network; other networks that run meanwhile, and what else happens, are told with it."""
        who = described(network, self.known) if network is not None else ""
        event = Event(what, who, ref(network) if network is not None else lambda: None, in_words(network, **details))
        outer, self.events, steps = self.events, [], self.steps
        self.inside += 1
        try:
            yield
        finally:
            mine = [inner for inner in self.events if network is not None and inner.what == "runs" and inner.network() is network]
            event.inner = [inner for inner in self.events if not any(inner is one for one in mine)]
            event.split, event.images = " and ".join(sorted({inner.split for inner in mine})), sum(inner.images for inner in mine)
            event.details[:0] = sorted({inner.details[0] for inner in mine})
            if self.steps > steps:
                event.details.append(f"{self.steps - steps} steps")
            self.events, self.inside = outer, self.inside - 1
            self.add(event)

    def looked(self, look: Look) -> None:
        if look.of_labels:
            self.labelled += look.count()
        else:
            self.images += look.count()
            self.validation += look.count() * ("validation" in look.split)

    def numbers(self) -> dict[str, float]:
        return {f.name: float(getattr(self, f.name)) for f in fields(self) if f.name in COUNTED}

    def add(self, event: Event) -> None:
        """One more event, or more images of the last such; within another event their order says nothing."""
        earlier = self.events if self.inside else self.events[-1:]
        if event.what == "runs" and (same := next((e for e in earlier if e.same(event)), None)):
            same.images += event.images
        else:
            self.events.append(event)

    def trace(self, returned: nn.Module | None = None) -> list[str]:
        """A line an event, without the few images that only show what goes in and comes out; what repeats is told once, with how often."""
        shown = [event for event in self.events if event.images > FEW or event.what != "runs" or event.details != [EVAL]]
        return repeated([told(event, returned) for event in shown])


FEW = 8  # so many images only show what goes in and comes out
COUNTED = ("steps", "iterations", "images", "labelled", "validation", "evaluations", "rate", "seconds")


def told(event: Event, returned: nn.Module | None) -> str:
    who = event.who
    if returned is not None and who.startswith(("a network", "one like")) and (network := event.network()) is not None:
        who = next((_part(name, "the returned network") for name, part in returned.named_modules() if part is network), who)
    of = f" on {event.images} images of {event.split}" if event.images else f" on {event.split}" if event.split else ""
    inner = sorted({told(replace(each, images=0), returned) for each in event.inner})
    if event.what == "scores" and who.startswith("a network"):
        who = "a candidate"
    line = f"{event.what} {who}{of}".rstrip()
    return "; ".join([", ".join([line, *event.details]), *(f"meanwhile {each}" for each in inner)])


def in_words(
    network: nn.Module | None, rate: float | None = None, iterations: int | None = None, params: Iterable[Tensor] | None = None
) -> list[str]:
    """Rate, iterations, and the network's parameters that are not among `params`: few by name."""
    words = [f"{iterations} iterations"] if iterations is not None else []
    words += [f"rate {rate:g}"] if rate is not None else []
    if network is not None and params is not None:
        learn = {id(p) for p in params}
        frozen = [name for name, p in network.named_parameters() if id(p) not in learn]
        words += [f"frozen: {', '.join(frozen) if len(frozen) <= 4 else f'{len(frozen)} parameters'}"] if frozen else []
    return words


def repeated(lines: list[str], longest: int = 6) -> list[str]:
    """The lines, those that come again right after themselves once."""
    found, place = list[str](), 0
    while place < len(lines):
        for size in range(1, longest + 1):
            block, times = lines[place : place + size], 1
            while lines[place + times * size : place + (times + 1) * size] == block:
                times += 1
            if times > 1:
                found += [*block[:-1], f"{block[-1]} ({times} times{f' these {size} lines' if size > 1 else ''})"]
                place += times * size
                break
        else:
            found.append(lines[place])
            place += 1
    return found


def _part(name: str, whole: str) -> str:
    return f"{name} of {whole}" if name else whole


def same_weights(some: list[nn.Parameter], others: list[nn.Parameter]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and a.device == b.device and torch.equal(a, b) for a, b in zip(some, others, strict=True)
    )


@torch.no_grad()
def described(network: nn.Module, known: Known) -> str:
    """Which network it is: one of those known by its weights, wherever they were copied to, or consecutive layers of it."""
    mine = list(network.parameters())
    for name, other in known.items():
        names, weights = zip(*other.named_parameters(), strict=True) if mine and list(other.parameters()) else ((), ())
        for start in range(len(weights) - len(mine) + 1 if weights else 0):
            if same_weights(mine, list(weights[start : start + len(mine)])):
                if len(mine) == len(weights):
                    return name
                first, last = (names[place].rpartition(".")[0] for place in (start, start + len(mine) - 1))
                return f"{first} of {name}" if first == last else f"{first} to {last} of {name}"
    for name, other in known.items():
        if mine and [p.shape for p in mine] == [p.shape for p in other.parameters()]:
            return f"one like {name}"
    return f"a network of {sum(p.numel() for p in mine):,} parameters"


EVAL = "eval mode"


def mode(network: nn.Module) -> str:
    modes = {part.training for part in network.modules()}
    return "train and eval mode mixed" if len(modes) > 1 else "train mode" if modes == {True} else EVAL


def book() -> Ledger | None:
    """The ledger that is being kept, if any."""
    found = watcher()
    return found if isinstance(found, Ledger) else None


def _enter(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    if kept := book():
        kept.running += 1
        images = next((a for a in arguments if isinstance(a, Seen)), None)
        if kept.running == 1 and images is not None:
            where = " and ".join(sorted({look.split for look in images.looks}))
            kept.add(Event("runs", described(module, kept.known), ref(module), [mode(module)], where, len(images)))


def _leave(module: nn.Module, arguments: Any, answer: Any) -> None:
    if kept := book():
        kept.running -= 1


def _stepped(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    watcher().note(steps=1, rate=max(float(group["lr"]) for group in optimiser.param_groups))


@contextmanager
def kept(known: Known) -> Iterator[Ledger]:
    """Keeps a ledger meanwhile; in its trace networks are called as in `known`, which must not change."""
    ledger, start = Ledger(known=known), time.perf_counter()
    hooks = (
        register_module_forward_pre_hook(_enter),
        register_module_forward_hook(_leave, always_call=True),
        register_optimizer_step_post_hook(_stepped),
    )
    try:
        with watched_by(ledger):
            yield ledger
    finally:
        for hook in hooks:
            hook.remove()
        ledger.seconds = time.perf_counter() - start


def watched(task: Task) -> Task:
    """The task as it is given to what is counted: its images know where they come from, its score is counted, its test cannot be seen.

    Of streamed images none are counted.
    """

    def marked(split: Any, name: str) -> Any:
        if not isinstance(split, Split):
            return split
        return Split(seen(split.images, name), seen(split.labels, name, of_labels=True))

    def score(network: nn.Module, split: Any) -> float:
        if ledger := book():
            ledger.evaluations += 1
        with watcher().during("scores", network):
            return task.score(network, split)

    return replace(blind(task), train=marked(task.train, "train"), validation=marked(task.validation, "validation"), score=score)

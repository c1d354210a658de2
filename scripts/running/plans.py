"""Plans of what methods would do to a network, as one reads them on a terminal. Made in processes of their own by `plan`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from catalog import Record
from scripts.evidence.terminal import out, plain
from scripts.running.runs import PLAN, stream

PATIENCE = 300.0  # seconds that a method may take


class PlanError(ValueError):
    """The network cannot be built or run; the message says why and the cure."""


@dataclass
class Plan:
    """What a method would do. `problem` is why it would not; `trained`: training or accuracy decides what was only guessed here."""

    id: str
    problem: str = ""
    parameters: tuple[int, int] = (0, 0)  # before, after
    multiply_adds: tuple[float, float] = (0.0, 0.0)
    bits: float = math.nan  # a weight, where there are as many as before
    layers: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    trained: bool = False
    seconds: float = 0.0


def show(records: Iterable[Record], where: str, shape: tuple[int, ...], jobs: int, say: Callable[[str], None]) -> None:
    """Print the plans of methods for the network that FILE.py:FUNCTION makes, as they come. Raises `PlanError`."""
    known = {record.id: record for record in records}
    say(f"rehearsing {len(known)} methods")
    for id, event in stream(PLAN, [(id, (record, where, shape)) for id, record in known.items()], jobs, PATIENCE):
        if isinstance(event, PlanError):
            raise event
        one = event if isinstance(event, Plan) else Plan(id, problem=event.death)
        out.print(f"\n[bold]{plain(known[id].entry.name)}[/bold] [dim]{known[id].family}/{id} · {one.seconds:.1f} s[/dim]")
        if one.problem:
            out.print(f"  would not: {plain(one.problem)}")
            continue
        guess = "; what goes is decided by training or accuracy, this is a choice without either" if one.trained else ""
        shares = [f"{_share(pair)} of the {what}" for what, pair in (("parameters", one.parameters), ("multiply-adds", one.multiply_adds))]
        few = f", {one.bits:.1f} bits a weight" if one.bits < 31 else ""
        out.print(f"  {' and '.join(shares)}{few} ({one.parameters[0]:,} → {one.parameters[1]:,}){guess}")
        for line in one.layers or ["a network of its own takes the place of yours"]:
            out.print(f"  {plain(line)}")
        for line in one.kept:
            out.print(f"  [dim]{plain(line)}[/dim]")


def _share(pair: tuple[float, float]) -> str:
    return f"{pair[1] / pair[0]:.1%}" if pair[0] else "all"

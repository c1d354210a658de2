"""How far something is that takes longer: lines of the log, which `logging.basicConfig(level=logging.INFO)` shows."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 5.0  # seconds


def told(things: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The things as they come; every five seconds a line says how many are done, and of how many where that is known."""
    last = time.monotonic()
    for step, thing in enumerate(things, 1):
        yield thing
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            logging.getLogger(__name__).info("%s: step %d%s", what, step, f" of {total}" if total else "")

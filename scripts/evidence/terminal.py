"""What a terminal is told: text that steers nothing, one line an error, and what is being done now."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from rich.console import Console
from rich.markup import escape

from catalog.text import harmless

_seen = sys.stdout is not None and sys.stdout.isatty()
out = Console(highlight=False, soft_wrap=not _seen, width=None if _seen else 150)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Interrupted(KeyboardInterrupt):
    """An interruption of which there is more to say: what is kept, and how to go on."""


def plain(text: str) -> str:
    """Text as it is, whatever it holds: no markup, and nothing that steers a terminal."""
    return escape(harmless(text))


def fail(message: str) -> None:
    """One line on standard error, if that can be written."""
    with suppress(OSError):
        err.print(f"[red]error[/red]: {plain(message)}")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line that says what is running, on a terminal; silence otherwise. An error is told what was running."""
    last, started = "", time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        last = text
        if status:
            status.update(f"{plain(text)} [dim]{time.monotonic() - started:.0f} s[/dim]")

    with out.status("starting") if out.is_terminal else nullcontext() as status:
        try:
            yield say
        except Exception as problem:
            if last:
                problem.add_note(last)
            raise

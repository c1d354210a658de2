"""How a command begins and ends, whatever it does: with the code of the checkout one stands in, and never with a traceback."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from scripts.evidence.terminal import Interrupted, err, fail, plain

OWN = Path(__file__).absolute().parent.parent  # the checkout that this code comes from
RERUN = "SMALLPRINT_CHECKOUT"  # says that it is the code of this checkout that runs
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
LONGEST = 300  # letters of a reason, or of what was typed
OUTPUT = "standard output"


# Where


def checkout() -> Path | None:
    """The checkout of this project that the working folder lies in; None where it lies in none. Raises `OSError` where that is gone."""
    here = Path.cwd()
    needed = ("catalog/vocabulary.yaml", "methods", "scripts/cli.py")
    return next((folder for folder in (here, *here.parents) if all(os.path.exists(folder / part) for part in needed)), None)


def move() -> None:
    """Where one stands in another checkout than the program comes from, run the program of that one instead, and say so.

    Raises `SystemExit` where the working folder is gone: every path that is given begins there.
    """
    try:
        here = checkout()
    except OSError as problem:
        fail(f"the working folder: {problem.strerror}; change into another")
        raise SystemExit(1) from None
    if here is None or here.samefile(OWN) or os.environ.get(RERUN) == str(here):
        return
    err.print(f"[dim]in {plain(str(here))}[/dim]")
    places = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "scripts.cli", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, RERUN: str(here), "PYTHONPATH": places})


# How


def run(work: Callable[[], object], root: Path = OWN) -> NoReturn:
    """Do the work and end the process, by `SystemExit`.

    An error that nobody foresaw is one line, which names a file in `root`/build with the traceback, and exit code 1. Signals to end
    are all heard as an interruption: one line, exit code 130. A pipe that is closed by its reader is no error to speak of.
    """
    closed = sys.stdout is None
    _open_streams()
    signals = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    heard = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]  # as after nohup
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    code: object = 1
    said: str | None = None
    try:
        if closed:
            said = f"{OUTPUT} is closed; send it to a file, or to /dev/null"
        else:
            work()
            code = 0
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt as end:
        code = interrupted(end)
    except BrokenPipeError:
        pass
    except BaseException as problem:
        said = _of_output(problem) or _told(problem, root)
    for number in heard:
        signal.signal(number, signal.SIG_DFL)  # there is nothing left to lose
    try:
        sys.stdout.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or it would be tried again
        code, said = 1, None if isinstance(problem, BrokenPipeError) else _of_output(problem)
    if said:
        fail(said)
    sys.exit(code)  # type: ignore[arg-type]


def interrupted(end: KeyboardInterrupt) -> int:
    """Say so, in one line; the exit code."""
    with suppress(OSError):
        err.print(f"\ninterrupted{end}" if isinstance(end, Interrupted) else "interrupted")
    return 130


class Output(io.FileIO):
    """Standard output, whose errors say so."""

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError as problem:
            problem.filename = OUTPUT
            raise


def _of_output(problem: BaseException) -> str | None:
    if isinstance(problem, OSError) and problem.filename == OUTPUT:
        return f"{OUTPUT}: {problem.strerror}; make room, or send it elsewhere"
    return None


def _open_streams() -> None:
    """Make standard streams fit for use: none is closed, and none fails at a letter that it has no code for."""
    for number in range(3):  # the next file to be opened would get its number, and what is printed
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    raw, encoding, at_once = Output(1, "w", closefd=False), None, False
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, at_once = sys.stdout.encoding, sys.stdout.write_through  # as with `python -u`
    buffer: Any = raw if at_once else io.BufferedWriter(raw)
    sys.stdout = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=raw.isatty(), write_through=at_once)


def _told(problem: BaseException, root: Path) -> str:
    """What was being done, what happened, and where its traceback is."""
    reason = f"{problem.filename}: {problem.strerror}" if isinstance(problem, OSError) and problem.filename else str(problem)
    name = "" if isinstance(problem, OSError) else type(problem).__name__
    doing = [shlex.join(["smallprint", *sys.argv[1:]]), *getattr(problem, "__notes__", [])]
    text = ": ".join(_short(part) for part in (*doing, name, reason) if part)
    place = _kept("".join(traceback.format_exception(problem)), root / "build")
    return f"{text}; {f'the traceback is in {place}' if place else 'its traceback could not be written'}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _kept(text: str, folder: Path) -> str | None:
    """Path of a new file with this text, in the folder or else in the system's temporary one."""
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
    for place in (folder, None):
        with suppress(OSError):
            file, path = tempfile.mkstemp(".txt", "error-", place, text=True)
            with open(file, "w", encoding="utf-8", errors="backslashreplace") as opened:
                opened.write(text)
            return path
    return None

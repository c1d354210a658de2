"""Pieces of work side by side, each in a process and with a pipe of its own: one that dies is said to have, and no other dies with it.

The processes are forked by a server that has imported torch and run no operation, so that each begins in milliseconds and may
still choose what torch and oneDNN read from the environment. They end when the command does, however it ends.
"""

from __future__ import annotations

import faulthandler
import math
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import IO, Any

PRELOADED = ("scripts.running.smoke", "scripts.running.sweep", "scripts.running.bite", "typer", "rich.console", "rich.table")
GRACE = 2.0  # seconds that a process has to tidy up when it is told to end
_DONE = "all that there was to do is done"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, eq=False)
class Job:
    """`work(send, *arguments)` is called in the process; whatever it sends arrives here. It must be importable by name."""

    name: str
    work: Callable[..., None]
    arguments: Sequence[Any] = ()
    threads: int | None = None  # None leaves torch its own number
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = math.inf  # seconds until it is killed


@dataclass(frozen=True)
class Started:
    """The process begins."""


@dataclass(frozen=True)
class Ended:
    """The process is over. `death` says how it died, "" where it did not; `output` is what it wrote to the terminal."""

    death: str = ""
    late: bool = False
    output: str = ""


def side_by_side(jobs: deque[Job], at_once: int) -> Generator[tuple[Job, Any], None, None]:
    """Do the jobs, `at_once` of them at a time, taken from the left as places become free; more may be put there meanwhile.

    Yields each job with `Started`, then with all that it sends, then with `Ended`. Close the iterator to end what still runs.
    """
    running: list[_Running] = []
    try:
        while jobs or running:
            while jobs and len(running) < at_once:
                job = jobs.popleft()
                yield job, Started()
                running.append(_Running(job))
            soonest = min(one.deadline for one in running) - time.monotonic()
            ready = wait([one.pipe for one in running], timeout=None if soonest == math.inf else max(0.0, soonest))
            for one in list(running):
                late = time.monotonic() > one.deadline
                if one.pipe in ready and not late:
                    with suppress(EOFError, OSError):
                        if (said := one.pipe.recv()) != _DONE:
                            yield one.job, said
                        else:
                            one.done = True
                        continue
                elif not late:
                    continue
                running.remove(one)
                yield one.job, one.end(late)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.end(late=True)


class _Running:
    """A job's process, its pipe, and the file that takes what it writes to the terminal."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self.job, self.deadline, self.done = job, time.monotonic() + job.patience, False
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed where the process ends
        self.pipe, theirs = context.Pipe(duplex=False)
        written = Connection(os.dup(self.output.fileno()), readable=False)  # the only thing that carries a handle to a forked process
        self.process = context.Process(target=_in_process, args=(theirs, written, job), daemon=True)
        self.process.start()
        theirs.close()
        written.close()

    def end(self, late: bool) -> Ended:
        """Wait for the end, and see to it where it is late or does not come."""
        if late:
            self.process.terminate()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self.output.seek(0)
        output = self.output.read().decode("utf-8", "replace")
        self.output.close()
        code = self.process.exitcode or 0
        self.process.close()
        if late:
            return Ended("its process took too long", True, output)
        how = "" if self.done and code == 0 else death(code, output)
        return Ended(how, False, output.partition("Fatal Python error")[0])


def death(code: int, output: str = "") -> str:
    """In words how a process died. The line of the method where it did is taken from the dump of its stack."""
    if code >= 0:
        return f"its process ended by itself, with exit code {code},"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    frame = re.search(r'File "[^"]*?(methods/(?!kit/)[^"]+)", line (\d+) in (\w+)', output)
    place = f" at {frame[1]}:{frame[2]} in {frame[3]}" if frame else ""
    why = " (killed from outside, or memory ran out)" if name == "SIGKILL" else ""
    return f"its process died of {name}{why}{place}"


def _in_process(pipe: Connection, written: Connection, job: Job) -> None:
    for stream in (1, 2):
        os.dup2(written.fileno(), stream)
    faulthandler.enable(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command hears it, and ends us
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143) if _ending else _end())
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    os.environ.update(job.environment)
    if job.threads is not None:
        os.environ.update(dict.fromkeys(_THREADS, str(job.threads)))
        import torch

        torch.set_num_threads(job.threads)
    with suppress(BrokenPipeError):  # the command is gone
        job.work(pipe.send, *job.arguments)
        pipe.send(_DONE)
    sys.stdout.flush()
    sys.stderr.flush()


_ending: list[bool] = []


def _end() -> None:
    _ending.append(True)
    sys.exit(143)


def _end_with_the_command() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(143)

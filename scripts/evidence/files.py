"""Write files and folders whole or not at all.

What is being made lies beside its target, as .NAME.PROCESS.part, until it takes the target's place. When that process is
killed, the next one that writes there removes it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d{1,9})\.(?P<kind>part|old)", re.DOTALL)


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A path beside `target` at which to make a file or a folder. At first nothing lies there, and in the end nothing is left."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    remove(part)  # of a process that had this one's number
    try:
        yield part
    finally:
        remove(part)


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path at which to make a file, which then takes the place of `target`, or of what that links to; not so after an error.

    Raises `OSError`.
    """
    target = Path(os.path.realpath(target))
    clear(target)
    with temporary(target) as part:
        yield part
        with suppress(FileNotFoundError):
            shutil.copymode(target, part)
        os.replace(part, target)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all. What is no regular file, or is standard output, is written into. Raises `OSError`."""
    content = text.encode()
    if stream := _stream(path):
        with open(stream, "wb") as file:
            file.write(content)
        return
    with whole(path) as part:
        part.write_bytes(content)


def _stream(path: Path) -> int | Path | None:
    """What to open for a path at which nothing can take another's place; None where something can."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    for output in (1, 2):  # one that the shell has opened at a place, which opening it again would lose
        with suppress(OSError):
            if os.path.samestat(os.fstat(output), there):
                return os.dup(output)
    return None if stat.S_ISREG(there.st_mode) else path


def abandoned(path: Path) -> bool:
    """Whether a path is something unfinished of a process that no longer lives."""
    found = LEFT.fullmatch(path.name)
    return found is not None and not _lives(int(found["process"]))


def clear(target: Path) -> None:
    """Remove what killed processes left of making `target`; where one had just taken the older one away, that comes back."""
    if not target.parent.is_dir():
        return
    for path in list(target.parent.iterdir()):
        found = LEFT.fullmatch(path.name)
        if found and found["name"] == target.name and abandoned(path):
            if found["kind"] == "old" and not os.path.lexists(target):
                path.rename(target)
            else:
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _lives(process: int) -> bool:
    if sys.platform == "win32":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Meanwhile no other process is in here for the same folder. The lock leaves no file and ends with the process. Raises `OSError`.

    Where a file system, some network's for instance, cannot lock a folder, nothing is waited for.
    """
    if sys.platform == "win32":  # has no such lock
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as problem:
            if problem.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
        yield
    finally:
        os.close(handle)

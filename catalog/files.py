"""Reading what anybody may have put there: regular files only, up to a size, in UTF-8."""

from __future__ import annotations

import io
import stat
from pathlib import Path

LARGEST = 1_000_000  # bytes of a file that people write; a longer one is a mistake


class Unreadable(Exception):
    """A file, or a place in it, that cannot be read: the line, the reason with its cure, and the field where there is one."""

    def __init__(self, line: int, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.line, self.reason, self.field = line, reason, field


def raw(path: Path, largest: int = LARGEST) -> bytes:
    """What a file holds. Raises `Unreadable` where it cannot be opened, is no regular file or is larger than so many bytes.

    A pipe would be waited for, and a device never ends.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable(1, "cannot be opened: it is a folder, a pipe or a device; put a regular file there")
        with path.open("rb") as file:
            found = file.read(largest + 1)
    except OSError as problem:
        raise Unreadable(1, f"cannot be opened: {problem.strerror}; restore it") from problem
    if len(found) > largest:
        raise Unreadable(1, f"is larger than {largest} bytes; split or shorten it")
    return found


def content(path: Path, largest: int = LARGEST) -> str:
    """Its text, without a byte order mark and with lines that end in a line feed. Raises `Unreadable` for what is not UTF-8, too."""
    found = raw(path, largest)
    try:
        return io.StringIO(found.decode("utf-8-sig"), newline=None).read()
    except UnicodeDecodeError as problem:
        line = found[: problem.start].count(b"\n") + 1
        raise Unreadable(line, "not UTF-8; save the file in that encoding") from problem

"""What every row that one run records has in common: code, commit, versions, device."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from catalog import Problem, Record
from scripts.evidence import records, source
from scripts.evidence.definitions import Codes


class Stamp:
    """Makes rows for one method's results file, and writes and reads them there."""

    def __init__(self, root: Path, record: Record, device: str = "", threads: int = 1) -> None:
        """A device without a name is this processor. Raises `RecordError` where the method cannot be read."""
        self.path = records.path_of(root, record.family, record.id)
        method = source.read(root, root / "methods" / record.family / f"{record.id}.py")
        if isinstance(method, Problem):
            raise records.RecordError(str(method))
        self.codes = Codes(root, method)
        self.device, self.threads = device or processor(), threads
        self.commit = commit(root)

    def row(self, tier: str, subject: str, metric: str, value: float, data: str, digest: str, seed: int) -> records.Row:
        return records.Row(
            tier, subject, metric, value, data, digest, seed, self.device, self.threads, platform.python_version(),
            version("torch").split("+")[0], self.commit, self.codes.of(tier, subject), datetime.now(UTC).strftime("%Y-%m-%d"),
        )  # fmt: skip

    def write(self, rows: list[records.Row]) -> None:
        """Raises `RecordError`, also where the file cannot be written."""
        try:
            records.write(self.path, rows)
        except OSError as problem:
            cure = "make the folder writable, or run without --record"
            raise records.RecordError(f"{self.path}: cannot be written ({problem.strerror}); {cure}") from problem

    def done(self, tier: str, digest: str, seed: int) -> list[tuple[str, str, float]]:
        """Rows of a seed that was already measured with this code on these data."""
        same = [row for row in records.read(self.path) if (row.tier, row.seed, row.data_digest) == (tier, seed, digest)]
        return [] if any(map(self.stale, same)) else [(row.subject, row.metric, row.value) for row in same]

    def stale(self, row: records.Row) -> bool:
        """Whether the code that a row rests on has moved on since it was recorded."""
        return row.code != self.codes.of(row.tier, row.subject)


def processor() -> str:
    """The name of this computer's processor, as far as it says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "cpu"


def commit(root: Path) -> str:
    """Short hash of HEAD; "+" behind it says that code had changed since."""
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "methods"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")

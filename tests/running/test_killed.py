"""Verbs that write much, killed at any moment: nothing half is left, no process goes on, and the next run leaves no litter.

Slow: `pytest -m slow tests/running/test_killed.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.evidence import records
from scripts.running.data import BATCHES, FOLDER
from scripts.website.site import MARK
from tests.helpers import serving
from tests.running import test_data
from tests.toys import checkout
from tests.website.test_pages import make_tree

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")]
TIMES = 8  # for each signal
SIGNALS = pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)


class Verb:
    """A command in a process, whose descendants are known by a mark in their environment."""

    def __init__(self, program: str, *arguments: object, cwd: Path = ROOT, **environment: str) -> None:
        self.mark = f"SMALLPRINT_TEST={os.urandom(8).hex()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)], cwd=cwd, env={**os.environ, name: value, **environment},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def living(self) -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if self.mark.encode() in (place / "environ").read_bytes():  # a zombie's is empty
                    found.append(int(place.name))
        return found

    def end(self, how: signal.Signals | None = None) -> tuple[int, str]:
        """Exit code and what was said, when the process has ended, and with it all that it started."""
        if how:
            self.process.send_signal(how)
        _, said = self.process.communicate(timeout=120)
        deadline = time.monotonic() + 20
        while (left := self.living()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, "processes go on"
        return self.process.returncode, said


def moments(length: float) -> list[float]:
    """Some seconds after the begin, from just now to just after the end."""
    return [length * (place + random.Random(place).random()) / (TIMES - 1) for place in range(TIMES)]


def assert_ended(code: int, said: str, how: signal.Signals) -> None:
    assert "Traceback" not in said
    if how == signal.SIGTERM and code != -signal.SIGTERM:  # that early nobody listens yet, and that late nobody any more
        assert code in (0, 130)
        assert said.count("\n") == (1 if code else 0), said


SITE = """
import os, sys
from pathlib import Path
from scripts import cli
os.cpu_count, cli.ROOT = lambda: 2, Path(sys.argv.pop(1))
cli.main()
"""


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@SIGNALS
def test_a_site(tmp_path: Path, how: signal.Signals) -> None:
    root, out = make_tree(tmp_path / "tree"), tmp_path / "out"

    def verb() -> Verb:
        return Verb(SITE, root, "site", "--out", out)

    started = time.monotonic()
    assert verb().end() == (0, "")
    length, good = time.monotonic() - started, held(out)
    for moment in moments(length):
        shutil.rmtree(root / "build", ignore_errors=True)  # or all charts would be remembered
        running = verb()
        time.sleep(moment)
        assert_ended(*running.end(how), how)
        if not out.exists():  # it had just made room for the new one
            assert how == signal.SIGKILL
            (left,) = tmp_path.glob(".out.*.old")
            left.rename(out)
        assert held(out) == good
        if how == signal.SIGTERM:
            assert_clean(tmp_path)
    assert verb().end() == (0, "")
    assert held(out) == good
    assert MARK in good
    assert_clean(tmp_path)


def assert_clean(place: Path) -> None:
    """Nothing unfinished lies beside the site, nor among the charts that are remembered."""
    assert sorted(path.name for path in place.iterdir()) == ["out", "tree"]
    assert not [path for path in (place / "tree").rglob("*") if path.suffix in (".part", ".old")]


DATA = """
import sys
from scripts import cli
from scripts.running import data
data.download.__defaults__ = (sys.argv.pop(1), sys.argv.pop(1), None)
cli.main()
"""


@SIGNALS
def test_a_download(tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(test_data, "NOISE", random.Random(0).randbytes(6_000_000))
    content = test_data.archive()
    digest = hashlib.md5(content).hexdigest()
    with serving(test_data.Server()) as server:
        server.content = content

        def verb(folder: Path) -> Verb:
            return Verb(DATA, server.url, digest, "data", folder)

        first = verb(tmp_path / "first")
        wait(lambda: (tmp_path / "first").exists())
        started = time.monotonic()
        assert first.end()[0] == 0
        length = time.monotonic() - started
        for number, moment in enumerate(moments(length)):
            folder = tmp_path / str(number)
            running = verb(folder)
            wait(folder.exists)
            time.sleep(moment)
            code, said = running.end(how)
            assert "Traceback" not in said
            assert how == signal.SIGKILL or code in (0, 130, -signal.SIGTERM)  # that late nobody listens any more
            if (folder / FOLDER).exists():
                assert_data(folder / FOLDER)
            if how == signal.SIGTERM:
                left = {path.name for path in folder.iterdir()}
                assert left <= {FOLDER, "cifar-10-python.tar.gz.part", "cifar-10-python.tar.gz.etag"}
            assert verb(folder).end()[0] == 0
            assert [path.name for path in folder.iterdir()] == [FOLDER]
            assert_data(folder / FOLDER)


def assert_data(folder: Path) -> None:
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == dict.fromkeys(BATCHES, len(test_data.NOISE))


def wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert ready()


PROGRAM = """
import sys
from scripts import cli
cli.main()
"""


def litter(root: Path) -> list[str]:
    """What is neither a toy's file nor a result."""
    unfinished = [path for path in root.rglob("*") if path.suffix in (".part", ".old") or path.name.startswith((".", "error-"))]
    return [str(path.relative_to(root)) for path in unfinished]


@SIGNALS
def test_a_recording(tmp_path: Path, how: signal.Signals) -> None:
    root = checkout(tmp_path / "tree", {"aa_toy": {}, "zz_toy": {}})
    environment = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "SMALLPRINT_CHECKOUT": "", "SMALLPRINT_CIFAR10": ""}

    def verb(seeds: int) -> Verb:
        return Verb(PROGRAM, "smoke", "-j", "2", "--record", "--seeds", seeds, cwd=root, **environment)

    def keys() -> dict[str, set[tuple[str, ...]]]:
        return {id: set(map(records.key, records.read(records.path_of(root, "pruning", id)))) for id in ("aa_toy", "zz_toy")}

    assert verb(1).end()[0] == 0
    known = keys()
    started = time.monotonic()
    assert verb(3).end()[0] == 0
    length, whole = time.monotonic() - started, keys()
    shutil.rmtree(root / "catalog/measured")
    assert verb(1).end()[0] == 0
    for moment in moments(length):
        running = verb(3)
        time.sleep(moment)
        code, said = running.end(how)
        assert "Traceback" not in said
        assert how == signal.SIGKILL or code in (0, 130, -signal.SIGTERM)
        found = keys()
        assert all(known[id] <= found[id] <= whole[id] for id in known)
        known = found
        if how == signal.SIGTERM:
            assert litter(root) == []
    assert verb(3).end()[0] == 0
    assert keys() == whole
    assert litter(root) == []


@SIGNALS
def test_a_bite(tmp_path: Path, how: signal.Signals) -> None:
    root = checkout(tmp_path / "tree", {"toy": {"claim": "return float(sum(k * k for k in range(5)) - 3 * 10)"}})
    environment = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "SMALLPRINT_CHECKOUT": "", "SMALLPRINT_CIFAR10": ""}

    def verb() -> Verb:
        return Verb(PROGRAM, "bite", "toy", "--resume", "--record", cwd=root, **environment)

    def forget() -> None:
        shutil.rmtree(root / "build", ignore_errors=True)
        shutil.rmtree(root / "catalog/measured", ignore_errors=True)

    started = time.monotonic()
    code, _ = verb().end()
    length, whole = time.monotonic() - started, (root / "build/bite/toy.json").read_text()
    rows = [row[:4] for row in records.read(records.path_of(root, "pruning", "toy"))]
    assert rows
    for moment in moments(length):
        forget()
        running = verb()
        time.sleep(moment)
        assert "Traceback" not in running.end(how)[1]
        if how == signal.SIGTERM:
            assert litter(root) == []
    assert verb().end()[0] == code
    assert json.loads((root / "build/bite/toy.json").read_text()) == json.loads(whole)
    assert [row[:4] for row in records.read(records.path_of(root, "pruning", "toy"))] == rows
    assert litter(root) == []

"""Files appear whole or not at all, whoever is killed meanwhile, and of several writers none loses what another wrote."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.evidence import files, link_health, records

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has other processes and files")


def program(text: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def row(number: int, subject: str = "method") -> records.Row:
    return records.Row("smoke", subject, "accuracy", number / 100, "standin", "d", number, "cpu", 1, "3.11", "2.6", "c", "c", "2026-01-01")


HALF = """
import os, signal, sys
from pathlib import Path
from scripts.evidence import files
with files.whole(Path(sys.argv[1])) as part:
    part.write_text("half") if sys.argv[2] == "file" else (part / "below").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_gone_after_the_next_one(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "x.csv"
    target.write_text("old")
    with program(HALF, target, kind) as process:
        assert process.wait() == -signal.SIGKILL
    assert target.read_text() == "old"
    assert names(tmp_path) == [f".x.csv.{process.pid}.part", "x.csv"]
    files.write(target, "new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["x.csv"]


def test_what_others_are_making_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    others = [f".x.csv.{os.getppid()}.part", f".y.csv.{10**9 - 1}.part", ".x.csv.part", "x.csv.1.part", f".x.csv.{10**12}.part"]
    for name in others:
        (tmp_path / name).write_text("")
    files.write(tmp_path / "x.csv", "new")
    assert names(tmp_path) == sorted([*others, "x.csv"])


def test_an_error_leaves_the_older_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), files.whole(target) as part:
        fail(part)
    assert (names(tmp_path), target.read_text()) == (["x"], "old")


def test_an_older_file_that_a_killed_process_had_just_taken_away_comes_back(tmp_path: Path) -> None:
    left = tmp_path / f".site.{10**9 - 1}.old"
    left.mkdir()
    (left / "index.html").write_text("good")
    files.clear(tmp_path / "site")
    assert (names(tmp_path), names(tmp_path / "site")) == (["site"], ["index.html"])


def test_a_link_stays_and_permissions_too(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x").write_text("old")
    (tmp_path / "far" / "x").chmod(0o600)
    (tmp_path / "link").symlink_to("far/x")
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "x").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "far" / "x").stat().st_mode) == 0o600
    (tmp_path / "dangling").symlink_to("far/y")
    files.write(tmp_path / "dangling", "new")
    assert (tmp_path / "far" / "y").read_text() == "new"
    assert names(tmp_path / "far") == ["x", "y"]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    files.write(pipe, "text")
    reader.join(10)
    assert (read, stat.S_ISFIFO(pipe.stat().st_mode)) == (["text"], True)


@pytest.mark.parametrize(
    ("path", "number"), [("/dev/full", errno.ENOSPC), ("/", errno.EISDIR), (".", errno.EISDIR), ("x" * 300, errno.ENAMETOOLONG)]
)
def test_what_cannot_be_written_is_an_error_of_the_system(path: str, number: int) -> None:
    with pytest.raises(OSError) as problem:  # noqa: PT011
        files.write(Path(path), "text")
    assert problem.value.errno == number
    assert not os.path.isfile(path)


def test_standard_output_goes_on_where_it_is(tmp_path: Path) -> None:
    text = "import pathlib; from scripts.evidence import files; files.write(pathlib.Path('/dev/stdout'), 'two\\n')"
    with (tmp_path / "x").open("w") as output:
        output.write("one\n")
        output.flush()
        subprocess.run([sys.executable, "-c", text], cwd=ROOT, stdout=output, check=True)
        output.seek(0, os.SEEK_END)
        output.write("three\n")
    assert (tmp_path / "x").read_text() == "one\ntwo\nthree\n"


ADD = """
import sys
from pathlib import Path
from scripts.evidence import records
from tests.evidence.test_files import row
print("ready", flush=True)
for number in range(40):
    records.write(Path(sys.argv[1]), [row(number, sys.argv[2])])
"""


def test_two_processes_that_record_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "measured" / "x.csv"
    with program(ADD, path, "method") as one, program(ADD, path, "reference") as other:
        assert (one.wait(), other.wait()) == (0, 0)
    assert {(found.subject, found.seed) for found in records.read(path)} == {(s, n) for s in ("method", "reference") for n in range(40)}
    assert names(path.parent) == ["x.csv"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: records.write(path, [row(1)]),
        lambda path: link_health.write(path, {}),
        lambda path: files.write(path, "text"),
    ],
    ids=["records", "links", "any"],
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    path = tmp_path / "x"
    with pytest.raises((OSError, link_health.LinksError), match="No space left"):
        write(path)
    assert names(tmp_path) == []

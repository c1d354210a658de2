"""The download, against a server on this machine that misbehaves in every way that servers do."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import re
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.progress import Progress

from scripts.running import data
from scripts.running.data import BATCHES, FOLDER, DownloadError, download
from tests.helpers import Quiet, serving

NOISE = random.Random(0).randbytes(40_000)  # does not compress, so that the archive has many pieces


def archive(*extra: tarfile.TarInfo, names: list[str] = BATCHES) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as tar:
        top = tarfile.TarInfo(FOLDER)
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name in names:
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(NOISE)
            tar.addfile(member, io.BytesIO(NOISE))
        for member in extra:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return raw.getvalue()


ARCHIVE = archive()


def evil(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


class Server(ThreadingHTTPServer):
    """Serves `content`. `cut` ends answers after so many bytes, `ranges` says whether Range is understood."""

    daemon_threads = True
    content = b""
    etag = '"one"'
    modified = ""
    status = 200
    cut: int | None = None
    ranges = True
    shift = 0  # bytes by which ranges begin too early

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error of the server's."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"


class Handler(Quiet):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
        if self.headers["If-Range"] not in (None, server.etag, server.modified):
            start = 0
        total = len(server.content)
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = max(0, start - server.shift)
        self.send_response(206 if start else server.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified), ("Content-Length", str(total - start))):
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(server.content[start : server.cut])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Server()) as running:
        running.content = ARCHIVE
        yield running


def get(server: Server, folder: Path, digest: str | None = None) -> Path:
    return download(folder, server.url, digest or hashlib.md5(server.content).hexdigest(), Progress(disable=True))


def refused(server: Server, folder: Path, digest: str | None = None) -> str:
    with pytest.raises(DownloadError) as refusal:
        get(server, folder, digest)
    return str(refusal.value)


def part(folder: Path) -> Path:
    return folder / "cifar-10-python.tar.gz.part"


def assert_complete(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == [FOLDER], "nothing is left beside the data"
    assert {path.name for path in (folder / FOLDER).iterdir()} == set(BATCHES)
    assert (folder / FOLDER / "test_batch").read_bytes() == NOISE


def test_fetches_once(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert get(server, folder) == folder / FOLDER
    assert_complete(folder)
    assert get(server, folder) == folder / FOLDER
    assert server.asked == [None]


def test_goes_on_after_a_cut(server: Server, tmp_path: Path) -> None:
    server.cut = 100_000
    said = refused(server, tmp_path)
    kept = part(tmp_path).stat().st_size
    assert 100_000 - data.PIECE <= kept <= 100_000
    assert f"{kept} bytes are kept, and the next run goes on from there: run `smallprint data` again" in said
    server.cut = None
    get(server, tmp_path)
    assert server.asked == [None, f"bytes={kept}-"]
    assert_complete(tmp_path)


def test_goes_on_after_ctrl_c(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(part: Path, digest: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "_verify", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(server, tmp_path)
    assert part(tmp_path).stat().st_size == len(server.content)
    get(server, tmp_path)  # the server answers 416: there is nothing more
    assert server.asked == [None, f"bytes={len(server.content)}-"]
    assert_complete(tmp_path)


@pytest.mark.parametrize(
    "trouble",
    [{"ranges": False}, {"etag": '"two"'}, {"shift": 1}, {"content": archive(names=BATCHES[:1])}],
    ids=["Range is ignored", "the file has changed", "another range comes", "the file has shrunk"],
)
def test_begins_again_where_it_cannot_go_on(server: Server, tmp_path: Path, trouble: dict[str, object]) -> None:
    server.cut = 90_000
    refused(server, tmp_path)
    server.cut = None
    for name, value in trouble.items():
        setattr(server, name, value)
    if "content" in trouble:
        assert "holds no data_batch_2" in refused(server, tmp_path)
    else:
        get(server, tmp_path)
        assert_complete(tmp_path)


def test_a_weak_tag_gives_way_to_the_date(server: Server, tmp_path: Path) -> None:
    server.etag, server.modified, server.cut = 'W/"one"', "Mon, 05 Jan 2026 10:00:00 GMT", 90_000
    refused(server, tmp_path)
    assert part(tmp_path).with_suffix(".etag").read_text() == server.modified
    server.cut = None
    get(server, tmp_path)
    assert_complete(tmp_path)


def test_a_wrong_digest_deletes_the_file(server: Server, tmp_path: Path) -> None:
    found = hashlib.md5(server.content).hexdigest()
    said = refused(server, tmp_path, "0" * 32)
    assert said == (
        f"{part(tmp_path)}: {len(server.content)} bytes with MD5 {found} instead of {'0' * 32}; "
        "the file is deleted: check the address and run `smallprint data` again"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "member",
    [
        evil("../evil.txt", size=3),
        evil("/tmp/evil.txt", size=3),
        evil(f"{FOLDER}/../../evil.txt", size=3),
        evil(f"{FOLDER}/extra.py", size=3),
        evil(f"{FOLDER}/batches.meta", tarfile.SYMTYPE, link="/etc/passwd"),
        evil(f"{FOLDER}/batches.meta", tarfile.LNKTYPE, link="../../secret"),
        evil(f"{FOLDER}/batches.meta", tarfile.FIFOTYPE),
        evil("other", tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_nothing_else_is_unpacked(server: Server, tmp_path: Path, member: tarfile.TarInfo) -> None:
    server.content = archive(member)
    folder = tmp_path / "below"
    assert f"{member.name!r} does not belong in a CIFAR-10 archive; the file is deleted" in refused(server, folder)
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_a_bomb_is_not_unpacked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LARGEST", len(NOISE) - 1)
    assert "does not belong" in refused(server, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "no tar.gz archive"),
        (gzip.compress(b"x" * 2000), "no tar.gz archive"),
        (ARCHIVE[:-100_000], "no tar.gz archive"),
        (archive(names=BATCHES[:5]), "holds no test_batch"),
    ],
    ids=["a page", "no tar", "cut", "too few"],
)
def test_no_archive(server: Server, tmp_path: Path, content: bytes, said: str) -> None:
    server.content = content
    assert said in refused(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_there_is_left_alone(server: Server, tmp_path: Path) -> None:
    mine = tmp_path / FOLDER / "data_batch_1"
    mine.parent.mkdir()
    mine.write_text("mine")
    missing = ", ".join(name for name in BATCHES if name != "data_batch_1")
    assert refused(server, tmp_path) == f"{tmp_path / FOLDER}: lacks {missing}; move this folder away and run `smallprint data` again"
    assert mine.read_text() == "mine"
    assert server.asked == []


def test_not_found(server: Server, tmp_path: Path) -> None:
    server.status = 404
    assert refused(server, tmp_path) == f"{server.url}: the server says 404 Not Found; check the address or try later"
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(DownloadError) as refusal:
            download(tmp_path, url, progress=Progress(disable=True))
    assert str(refusal.value) == (
        f"{url}: cannot connect; check network and address: run `smallprint data` again, or unpack the archive in {tmp_path} yourself"
    )


def test_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(data, "TIMEOUT", (1.0, 0.1))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DownloadError, match="no answer in time"):
            download(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/x", progress=Progress(disable=True))


@pytest.mark.parametrize("url", ["cifar.tar.gz", "ftp://example.org/x", "http://"])
def test_no_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="not a web address"):
        download(tmp_path, url, progress=Progress(disable=True))


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(server, tmp_path / "file" / "below")
    assert said == f"{tmp_path / 'file' / 'below'}: Not a directory; make room or choose another folder"


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz.part", "cifar-10-python.tar.gz.etag", FOLDER])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("mine"), Path.mkdir], ids=["a pipe", "a link", "a folder"])
def test_what_has_a_name_of_ours_is_left_alone(server: Server, tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    (tmp_path / "mine").write_text("mine")
    make(tmp_path / name)
    said = refused(server, tmp_path)
    assert said.startswith(f"{tmp_path / name}: ")
    assert "move" in said
    assert server.asked == []
    assert (tmp_path / "mine").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", name}


def test_a_name_that_is_too_long(server: Server, tmp_path: Path) -> None:
    assert refused(server, tmp_path / ("x" * 300)).endswith("File name too long; make room or choose another folder")


def test_of_two_at_once_the_second_waits(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: get(server, tmp_path), range(4)))
    assert places == [tmp_path / FOLDER] * 4
    assert server.asked == [None]
    assert_complete(tmp_path)


@pytest.mark.parametrize("limit", [100_000, 30_000], ids=["while it comes", "at once"])
def test_a_full_disk_is_one_line_and_the_next_call_goes_on(server: Server, tmp_path: Path, limit: int) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        said = refused(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said == f"{tmp_path}: File too large; make room or choose another folder"
    assert part(tmp_path).stat().st_size <= limit
    get(server, tmp_path)
    assert_complete(tmp_path)


def test_a_disk_that_is_full_while_unpacking_keeps_the_archive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: tarfile.TarFile, member: tarfile.TarInfo, path: Path, **_: object) -> None:
        (path / FOLDER).mkdir(exist_ok=True)
        (path / FOLDER / "data_batch_1").write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path / FOLDER / "data_batch_1"))

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", full)
        assert "No space left on device; make room" in refused(server, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {part(tmp_path).name, part(tmp_path).with_suffix(".etag").name}
    get(server, tmp_path)
    assert_complete(tmp_path)


def test_an_answer_without_end_is_cut(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LARGEST_ARCHIVE", 100_000)
    assert "more than 100000 bytes; the file is deleted" in refused(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_call_left_is_removed(server: Server, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    (tmp_path / f".{FOLDER}.{ended.pid}.part" / FOLDER).mkdir(parents=True)
    get(server, tmp_path)
    assert_complete(tmp_path)
    part(tmp_path).write_bytes(ARCHIVE)  # killed after it had unpacked
    part(tmp_path).with_suffix(".etag").write_text("x")
    get(server, tmp_path)
    assert_complete(tmp_path)


def test_the_bar_is_shown_on_standard_error(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(tmp_path, server.url, hashlib.md5(server.content).hexdigest())
    assert capsys.readouterr().out == ""

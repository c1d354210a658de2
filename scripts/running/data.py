"""Fetch the official CIFAR-10: resumed after an interruption, verified, unpacked whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError

from scripts.evidence import files

OFFICIAL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL_DIGEST = "c58f30108f718f92721af3b95e74349a"  # MD5, as printed on https://www.cs.toronto.edu/~kriz/cifar.html
FOLDER = "cifar-10-batches-py"
BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
EXPECTED = {f"{FOLDER}/{name}" for name in (*BATCHES, "batches.meta", "readme.html")}
LARGEST = 64 << 20  # bytes of one unpacked file; a batch has 31 million
LARGEST_ARCHIVE = 256 << 20  # bytes; CIFAR-10 has 170 million
PIECE = 1 << 14  # bytes; a broken connection loses the piece under way
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces


class DownloadError(ValueError):
    """The data cannot be had; the message says why and what to do."""


def download(folder: Path, url: str = OFFICIAL, digest: str = OFFICIAL_DIGEST, progress: Progress | None = None) -> Path:
    """The batches' folder below `folder`, fetched where it is not there yet. `digest` is the archive's MD5.

    An interrupted download leaves a .part file, from which the next call goes on; of two calls at once the second waits. `progress` is
    a Rich bar, by default one on standard error. Raises `DownloadError`.
    """
    target, part = folder / FOLDER, folder / "cifar-10-python.tar.gz.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.alone(folder):
            files.clear(target)
            missing = _missing(target)
            if not missing:
                _delete(part)  # a call that was killed in the last moment left it
                return target
            if os.path.lexists(target):  # what lies there is not ours to remove
                raise DownloadError(f"{target}: lacks {', '.join(missing)}; move this folder away and run `smallprint data` again")
            for path in (part, _validator(part)):
                if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):  # a pipe would be waited for
                    raise DownloadError(f"{path}: is no file that `smallprint data` made; move it away and run it again")
            with progress or _bar() as bar:
                _fetch(url, part, bar)
            _verify(part, digest)
            _unpack(part, target)
            _delete(part)
    except (InvalidSchema, InvalidURL, MissingSchema) as problem:
        raise DownloadError(f"{url}: not a web address; write https://...") from problem
    except (requests.RequestException, HTTPError) as problem:
        raise DownloadError(f"{url}: {_reason(problem, part)}") from problem
    except OSError as problem:
        raise DownloadError(f"{problem.filename or folder}: {problem.strerror or problem}; make room or choose another folder") from problem
    return target


def _missing(target: Path) -> list[str]:
    return [name for name in BATCHES if not (target / name).is_file()]


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _reason(problem: Exception, part: Path) -> str:
    """Why a connection failed, and the cure."""
    kept = part.stat().st_size if part.exists() else 0
    if isinstance(problem, (requests.ConnectTimeout, requests.ReadTimeout)):
        what = "no answer in time"
    elif isinstance(problem, requests.ConnectionError):
        what = "cannot connect"
    else:
        what = f"the connection broke ({type(problem).__name__})"
    again = f"{kept} bytes are kept, and the next run goes on from there" if kept else "check network and address"
    return f"{what}; {again}: run `smallprint data` again, or unpack the archive in {part.parent} yourself"


def _validator(part: Path) -> Path:
    """Where the server's mark of this version of the file is kept: what is added later must belong to the same one."""
    return part.with_suffix(".etag")


def _delete(part: Path) -> None:
    _validator(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _fetch(url: str, part: Path, bar: Progress) -> None:
    """Bring `part` to its full length, from where it stops if the server can do that and the file is still the same."""
    have, mark = part.stat().st_size if part.exists() else 0, _validator(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark.exists():
            headers["If-Range"] = mark.read_text(encoding="latin-1")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        place = response.headers.get("Content-Range", "")
        if response.status_code == 416 and place == f"bytes */{have}":
            return
        if have and (response.status_code == 416 or (response.status_code == 206 and not place.startswith(f"bytes {have}-"))):
            _delete(part)
            _fetch(url, part, bar)
            return
        if not response.ok:
            raise DownloadError(f"{url}: the server says {response.status_code} {response.reason}; check the address or try later")
        start = have if response.status_code == 206 else 0
        etag = response.headers.get("ETag", "W/")
        same = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag  # a weak tag cannot guard a range
        mark.write_text(same, encoding="latin-1") if same else mark.unlink(missing_ok=True)
        length = response.headers.get("Content-Length", "")
        shown = bar.add_task("CIFAR-10", total=start + int(length) if length.isdecimal() else None, completed=start)
        with part.open("ab" if start else "wb") as file:
            for piece in response.raw.stream(PIECE, decode_content=False):
                file.write(piece)
                bar.advance(shown, len(piece))
                if file.tell() > LARGEST_ARCHIVE:
                    raise _refuse(part, f"more than {LARGEST_ARCHIVE} bytes")


def _verify(part: Path, digest: str) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != digest:
        raise _refuse(part, f"{part.stat().st_size} bytes with MD5 {found} instead of {digest}")


def _refuse(part: Path, reason: str) -> DownloadError:
    """Delete what was fetched; the error that says so."""
    _delete(part)
    return DownloadError(f"{part}: {reason}; the file is deleted: check the address and run `smallprint data` again")


def _unpack(archive: Path, target: Path) -> None:
    """All expected files of the archive, in a folder that appears complete or not at all."""
    with files.temporary(target) as aside:
        aside.mkdir()
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for member in tar:
                    if member.isdir() and member.name == FOLDER:
                        continue
                    if not member.isfile() or member.name not in EXPECTED or member.size > LARGEST:
                        raise _refuse(archive, f"{member.name!r} does not belong in a CIFAR-10 archive")
                    tar.extract(member, aside, filter="data")
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as problem:
            raise _refuse(archive, f"no tar.gz archive ({problem})") from problem
        if missing := _missing(aside / FOLDER):
            raise _refuse(archive, f"holds no {', '.join(missing)}")
        os.replace(aside / FOLDER, target)

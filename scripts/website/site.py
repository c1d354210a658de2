"""Build the website, hosted or as an offline bundle, or serve it while you write."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.evidence import files

if TYPE_CHECKING:
    from scripts.website.render import Kept

HOSTED, OFFLINE, CHARTS = Path("build/site"), Path("build/site-offline"), Path("build/charts")
MARK = ".smallprint-site"  # in a finished site: the names of what stands beside it
WATCHED = ("catalog", "methods", "site", "mkdocs.yml")
NEEDED = ("mkdocs", "material", "pymdownx", "altair", "vl_convert", "bibtexparser")
# A page opened as a file may neither fetch nor start a worker: search is loaded as a script, and a shim stands in for the worker.
OFFLINE_CHANGES: dict[str, Any] = {
    "use_directory_urls": False,
    "site_url": "",  # a folder has no address
    "extra": {"generator": False, "polyfills": ["assets/iframe-worker.js"]},
}


class SiteError(RuntimeError):
    """Why the site was not built, with the cure."""


def build(
    root: Path, out: Path | None = None, *, offline: bool = False, strict: bool = True, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Build the site into `out` (build/site or build/site-offline below `root`) and return that folder.

    The folder appears whole or not at all. Only one that is empty, or was made here, is replaced. With `strict` every warning is an
    error. `say` hears what is being done. Raises `SiteError`.
    """
    usual, started = root / (OFFLINE if offline else HOSTED), time.monotonic()
    given = out or usual
    try:
        out = _writable(root, given, usual)
        files.clear(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.temporary(out) as part:
            say("reading the catalogue and making pages")
            _render(root, part, None, strict, OFFLINE_CHANGES if offline else {})
            (part / MARK).write_text("\n".join(sorted([MARK, *os.listdir(part)])) + "\n", "utf-8")
            say("putting the new site in place")
            _writable(root, given, usual)  # still
            _replace(part, out)
    except OSError as problem:
        cure = "make the folder writable, make room, or choose another with --out"
        raise SiteError(f"{problem.filename or given}: {problem.strerror or problem}; {cure}") from problem
    pages = sum(1 for _ in out.rglob("*.html"))
    say(f"{pages} pages in {time.monotonic() - started:.1f} s: {out / 'index.html'}")
    return out


def _writable(root: Path, given: Path, usual: Path) -> Path:
    """The folder itself, which is missing, empty or an older site. Raises `SiteError` for any other, and `OSError`."""
    other = "choose another folder with --out"
    if given.is_symlink():
        raise SiteError(f"{given}: is a link; name the folder that it leads to, or {other}")
    out = given.resolve()
    for place, name in ((root, "the checkout"), (Path(os.path.expanduser("~")), "your home folder")):
        if place.resolve().is_relative_to(out):
            raise SiteError(f"{out}: holds {name}; {other}")
    if not out.exists():
        return out
    if not out.is_dir():
        raise SiteError(f"{out}: is no folder; {other}")
    there, mark = set(os.listdir(out)), out / MARK
    made = set(mark.read_text("utf-8", "replace").splitlines()) if mark.is_file() else set[str]()
    if given == usual and not made and "index.html" in there:
        return out  # an earlier version made it, without a mark
    if strange := sorted(there - made):
        raise SiteError(f"{out}: holds something that is no site of this program's, {strange[0]}; {other}, or move that away")
    return out


def _replace(part: Path, out: Path) -> None:
    """Put a finished folder where an older one may be."""
    old = part.with_suffix(".old")
    while part.exists():
        with suppress(FileNotFoundError):
            out.rename(old)
        try:
            part.rename(out)
        except OSError as problem:
            if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another build has put its own here meanwhile
                raise
        finally:
            if not out.exists():
                with suppress(FileNotFoundError):
                    old.rename(out)
            files.remove(old)


def _render(root: Path, out: Path, kept: Kept | None, strict: bool, changes: dict[str, Any]) -> list[str]:
    """Bring a folder up to date, or fill it. Returns MkDocs' warnings; with `strict` they are an error. Raises `SiteError`."""
    configuration = _configuration(root)
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort, MkDocsException
    from mkdocs.utils.yaml import yaml_load

    from scripts.website import render
    from scripts.website.charts.drawn import remembered

    with _log() as said, remembered(root / CHARTS):
        try:
            config = load_config(str(configuration), site_dir=str(out), strict=strict, **changes)
            if changes is OFFLINE_CHANGES:
                plugins = [*yaml_load(configuration.read_text("utf-8")).get("plugins", ["search"]), "offline"]
                config = load_config(str(configuration), site_dir=str(out), strict=strict, plugins=plugins, **changes)
            config.plugins.on_startup(command="build", dirty=False)
            try:
                render.build(config, kept)
            finally:
                config.plugins.on_shutdown()
        except (Abort, MkDocsException) as problem:
            raise SiteError("\n".join(dict.fromkeys([*said, *_reasons(problem)]))) from problem
    if strict and said:
        raise SiteError("\n".join(dict.fromkeys(said)))
    return said


def _reasons(problem: BaseException) -> Iterator[str]:
    """What an exception and those behind it say, without MkDocs' own summary, and without a traceback from another process."""
    at: BaseException | None = problem
    while at is not None:
        yield from getattr(at, "__notes__", [])
        text = str(at).strip()
        if text and "strict mode" not in text and type(at).__name__ != "_RemoteTraceback":
            yield text
        at = at.__cause__


@contextmanager
def _log() -> Iterator[list[str]]:
    """MkDocs' warnings and errors as a list instead of on the screen."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, keep = logging.getLogger("mkdocs"), Keep(logging.WARNING)
    before = logger.propagate
    logger.addHandler(keep)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield said
    finally:
        logger.removeHandler(keep)
        logger.propagate = before


def _configuration(root: Path) -> Path:
    """mkdocs.yml; raises `SiteError` where it, or a package that building needs, is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SiteError(f"the site needs {', '.join(missing)}; install with `pip install -e '.[site]'`")
    path = root / "mkdocs.yml"
    if not path.is_file():
        raise SiteError(f"{path}: is missing; run this in the repository")
    return path


def serve(root: Path, address: str = "127.0.0.1:8000", *, open_browser: bool = False, say: Callable[[str], None] = print) -> None:
    """Serve the site, rebuild what a change touches and reload the page in the browser, until interrupted. Raises `SiteError`."""
    _configuration(root)
    from mkdocs.livereload import LiveReloadServer

    host, _, port = address.rpartition(":")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    place = Path(tempfile.gettempdir()) / "smallprint"
    files.clear(place)
    with files.temporary(place) as folder:
        folder.mkdir(0o700)
        update = updater(root, folder, f"http://{address}/", say)
        update()
        try:
            with LiveReloadServer(update, host, int(port), str(folder), polling_interval=0.25) as server:
                for name in WATCHED:
                    server.watch(str(root / name))
                say(f"serving http://{address}/; interrupt to end")
                try:
                    server.serve(open_in_browser=open_browser)
                finally:
                    server.shutdown()  # its threads would go on for ever
        except KeyboardInterrupt:
            return
        except OSError as problem:
            raise SiteError(f"{address}: {problem.strerror or problem}; choose another address, for instance 127.0.0.1:8001") from problem


def updater(root: Path, folder: Path, address: str, say: Callable[[str], None]) -> Callable[[], None]:
    """A function that brings the site in `folder` up to date. What is wrong it says; the last good site stays."""
    from scripts.website.render import Kept  # MkDocs is imported where a site is built

    kept = Kept()

    def update() -> None:
        started = time.monotonic()
        try:
            said = _render(root, folder, kept, False, {"site_url": address})
            said.append(f"{kept.written} of {len(kept.pages)} pages made in {time.monotonic() - started:.1f} s")
        except SiteError as problem:
            said = [str(problem), "the site stays as it was"]
        except Exception as problem:  # whatever somebody types, a server goes on
            said = [f"{type(problem).__name__}: {problem}", "the site stays as it was"]
        for line in dict.fromkeys(said):
            say(line)

    return update

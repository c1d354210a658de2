"""MkDocs' build, page by page: what did not change stays as it is, no page waits in memory for the last one, and all processors work.

A build from nothing and a rebuild after a change are the same function; they differ in what is `Kept` from the time before.
MkDocs has no public function that makes one page: the three private ones that are imported here, and nowhere else, were read in 1.6.1.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment
from mkdocs.commands.build import _build_page, _build_theme_template, _populate_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import BuildError
from mkdocs.structure.files import File, Files, get_files, set_exclusions
from mkdocs.structure.nav import Navigation, get_navigation
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs")
PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal to get when the process that forked this one ends
TOGETHER = 8  # pages that a process takes at a time
BATCHES = 64, 512  # pages after which new processes begin, as the old ones share ever less memory: at first, when pages are long, and later


@dataclass
class Drawn:
    """A page that stands in the folder: what it was made of, and what others ask of it."""

    mark: str  # a digest of its Markdown and its front matter
    asked: dict[str, str | None]  # path of a file that a link names -> where that led
    anchors: Collection[str]
    links: dict[str, dict[str, str]]  # path of another page -> anchor -> the link as it was written
    found: list[dict[str, Any]]  # what it adds to the search index
    beside: Collection[str]  # paths of the files that its hook wrote


@dataclass
class Kept:
    """What a folder holds already. `base` is a digest of what all pages share, `files` has one of every file."""

    theme: str = ""
    base: str = ""
    environment: Environment | None = None  # compiled templates
    pages: dict[str, Drawn] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    written: int = 0  # pages in the last build


@dataclass
class Work:
    """What is needed to make a page."""

    config: MkDocsConfig
    kept: Kept
    files: Files
    nav: Navigation
    environment: Environment
    index: list[dict[str, Any]]  # of the search
    pages: list[Page]
    shown: Sequence[File]


class Asked(Files):
    """Files that remember which of them a page's links name."""

    def __init__(self, files: Files) -> None:
        self.files, self.asked = files, dict[str, str | None]()

    def get_file_from_path(self, path: str) -> File | None:
        found = self.files.get_file_from_path(path)
        self.asked[path] = found.url if found else None
        return found


def build(config: MkDocsConfig, kept: Kept | None = None) -> None:
    """Bring `config.site_dir`, in which stands what `kept` says, up to date; or, without it, build from nothing with all processors."""
    processes = 1 if kept else os.cpu_count() or 1
    kept = kept or Kept()
    events = config.plugins
    config = events.on_config(config)
    events.on_pre_build(config=config)
    own = [Path(config.config_file_path or ""), *(path for path in sorted(Path(config.theme.dirs[0]).rglob("*")) if path.is_file())]
    theme = _digest(path.read_bytes() for path in own)
    if theme != kept.theme or kept.environment is None:
        kept.theme, kept.environment = theme, config.theme.get_env()
    files = get_files(config)
    files.add_files_from_theme(kept.environment, config)
    files = events.on_files(files, config=config)
    set_exclusions(files, config)
    nav = events.on_nav(get_navigation(files, config), config=config, files=files)
    environment = events.on_env(kept.environment, config=config, files=files) or kept.environment
    shown = files.documentation_pages()
    rest = (file.page or Page(None, file, config) for file in shown)
    pages = list({page.file.src_uri: page for page in (*nav.pages, *rest)}.values())  # the longest first
    for page in nav.pages:
        if page.title is None:  # it stands on all pages
            page.read_source(config)
            page.title = page.title
    shared = (theme, config.site_url, config.use_directory_urls, config.extra, [(page.url, page.title) for page in nav.pages])
    if (base := _digest([repr(shared).encode()])) != kept.base:
        kept.pages.clear()
        kept.base = base

    static = {file.dest_uri: file for file in files if not file.is_documentation_page() and file.inclusion.is_included()}
    now = {path: _state(file) for path, file in static.items()}
    for path, file in static.items():
        if kept.files.get(path) != now[path]:
            file.copy_file()
            kept.files[path] = now[path]  # at once, as with pages: should this build fail, the next one knows what it has written
        if file.abs_src_path is None:
            file.content_bytes = b""  # the data of thousands of entries take much
    for template in config.theme.static_templates:
        _build_theme_template(template, environment, files, config, nav)

    search: Any = next((events[name] for name in ("material/search", "search") if name in events), None)
    index: list[dict[str, Any]] = search.search_index.entries if search else []
    before = list(index)
    work = Work(config, kept, files, nav, environment, index, pages, shown)
    drawn: dict[str, Drawn] = {}
    kept.written = 0
    for page, new in zip(pages, _all(work, processes), strict=True):
        uri = page.file.src_uri
        kept.written += new is not None
        here = drawn[uri] = kept.pages[uri] = new or kept.pages[uri]
        for path in (page.file.dest_uri, *here.beside):
            now[path] = kept.files[path] = ""
        here.anchors = page.present_anchor_ids = tuple(map(sys.intern, here.anchors))  # type: ignore[assignment]  # mostly the same ones
        page.links_to_anchors = {files.src_uris[path]: links for path, links in here.links.items() if path in files.src_uris}
    index[:] = before + [entry for page in pages for entry in drawn[page.file.src_uri].found]
    for page in pages:
        page.validate_anchor_links(files=files, log_level=config.validation.links.anchors)
    for path in kept.files.keys() - now.keys():
        (Path(config.site_dir) / path).unlink(missing_ok=True)
    kept.pages, kept.files = drawn, now
    events.on_post_build(config=config)


def _all(work: Work, processes: int) -> Iterator[Drawn | None]:
    """Make all pages; None for one that stays as it is. Of thousands, those that speak of all come first, before memory is shared."""
    alone = processes < 2 or sys.platform != "linux"  # elsewhere a fork is not safe, or not there
    first = len(work.pages) if alone else len(work.nav.pages) if len(work.pages) > BATCHES[1] else 0
    yield from (_page(work, page) for page in work.pages[:first])
    if alone:
        return
    batch, most = BATCHES
    while first < len(work.pages):
        with suppress(AttributeError):  # musl has no such function
            ctypes.CDLL(None).malloc_trim(0)  # what is free, but still held, goes back to the system
        gc.freeze()  # a process that collects garbage would write to, and so copy, all memory that it shares
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=_begin, initargs=(work, os.getpid()))
        try:
            for made, said in pool.map(_some, range(first, min(first + batch, len(work.pages)), TOGETHER)):
                for level, text in said:
                    LOG.log(level, "%s", text)
                yield from made
        except BrokenProcessPool:
            raise BuildError("a process that made pages was killed, perhaps for want of memory; free some and build again") from None
        finally:
            pool.shutdown(cancel_futures=True)
            gc.unfreeze()
        first, batch = first + batch, min(2 * batch, most)


class Heard(logging.Handler):
    """What MkDocs says in another process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.levelno, record.getMessage()))


_work: Work | None = None  # of this process; it came with the fork
_heard = Heard()


def _begin(work: Work, first: int) -> None:
    global _work
    _work = work
    LOG.handlers = [_heard]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts hears it from the first process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # else it would wait for ever for a first process that was killed
    if os.getppid() != first:  # killed already
        os._exit(1)


def _some(start: int) -> tuple[list[Drawn | None], list[tuple[int, str]]]:
    """A few pages, without what nobody will ask of them: of thousands it would be too much."""
    assert _work
    _heard.said.clear()
    try:
        made = [_page(_work, page) for page in _work.pages[start : start + TOGETHER]]
    except Exception as problem:
        for _, text in _heard.said:  # on which page it was, for instance
            problem.add_note(text)
        raise
    for page in made:
        if page:
            page.asked.clear()  # nothing is built upon this
            page.links = {path: open for path, links in page.links.items() if (open := _open(_work.files, path, links))}
    return made, _heard.said


def _open(files: Files, path: str, links: dict[str, str]) -> dict[str, str]:
    """Links to anchors that are not known to be there."""
    target = files.src_uris[path].page
    known = target.present_anchor_ids or () if target else ()
    return {anchor: link for anchor, link in links.items() if anchor not in known}


def _page(work: Work, page: Page) -> Drawn | None:
    """Make a page, unless it is the same as before."""
    mark = _read(page, work.config, work.files, work.kept)
    if mark is None:
        return None
    before = len(work.index)
    _build_page(page, work.config, work.shown, work.nav, work.environment)
    links = {file.src_uri: links for file, links in (page.links_to_anchors or {}).items()}
    asked: dict[str, str | None] = getattr(page, "asked", {})
    made = Drawn(mark, asked, page.present_anchor_ids or set(), links, work.index[before:], getattr(page, "beside", ()))
    page.markdown, page.content, page.toc, page.meta = "", "", [], {}  # type: ignore[assignment]  # of thousands too much to hold
    page.asked = page.present_anchor_ids = page.links_to_anchors = None  # type: ignore[attr-defined]
    return made


def _read(page: Page, config: MkDocsConfig, files: Files, kept: Kept) -> str | None:
    """Render a page's Markdown, unless it is the same as before. Returns the Markdown's digest, or then None."""
    marks, render = list[str](), page.render

    def once(config: MkDocsConfig, files: Files) -> None:
        mark = _digest([(page.markdown or "").encode(), repr(page.meta).encode()])
        old = kept.pages.get(page.file.src_uri)
        if old and old.mark == mark and all(_led(files, path) == there for path, there in old.asked.items()):
            page.content = ""
            return
        marks.append(mark)
        asked = Asked(files)
        render(config, asked)
        page.asked = asked.asked  # type: ignore[attr-defined]

    page.render = once  # type: ignore[method-assign]
    try:
        _populate_page(page, config, files)
    finally:
        page.render = render  # type: ignore[method-assign]
    return marks[0] if marks else None


def _led(files: Files, path: str) -> str | None:
    found = files.get_file_from_path(path)
    return found.url if found else None


def _state(file: File) -> str:
    """What changes when a file that is no page does."""
    if file.abs_src_path is None:
        return _digest([file.content_bytes])
    known = Path(file.abs_src_path).stat()
    return f"{file.abs_src_path} {known.st_mtime_ns} {known.st_size}"


def _digest(parts: Iterable[bytes]) -> str:
    summary = hashlib.sha256()
    for part in parts:
        summary.update(len(part).to_bytes(8, "big") + part)
    return summary.hexdigest()

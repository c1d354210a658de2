"""MkDocs' build, page by page: what did not change stays as it is, and no page waits in memory for the last one.

A build from nothing and a rebuild after a change are the same function; they differ in what is `Kept` from the time before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment
from mkdocs.commands.build import _build_page, _build_theme_template, _populate_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, get_files, set_exclusions
from mkdocs.structure.nav import get_navigation
from mkdocs.structure.pages import Page


@dataclass
class Drawn:
    """A page that stands in the folder: what it was made of, and what others ask of it."""

    mark: str  # a digest of its Markdown and its front matter
    asked: dict[str, str | None]  # path of a file that a link names -> where that led
    title: str | None
    anchors: set[str]
    links: dict[str, dict[str, str]]  # path of another page -> anchor -> the link as it was written
    found: list[dict[str, Any]] = field(default_factory=list)  # what it adds to the search index


@dataclass
class Kept:
    """What a folder holds already. `base` is a digest of what all pages share, `files` has one of every file."""

    theme: str = ""
    base: str = ""
    environment: Environment | None = None  # compiled templates
    pages: dict[str, Drawn] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    written: int = 0  # pages in the last build


class Asked(Files):
    """Files that remember which of them a page's links name."""

    def __init__(self, files: Files) -> None:
        self.files, self.asked = files, dict[str, str | None]()

    def get_file_from_path(self, path: str) -> File | None:
        found = self.files.get_file_from_path(path)
        self.asked[path] = found.url if found else None
        return found


def build(config: MkDocsConfig, kept: Kept) -> None:
    """Bring `config.site_dir`, in which stands what `kept` says, up to date."""
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
    pages = [file.page or Page(None, file, config) for file in files.documentation_pages()]
    marks: dict[str, str] = {}
    for page in nav.pages:  # their titles stand on all pages
        marks[page.file.src_uri] = _read(page, config, files, kept)
    shared = (theme, config.site_url, config.use_directory_urls, config.extra, [(page.url, page.title) for page in nav.pages])
    if (base := _digest([repr(shared).encode()])) != kept.base:
        kept.pages.clear()
        kept.base = base

    static = {file.dest_uri: file for file in files if not file.is_documentation_page() and file.inclusion.is_included()}
    now = {path: _state(file) for path, file in static.items()}
    for path, state in now.items():
        if kept.files.get(path) != state:
            static[path].copy_file()
    for template in config.theme.static_templates:
        _build_theme_template(template, environment, files, config, nav)

    search: Any = next((events[name] for name in ("material/search", "search") if name in events), None)
    index: list[dict[str, Any]] = search.search_index.entries if search else []
    kept.written = 0
    drawn, shown = {}, files.documentation_pages()
    for page in pages:
        uri = page.file.src_uri
        if uri not in marks or (page.content == "" and uri not in kept.pages):
            marks[uri] = _read(page, config, files, kept)
        now[page.file.dest_uri] = marks[uri]
        if page.content == "" and uri in kept.pages:
            drawn[uri] = kept.pages[uri]
            index += drawn[uri].found
            continue
        before = len(index)
        _build_page(page, config, shown, nav, environment)
        links = {file.src_uri: links for file, links in (page.links_to_anchors or {}).items()}
        asked: dict[str, str | None] = getattr(page, "asked", {})
        drawn[uri] = Drawn(marks[uri], asked, page._title_from_render, page.present_anchor_ids or set(), links, index[before:])
        kept.written += 1
        page.markdown = page.content = ""  # thousands of them are too much to hold
    for page in pages:
        page.validate_anchor_links(files=files, log_level=config.validation.links.anchors)
    for path in kept.files.keys() - now.keys():
        (Path(config.site_dir) / path).unlink(missing_ok=True)
    kept.pages, kept.files = drawn, now
    events.on_post_build(config=config)


def _read(page: Page, config: MkDocsConfig, files: Files, kept: Kept) -> str:
    """Render a page's Markdown, unless it is the same as before: then its content stays empty. Returns the Markdown's digest."""
    marks, render = [""], page.render

    def once(config: MkDocsConfig, files: Files) -> None:
        marks[0] = mark = _digest([(page.markdown or "").encode(), repr(page.meta).encode()])
        old = kept.pages.get(page.file.src_uri)
        if old and old.mark == mark and all(_led(files, path) == there for path, there in old.asked.items()):
            page.content, page._title_from_render, page.present_anchor_ids = "", old.title, old.anchors
            page.links_to_anchors = {file: links for path, links in old.links.items() if (file := files.src_uris.get(path))}
            return
        asked = Asked(files)
        render(config, asked)
        page.asked = asked.asked  # type: ignore[attr-defined]
        page.content = page.content or " "

    page.render = once  # type: ignore[method-assign]
    try:
        _populate_page(page, config, files)
    finally:
        page.render = render  # type: ignore[method-assign]
    return marks[0]


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

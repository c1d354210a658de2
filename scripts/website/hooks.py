"""The thin adapter between the page maker and MkDocs, which loads this file by its path (see mkdocs.yml)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_makers: dict[str, Callable[[], str]] = {}  # path of a generated page -> what makes its Markdown
_told: set[str] = set()  # paths of pages of which search is told without reading them


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every generated page and file; nothing is written into the folder of hand-written ones."""
    from scripts.evidence.facts import FactsError, gather
    from scripts.website import browse, search
    from scripts.website.exports.derived import Place
    from scripts.website.exports.feed import FEED
    from scripts.website.exports.files import files as exported
    from scripts.website.names import path_of
    from scripts.website.pages import makers
    from scripts.website.printed import UNMIXED, place_name, printed_path

    written = {file.src_uri: file.content_string for file in files.documentation_pages()}
    try:
        facts = gather(_root(config), written)
        _makers.clear()
        _makers.update(makers(facts))
        place = Place(config.site_url or "", config.use_directory_urls)
        made = exported(facts, written.keys() | _makers.keys(), place) | browse.data(facts)
    except (FactsError, ValueError) as problem:
        raise PluginError(str(problem)) from problem
    for path in [*_makers, *made]:
        if path in files.src_uris:
            files.remove(files.src_uris[path])
        files.append(File.generated(config, path, content=made.pop(path, "").encode()))  # half as large as text with a dash in it
    addresses = {record.id: files.src_uris[path_of(record)].url for record in facts.catalogue.entries.values()}
    _told.clear()
    _told.update(path_of(record) for record in facts.catalogue.entries.values())
    told = search.documents(facts, addresses)
    told += [
        search.document(files.src_uris[printed_path(place)].url, place_name(place), UNMIXED, boost=search.TABLE) for place in facts.printed
    ]
    for name in config.plugins.keys() & {"search", "material/search"}:
        config.plugins[name].search_index.entries += told  # type: ignore[attr-defined]
    config.extra["feed"] = FEED if FEED in files.src_uris else ""  # what the theme's pages point to
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Make a page, and the files of its charts, when its turn comes."""
    from scripts.website.charts import vega

    make = _makers.get(page.file.src_uri)
    if make is None:
        return None
    try:
        with vega.kept() as specs:
            text = make()
    except (ValueError, RuntimeError) as problem:  # of charts, too
        raise PluginError(str(problem)) from problem
    scripts = vega.files(specs)
    for path, script in scripts.items():
        _write(config, path, script)
    page.beside = tuple(scripts)  # type: ignore[attr-defined]  # for `render`, which removes those that no page has any more
    return text


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Search does not read the pages of entries: it knows of them already, and parsing them took a fifth of the time."""
    if page.file.src_uri in _told:
        page.meta["search"] = {"exclude": True}
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links in raw HTML, which MkDocs leaves alone, are written for a hosted site (`markup.hosted`) and changed for a bundle of files."""
    if config.use_directory_urls:
        return html
    here = page.file.src_uri.removesuffix(".md")
    folder = posixpath.dirname(here)

    def local(found: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(folder if posixpath.basename(here) == "index" else here, found[1]))
        there += ".html" if f"{there}.md" in files.src_uris else "/index.html"
        return f'<a href="{posixpath.relpath(there, folder or ".")}{found[2]}"{found[3]}'

    return re.sub(r'<a href="([^"#:]*)/(#[^"]*|)"( class="[^"]*"|) data-raw', local, html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A quarter of a page is white space and tags that the next one implies."""
    from scripts.website.markup import squeezed

    return squeezed(output)


def on_post_build(config: MkDocsConfig) -> None:
    """Where there are charts, add the program that draws them anew."""
    from scripts.website.charts import vega

    _makers.clear()
    site = Path(config.site_dir)
    if (site / vega.FOLDER).is_dir() and not (site / vega.BUNDLE).exists():
        _write(config, vega.BUNDLE, vega.bundle(_root(config)))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path or "mkdocs.yml").parent


def _write(config: MkDocsConfig, path: str, text: str) -> None:
    place = Path(config.site_dir) / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, "utf-8")

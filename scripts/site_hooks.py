"""The thin adapter between the page maker and MkDocs, which loads this file by its path (see mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every generated page and file; nothing is written into the folder of hand-written ones."""
    from scripts import browse, search, vega
    from scripts.drawn import remembered
    from scripts.entry_pages import path_of
    from scripts.exports import FEED, Place
    from scripts.exports import files as exported
    from scripts.facts import FactsError, gather
    from scripts.pages import PRINTED, PUBLISHED, pages

    root = Path(config.config_file_path or "mkdocs.yml").parent
    written = {file.src_uri: file.content_string for file in files.documentation_pages()}
    try:
        facts = gather(root, written)
        with remembered(root / "build" / "charts.json"):
            made = pages(facts)
        place = Place(config.site_url or "", config.use_directory_urls)
        texts = written.keys() | {path for path in made if path.endswith(".md")}
        if len(texts) < len(written.keys() | made.keys()):  # there are charts
            made[vega.BUNDLE] = vega.bundle(root)
        made |= exported(facts, texts, place) | {browse.ENTRIES: browse.entries(facts)}
    except (FactsError, ValueError) as problem:
        raise PluginError(str(problem)) from problem
    for path in list(made):
        if path in files.src_uris:
            files.remove(files.src_uris[path])
        files.append(File.generated(config, path, content=made.pop(path).encode()))  # half as large as text with a dash in it
    addresses = {record.id: files.src_uris[path_of(record)].url for record in facts.catalogue.entries.values()}
    told = [*search.documents(facts, addresses), search.document(files.src_uris[PUBLISHED].url, *PRINTED)]
    for name in config.plugins.keys() & {"search", "material/search"}:
        config.plugins[name].search_index.entries += told  # type: ignore[attr-defined]
    config.extra["feed"] = FEED if FEED in files.src_uris else ""  # what the theme's pages point to
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Search does not read the pages of entries: it knows of them already, and parsing them took a fifth of the time."""
    if page.meta.get("search", {}).get("boost"):
        page.meta["search"] = {"exclude": True}
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links in raw HTML, which MkDocs leaves alone, are written for a hosted site (`markup.hosted`) and changed for a bundle of files."""
    if config.use_directory_urls:
        return html
    up = "" if page.file.src_uri.endswith("index.md") else r"\.\./"  # a folder of its own is gone
    return re.sub(rf'<a href="{up}([^"#:]*[^"#:/.])/(#[^"]*)?"( class="[^"]*")? data-raw', r'<a href="\1.html\2"\3', html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A quarter of a page is white space and tags that the next one implies."""
    from scripts.markup import squeezed

    return squeezed(output)

"""The thin adapter between the page maker and MkDocs, which loads this file by its path (see mkdocs.yml)."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every generated page; nothing is written into the folder of hand-written ones."""
    from scripts.facts import FactsError, gather
    from scripts.pages import pages

    root = Path(config.config_file_path or "mkdocs.yml").parent
    written = {file.src_uri: file.content_string for file in files.documentation_pages()}
    try:
        made = pages(gather(root, written))
    except (FactsError, ValueError) as problem:
        raise PluginError(str(problem)) from problem
    for path, text in made.items():
        if path in files.src_uris:
            files.remove(files.src_uris[path])
        files.append(File.generated(config, path, content=text))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A quarter of the theme's part of a page is white space."""
    from scripts.markup import squeezed

    return squeezed(output)

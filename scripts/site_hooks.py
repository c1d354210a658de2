"""The thin adapter between the page maker and MkDocs, which loads this file by its path (see mkdocs.yml)."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every generated page and file; nothing is written into the folder of hand-written ones."""
    from scripts.exports import FEED, Place
    from scripts.exports import files as exported
    from scripts.facts import FactsError, gather
    from scripts.pages import pages

    root = Path(config.config_file_path or "mkdocs.yml").parent
    written = {file.src_uri: file.content_string for file in files.documentation_pages()}
    try:
        facts = gather(root, written)
        made = pages(facts)
        made |= exported(facts, written.keys() | made.keys(), Place(config.site_url or "", config.use_directory_urls))
    except (FactsError, ValueError) as problem:
        raise PluginError(str(problem)) from problem
    for path, text in made.items():
        if path in files.src_uris:
            files.remove(files.src_uris[path])
        files.append(File.generated(config, path, content=text))
    config.extra["feed"] = FEED if FEED in made else ""  # what the theme's pages point to
    return files

"""Pages at the addresses that entries had before."""

from __future__ import annotations

import html

from scripts.curation import bibtex
from scripts.evidence.facts import Facts
from scripts.website.exports.derived import NOWHERE, Place
from scripts.website.names import path_of


def redirects(facts: Facts, place: Place = NOWHERE) -> dict[str, str]:
    """A page at every address that an entry had before, which leads to today's."""
    made = {}
    for old, id in facts.moved.items():
        record = facts.catalogue.entries[id]
        if old == "index":  # the family's own page
            continue
        path, there = (f"{old}/index.html", f"../{id}/") if place.folders else (f"{old}.html", f"{id}.html")
        made[f"{record.family}/{path}"] = _redirect(record.entry.name, there, place.of(path_of(record)) if place.address else there)
    return made


def _redirect(name: str, there: str, canonical: str) -> str:
    title = html.escape(bibtex.clean(name))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Moved: {title}</title>
<link rel="canonical" href="{html.escape(canonical)}">
<noscript><meta http-equiv="refresh" content="0; url={there}"></noscript>
<script>location.replace("{there}" + location.search + location.hash) // a refresh would lose the place in the page</script>
</head>
<body>
<p>This page has moved to <a href="{there}">{title}</a>.</p>
</body>
</html>
"""

"""All files beside the pages, a pure function of the facts."""

from __future__ import annotations

import json
from collections.abc import Iterable

from scripts.evidence.facts import Facts
from scripts.website.exports.catalog import catalog
from scripts.website.exports.derived import NOWHERE, Place
from scripts.website.exports.feed import FEED, feed, has_feed, sitemap
from scripts.website.exports.redirects import redirects
from scripts.website.exports.schemas import schemas
from scripts.website.exports.tables import catalog_bib, measured_csv


def files(facts: Facts, pages: Iterable[str] = (), place: Place = NOWHERE) -> dict[str, str]:
    """Path below the site's root -> text. `pages` are the paths of all Markdown files, for the site map."""
    whole, table = catalog(facts, place)
    made = {
        "data/catalog.json": whole,
        "data/catalog.csv": table,
        "data/catalog.bib": catalog_bib(facts),
        "data/measured.csv": measured_csv(facts),
    }
    made.update({path: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for path, schema in schemas().items()})
    if has_feed(facts):
        made[FEED] = feed(facts, place)
    if place.address:
        made["sitemap.xml"] = sitemap(facts, pages, place)
    made.update(redirects(facts, place))
    return made

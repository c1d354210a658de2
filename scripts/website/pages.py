"""Which pages there are, and what makes each: a pure function of the facts. MkDocs only renders them (see `hooks`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial

from scripts.evidence.facts import Facts
from scripts.website import browse
from scripts.website import data as data_page
from scripts.website.charts import vega
from scripts.website.comparison import comparison_page, comparisons_page, measured_page
from scripts.website.entry import entry_page
from scripts.website.family import GUIDE, family_page
from scripts.website.home import cards, counts, newest, pareto, tags, verdicts
from scripts.website.names import FAMILIES, path_of
from scripts.website.printed import PUBLISHED, printed_page, printed_path, published_page

MARK = re.compile(r"<!-- fill: ([a-z_]+) -->")


def pages(facts: Facts) -> dict[str, str]:
    """Every generated page: path of the Markdown file -> its text; and the charts' specifications, as scripts.

    Raises ValueError for a mark that nothing fills.
    """
    with vega.kept() as specs:
        made = {path: make() for path, make in makers(facts).items()}
    return made | vega.files(specs)


def makers(facts: Facts) -> dict[str, Callable[[], str]]:
    """Path of every generated page -> what makes its text: of thousands, none has to wait in memory for the others.

    Raises ValueError where two pages would have one path.
    """
    catalogue = facts.catalogue
    longest_first = sorted(catalogue.entries.values(), key=lambda record: record.id not in facts.sources)
    made: list[tuple[str, Callable[[], str]]] = [
        *((f"{family}/index.md", partial(family_page, facts, family)) for family in FAMILIES),
        *((f"comparisons/{id}.md", partial(comparison_page, facts, id, table)) for id, table in catalogue.comparisons.items()),
        (browse.CATALOGUE, partial(browse.catalogue_page, facts)),
        (browse.COMPARE, browse.compare_page),
        ("comparisons/index.md", partial(comparisons_page, facts)),
        ("comparisons/measured.md", partial(measured_page, facts)),
        (PUBLISHED, partial(published_page, facts)),
        *((printed_path(place), partial(printed_page, facts, place)) for place in facts.printed),
        *((path_of(record), partial(entry_page, facts, record)) for record in longest_first),
    ]
    if twice := [path for path, count in Counter(path for path, _ in made).items() if count > 1]:
        raise ValueError(f"two pages would stand in {', '.join(twice)}; rename an entry, a table, a data set or a network")
    return dict(made) | {path: partial(fill, facts, path, text) for path, text in facts.templates.items() if MARK.search(text)}


def fill(facts: Facts, path: str, text: str) -> str:
    """A hand-written page with its marks replaced."""
    parts: dict[str, Callable[[], str]] = {
        "counts": lambda: counts(facts),
        "cards": lambda: cards(facts, path),
        "pareto": lambda: pareto(facts, path),
        "verdicts": lambda: verdicts(facts, path),
        "tags": lambda: tags(facts),
        **{name: lambda make=make: make(facts, path.partition("/")[0]) for name, make in GUIDE.items()},  # type: ignore[misc]
        "newest": lambda: newest(facts, path),
        **{name: partial(make, facts) for name, make in data_page.PARTS.items()},
    }

    def part(mark: re.Match[str]) -> str:
        if mark[1] not in parts:
            raise ValueError(f"site/{path}: nothing fills {mark[0]}; use one of {', '.join(sorted(parts))}")
        return parts[mark[1]]()

    return MARK.sub(part, text)

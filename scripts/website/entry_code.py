"""How an entry's claims are measured: the code of each, folded under it, and what they share."""

from __future__ import annotations

from functools import lru_cache

from scripts.evidence.source import Program, Source
from scripts.website.markup import fence


def folded(said: str, block: str, *, markdown: bool = False) -> str:
    """Code that a click shows."""
    return f'<details class="sp-lines" data-search-exclude{" markdown" * markdown}><summary>{said}</summary>{block}</details>'


def of_claim(source: Source | None, name: str) -> str:
    """The function that measures a claim, as HTML for a table's cell; nothing where there is none."""
    function = source.claims.get(name) if source else None
    if source is None or source.claimed is None or function is None:
        return ""
    lines = "\n".join(source.claimed.text.splitlines()[function.line - 1 : function.end])
    return folded(f"Measured by <code>claim_{name}</code>", highlighted(lines))


@lru_cache(maxsize=4096)
def highlighted(lines: str) -> str:
    """Python as the site's own code blocks look."""
    from pygments import highlight  # only now: it takes as long to import as all other pages to make
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return str(highlight(lines, PythonLexer(), HtmlFormatter(wrapcode=True))).strip()


def shared(claimed: Program | None) -> str:
    """What claims import and share, as Markdown: their file without the functions that stand under the claims."""
    if claimed is None:
        return ""
    lines = claimed.text.splitlines()
    for function in claimed.named("claim_").values():
        lines[function.line - 1 : function.end] = [""] * (function.end - function.line + 1)
    kept = [line for number, line in enumerate(lines) if line or any(lines[max(0, number - 2) : number])]  # two empty lines at most
    block = fence("\n".join(kept), "python")
    return folded("What its claims share, and what they import", f"\n\n{block}\n\n", markdown=True)

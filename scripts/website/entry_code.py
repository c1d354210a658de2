"""How an entry's claims are measured: the code of each, folded under it, and what they share."""

from __future__ import annotations

from functools import lru_cache

from scripts.evidence.source import Program, Source
from scripts.website.markup import fence


def of_claim(source: Source | None, name: str) -> str:
    """The function that measures a claim, folded, as HTML for a table's cell; nothing where there is none.

    In few bytes, as a page has twenty.
    """
    function = source.claims.get(name) if source else None
    if source is None or source.claimed is None or function is None:
        return ""
    lines = "\n".join(source.claimed.text.splitlines()[function.line - 1 : function.end])
    return f"<details data-search-exclude><summary>Code</summary>{highlighted(lines)}</details>"


@lru_cache(maxsize=4096)
def highlighted(lines: str) -> str:
    """Python as the site's own code blocks look."""
    from pygments import highlight  # only now: it takes as long to import as all other pages to make
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return f'<pre class="highlight"><code>{str(highlight(lines, PythonLexer(), HtmlFormatter(nowrap=True))).rstrip()}</code></pre>'


def shared(claimed: Program | None) -> str:
    """What claims import and share, as Markdown: their file without the functions that stand under the claims."""
    if claimed is None:
        return ""
    lines = claimed.text.splitlines()
    for function in claimed.named("claim_").values():
        lines[function.line - 1 : function.end] = [""] * (function.end - function.line + 1)
    kept = [line for number, line in enumerate(lines) if line or any(lines[max(0, number - 2) : number])]  # two empty lines at most
    block = fence("\n".join(kept), "python")
    said = "What its claims share, and what they import"
    return f'<details class="sp-lines" data-search-exclude markdown><summary>{said}</summary>\n\n{block}\n\n</details>'

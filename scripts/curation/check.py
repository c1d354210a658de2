"""Everything that can be wrong with the catalogue and its methods, found without torch or network: all of it, at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from catalog import FAMILIES, Catalogue, Place, Problem, Record, dotted, line_of, load, nearest
from catalog.schema import METHOD_FAMILIES, Claim, Comparison, Framework, Listing, Overview, Paper, Vocabulary
from scripts.curation import debts
from scripts.evidence import link_health, networks, records
from scripts.evidence.facts import Facts, Measured
from scripts.evidence.source import Program, Source, claims_paths, methods, paths

VOCABULARY = "catalog/vocabulary.yaml"
COMPRESS = ("model", "task", "config")
CONTROL = (*COMPRESS, "like")


@dataclass(frozen=True)
class Tree:
    """What all rules look at. An entry or method that cannot be read still counts as being there."""

    root: Path
    catalogue: Catalogue
    sources: dict[str, Source]
    ids: dict[str, str]  # of every entry's file -> family
    written: set[str]  # paths of every method's file

    @cached_property
    def rows(self) -> dict[Path, list[records.Row] | records.Damaged]:
        """What every file of results holds, or why it cannot be read."""
        found: dict[Path, list[records.Row] | records.Damaged] = {}
        for file in sorted((self.root / "catalog" / "measured").glob("**/*.csv")):
            try:
                found[file] = records.read(file)
            except records.Damaged as problem:
                found[file] = problem
        return found

    def problem(self, path: str, place: Place, message: str) -> Problem:
        """A problem with a field of a YAML file."""
        return Problem(path, line_of(self.catalogue.places.get(path, {}), place), dotted(place), message)


def check(root: Path) -> list[Problem]:
    """All problems of all files below `root`, in order."""
    return examine(root)[1]


def examine(root: Path) -> tuple[Tree, list[Problem]]:
    """What is below `root`, and all its problems in order."""
    catalogue = load(root / "catalog")
    problems = list(catalogue.problems)
    sources = methods(root, problems)
    ids: dict[str, str] = {}
    for family in FAMILIES:
        for path in (root / "catalog" / family).glob("*.yaml"):
            ids.setdefault(path.stem, family)
    tree = Tree(root, catalogue, sources, ids, {path.relative_to(root).as_posix() for path in paths(root)})
    for rule in RULES:
        problems += rule(tree)
    return tree, sorted(set(problems))


def _path(record: Record) -> str:
    return f"catalog/{record.family}/{record.id}.yaml"


def _tables(tree: Tree) -> Iterator[tuple[str, Comparison]]:
    for name, table in tree.catalogue.comparisons.items():
        yield f"catalog/comparisons/{name}.yaml", table


def check_words(tree: Tree) -> Iterator[Problem]:
    """Tags, datasets, models and metrics are in the vocabulary."""
    if any(problem.path == VOCABULARY for problem in tree.catalogue.problems):
        return  # or every word would be reported
    words = tree.catalogue.vocabulary
    known: dict[str, Iterable[str]] = {"tags": words.tags, "dataset": words.datasets, "model": words.models, "metric": words.metrics}

    def word(path: str, kind: str, place: Place, value: str) -> Iterator[Problem]:
        if value not in known[kind]:
            section = kind.removesuffix("s") + "s"
            close = nearest(value, known[kind])
            cure = f"{close} If not, correct" if close else "; correct"
            yield tree.problem(path, place, f"{value!r} is not among the known {section}{cure} it or add it to {VOCABULARY}")

    for record in tree.catalogue.entries.values():
        for index, tag in enumerate(record.entry.tags):
            yield from word(_path(record), "tags", ("tags", index), tag)
        for index, result in enumerate(record.executable.results if record.executable else []):
            for kind in ("dataset", "model", "metric"):
                yield from word(_path(record), kind, ("results", index, kind), getattr(result, kind))
    for path, table in _tables(tree):
        for kind in ("dataset", "model"):
            yield from word(path, kind, (kind,), getattr(table, kind))


def _named(record: Record) -> Iterator[tuple[Place, str]]:
    """Every id that an entry names, with its place."""
    entry = record.entry
    for name in ("builds_on", "compared_with", "covers"):
        for index, id in enumerate(getattr(entry, name, [])):
            yield (name, index), id
    for index, technique in enumerate(entry.techniques if isinstance(entry, Framework) else []):
        if technique.entry:
            yield ("techniques", index, "entry"), technique.entry


def check_references(tree: Tree) -> Iterator[Problem]:
    """Named entries exist, and none names itself."""
    former = {old: record.id for record in tree.catalogue.entries.values() for old in record.entry.formerly}

    def missing(path: str, place: Place, id: str) -> Iterator[Problem]:
        if id not in tree.ids:
            now = f"; it is now called {former[id]}" if id in former else ""
            yield tree.problem(path, place, f"there is no entry {id}{now or nearest(id, tree.ids) or '; write it or remove the name'}")

    for record in tree.catalogue.entries.values():
        for place, id in _named(record):
            if id == record.id:
                yield tree.problem(_path(record), place, "an entry cannot name itself; remove it")
            yield from missing(_path(record), place, id)
    for path, table in _tables(tree):
        for index, row in enumerate(table.rows):
            if row.entry:
                yield from missing(path, ("rows", index, "entry"), row.entry)


def check_circles(tree: Tree) -> Iterator[Problem]:
    """No entry builds, through others, on itself. Each circle is reported where its first entry closes it."""
    entries = tree.catalogue.entries
    graph = {id: [other for other in entries[id].entry.builds_on if other in entries and other != id] for id in sorted(entries)}
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return
        except CycleError as circle:
            ring = circle.args[1][:0:-1]  # each builds on the next
        start = ring.index(min(ring))
        ring = ring[start:] + ring[:start]
        place = ("builds_on", entries[ring[0]].entry.builds_on.index(ring[1]))
        way = " -> ".join([*ring, ring[0]])
        yield tree.problem(_path(entries[ring[0]]), place, f"goes in a circle, {way}; remove one of these")
        graph[ring[0]].remove(ring[1])


def check_former_names(tree: Tree) -> Iterator[Problem]:
    """A slug that an entry once had is nobody else's."""
    owners: dict[str, str] = {}
    for record in tree.catalogue.entries.values():
        for index, old in enumerate(record.entry.formerly):
            if old in tree.ids:
                yield tree.problem(_path(record), ("formerly", index), f"{old} is an entry today; remove it here")
            elif owners.setdefault(old, record.id) != record.id:
                yield tree.problem(_path(record), ("formerly", index), f"{owners[old]} was formerly {old} too; remove one")


def check_addresses(tree: Tree) -> Iterator[Problem]:
    """No entry and no table takes the address of a page that every site has."""
    for record in tree.catalogue.entries.values():
        if record.id == "index":
            yield tree.problem(_path(record), (), "index is the page of the whole family; rename the file")
    for path, _ in _tables(tree):
        if (name := Path(path).stem) in ("index", "measured", "published"):
            yield tree.problem(path, (), f"{name} is a page of all comparisons; rename the file")


def check_duplicates(tree: Tree) -> Iterator[Problem]:
    """One paper, one entry: arXiv ids and DOIs are given once."""
    owners: dict[str, Record] = {}
    for record in tree.catalogue.entries.values():
        for name in ("arxiv", "doi"):
            value = getattr(record.entry, name)
            if not value:
                continue
            key = value.casefold().removeprefix("10.48550/arxiv.")  # the DOI that arXiv gives to each of its papers
            owner = owners.setdefault(key, record)
            if owner is not record:
                yield tree.problem(_path(record), (name,), f"{value} is in {_path(owner)} already; remove one entry or correct the number")


def check_claims(tree: Tree) -> Iterator[Problem]:
    """Every claim has its function and every function its claim; a method has enough claims to be trusted."""
    for record in tree.catalogue.entries.values():
        claims = record.executable.claims if record.executable else {}
        if claims and record.program not in tree.written:
            yield tree.problem(_path(record), ("claims",), f"{record.program} is missing; write it or remove the claims")
        source = tree.sources.get(record.id)
        if source is None or source.path != record.program:
            continue
        if source.claimed:
            yield from _pairs(tree, record, claims, source.claimed)
        elif claims:
            yield tree.problem(_path(record), ("claims",), f"{record.claims_file} is missing; write it or remove the claims")
        tiers = [claim.tier for claim in claims.values()]
        exact, smoke = tiers.count("exact"), tiers.count("smoke")
        if exact < 2 or smoke < 1:
            message = f"{exact} exact and {smoke} smoke are too few; a method has at least two exact claims and one smoke claim"
            yield tree.problem(_path(record), ("claims",), message)


def _pairs(tree: Tree, record: Record, claims: dict[str, Claim], source: Program) -> Iterator[Problem]:
    """Claims without a function, functions without a claim, and functions that do not take a case where the claim has cases."""
    functions = source.named("claim_")
    unmeasured, unclaimed = claims.keys() - functions.keys(), functions.keys() - claims.keys()
    for id in unmeasured:
        cure = nearest(f"claim_{id}", [f"claim_{name}" for name in unclaimed]) or "; write it or remove the claim"
        yield tree.problem(_path(record), ("claims", id), f"{source.path} has no claim_{id}{cure}")
    for id, function in functions.items():
        if id in unclaimed:
            cure = nearest(id, unmeasured) or "; add the claim or remove the function"
            yield Problem(source.path, function.line, f"claim_{id}", f"{_path(record)} has no claim {id}{cure}")
            continue
        has, wanted = ("cases", ("lab", "case")) if claims[id].cases else ("no cases", ("lab",))
        if len(function.arguments) != len(wanted):
            message = f"takes ({', '.join(function.arguments)}), but its claim has {has}; let it take ({', '.join(wanted)})"
            yield Problem(source.path, function.line, f"claim_{id}", message)


def check_equations(tree: Tree) -> Iterator[Problem]:
    """Equations can be drawn, and the functions that compute them are there."""
    for record in tree.catalogue.entries.values():
        for index, equation in enumerate(record.executable.equations if record.executable else []):
            from scripts.curation.mathml import MathError, mathml  # only now: most entries have none

            try:
                mathml(equation.tex)
            except MathError as problem:
                yield tree.problem(_path(record), ("equations", index, "tex"), str(problem))
            source = tree.sources.get(record.id)
            if equation.function is None or (source is None and record.program in tree.written):
                continue  # of a file that cannot be read nothing more is said
            functions = source.functions if source else {}
            if equation.function not in functions:
                cure = nearest(equation.function, functions) or "; correct or remove it"
                message = f"{record.program} has no function {equation.function}{cure}"
                yield tree.problem(_path(record), ("equations", index, "function"), message)


def check_methods(tree: Tree) -> Iterator[Problem]:
    """A method's file has the parts of the contract, and its entry; claims have their method."""
    for source in tree.sources.values():
        family = tree.ids.get(source.id)
        if source.family not in METHOD_FAMILIES:
            cure = nearest(source.family, METHOD_FAMILIES) or f"; move the file to one of {', '.join(METHOD_FAMILIES)}"
            yield Problem(source.path, 1, "", f"{source.family} is no family of methods{cure}")
        elif family is None:
            entry = f"catalog/{source.family}/{source.id}.yaml"
            yield Problem(source.path, 1, "", f"{entry} is missing; write it or remove this file{nearest(source.id, tree.ids)}")
        elif family != source.family:
            yield Problem(source.path, 1, "", f"the entry is in {family}; move this file to methods/{family}/{source.id}.py")
        yield from _parts(source)
        for program in filter(None, (source, source.claimed)):
            yield from _imports(tree, source.id, program)
    for path in claims_paths(tree.root):
        twin = (path.parent.parent / path.name).relative_to(tree.root).as_posix()
        if twin not in tree.written:
            yield Problem(path.relative_to(tree.root).as_posix(), 1, "", f"{twin} is missing; write it or remove this file")


def _parts(source: Source) -> Iterator[Problem]:
    if not source.docstring:
        yield Problem(source.path, 1, "docstring", "is missing; write name, authors and venue, then the idea, then Departures:")
    elif not source.departures:
        yield Problem(source.path, 1, "docstring", 'has no "Departures:" from the paper; add what differs, or "Departures: none."')
    compress = source.functions.get("compress")
    if compress is None:
        yield Problem(source.path, 1, "compress", f"is missing; write compress({', '.join(COMPRESS)})")
    elif compress.arguments != COMPRESS:
        yield _arguments(source, "compress", COMPRESS)
    if source.config is None:
        yield Problem(source.path, 1, "Config", "is missing; write a frozen dataclass with the paper's numbers as defaults")
    for setting in source.config or ():
        if not setting.default:
            yield Problem(source.path, setting.line, f"Config.{setting.name}", "has no default; give it the paper's value")
    if not source.controls:
        yield Problem(source.path, 1, "control", f"there is none; write control_<name>({', '.join(CONTROL)}), the naive alternative")
    for name, control in source.controls.items():
        if control.arguments != CONTROL:
            yield _arguments(source, f"control_{name}", CONTROL)


def check_unwritten(tree: Tree) -> Iterator[Problem]:
    """Nothing is left of the skeleton that `smallprint new` writes."""
    for source in tree.sources.values():
        for program, (number, line) in ((p, at) for p in (source, source.claimed) if p for at in enumerate(p.text.splitlines(), 1)):
            if line.startswith(f'    raise NotImplementedError("{source.id}: write '):
                name = next((name for name, f in program.functions.items() if f.line <= number <= f.end), "")
                yield Problem(program.path, number, name, "is not written yet; write it")
            elif line == "The idea in two or three sentences.":
                yield Problem(program.path, number, "docstring", "does not tell the idea yet; write it in two or three sentences")


def _arguments(source: Source, name: str, wanted: tuple[str, ...]) -> Problem:
    function = source.functions[name]
    return Problem(source.path, function.line, name, f"takes ({', '.join(function.arguments)}); let it take ({', '.join(wanted)})")


def _imports(tree: Tree, id: str, source: Program) -> Iterator[Problem]:
    for module, line in source.modules.items():
        if module.split(".")[0] in ("scripts", "catalog", "tests"):
            yield Problem(source.path, line, "import", f"a method may not import {module}; move what it needs to methods/kit")
        elif module.startswith("methods.") and "claims" in module.split(".")[2:3]:
            yield Problem(source.path, line, "import", f"nothing may import {module}; claims import methods, never the other way round")
    record = tree.catalogue.entries.get(id)
    if record is None:
        return
    related = {*record.entry.builds_on, *record.entry.compared_with}
    for id, line in source.imports.items():
        if id not in related and id != "claims":
            message = f"{id} is neither in builds_on nor in compared_with of {_path(record)}; add it there or do without it"
            yield Problem(source.path, line, "import", message)


def _decimals(value: float) -> int:
    """Digits after the point that were printed, as far as a float remembers: none for whole numbers."""
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _half(decimals: int) -> float:
    """Half a unit of the last of so many printed decimals."""
    return 0.5 * 10.0**-decimals


def _is_rounded(stored: float, low: float, high: float) -> bool:
    """Whether a stored number, as it is rounded, can come from something between low and high."""
    slack = _half(max(1, _decimals(stored))) + 1e-9 * max(1.0, abs(stored))
    return low - slack <= stored <= high + slack


def _is_difference(stored: float, result: float, baseline: float) -> bool:
    """Numbers of one quantity are printed with the same decimals, so the longer tells for both: 93.0 beside 93.52 is 93.00."""
    half = _half(max(_decimals(result), _decimals(baseline)))
    return _is_rounded(stored, result - baseline - 2 * half, result - baseline + 2 * half)


def _is_ratio(stored: float, after: float, before: float) -> bool:
    a, b = _half(_decimals(after)), _half(_decimals(before))
    return _is_rounded(stored, (after - a) / (before + b), (after + a) / (before - b))


def check_numbers(tree: Tree) -> Iterator[Problem]:
    """Stored changes and shares agree with their parts, as far as the parts' rounding can tell."""
    for record in tree.catalogue.entries.values():
        for index, r in enumerate(record.executable.results if record.executable else []):
            if r.delta is not None and r.baseline is not None and not _is_difference(r.delta, r.result, r.baseline):
                message = f"is {r.delta:g}, but result - baseline is {r.result - r.baseline:.4g}; correct one or remove delta"
                yield tree.problem(_path(record), ("results", index, "delta"), message)
            for what in ("params", "madds"):
                kept, before, after = (getattr(r, f"{what}_{part}") for part in ("kept", "before", "after"))
                if None not in (kept, before, after) and not _is_ratio(kept, after, before):
                    message = f"is {kept:g}, but {what}_after / {what}_before is {after / before:.4g}; correct one or remove {what}_kept"
                    yield tree.problem(_path(record), ("results", index, f"{what}_kept"), message)
    for path, table in _tables(tree):
        yield from _table_numbers(tree, path, table)


def _table_numbers(tree: Tree, path: str, table: Comparison) -> Iterator[Problem]:
    changes = {column.id: column.delta_of for column in table.columns if column.delta_of}
    for index, column in enumerate(table.columns):
        if column.delta_of and column.delta_of not in table.baseline:
            cure = nearest(column.delta_of, table.baseline) or "; add it there"
            yield tree.problem(path, ("columns", index, "delta_of"), f"{column.delta_of} is not in the table's baseline{cure}")
    for index, row in enumerate(table.rows):
        for id, absolute in row.result.items():
            if id not in changes:
                cure = nearest(id, changes) or "; add delta_of to the column or remove the number"
                yield tree.problem(path, ("rows", index, "result", id), f"{id} is no column with delta_of{cure}")
                continue
            change, baseline = row.values.get(id), table.baseline.get(changes[id])
            if change is not None and baseline is not None and not _is_difference(change, absolute, baseline):
                message = f"is {change:g}, but result - baseline is {absolute - baseline:.4g}; correct one"
                yield tree.problem(path, ("rows", index, "values", id), message)


def check_measured(tree: Tree) -> Iterator[Problem]:
    """Measured results can be read, and what they measured is still there."""
    for file, rows in tree.rows.items():
        path = file.relative_to(tree.root).as_posix()
        if tree.ids.get(file.stem) != file.parent.name or len(file.relative_to(tree.root).parts) != 4:
            yield Problem(path, 1, "", f"there is no entry catalog/{file.parent.name}/{file.stem}.yaml; rename or remove this file")
            continue
        if isinstance(rows, records.Damaged):
            yield Problem(path, rows.line, "", rows.reason)
            continue
        seen: set[tuple[str, str]] = set()
        for number, row in enumerate(rows, 2):
            reason = "" if (row.tier, row.subject) in seen else _unknown(tree, file.stem, row.tier, row.subject)
            seen.add((row.tier, row.subject))
            if reason:
                yield Problem(path, number, "subject", f"{row.subject}: {reason}; remove its rows")


def _unknown(tree: Tree, id: str, tier: str, subject: str) -> str:
    """Why nothing of this tier is called so, or ""."""
    record, source = tree.catalogue.entries.get(id), tree.sources.get(id)
    if tier == "sweep":
        if source and not source.sweeps:
            return "the method has no SWEEP"
        subject = subject.partition("@")[0]
    if subject.startswith("claim_"):
        claim, _, case = subject.removeprefix("claim_").partition("[")
        claims = record.executable.claims if record and record.executable else None
        if claims is None:
            return ""
        if claim not in claims:
            return f"there is no claim {claim}"
        if claims[claim].tier != ("smoke" if tier == records.ROUNDING else tier):
            return f"claim {claim} is of the tier {claims[claim].tier}, not {tier}"
        cases = claims[claim].cases
        if bool(case) != bool(cases):
            return f"claim {claim} has {'' if cases else 'no '}cases"
        return f"claim {claim} has no case {case.removesuffix(']')}" if cases and case.removesuffix("]") not in cases else ""
    if subject.startswith("control_"):
        return f"the method has no {subject}" if source and subject not in source.functions else ""
    return "" if subject in ("reference", "method", "run", "bite") else "is no subject of a measurement"


def check_links(tree: Tree) -> Iterator[Problem]:
    """The verdicts on links can be read."""
    file = tree.root / "catalog" / "links.json"
    if file.exists():
        try:
            link_health.read(file)
        except link_health.LinksError as problem:
            yield Problem("catalog/links.json", 1, "", str(problem).removeprefix(f"{file}: "))


def check_networks(tree: Tree) -> Iterator[Problem]:
    """The table of networks can be read, and speaks of methods that are there."""
    path = networks.path_of(tree.root)
    try:
        known = networks.read(path)
    except networks.NetworksError as problem:
        yield Problem("catalog/networks.csv", 1, "", str(problem).removeprefix(f"{path}: "))
        return
    for line, row in enumerate(known.values(), 2):
        if f"methods/{row.family}/{row.id}.py" not in tree.written:
            yield Problem("catalog/networks.csv", line, row.id, f"is no method; {networks.CURE}")


def check_debts(tree: Tree) -> Iterator[Problem]:
    """What the contract asks of a method is there, or owed by one that was there before it."""
    measured = {
        id: Measured(rows)
        for id, record in tree.catalogue.entries.items()
        if isinstance(rows := tree.rows.get(records.path_of(tree.root, record.family, id)), list)
    }
    facts = Facts(tree.catalogue, tree.sources, measured)
    there = {Path(path).stem for path in tree.written}
    yield from debts.settle(tree.root, debts.found(facts, tree.catalogue.places), there)


RULES = (
    check_words,
    check_references,
    check_circles,
    check_former_names,
    check_addresses,
    check_duplicates,
    check_claims,
    check_equations,
    check_methods,
    check_unwritten,
    check_numbers,
    check_measured,
    check_links,
    check_networks,
    check_debts,
)


def render(problems: Iterable[Problem], format: str = "text") -> str:
    """Problems as `text` (one a line), as a `json` list, or as the workflow commands by which `github` marks lines."""
    problems = [problem.printable() for problem in problems]
    if format == "text":
        return "\n".join(map(str, problems))
    if format == "json":
        return json.dumps([asdict(problem) for problem in problems], indent=1, ensure_ascii=False)
    if format == "github":
        return "\n".join(map(_command, problems))
    raise ValueError(f"there is no format {format!r}; use text, json or github")


def _command(problem: Problem) -> str:
    where = f"{problem.field}: " if problem.field else ""
    message = _escape(f"{where}{problem.message}")
    path = _escape(problem.path).replace(":", "%3A").replace(",", "%2C")
    return f"::error file={path},line={problem.line}::{message}"


def _escape(text: str) -> str:
    return text.replace("%", "%25")


def schema() -> dict[str, dict[str, Any]]:
    """JSON Schema of every kind of file, for editors."""
    kinds: dict[str, type[BaseModel]] = {
        "paper": Paper, "framework": Framework, "overview": Overview, "list": Listing, "comparison": Comparison, "vocabulary": Vocabulary,
    }  # fmt: skip
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: {**dialect, **kind.model_json_schema()} for name, kind in kinds.items()}

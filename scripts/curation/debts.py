"""What a method does not do yet that the contract asks for: found in entry, source and record, and set against the list of debts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from catalog import Place, Problem, Record, line_of
from catalog.schema import REFERENCE
from scripts.evidence import owed
from scripts.evidence.facts import Facts, Finding
from scripts.evidence.outcome import CHANCE
from scripts.evidence.source import Source

LONGEST, LONGEST_OF_SEVERAL = 150, 250  # lines of a method's file; the latter where its docstring has a paragraph "Algorithms: ..."
Debt = tuple[str, str, Problem]  # method, what it owes, and the problem that this is where it may owe nothing


def found(facts: Facts, places: Mapping[str, dict[Place, int]]) -> Iterator[Debt]:
    """Every debt of every method. `places` are the lines of the entries' fields, by path."""
    for id, source in facts.sources.items():
        record = facts.catalogue.entries.get(id)
        if record is None or record.executable is None or record.program != source.path:
            continue
        path = f"catalog/{record.family}/{id}.yaml"

        def at(claim: str, name: str, message: str, path: str = path) -> Problem:
            return Problem(path, line_of(places.get(path, {}), ("claims", claim, name)), f"claims.{claim}.{name}", message)

        for name, claim in record.executable.claims.items():
            if source.controls and claim.against not in (None, REFERENCE, *source.controls):
                message = f"{source.path} has no control_{claim.against}; write it, or name one of its controls or {REFERENCE}"
                yield id, "control", at(name, "against", message)
        yield from ((id, "because", at(claim, "because", message)) for claim, message in _reasons(facts, record))
        yield from ((id, "chance", at(claim, "against", message)) for claim, message in _guessing(facts, record, source))
        wiring = [name for name, claim in record.executable.claims.items() if (claim.kind, claim.tier) == ("wiring", "exact")]
        if not any(_is_trace(source, name) for name in wiring):
            cure = "add one that compares the trace of compress with the paper's algorithm box"
            yield id, "wiring", Problem(path, line_of(places.get(path, {}), ("claims",)), "claims", f"has no exact wiring claim; {cure}")
        most = LONGEST_OF_SEVERAL if re.search(r"^Algorithms:", source.docstring, re.MULTILINE) else LONGEST
        if (length := length_of(source)) > most:
            cure = "move to methods/kit what other methods need too, or say in the docstring which algorithms it has (Algorithms: …)"
            yield id, "length", Problem(source.path, 1, "", f"has {length} lines, at most {most} are allowed; {cure}")


def _reasons(facts: Facts, record: Record) -> Iterator[tuple[str, str]]:
    """Claims that need `because` by the verdict on their record, and those that may not have one."""
    entry = record.executable
    judging = {(f.claim, f.case) for findings in facts.effects(record).values() for f in findings if f}
    for finding in facts.findings(record):
        judges = entry is not None and (entry.claims[finding.claim].kind != "effect" or (finding.claim, finding.case) in judging)
        case = f" in case {finding.case}" if finding.case is not None else ""
        if finding.verdict == "holds" and finding.bound.because:
            yield finding.claim, f"is given{case}, but the claim holds: {_told(finding)}; remove it"
        elif judges and finding.verdict in ("fails", "level") and not finding.bound.because:
            verdict = "is level" if finding.verdict == "level" else "fails"
            yield finding.claim, f"is missing{case}, for the claim {verdict}: {_told(finding)}; say why"


def _told(finding: Finding) -> str:
    """The number that a verdict rests on."""
    seen = f" ± {finding.judged.half:.3g}" if finding.judged.half else ""
    return f"{finding.judged.mean:.4g}{seen} where {finding.bound.text} is asked for"


def _guessing(facts: Facts, record: Record, source: Source) -> Iterator[tuple[str, str]]:
    """Effects against a control that hardly does better than a guess, by the record that judges them."""
    measured = facts.of(record.id)
    for name, findings in facts.effects(record).items() if "prepare" not in source.functions else ():
        for finding in findings[:1]:
            if finding is None or not finding.evidence or finding.said.against == REFERENCE:
                continue
            control = measured.sample(finding.condition, f"control_{finding.said.against}", "accuracy")
            if control and control.mean < 2 * CHANCE:
                cure = "find an operating point at which the control works, or another control"
                yield name, f"{finding.said.against} has {control.mean:.1%} accuracy, below twice chance: it proves nothing; {cure}"


def _is_trace(source: Source, claim: str) -> bool:
    """Whether a claim looks at the trace of what `compress` does. Of a claim without a function nothing more is said."""
    function = source.claims.get(claim)
    if function is None or source.claimed is None:
        return True
    body = ast.parse("\n".join(source.claimed.text.splitlines()[function.line - 1 : function.end]))
    called = (ast.unparse(node.func) for node in ast.walk(body) if isinstance(node, ast.Call))
    return any("trace" in name for name in called)


def length_of(source: Source) -> int:
    """Lines of a method's file without the module's docstring, imports and blank lines."""
    tree = ast.parse(source.text)
    left_out: list[ast.stmt] = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    left_out += [node for node in tree.body[:1] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]  # the docstring
    numbers = {line for node in left_out for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return sum(bool(line.strip()) for number, line in enumerate(source.text.splitlines(), 1) if number not in numbers)


def settle(root: Path, debts: Iterable[Debt], methods: Iterable[str]) -> list[Problem]:
    """What nobody may owe, and lines of the list that say what is no longer owed. A ledger is measured by `smoke`, not here."""
    try:
        listed = owed.lines(root)
    except owed.OwedError as problem:
        return [Problem(owed.LIST, problem.line, "", problem.reason)]
    debts, there = list(debts), set(methods)
    problems = [problem for id, debt, problem in debts if debt not in listed.get(id, {})]
    found = {(id, debt) for id, debt, _ in debts}
    for id, mine in listed.items():
        if id not in there:
            problems.append(Problem(owed.LIST, min(mine.values(), default=1), id, "is no method; remove this line"))
            continue
        for debt, line in mine.items():
            if debt != "ledger" and (id, debt) not in found:
                problems.append(Problem(owed.LIST, line, id, f"no longer owes {debt}; take it out of the list"))
    return problems

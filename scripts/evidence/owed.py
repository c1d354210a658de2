"""What methods owe to the contract: one committed list, `catalog/owed.yaml`, of those that were there before it. It only shrinks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from catalog.files import Unreadable, content

LIST = "catalog/owed.yaml"
DEBTS = {  # what is owed -> in words, behind "23 methods owe"
    "because": "a reason, or its removal, for what their record says",
    "chance": "a control that is better than guessing",
    "control": "a control that an effect is measured against",
    "ledger": "controls that cost what the method costs",
    "length": "lines",
    "wiring": "a wiring claim",
}


class OwedError(ValueError):
    """A list that cannot be read; the message names file, line and cure."""

    def __init__(self, line: int, reason: str) -> None:
        self.line, self.reason = line, reason
        super().__init__(f"{LIST}:{line}: {reason}")


def owed(root: Path) -> dict[str, set[str]]:
    """Id of a method -> its debts; empty where there is no list. Raises `OwedError`."""
    return {id: set(debts) for id, debts in lines(root).items()}


def lines(root: Path) -> dict[str, dict[str, int]]:
    """Id of a method -> each of its debts with the line that says so. Raises `OwedError`."""
    path = root / LIST
    if not path.exists():
        return {}
    try:
        tree = yaml.compose(content(path), Loader=yaml.SafeLoader)
    except Unreadable as refusal:
        raise OwedError(refusal.line, refusal.reason) from refusal
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        raise OwedError(mark.line + 1 if mark else 1, f"{getattr(problem, 'problem', problem)}; correct it") from problem
    if tree is None:
        return {}
    if not isinstance(tree, yaml.MappingNode):
        raise OwedError(1, "must be methods with their debts; write method: [debt, …]")
    found: dict[str, dict[str, int]] = {}
    for name, debts in tree.value:
        line = name.start_mark.line + 1
        if not isinstance(debts, yaml.SequenceNode):
            raise OwedError(line, f"{name.value} must have a list of debts; write {name.value}: [because, …]")
        if name.value in found:
            raise OwedError(line, f"{name.value} is listed twice; keep one")
        found[name.value] = {debt.value: debt.start_mark.line + 1 for debt in debts.value}
        if unknown := found[name.value].keys() - DEBTS.keys():
            raise OwedError(line, f"there is no debt {', '.join(sorted(unknown))}; the debts are {', '.join(DEBTS)}")
    return found


def summary(debts: Mapping[str, set[str]]) -> str:
    """One line: "23 methods owe a wiring claim (23), lines (5)"; empty where nobody owes anything."""
    debtors = [id for id, mine in debts.items() if mine]
    if not debtors:
        return ""
    parts = [f"{words} ({count})" for debt, words in DEBTS.items() if (count := sum(debt in mine for mine in debts.values()))]
    return f"{len(debtors)} method{'s owe' if len(debtors) > 1 else ' owes'} {', '.join(parts)}: {LIST}"

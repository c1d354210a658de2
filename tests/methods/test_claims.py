"""No claim finds its worst by Python's `max` or `min`, which drop what is no number unless it comes first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CURE = "return a list, of which the bound takes the worst, or take NumPy's or torch's, which keep what is no number"


def names_in(*parts: ast.AST) -> set[str]:
    return {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}


def handed_back(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What a function returns, and what it assigns, adds or appends to a name that stands in a `return`."""
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
    names = names_in(*returned)
    yield from returned
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=targets, value=value) if names_in(*targets) & names:
                yield value
            case ast.AugAssign(target=target, value=value) if names_in(target) & names:
                yield value
            case ast.Call(func=ast.Attribute(value=target, attr="append" | "extend"), args=args) if names_in(target) & names:
                yield from args


def whole(node: ast.AST) -> bool:
    """Whether a value is plainly an integer, which always is a number."""
    match node:
        case ast.Constant(value=int()) | ast.Call(func=ast.Name(id="int" | "len")) | ast.BinOp(op=ast.FloorDiv()):
            return True
        case ast.GeneratorExp(elt=each) | ast.ListComp(elt=each):
            return whole(each)
    return False


def dropping(source: str) -> list[int]:
    """The lines where `max` or `min` by itself takes one of what a function hands back."""
    found = set[int]()
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)):
        for node in (node for part in handed_back(function) for node in ast.walk(part)):
            match node:
                case ast.Call(func=ast.Name(id="max" | "min"), args=args) if not all(map(whole, args)):
                    found.add(node.lineno)
    return sorted(found)


def test_no_claim_drops_what_is_no_number() -> None:
    files = sorted(ROOT.glob("methods/*/claims/*.py"))
    assert files
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in dropping(path.read_text(encoding="utf-8"))]
    assert not found, f"{', '.join(found)}: {CURE}"


@pytest.mark.parametrize(
    "body",
    [
        "return max(errors)",
        "return float(max(0, error - 1e-9))",
        "return small if ours < min(others) else math.inf",
        "return [*errors, max(abs(a - b) for a, b in pairs)]",
        "worst = max(worst, error)\n return worst",
        "worst += max(errors)\n return left + worst",
        "errors.append(max(norms) / min(norms))\n return list(errors)",
        "errors.extend([1.0, min(errors)])\n return errors",
        "def best(): return max(scores, key=len)\n return best()",
    ],
)
def test_what_is_refused(body: str) -> None:
    assert dropping(f"def claim(lab):\n {body}\n")


@pytest.mark.parametrize(
    "body",
    [
        "return errors",
        "return float(np.max(errors) + errors.max())",
        "return max(1, int(share)) + max(len(part) for part in parts) + max(5, rank // 2)",
        "width = max(1, round(share))\n errors.append(abs(cost(width) - 1))\n return errors",
    ],
)
def test_what_is_allowed(body: str) -> None:
    assert not dropping(f"def claim(lab):\n {body}\n")

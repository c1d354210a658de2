"""What a method and its claims say, read from syntax trees alone: no method is imported, torch is never needed."""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from catalog import FAMILIES, Problem
from catalog.files import Unreadable, content
from catalog.text import called, unfit


class Function(NamedTuple):
    """A function of the file: its first line (a decorator's, where it has one), its last, its positional arguments."""

    line: int
    end: int
    arguments: tuple[str, ...]

    @property
    def case(self) -> bool:
        """Whether a `claim_` function takes a case beside the lab."""
        return len(self.arguments) == 2


class Setting(NamedTuple):
    """One field of `Config`, as written. `default` is empty where there is none, `comment` where the line has none."""

    name: str
    default: str
    comment: str
    line: int


@dataclass(frozen=True)
class Program:
    """A file of Python. `path` is relative to the root of the repository."""

    path: str
    text: str
    docstring: str
    functions: dict[str, Function]  # those of classes as "Class.name"
    imports: dict[str, int]  # id of another method -> line
    modules: dict[str, int]  # whatever the file imports, in full -> line

    def named(self, prefix: str) -> dict[str, Function]:
        """The functions whose names begin so, without that beginning."""
        return {name.removeprefix(prefix): f for name, f in self.functions.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Source(Program):
    """A method's file, and beside it the file of its claims, if there is one."""

    id: str
    family: str
    config: tuple[Setting, ...] | None  # None where the file has no Config
    smoke: str | None  # the SMOKE assignment with the comment on its line
    long: str | None  # and LONG's
    sweeps: bool  # whether it has a SWEEP, operating points for a family's chart
    claimed: Program | None = None  # the file of its claims

    @property
    def title(self) -> str:
        """First line of the docstring: name, authors, venue."""
        return self.docstring.partition("\n")[0]

    @property
    def departures(self) -> str | None:
        """Everything after "Departures:" in the docstring; None where it is not said."""
        found = re.search(r"^Departures:(.*)", self.docstring, re.MULTILINE | re.DOTALL)
        return found[1].strip() if found else None

    @property
    def claims(self) -> dict[str, Function]:
        """The claims that are measured, without "claim_": functions of `claimed`."""
        return self.claimed.named("claim_") if self.claimed else {}

    @property
    def controls(self) -> dict[str, Function]:
        """The naive alternatives, without "control_"."""
        return self.named("control_")


def paths(root: Path) -> list[Path]:
    """Every method file below `root`, in order."""
    return sorted(p for p in (root / "methods").glob("*/*.py") if p.parent.name != "kit" and p.stem != "__init__")


def claims_paths(root: Path) -> list[Path]:
    """Every file of claims below `root`, in order."""
    return sorted(p for p in (root / "methods").glob("*/claims/*.py") if p.stem != "__init__")


def methods(root: Path, problems: list[Problem] | None = None) -> dict[str, Source]:
    """Every method file that can be read, by id. What cannot be read is added to `problems`."""
    found: dict[str, Source] = {}
    for path in paths(root):
        source = read(root, path)
        if isinstance(source, Source) and source.id in found:
            source = Problem(source.path, 1, "", f"the id {source.id} is taken by {found[source.id].path}; rename one")
        if isinstance(source, Source):
            found[source.id] = source
        elif problems is not None:
            problems.append(source)
    return found


def read(root: Path, path: Path) -> Source | Problem:
    """A method's file with its claims, or why one of the two cannot be read."""
    source = _read(root, path, _source)
    beside = path.parent / "claims" / path.name
    if isinstance(source, Problem) or not beside.exists():
        return source
    claimed = _read(root, beside, _program)
    return claimed if isinstance(claimed, Problem) else replace(source, claimed=claimed)


P = TypeVar("P", bound=Program)


def _read(root: Path, path: Path, parse: Callable[[str, str], P]) -> P | Problem:
    name = path.relative_to(root).as_posix()
    try:
        text = content(path)
    except Unreadable as refusal:
        return Problem(name, refusal.line, "", refusal.reason)
    if bad := unfit(text):
        line = text[: bad.start()].count("\n") + 1
        return Problem(name, line, "", f"holds the character {called(bad[0])}, which no page can hold; remove it or write its escape")
    try:
        source = parse(name, text)
    except SyntaxError as problem:
        return Problem(name, problem.lineno or 1, "", f"not Python: {problem.msg}; correct it")
    except (ValueError, RecursionError, MemoryError) as problem:
        return Problem(name, 1, "", f"not Python: {problem}; correct it")
    if bad := unfit(source.docstring):  # it may be written as an escape
        return Problem(name, 1, "docstring", f"holds the character {called(bad[0])}, which no page can hold; remove it")
    return source


# Both are cached: a server that rebuilds parses only what changed.


@lru_cache(maxsize=1024)
def _program(name: str, text: str) -> Program:
    return Program(**_said(name, text, parsed(text)))


def _said(name: str, text: str, tree: ast.Module) -> dict[str, Any]:
    """The fields of any program. Of its imports, its own method is none."""
    _, family, *_, file = name.split("/")
    modules = _modules(tree, family)
    imports = {m.split(".")[2]: line for m, line in modules.items() if _is_method(m) and f"{m.split('.')[2]}.py" != file}
    return {
        "path": name, "text": text, "docstring": ast.get_docstring(tree) or "", "functions": _functions(tree), "imports": imports,
        "modules": modules,
    }  # fmt: skip


@lru_cache(maxsize=1024)
def _source(name: str, text: str) -> Source:
    path, tree, lines = Path(name), parsed(text), text.encode().split(b"\n")
    return Source(
        **_said(name, text, tree),
        id=path.stem,
        family=path.parent.name,
        config=next((_settings(lines, c) for c in tree.body if isinstance(c, ast.ClassDef) and c.name == "Config"), None),
        smoke=next((_whole_lines(lines, node) for node in tree.body if _assigns(node, "SMOKE")), None),
        long=next((_whole_lines(lines, node) for node in tree.body if _assigns(node, "LONG")), None),
        sweeps=any(_assigns(node, "SWEEP") for node in tree.body),
    )


@lru_cache(maxsize=1024)
def parsed(text: str) -> ast.Module:
    """The syntax tree of a program, which nobody changes. Raises what `ast.parse` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is the linter's business
        return ast.parse(text)


def _functions(tree: ast.Module) -> dict[str, Function]:
    """The functions of a file by name, and those of its classes as "Class.name"."""
    found = {f.name: _function(f) for f in tree.body if isinstance(f, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{f.name}": _function(f) for f in node.body if isinstance(f, ast.FunctionDef)}
    return found


def _function(node: ast.FunctionDef) -> Function:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return Function(first, node.end_lineno or first, tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args)))


def _settings(lines: list[bytes], config: ast.ClassDef) -> tuple[Setting, ...]:
    settings = []
    for node in config.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            default = _segment(lines, node.value) if node.value else ""
            after = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :].decode()
            settings.append(Setting(node.target.id, default, after.partition("#")[2].strip(), node.lineno))
    return tuple(settings)


def _segment(lines: list[bytes], node: ast.expr) -> str:
    """The source of an expression. `ast.get_source_segment` does the same a hundred times slower."""
    end = node.end_lineno or node.lineno
    part = lines[node.lineno - 1 : end]
    part[-1] = part[-1][: node.end_col_offset]
    part[0] = part[0][node.col_offset :]
    return b"\n".join(part).decode()


def _whole_lines(lines: list[bytes], node: ast.stmt) -> str:
    return b"\n".join(lines[node.lineno - 1 : node.end_lineno]).decode()


def _assigns(node: ast.stmt, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, nested ones too, without the cost of walking through expressions."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, name, []))
        for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(branch.body)


def _modules(tree: ast.Module, family: str) -> dict[str, int]:
    """Every imported module, in full, with its first line. From "methods.<family>" the names imported are modules too."""
    found: dict[str, int] = {}
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = {0: [], 1: ["methods", family], 2: ["methods"]}.get(node.level, [])
            base = [*above, *(node.module.split(".") if node.module else [])]
            whole = base[:1] == ["methods"] and len(base) < 3
            for name in [[*base, alias.name] for alias in node.names] if whole else [base]:
                found.setdefault(".".join(name), node.lineno)
    return found


def _is_method(module: str) -> bool:
    parts = module.split(".")
    return len(parts) >= 3 and parts[0] == "methods" and parts[1] != "kit"


def shape(node: ast.AST) -> str:
    """A syntax tree as text, without docstrings.

    `ast.dump` would not do: it says which lists are empty in one Python and not in the next, so that every recorded
    number would look stale after an update.
    """
    return _dump(node)


def _dump(node: object) -> str:
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if not isinstance(node, ast.AST):
        return repr(node)
    values = {name: getattr(node, name, None) for name in node._fields if name != "ctx"}
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        values["body"] = node.body[1:] if node.body and _is_text(node.body[0]) else node.body
    return f"{type(node).__name__}({','.join(f'{name}={_dump(v)}' for name, v in values.items() if v is not None and v != [])})"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def resolve(name: str, known: Mapping[str, str]) -> str:
    """The id that somebody means by "network-slimming", "pruning/network_slimming" or "methods/pruning/network_slimming.py".

    `known` is id -> family. Raises `LookupError`, whose message says what is nearest.
    """
    parts = [part for part in re.split(r"[/\\]", name.strip()) if part] or [""]
    slug = re.sub(r"\.(py|yaml|csv)$", "", parts[-1]).lower().replace("-", "_")
    family = parts[-2].lower().replace("-", "_") if len(parts) > 1 and parts[-2] not in ("methods", "catalog", "measured", ".") else None
    if slug not in known:
        close = difflib.get_close_matches(slug, known, 3, 0.6) or sorted(id for id in known if slug and slug in id)[:3]
        raise LookupError(f"there is no {name!r}; {f'did you mean {_either(close)}?' if close else 'nothing is called similarly'}")
    if family not in (None, known[slug]):
        what = "is no family" if family not in FAMILIES else "is the wrong family"
        raise LookupError(f"there is no {name!r}: {family} {what}; use {known[slug]}/{slug}")
    return slug


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))

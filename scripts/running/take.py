"""A method in one file, to take home: the definitions that it reaches in methods and kit, with licence and source, and nothing of us."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from catalog import Record
from catalog.files import content
from scripts.evidence.definitions import LOOSE, Codes, Definitions, Node, bound, chains
from scripts.evidence.definitions import imports as imports_of
from scripts.evidence.source import Source, parsed

TAKEN = ("prepare", "compress", "pack", "unpack", "Config", "SMOKE")  # beside the controls
NAMED_OTHERWISE = {"sklearn": "scikit-learn", "yaml": "PyYAML", "PIL": "pillow"}  # packages that are not called like their module


@dataclass(frozen=True)
class Edit:
    """Text that takes the place of other text, from (line, column in bytes) to (line, column)."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


def take(root: Path, record: Record, source: Source) -> str:
    """The method's compress, controls and settings with all that they reach, as one program that needs no other file of this project.

    Names that meet are told apart by their file's name. Same files, same text.
    """
    known = Definitions(root)
    roots = [Node(source.path, name) for name in (*TAKEN, *(f"control_{name}" for name in source.controls))]
    taken = known.reached(roots)
    names = _names(known, taken, source.path)
    pieces = _ordered(known, taken, source.path)
    texts, imports = list[str](), dict[str, str]()
    for path, statement in pieces:
        texts.append(_text(known, root, path, statement, names))
        imports |= _imported(known, root, path, statement)
    own = next(place for place, (path, _) in enumerate(pieces) if path == source.path)
    kit, mine = texts[:own], texts[own:]
    head = _head(root, record, source, Codes(root, source, known).whole, imports.values(), pieces)
    block = "\n".join(_import_lines(imports))
    parts = [head, "from __future__ import annotations", block, *(["# What methods share"] if kit else []), *kit]
    return "\n\n".join([*parts, "# The method", *mine]).replace("\n\n\n\n", "\n\n\n") + "\n"


# Order


def _ordered(known: Definitions, taken: set[Node], own: str) -> list[tuple[str, ast.stmt]]:
    """The statements that define the nodes, each behind what it needs when it runs; the method's own last."""
    statements: dict[int, tuple[str, ast.stmt]] = {}
    defines: dict[Node, list[int]] = defaultdict(list)
    for node in sorted(taken, key=lambda node: (node.path == own, not node.path.startswith("methods/kit/"), node.path)):
        for statement in known.statements(node) or ():
            statements[id(statement)] = (node.path, statement)
            defines[node].append(id(statement))
    order = sorted(statements, key=lambda key: (_rank(statements[key][0], own), statements[key][0], statements[key][1].lineno))
    done, busy, out = set[int](), set[int](), list[tuple[str, ast.stmt]]()

    def put(key: int) -> None:
        if key in done or key in busy:
            return
        busy.add(key)
        path, statement = statements[key]
        for node in sorted(_needed_at_once(known, path, statement)):
            for other in defines.get(node, ()):
                if node not in _defined_by(path, statement) or statements[other][1].lineno < statement.lineno:
                    put(other)
        busy.discard(key)
        done.add(key)
        out.append(statements[key])

    for key in order:
        put(key)
    return out


def _rank(path: str, own: str) -> int:
    return 2 if path == own else 0 if path.startswith("methods/kit/") else 1


def _needed_at_once(known: Definitions, path: str, statement: ast.stmt) -> set[Node]:
    """What must be there when a statement runs: what it evaluates, and all that this may call."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        at_once: list[ast.AST] = list(_evaluated(statement))
    else:
        at_once = [statement]
    first = set[Node]()
    for part in at_once:
        first |= known.used(path, part)
    return known.reached(first) if any(isinstance(node, ast.Call) for part in at_once for node in ast.walk(part)) else first


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a definition that run where it stands: decorators, defaults, bases, a class's own statements."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from (ast.Call(decorator, [], []) for decorator in node.decorator_list)
        yield from (value for value in (*node.args.defaults, *node.args.kw_defaults) if value is not None)
    elif isinstance(node, ast.ClassDef):
        yield from (ast.Call(decorator, [], []) for decorator in node.decorator_list)
        yield from (*node.bases, *(keyword.value for keyword in node.keywords))
        for inner in node.body:
            yield from _evaluated(inner)
    elif isinstance(node, ast.AnnAssign):
        yield from [node.value] if node.value else []
    else:
        yield node


# Names


def _names(known: Definitions, taken: set[Node], own: str) -> dict[Node, str]:
    """What each definition is called in the one file: its own name, unless that is taken or would be hidden where it is used."""
    names: dict[Node, str] = {}
    used = {name for path in {node.path for node in taken} for name in _outside(known, path)}
    for node in sorted(taken, key=lambda node: (-_rank(node.path, own), node)):
        if node.name == LOOSE:
            continue
        mine = _local_names(known, taken, node)
        clash = node.name in names.values() or node.name in used or node.name in mine
        names[node] = f"{Path(node.path).stem}_{node.name.lstrip('_')}" if clash else node.name
    return names


def _outside(known: Definitions, path: str) -> set[str]:
    """Names of a file that other packages' imports bind."""
    return {local for local, whole in known.file(path).imported.items() if not whole.startswith("methods")}


def _local_names(known: Definitions, taken: set[Node], target: Node) -> set[str]:
    """Local names of the definitions that reach `target` by another name than its own, which must not hide it."""
    found = set[str]()
    for node in taken:
        if target in known.named(node) and (node.path != target.path):
            for statement in known.statements(node) or ():
                found |= bound(statement)
    return found


# Text


def _text(known: Definitions, root: Path, path: str, statement: ast.stmt, names: dict[Node, str]) -> str:
    """A statement as it is written, comments too, with the names that things have in the one file."""
    lines = content(root / path).split("\n")
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    edits = list(_edits(known, path, statement, names, lines))
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        (row, column), (last, end) = edit.start, edit.end
        before, after = lines[row - 1].encode()[:column].decode(), lines[last - 1].encode()[end:].decode()
        lines[row - 1 : last] = [before + edit.text + after] + [""] * (last - row)
    kept = [line for line in lines[first : statement.end_lineno] if line != REMOVED]
    text = "\n".join(kept)
    blank = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    return f"\n{text}\n" if blank else text


REMOVED = "\0"


def _edits(known: Definitions, path: str, statement: ast.stmt, names: dict[Node, str], lines: list[str]) -> Iterator[Edit]:
    file, inner = known.file(path), known.imports(path, statement)
    hidden = bound(statement)
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        final = names[Node(path, statement.name)]
        if final != statement.name:
            column = lines[statement.lineno - 1].encode().index(statement.name.encode(), statement.col_offset)
            yield Edit((statement.lineno, column), (statement.lineno, column + len(statement.name.encode())), final)
    todo: list[tuple[ast.AST, ast.JoinedStr | None]] = [(statement, None)]
    while todo:
        node, string = todo.pop()
        if isinstance(node, ast.JoinedStr):
            string = string or node
        if isinstance(node, ast.Import | ast.ImportFrom) and node is not statement:
            if any(whole.startswith("methods") for whole in imports_of(path, [node]).values()):
                yield Edit(
                    (node.lineno, 0), (node.end_lineno or node.lineno, len(lines[(node.end_lineno or node.lineno) - 1].encode())), REMOVED
                )
            continue
        chain: list[ast.expr] = []
        base = node
        while isinstance(base, ast.Attribute):
            chain.append(base)
            base = base.value
        if not isinstance(base, ast.Name):
            todo += ((child, string) for child in ast.iter_child_nodes(base))
            continue
        if base.id in hidden and Node(path, base.id) not in _defined_by(path, statement):
            continue  # a name of its own
        whole = inner.get(base.id, "")
        links = [base, *reversed(chain)]
        if whole.startswith("methods"):
            target, used = known.place([*whole.split("."), *(link.attr for link in links[1:] if isinstance(link, ast.Attribute))])
            last = links[max(0, used - whole.count("."))]
        elif base.id in file.defined:
            target, last = Node(path, base.id), base
        else:
            continue
        final = names.get(target, target.name) if target else base.id
        if ast.unparse(last) == final or target is None:
            continue
        if string is None:
            yield Edit((base.lineno, base.col_offset), (last.end_lineno or 0, last.end_col_offset or 0), final)
        else:
            yield from _in_string(string, ast.unparse(last), final, lines)


def _defined_by(path: str, statement: ast.stmt) -> set[Node]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {Node(path, statement.name)}
    return {Node(path, node.id) for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _in_string(string: ast.JoinedStr, old: str, new: str, lines: list[str]) -> Iterator[Edit]:
    """Until Python 3.12 nothing inside a formatted string knows where it stands."""
    for row in range(string.lineno, (string.end_lineno or string.lineno) + 1):
        for found in re.finditer(rf"(?<=[{{\s(\[,=]){re.escape(old)}\b", lines[row - 1]):
            start = len(lines[row - 1][: found.start()].encode())
            yield Edit((row, start), (row, start + len(old.encode())), new)


# Imports and head


def _imported(known: Definitions, root: Path, path: str, statement: ast.stmt) -> dict[str, str]:
    """The lines of the file's imports of other packages whose names a statement uses, by that name."""
    heads = {chain.split(".")[0] for chain in chains(statement)}
    found = {}
    for node in ast.walk(parsed(content(root / path))):
        if isinstance(node, ast.Import | ast.ImportFrom) and node.col_offset == 0:
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                named = ast.unparse(ast.alias(alias.name, alias.asname))
                if local in heads and not imports_of(path, [node]).get(local, "methods").startswith("methods"):
                    found[local] = f"from {node.module} import {named}" if isinstance(node, ast.ImportFrom) else f"import {named}"
    return found


def _import_lines(imports: dict[str, str]) -> Iterator[str]:
    """Imports, standard library first, those from one module in one line."""
    plain = sorted({line for line in imports.values() if line.startswith("import ")})
    many: dict[str, set[str]] = defaultdict(set)
    for line in imports.values():
        if found := re.fullmatch(r"from (\S+) import (.+)", line):
            many[found[1]].add(found[2])
    lines = [*plain, *(f"from {module} import {', '.join(sorted(words))}" for module, words in sorted(many.items()))]
    standard = [line for line in lines if _module(line) in sys.stdlib_module_names]
    others = [line for line in lines if _module(line) not in sys.stdlib_module_names]
    yield from [*standard, *([""] if standard and others else []), *others]


def _module(line: str) -> str:
    return line.split()[1].split(".")[0]


def _head(root: Path, record: Record, source: Source, digest: str, imports: Iterable[str], pieces: list[tuple[str, ast.stmt]]) -> str:
    """What it is, where it comes from, what it needs, and under which licence."""
    inner = (node for _, statement in pieces for node in ast.walk(statement) if isinstance(node, ast.Import | ast.ImportFrom))
    used = {_module(line) for line in imports} | {_module(ast.unparse(node)) for node in inner}
    needed = sorted({NAMED_OTHERWISE.get(name, name.replace("_", "-")) for name in used - sys.stdlib_module_names - {"methods"}})
    wanted = {
        re.split(r"[<>=\[]", line)[0].lower(): line for line in tomllib.loads(content(root / "pyproject.toml"))["project"]["dependencies"]
    }
    packages = " ".join(wanted.get(name.lower(), name) for name in needed)
    entry = record.entry
    paper = next(
        filter(None, (entry.arxiv and f"https://arxiv.org/abs/{entry.arxiv}", entry.doi and f"https://doi.org/{entry.doi}", entry.url))
    )
    licence = "\n".join(f"# {line}".rstrip() for line in content(root / "LICENSE").strip().split("\n"))
    title = fill(f"{entry.title}, {paper}", 120, initial_indent="# Paper: ", subsequent_indent="#   ", break_long_words=False)
    return "\n".join([
        f"# Needs: {packages}",
        f"# From: smallprint, {source.path} and what it uses of methods/kit, digest {digest}",
        title, "#", licence,
        f'"""{source.docstring}\n"""' if "\n" in source.docstring else f'"""{source.docstring}"""',
    ])  # fmt: skip

"""Which definitions a number rests on, and in which order they run: read from syntax trees, across methods, claims and kit.

A definition is a function, a class or a constant of a file's top level. It reaches what it names, wherever that stands; what cannot be
resolved by name counts whole. Statements that define nothing, such as a registration, count as soon as anything of their file is reached.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from catalog.files import Unreadable, content
from scripts.evidence.source import Source, parsed, shape

WHOLE, LOOSE = "*", ""  # in a node's place of a name: all of a file, and its statements that define nothing
BENCH = (("methods/kit/lab.py", "Lab"), ("scripts/running/smoke.py", "make_task"))  # measure every method
WATCHING = ("methods/kit/ledger.py", "methods/kit/looks.py")  # they tell what was done to make a network, and change no number
BUILDS = ("prepare", "reference", "student", "compress", "pack", "unpack")  # what the bench asks a method for
POINTS = {"smoke": "SMOKE", "rounding": "SMOKE", "long": "LONG", "sweep": "SWEEP"}  # where a tier's settings stand
WEIGHTS = "methods/kit/weights"


class Node(NamedTuple):
    """A definition: its file, relative to the root, and its name."""

    path: str
    name: str


LOADER = Node("methods/kit/nets.py", "trained")  # what loads them, by the name of a network


class File(NamedTuple):
    """The top level of a file: statements by the name that they define, imports by the name that they bind, and the rest."""

    defined: dict[str, list[ast.stmt]]
    imported: dict[str, str]  # local name -> what it is, in full
    loose: list[ast.stmt]


class Definitions:
    """The definitions below a root, read when they are first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, File] = {}
        self._named: dict[Node, frozenset[Node]] = {}
        self._digests: dict[Node, bytes] = {}
        self._reached: dict[Node, frozenset[Node]] = {}
        self._weights: dict[Node, list[str]] = {}

    def file(self, path: str) -> File:
        """A file's top level; of one that is missing or no Python, nothing."""
        if path not in self._files:
            try:
                self._files[path] = _file(path, content(self.root / path))
            except Unreadable:
                self._files[path] = File({}, {}, [])
        return self._files[path]

    def reached(self, roots: Iterable[Node]) -> set[Node]:
        """The roots, as far as they exist, and all that they reach by name."""
        found: set[Node] = set()
        for root in roots:
            found |= self._from(root)
        return found

    def _from(self, root: Node) -> frozenset[Node]:
        if root not in self._reached:
            found, todo = set[Node](), [root]
            while todo:
                node = todo.pop()
                if node not in found and self.statements(node) is not None:
                    found.add(node)
                    todo += self.named(node)
            self._reached[root] = frozenset(found)
        return self._reached[root]

    def statements(self, node: Node) -> list[ast.stmt] | None:
        """What defines a node; None where nothing does."""
        file = self.file(node.path)
        return file.loose or None if node.name == LOOSE else [] if node.name == WHOLE else file.defined.get(node.name)

    def named(self, node: Node) -> frozenset[Node]:
        """What a definition names, as definitions."""
        if node not in self._named:
            file = self.file(node.path)
            found = {Node(node.path, LOOSE)} if file.loose else set()
            if node.name == WHOLE:
                found |= {Node(node.path, name) for name in file.defined}
            for statement in self.statements(node) or ():
                found |= self.used(node.path, statement)
            self._named[node] = frozenset(found - {node})
        return self._named[node]

    def used(self, path: str, code: ast.AST) -> set[Node]:
        """What a piece of a file's code names, as definitions."""
        file, inner, found = self.file(path), self.imports(path, code), set[Node]()
        for chain in chains(code):
            head, *rest = chain.split(".")
            if head in inner:
                target, _ = self.place([*inner[head].split("."), *rest])
                found |= {target} if target else set()
            elif head in file.defined:
                found.add(Node(path, head))
            elif head in ("globals", "locals"):
                found.add(Node(path, WHOLE))
        return found

    def imports(self, path: str, code: ast.AST) -> dict[str, str]:
        """The names that imports bind for a piece of a file's code, its own and the file's, each with what it means in full."""
        return {**self.file(path).imported, **imports(path, ast.walk(code))}

    def place(self, parts: list[str], depth: int = 0) -> tuple[Node | None, int]:
        """The definition that a dotted name means, and at which of its parts that stands.

        It is a whole file where the file alone is named, and None where it is another package's.
        """
        if parts[0] != "methods" or depth > 9:
            return None, 0
        for end in range(len(parts), 0, -1):
            path = next((p for p in (f"{'/'.join(parts[:end])}.py", f"{'/'.join(parts[:end])}/__init__.py") if self._exists(p)), None)
            if path is None:
                continue
            if path in WATCHING:
                return None, 0
            file, rest = self.file(path), parts[end:]
            if rest and rest[0] in file.defined:
                return Node(path, rest[0]), end
            if rest and rest[0] in file.imported:
                return self.place([*file.imported[rest[0]].split("."), *rest[1:]], depth + 1)[0], end
            return Node(path, WHOLE), end - 1
        return None, 0

    def _exists(self, path: str) -> bool:
        return path in self._files or (self.root / path).is_file()

    def digest(self, roots: Iterable[Node]) -> str:
        """Sixteen hexadecimal digits of all that the roots reach, weights too. Comments, docstrings, layout and places do not count."""
        nodes = self.reached(roots)
        parts = sorted(self._digest(node) for node in nodes)
        parts += [content_of(self.root / path) for path in self.weights(nodes)]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def differing(self, path: str, before: str) -> set[Node]:
        """The definitions of a file that are others than in this text of it, or mean something else by a name."""
        old, new = _file(path, before), self.file(path)
        found = {name for name in {*old.defined, *new.defined} if _shapes(old.defined.get(name)) != _shapes(new.defined.get(name))}
        renamed = {name for name in {*old.imported, *new.imported} if old.imported.get(name) != new.imported.get(name)}
        for name, statements in new.defined.items():
            if any(chain.split(".")[0] in renamed for statement in statements for chain in chains(statement)):
                found.add(name)
        return {Node(path, name) for name in found} | ({Node(path, LOOSE)} if _shapes(old.loose) != _shapes(new.loose) else set())

    def _digest(self, node: Node) -> bytes:
        if node not in self._digests:
            text = f"{node.name}\n{''.join(map(shape, self.statements(node) or []))}"
            self._digests[node] = hashlib.sha256(text.encode()).digest()
        return self._digests[node]

    def weights(self, nodes: Iterable[Node]) -> list[str]:
        """Files of the reference weights that these load: those whose network they name, or all where they name none."""
        return sorted(set().union(*(self._loaded(node) for node in nodes if LOADER in self.named(node))))

    def _loaded(self, node: Node) -> list[str]:
        if node not in self._weights:
            there = sorted(f"{WEIGHTS}/{path.name}" for path in (self.root / WEIGHTS).glob("*.safetensors"))
            words = {c.value for s in self.statements(node) or () for c in ast.walk(s) if isinstance(c, ast.Constant)}
            self._weights[node] = [name for name in there if name.rpartition("/")[2].rpartition("-")[0] in words] or there
        return self._weights[node]


def _shapes(statements: list[ast.stmt] | None) -> list[str]:
    return [shape(statement) for statement in statements or ()]


@lru_cache(maxsize=256)
def _content_of(path: Path, size: int, changed: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def content_of(path: Path) -> bytes:
    """The digest of a file's bytes."""
    there = path.stat()
    return _content_of(path, there.st_size, there.st_mtime_ns)


@lru_cache(maxsize=1024)
def _file(path: str, text: str) -> File:
    file = File({}, {}, [])
    try:
        tree = parsed(text)
    except (SyntaxError, ValueError, RecursionError):
        file.defined[WHOLE] = [ast.Expr(ast.Constant(text))]
        return file
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            file.imported.update(imports(path, [statement]))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        elif names := set(_bound(statement, file)):
            for name in names:
                file.defined.setdefault(name, []).append(statement)
            file.imported.update(imports(path, ast.walk(statement)) if isinstance(statement, ast.If | ast.Try) else {})
        else:
            file.loose.append(statement)
    return file


def _bound(statement: ast.stmt, file: File) -> Iterator[str]:
    """The names that a statement of the top level defines, or adds something to."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield statement.name
        return
    if isinstance(statement, ast.If | ast.Try | ast.For | ast.With | ast.While):
        for inner in ast.iter_child_nodes(statement):
            if isinstance(inner, ast.stmt):
                yield from _bound(inner, file)
    for node in _outer(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            base: ast.expr = node
            while isinstance(base, ast.Subscript | ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in file.defined:
                yield base.id


def _outer(node: ast.AST) -> Iterator[ast.AST]:
    """A statement's nodes but for what has names of its own: comprehensions, functions."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda | ast.FunctionDef):
            yield from _outer(child)


def imports(path: str, nodes: Iterable[ast.AST]) -> dict[str, str]:
    """The names that imports bind, each with what it means in full."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            above = path.split("/")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    return found


def bound(code: ast.AST) -> set[str]:
    """The names that a piece of code binds inside: arguments, assigned names, functions within."""
    found = {node.arg for node in ast.walk(code) if isinstance(node, ast.arg)}
    found |= {node.id for node in ast.walk(code) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return found | {node.name for node in ast.walk(code) if isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not code}


def chains(code: ast.AST) -> Iterator[str]:
    """Every name that is used, with the attributes that are taken of it: "nets.trained"."""
    todo: list[ast.AST] = [code]
    while todo:
        node = todo.pop()
        attributes: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield ".".join([inner.id, *reversed(attributes)])
        else:
            todo += ast.iter_child_nodes(inner)


class Codes:
    """The digest of what each recorded number of a method rests on, by tier and subject."""

    def __init__(self, root: Path, source: Source, definitions: Definitions | None = None) -> None:
        self.source, self.known = source, definitions or Definitions(root)
        self._codes: dict[tuple[str, str], str] = {}

    def of(self, tier: str, subject: str) -> str:
        """Sixteen digits for a row's tier and subject, such as "smoke" and "control_random" or "claim_first[B0]"."""
        if (tier, subject) not in self._codes:
            plain = re.sub(r"[\[@].*", "", subject)
            known = self._codes.get((tier, plain)) or self.known.digest(self.roots(tier, plain))
            self._codes[tier, subject] = self._codes[tier, plain] = known
        return self._codes[tier, subject]

    @property
    def whole(self) -> str:
        """Of all that the method does and claims."""
        return self.of("", "bite")

    def roots(self, tier: str, subject: str) -> list[Node]:
        """Where a number begins: what measures it, and what that asks of the method."""
        mine, claims = self.source.path, self.source.claimed.path if self.source.claimed else ""
        builds = [*BENCH, *((mine, name) for name in (*BUILDS, "Config", POINTS.get(tier, "Config")))]
        controls = [(mine, f"control_{name}") for name in self.source.controls]
        if subject.startswith("claim_"):
            asked = self._asked(Node(claims, subject))
            builds = [*builds, *(control for control in controls if control[1] in asked or "control_" in asked)] if asked else []
            builds.append((claims, subject))
        elif subject.startswith("control_"):
            builds.append((mine, subject))
        elif subject == "reference":
            builds = [*BENCH, *((mine, name) for name in ("prepare", "reference"))]
        elif subject != "method":  # all: a run's seconds, planted faults
            builds += [*controls, (mine, WHOLE), (claims, WHOLE)]
        return [Node(*node) for node in builds]

    def _asked(self, claim: Node) -> set[str]:
        """What a claim asks the bench for: controls by name, "control_" where their names are computed, "lab" for anything."""
        statements = [s for node in self.known.reached([claim]) if node.path == claim.path for s in self.known.statements(node) or ()]
        nodes = [node for statement in statements for node in ast.walk(statement)]
        if not any(isinstance(node, ast.Name) and node.id == "lab" for node in nodes):
            return set()
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        named = {f"control_{name}" for name in self.source.controls if name in texts}
        named |= {f"control_{name}" for name in self.source.controls for node in nodes if _takes(node, f"control_{name}")}
        some = any(_takes(node, "control") or _takes(node, "controlled") for node in nodes)
        return {"lab", *named, *(["control_"] if some and not named else [])}


def _takes(node: ast.AST, attribute: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == attribute

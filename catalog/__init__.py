"""The catalogue: facts as YAML, their schema and their loader. Needs pydantic and yaml, never torch.

`load()` reads everything and never raises for what a file holds: what is wrong is a list of `Problem`s.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from catalog.schema import KINDS, Comparison, Entry, Executable, Vocabulary

HERE = Path(__file__).parent
FAMILIES = tuple(KINDS)
Place = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong, where, and what to do about it."""

    path: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{self.path}:{self.line}: {where}{self.message}"


@dataclass(frozen=True)
class Record:
    """An entry with what its place in the tree says about it."""

    id: str
    family: str
    path: Path
    entry: Entry
    lines: dict[Place, int] = field(repr=False, compare=False)

    def line(self, *place: str | int) -> int:
        """Line of a field, or of the nearest thing around it that has one."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    @property
    def executable(self) -> Executable | None:
        return self.entry if isinstance(self.entry, Executable) else None


@dataclass(frozen=True)
class Catalogue:
    """Everything that could be read, and the problems of what could not."""

    entries: dict[str, Record]
    comparisons: dict[str, Comparison]
    vocabulary: Vocabulary
    problems: list[Problem]
    places: dict[str, dict[Place, int]]

    def family(self, name: str) -> list[Record]:
        return [record for record in self.entries.values() if record.family == name]


class Unreadable(Exception):
    """A file that is no YAML of ours: the line and the reason."""

    def __init__(self, line: int, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.line, self.reason, self.field = line, reason, field


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = yaml.constructor.SafeConstructor()
LARGEST = 1_000_000  # bytes; a longer file is a mistake


def parse(text: str) -> tuple[Any, dict[Place, int]]:
    """YAML text to plain data and the line of every field. Raises `Unreadable` for bad syntax, repeated keys and aliases."""
    lines: dict[Place, int] = {}

    def build(node: yaml.Node, place: Place) -> Any:
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise Unreadable(line, "a field's name must be a word")
                key = key_node.value
                if key in result:
                    raise Unreadable(line, f"{key} is given twice; keep one")
                lines[(*place, key)] = line
                result[key] = build(value_node, (*place, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            return [build(child, (*place, index)) for index, child in enumerate(node.value)]
        try:
            return _SCALARS.construct_object(node)  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, ValueError, OverflowError) as problem:
            raise Unreadable(node.start_mark.line + 1, f"cannot read the value: {_first_line(problem)}") from problem

    loader = _LOADER(text)
    try:
        for event in yaml.parse(text, _LOADER) if "*" in text else ():
            if isinstance(event, yaml.AliasEvent):
                raise Unreadable(event.start_mark.line + 1, "aliases (*name) are not used here; write the value out")
        node = loader.get_single_node()
        if node is None:
            raise Unreadable(1, "the file is empty")
        return build(node, ()), lines
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        raise Unreadable(mark.line + 1 if mark else 1, f"not YAML: {problem.problem or problem.context}") from problem
    except yaml.YAMLError as problem:
        raise Unreadable(1, f"not YAML: {_first_line(problem)}") from problem
    except RecursionError as problem:
        raise Unreadable(1, "nested too deeply") from problem
    finally:
        loader.dispose()


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def read(path: Path) -> tuple[Any, dict[Place, int]]:
    """`parse` of a file; raises `Unreadable` for what cannot be opened or is not UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise Unreadable(1, f"cannot be opened: {problem.strerror}") from problem
    if len(raw) > LARGEST:
        raise Unreadable(1, f"{len(raw)} bytes are too many for one entry (at most {LARGEST})")
    try:
        return parse(raw.decode("utf-8"))
    except UnicodeDecodeError as problem:
        line = raw[: problem.start].count(b"\n") + 1
        raise Unreadable(line, "not UTF-8; save the file in that encoding") from problem


def nearest(word: str, words: Iterator[str] | list[str]) -> str:
    """ "; did you mean X?" or nothing."""
    close = difflib.get_close_matches(word, list(words), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _fields(model: type[BaseModel], place: Place) -> list[str]:
    """Names that are allowed at a place of a model, for suggestions."""
    current: Any = model
    for step in place:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            break
        if isinstance(step, int) or step not in current.model_fields:
            continue
        inner: list[Any] = [current.model_fields[step].annotation]
        while inner:
            kind = inner.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                current = kind
                break
            inner += get_args(kind)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def explain(model: type[BaseModel], error: Any) -> str:
    """One of pydantic's errors in our words: what is wrong, and the cure."""
    kind, given, place = error["type"], error["input"], error["loc"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown field; remove it or correct its name{nearest(str(place[-1]), _fields(model, place[:-1]))}"
    if kind == "missing":
        return "is missing; add it"
    if kind == "string_type":
        return f"must be text, got {given!r}; put it in quotes"
    if kind == "literal_error":
        return f"{given!r} is not one of {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{given!r} does not have the form {_FORMS.get(context['pattern'], context['pattern'])}"
    if kind == "string_too_long":
        return f"has {len(given)} characters, at most {context['max_length']} are allowed; shorten it"
    if kind == "value_error":
        return str(context["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {given!r}"


_FORMS = {
    r"^[a-z][a-z0-9_]*$": "of a slug: small letters, digits and _",
    r"^(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})$": 'of an arXiv id such as "1708.06519"',
    r"^10\.\d{4,9}/\S+$": 'of a DOI such as "10.1109/ICCV.2017.298"',
    r"^https?://[^\s<>\"']+$": "of a web address (http:// or https://)",
}


def validate[M: BaseModel](model: type[M], data: Any, lines: dict[Place, int], path: str, problems: list[Problem]) -> M | None:
    """Data as a model, or None with the problems added."""
    if not isinstance(data, dict):
        problems.append(Problem(path, 1, "", f"must be fields and values, got {type(data).__name__}"))
        return None
    try:
        return model.model_validate(data)
    except ValidationError as refusal:
        for error in refusal.errors(include_url=False):
            place = tuple(step for step in error["loc"] if step not in ("float", "str") and not str(step).startswith("function-"))
            known = place
            while known and known not in lines:
                known = known[:-1]
            problems.append(Problem(path, lines.get(known, 1), ".".join(map(str, place)), explain(model, {**error, "loc": place})))
    return None


def load(root: Path = HERE) -> Catalogue:
    """Every entry and comparison below `root`, with all problems of all files."""
    problems: list[Problem] = []
    places: dict[str, dict[Place, int]] = {}

    def item[M: BaseModel](model: type[M], path: Path) -> tuple[M | None, dict[Place, int]]:
        name = str(path.relative_to(root.parent))
        try:
            data, lines = read(path)
        except Unreadable as refusal:
            problems.append(Problem(name, refusal.line, refusal.field, refusal.reason))
            return None, {}
        places[name] = lines
        return validate(model, data, lines, name, problems), lines

    vocabulary, _ = item(Vocabulary, root / "vocabulary.yaml")
    entries: dict[str, Record] = {}
    for family, kind in KINDS.items():
        for path in sorted((root / family).glob("*.y*ml")):
            entry, lines = item(kind, path)
            name = str(path.relative_to(root.parent))
            if path.suffix != ".yaml" or not _is_slug(path.stem):
                problems.append(Problem(name, 1, "", "an entry's file is called <slug>.yaml: small letters, digits and _; rename it"))
            elif path.stem in entries:
                other = entries[path.stem].path.relative_to(root.parent)
                problems.append(Problem(name, 1, "", f"the id {path.stem} is taken by {other}; rename one"))
            elif entry is not None:
                entries[path.stem] = Record(path.stem, family, path, entry, lines)
    comparisons: dict[str, Comparison] = {}
    for path in sorted((root / "comparisons").glob("*.yaml")):
        table, _ = item(Comparison, path)
        if table is not None:
            comparisons[path.stem] = table
    empty = Vocabulary(datasets={}, models={}, metrics={}, tags={})
    return Catalogue(entries, comparisons, vocabulary or empty, sorted(problems), places)


def _is_slug(stem: str) -> bool:
    return stem.isascii() and stem.replace("_", "a").isalnum() and stem[0].isalpha() and stem == stem.lower()

"""The catalogue: facts as YAML, their schema and their loader. Needs pydantic and yaml, never torch.

`load()` reads everything and never raises for what a file holds: what is wrong is a list of `Problem`s.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from catalog.files import Unreadable as Unreadable
from catalog.files import content
from catalog.schema import FORMS, KINDS, Comparison, Entry, Executable, Vocabulary
from catalog.text import called, is_blank, short, unfit

HERE = Path(__file__).parent
FAMILIES = tuple(KINDS)
Place = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong, where, and what to do about it."""

    path: str
    line: int
    field: str
    message: str

    def printable(self) -> Problem:
        """The same, whatever the files hold: three short texts without a line break or anything that steers a terminal."""
        return Problem(short(self.path), self.line, short(self.field), short(self.message))

    def __str__(self) -> str:
        safe = self.printable()
        where = f"{safe.field}: " if safe.field else ""
        return f"{safe.path}:{safe.line}: {where}{safe.message}"


def line_of(lines: dict[Place, int], place: Place) -> int:
    """Line of a field, or of the nearest thing around it that has one."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


@dataclass(frozen=True)
class Record:
    """An entry with what its place in the tree says about it."""

    id: str
    family: str
    path: Path
    entry: Entry
    lines: dict[Place, int] = field(repr=False, compare=False)

    def line(self, *place: str | int) -> int:
        return line_of(self.lines, place)

    @property
    def program(self) -> str:
        """Where its method stands, or would stand, below the root of the repository."""
        return f"methods/{self.family}/{self.id}.py"

    @property
    def claims_file(self) -> str:
        """Where what it claims is measured."""
        return f"methods/{self.family}/claims/{self.id}.py"

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


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NAME = 40  # characters: texts as short as this are often names, which thousands of entries repeat
TEXT = "tag:yaml.org,2002:str"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
LONGEST = 100  # characters of a number (Python refuses to print thousands of digits, and counts minutes in base 60), or of a misspelt word
DEEPEST = 50  # levels; libyaml's own composer overflows the stack instead of raising
MOST = 5_000  # values in one file, of which the largest has some hundred; for each, a suggestion may have to be found


def parse(text: str) -> tuple[Any, dict[Place, int]]:
    """YAML text to plain data and the line of every field. Raises `Unreadable` for bad syntax, repeated keys and aliases."""
    try:
        loader = _LOADER(text)
        try:
            return _document(loader)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        raise Unreadable(_line(problem, text), f"not YAML: {_syntax(problem, text)}") from problem
    except yaml.reader.ReaderError as problem:
        line = text[: text.find(chr(problem.character))].count("\n") + 1
        raise Unreadable(line, f"not YAML: {_first_line(problem)}; remove that character") from problem
    except UnicodeEncodeError as problem:
        raise Unreadable(1, "not YAML: half a surrogate pair; remove that character") from problem


def _document(loader: Any) -> tuple[Any, dict[Place, int]]:
    """The one document of a file, built event by event, which also shows aliases and the depth before they do harm."""
    lines: dict[Place, int] = {}
    scalars = yaml.constructor.SafeConstructor()

    def build(event: Any, place: Place) -> Any:
        line = event.start_mark.line + 1
        if len(lines) > MOST:
            raise Unreadable(line, f"more than {MOST} values are too many for one file; split or shorten it")
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable(line, "aliases (*name) are not used here; write the value out")
        if len(place) > DEEPEST:
            raise Unreadable(line, f"nested more than {DEEPEST} levels deep; flatten it")
        lines.setdefault(place, line)
        if isinstance(event, yaml.MappingStartEvent):
            return mapping(place)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := loader.get_event(), yaml.SequenceEndEvent):
                items.append(build(event, (*place, len(items))))
            return items
        return scalar(event, line)

    def mapping(place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := loader.get_event(), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise Unreadable(line, "a field's name must be a word; put text that begins with [, { or * in quotes")
            if event.value in result:
                raise Unreadable(line, f"{event.value} is given twice; keep one")
            lines[(*place, event.value)] = line
            result[event.value] = build(loader.get_event(), (*place, event.value))
        return result

    def scalar(event: Any, line: int) -> Any:
        tag = event.tag if event.tag not in (None, "!") else loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == TEXT:  # nine in ten, and nothing can go wrong with them
            return sys.intern(event.value) if len(event.value) <= NAME else event.value
        if tag in NUMBERS and len(event.value) > LONGEST:
            return math.inf  # which no field takes
        try:
            return scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except Exception as problem:  # PyYAML raises KeyError, IndexError or AttributeError for `!!bool x`, `!!int ""`, `!!timestamp x`
            raise Unreadable(line, f"cannot read the value: {_first_line(problem)}; put it in quotes") from problem

    loader.get_event()  # the stream's start
    if isinstance(loader.get_event(), yaml.StreamEndEvent):
        raise Unreadable(1, "the file is empty; write its fields or delete it")
    data = build(loader.get_event(), ())
    loader.get_event()  # the document's end
    if not isinstance(after := loader.get_event(), yaml.StreamEndEvent):
        raise Unreadable(after.start_mark.line + 1, "a second document begins here; remove the line ---")
    return data, lines


_SYNTAX = {
    "mapping values are not allowed": "put text that holds ': ' in quotes, or correct the indentation",
    "could not find expected ':'": "a field is written name: value",
    "unexpected end of stream": "close the quote",
    "cannot start any token": "put text that begins with @, ` or % in quotes",
    "while parsing a flow": "close the bracket, and put a comma between items",
    "while parsing a block": "give all fields of one level the same indentation",
}


def _line(problem: yaml.MarkedYAMLError, text: str) -> int:
    """Where the mistake is; for what is never closed, where it was opened."""
    mark, last = problem.problem_mark, max(1, len(text.splitlines()))
    if mark is None or (problem.context_mark and mark.line >= last):
        mark = problem.context_mark
    return min(int(mark.line) + 1, last) if mark else 1


def _syntax(problem: yaml.MarkedYAMLError, text: str) -> str:
    """What libyaml says, and the cure where the mistake is a common one."""
    said = ", ".join(part for part in (problem.context, problem.problem) if part)
    mark = problem.problem_mark
    rows = text.splitlines()
    if mark and "cannot start any token" in said and mark.line < len(rows) and "\t" in rows[mark.line][: mark.column + 1]:
        return "a tab; indent with spaces"
    return said + next((f"; {cure}" for sign, cure in _SYNTAX.items() if sign in said), "; correct it")


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def read(path: Path) -> tuple[Any, dict[Place, int]]:
    """`parse` of a file; raises `Unreadable`, also for what is no UTF-8 file of a sane size."""
    return parse(content(path))


def nearest(word: str, words: Iterable[str]) -> str:
    """ "; did you mean X?" or nothing."""
    close = difflib.get_close_matches(word, list(words), 1, 0.6) if len(word) <= LONGEST else []  # time goes with the square
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


def _shown(given: Any) -> str:
    whole = repr(given)
    return whole if len(whole) <= 80 else f"{whole[:77]}..."


def explain(model: type[BaseModel], error: Any) -> str:
    """One of pydantic's errors in our words: what is wrong, and the cure."""
    kind, given, place = error["type"], error["input"], error["loc"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown field; remove it or correct its name{nearest(str(place[-1]), _fields(model, place[:-1]))}"
    if kind == "missing":
        return "is missing; add it"
    if kind == "string_type":
        return f"must be text, got {_shown(given)}; put it in quotes"
    if kind == "literal_error":
        close = nearest(str(given), re.findall(r"'([^']+)'", context["expected"]))
        return f"{_shown(given)} is not one of {context['expected']}{close or '; correct it'}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} does not have the form of {FORMS.get(context['pattern'], context['pattern'])}; correct it"
    if kind == "float_type" and isinstance(given, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", given):
        return f"{_shown(given)} is text to YAML, which wants a point in such a number; write {given.lower().replace('e', '.0e')}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, got {_shown(given)}; correct it"
    if kind == "too_short":
        return "is empty; add at least one"
    if kind == "string_too_long":
        return f"has {len(given)} characters, at most {context['max_length']} are allowed; shorten it"
    if kind == "value_error":
        return str(context["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {_shown(given)}; correct it"


_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "names with values",
    "model_type": "fields and values",
}


def dotted(place: Place) -> str:
    """A place as people write it: "claims.better.at_least"."""
    return ".".join(map(str, place))


def _flaws(data: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """What no field of any kind may hold, wherever it stands: nothing, text that no page can hold, numbers without end."""
    if isinstance(data, str):
        if bad := unfit(data):
            yield place, f"holds the character {called(bad[0])}, which no page can hold; remove it"
        elif is_blank(data):
            yield place, f"{'holds only characters that are not seen' if data else 'is empty'}; fill it in, or remove it"
    elif isinstance(data, float) and not math.isfinite(data):
        yield place, f"must be a finite number of at most {LONGEST} characters; correct it"
    elif isinstance(data, dict):
        for name, part in data.items():
            for _, flaw in _flaws(name):
                yield (*place, name), f"its name {flaw}"
            yield from _flaws(part, (*place, name))
    elif isinstance(data, list):
        for index, part in enumerate(data):
            yield from _flaws(part, (*place, index))
    elif data is None and (place[:1], place[2:3]) != (("rows",), ("values",)):  # a row of a table may have no value in a column
        yield place, "is empty; fill it in, or remove it"


def validate(model: type[M], data: Any, lines: dict[Place, int], path: str, problems: list[Problem]) -> M | None:
    """Data as a model, or None with the problems added."""
    if not isinstance(data, dict):
        problems.append(Problem(path, 1, "", f"must be fields and values, got {type(data).__name__}; write name: value"))
        return None
    said: dict[Place, str] = {}
    for place, flaw in _flaws(data):
        said.setdefault(place, flaw)
    valid = None
    try:
        valid = model.model_validate(data)
    except ValidationError as refusal:
        for error in refusal.errors(include_url=False):
            place = error["loc"]
            while place and place not in lines and place[-1] in ("float", "str", "[key]"):
                place = place[:-1]
            if place not in said:  # each branch of a union has its own error; the first says enough
                said[place] = explain(model, {**error, "loc": place})
    problems += [Problem(path, line_of(lines, place), dotted(place), message) for place, message in said.items()]
    return None if said else valid


def load(root: Path = HERE, *, numbered: bool = True) -> Catalogue:
    """Every entry and comparison below `root`, with all problems of all files.

    Lines are `numbered` for those who look for more problems: of ten thousand entries the numbers take a hundred megabytes.
    """
    problems: list[Problem] = []
    places: dict[str, dict[Place, int]] = {}

    def item(model: type[M], path: Path) -> tuple[M | None, dict[Place, int]]:
        name = str(path.relative_to(root.parent))
        try:
            data, lines = read(path)
        except Unreadable as refusal:
            problems.append(Problem(name, refusal.line, refusal.field, refusal.reason))
            return None, {}
        valid = validate(model, data, lines, name, problems)
        if not numbered:
            lines.clear()
        places[name] = lines
        return valid, lines

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
    for path in sorted((root / "comparisons").glob("*.y*ml")):
        table, _ = item(Comparison, path)
        if path.suffix != ".yaml" or not _is_slug(path.stem):
            name = str(path.relative_to(root.parent))
            problems.append(Problem(name, 1, "", "a table's file is called <slug>.yaml: small letters, digits and _; rename it"))
        elif table is not None:
            comparisons[path.stem] = table
    for path in root.glob("**/*.y*ml"):
        folder = str(path.parent.relative_to(root))
        if folder not in (*KINDS, "comparisons") and path.relative_to(root).as_posix() not in ("vocabulary.yaml", "owed.yaml"):
            cure = f"is in none of the folders {', '.join(KINDS)}, comparisons; move or remove it{nearest(folder, KINDS)}"
            problems.append(Problem(str(path.relative_to(root.parent)), 1, "", cure))
    empty = Vocabulary(datasets={}, models={}, metrics={}, tags={})
    return Catalogue(entries, comparisons, vocabulary or empty, sorted(problems), places)


def _is_slug(stem: str) -> bool:
    return stem.isascii() and stem.replace("_", "a").isalnum() and stem[0].isalpha() and stem == stem.lower()

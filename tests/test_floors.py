"""The house in `scripts/`: a floor imports only from those below it, and nobody from torch or MkDocs' inside who should not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"evidence": 0, "curation": 1, "running": 1, "website": 2, "program": 2, "benchmarks": 3, "cli": 3}
MAY = {  # what else of this project a folder may import
    "evidence": {"catalog"},
    "curation": {"catalog"},
    "running": {"catalog", "methods"},
    "website": {"catalog"},
    "benchmarks": {"catalog"},
    "cli": {"catalog", "methods"},
    "program": {"catalog"},
}
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "scripts").rglob("*.py")) if path.parent.name != "__pycache__"}
MOST_NAMES, MOST_LINES = 12, 400


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Module, and the names that are taken from it, of every import anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((name.name, []) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import hides where it leads"
            yield node.module or "", [name.name for name in node.names]


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, also by `from package import module`."""
    for module, names in imports(path):
        yield module
        yield from (f"{module}.{name}" for name in names)


def wrong(path: Path) -> list[str]:
    """The imports of a file that its floor does not allow."""
    own = path.relative_to(ROOT / "scripts").parts[0].removesuffix(".py")
    found = []
    for module in modules(path):
        top, _, rest = module.partition(".")
        there = rest.partition(".")[0]
        upwards = top == "scripts" and there in FLOORS and there != own and FLOORS[there] >= FLOORS[own]
        stranger = top in ("catalog", "methods", "tests") and top not in MAY[own]
        if upwards or stranger or (top == "torch" and own != "running"):
            found.append(module)
    return found


@pytest.mark.parametrize("name", [name for name in FILES if name != "scripts/__init__.py"])
def test_a_floor_imports_only_from_those_below_it(name: str) -> None:
    assert wrong(FILES[name]) == []


@pytest.mark.parametrize(
    "line",
    [
        "from scripts.website import markup",
        "from scripts import cli",
        "def f():\n    import scripts.running.smoke",
        "import torch.nn",
        "from methods.kit.task import Task",
    ],
)
def test_an_import_that_leads_upwards_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr("tests.test_floors.ROOT", tmp_path)
    path = tmp_path / "scripts" / "curation" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert wrong(path)
    path.write_text("from scripts.evidence import text\nfrom scripts.curation import check\n")
    assert not wrong(path)


def test_no_file_takes_a_dozen_names_and_more_from_another() -> None:
    taken = {(name, module): names for name, path in FILES.items() for module, names in imports(path) if module.startswith("scripts")}
    assert {place: len(names) for place, names in taken.items() if len(names) > MOST_NAMES} == {}


def test_no_file_of_the_website_is_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in FILES.items() if name.startswith("scripts/website/")}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_every_folder_says_what_lives_there() -> None:
    folders = {path.parent for path in FILES.values()}
    assert {folder.name for folder in folders} >= FLOORS.keys() - {"cli", "program"}
    for folder in folders:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_what_is_private_to_mkdocs_is_used_in_one_file() -> None:
    users = {
        name
        for name, path in FILES.items()
        for module, names in imports(path)
        if module.split(".")[0] in ("mkdocs", "material") and any(part.startswith("_") for part in (*module.split("."), *names))
    }
    assert users == {"scripts/website/render.py"}

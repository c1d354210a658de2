"""README stays true: its snippet runs, its files exist, its commands are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from scripts.cli import app

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_snippet_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    scope: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), scope)
    thin, model = scope["thin"], scope["model"]
    assert isinstance(thin, nn.Sequential)
    assert isinstance(model, nn.Sequential)
    assert thin[0].out_channels == model[0].out_channels // 2


@pytest.mark.parametrize("place", re.findall(r"\]\((?!https?:|<)([^)#]+)\)", TEXT))
def test_linked_files_exist(place: str) -> None:
    assert (ROOT / place).exists()


def test_commands_exist() -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    targets = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`smallprint (\w+)", TEXT)) <= verbs
    assert set(re.findall(r"`?make (\w+)", TEXT)) <= {name for group in targets for name in group.split()} | {"and"}

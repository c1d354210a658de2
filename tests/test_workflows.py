"""Workflows call what a person calls, with tokens that can only read and actions that cannot change under us."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from scripts.cli import ROOT, app

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VERBS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def steps(path: Path) -> list[dict[str, Any]]:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_may(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert "pull_request_target" not in text
    assert workflow["permissions"] == {"contents": "read"}
    writes = {right for job in workflow["jobs"].values() for right in job.get("permissions", {})}
    assert writes <= {"pages", "id-token"}
    assert not re.search(r"run:.*\$\{\{", text), "what a stranger chooses reaches a shell through env alone"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_commands_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*)(?= *[\w ]*:)", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {"check", "site"}
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            assert step["uses"].startswith("actions/")
        else:
            words = step["run"].split()
            if words[0] == "make":
                assert set(words[1:]) <= targets | {".venv/.ready"}
            else:
                assert words[0] == ".venv/bin/smallprint"
                assert words[1] in VERBS


def test_the_issue_form_names_every_family() -> None:
    from catalog import FAMILIES

    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "add_a_paper.yml").read_text())
    family = next(part for part in form["body"] if part.get("id") == "family")
    assert set(family["attributes"]["options"]) == set(FAMILIES)


@pytest.mark.parametrize(("chosen", "same"), [(None, True), ("free", False)])
def test_examples_are_the_same_every_time_unless_new_ones_are_asked_for(chosen: str | None, same: bool) -> None:
    others = {name: value for name, value in os.environ.items() if name != "HYPOTHESIS_PROFILE"}
    program = "import conftest; from hypothesis import settings as s; print(s().derandomize, s().deadline)"
    environment = {**others, "PYTHONPATH": f"{ROOT / 'tests'}", **({"HYPOTHESIS_PROFILE": chosen} if chosen else {})}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(same), "None"]


def test_the_nightly_job_asks_for_new_examples() -> None:
    assert {"run": "make properties"} in steps(ROOT / ".github" / "workflows" / "nightly.yml")
    assert "HYPOTHESIS_PROFILE=free" in (ROOT / "Makefile").read_text()

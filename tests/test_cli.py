"""The command as its user meets it: help, names, clear refusals, exit codes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalog import files
from scripts import cli
from scripts.curation import links
from scripts.curation.check import check
from scripts.evidence import records, source
from scripts.evidence.definitions import Codes
from tests.curation.test_check import GOOD, MEASURED, METHOD, ROW, TUCKER, plant
from tests.toys import checkout, smallprint

ROOT = Path(__file__).resolve().parent.parent
runner = CliRunner()
VERBS = ["check", "list", "show", "smoke", "sweep", "bite", "links", "validate", "site", "data", "new", "bib", "networks", "plan"]


def run(*words: str) -> tuple[int, str]:
    result = runner.invoke(cli.app, list(words))
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    code, text = run(verb, "--help")
    assert code == 0
    assert "Usage" in text


def test_check_is_clean_and_needs_no_torch() -> None:
    program = "import sys, pathlib; from scripts import cli; from scripts.curation.check import check; print(*check(pathlib.Path()));"
    program += " sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_who_waits_for_runs_needs_no_torch() -> None:
    """It is imported once, by the process that all others are forked from."""
    program = (
        "import sys; from scripts import cli; from scripts.running import bite, kept, report, runs, stamp; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_check_opens_every_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "ROOT", plant(tmp_path, GOOD))
    opened: list[Path] = []
    real = files.raw
    monkeypatch.setattr(files, "raw", lambda path, largest: opened.append(path) or real(path, largest))  # type: ignore[func-returns-value]
    code, text = run("check")
    assert (code, text) == (0, "4 entries, 1 comparison tables, 1 methods: no problems\n")
    assert len(opened) == len(set(opened)) == len([name for name in GOOD if "kit" not in name])


def test_schema_is_json_schema() -> None:
    code, text = run("check", "--schema")
    assert code == 0
    assert {"paper", "framework", "overview", "list", "comparison"} <= set(json.loads(text))


@pytest.mark.parametrize("name", ["network_slimming", "network-slimming", "pruning/network_slimming"])
def test_names(name: str) -> None:
    code, text = run("show", name)
    assert code == 0
    assert "Learning Efficient Convolutional Networks" in text
    assert "Departures" in text


def test_an_unknown_name_gets_suggestions() -> None:
    code, text = run("smoke", "network_sliming")
    assert code == 1
    assert "network_slimming" in text


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "syntax": (b"x = 1\ndef f(:\n", "2: not Python: invalid syntax; correct it"),
    "NUL": (b"x = 1\n# \0\n", "2: holds the character U+0000, which no page can hold; remove it or write its escape"),
    "direction": ("# \u202e\n".encode(), "1: holds the character U+202E, which no page can hold; remove it or write its escape"),
    "escape": (b'"""A \\x1b[31m."""\n', "1: docstring: holds the character U+001B, which no page can hold; remove it"),
    "encoding": (b"x = 1\n# \xff\n", "2: not UTF-8; save the file in that encoding"),
}


@pytest.mark.parametrize(("program", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_method_that_cannot_be_read_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes, said: str
) -> None:
    monkeypatch.setattr(cli, "ROOT", plant(tmp_path, {**GOOD, METHOD: program}))
    monkeypatch.setattr(links, "check_links", lambda *_, **__: {})
    for words in (["smoke", "slim"], ["bite", "slim"], ["smoke"], ["sweep"], ["validate"], ["show", "slim"], ["list"], ["list", "--json"]):
        code, text = run(*words)
        assert code == 1
        assert f"error: {METHOD}:{said}\n" in text
        assert text.count("error") == 1
    assert "cannot be read" in run("list")[1]
    assert "Thinner networks" in run("show", "slim")[1]
    assert run("show", "tucker")[0] == 0


def test_an_entry_that_cannot_be_read_is_not_left_out_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "ROOT", plant(tmp_path, {**GOOD, TUCKER: "name: ["}))
    code, text = run("list")
    assert (code, text.count("error")) == (1, 1)
    assert f"error: {TUCKER}:1: not YAML" in text
    assert "Slim" in text


def test_a_byte_order_mark_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, digests = [], []
    for mark in ("", "\ufeff"):
        files = {name: mark + text for name, text in GOOD.items()}
        monkeypatch.setattr(cli, "ROOT", plant(tmp_path, files))
        assert check(tmp_path) == []
        methods = source.methods(tmp_path)
        shown.append((run("show", "slim"), run("list"), methods))
        digests.append(Codes(tmp_path, methods["slim"]).whole)
    assert shown[0] == shown[1]
    assert digests[0] == digests[1]


NO_NUMBERS: dict[str, tuple[bytes, int, str]] = {
    "header": (GOOD[MEASURED].replace("tier", "tear").encode(), 1, "the columns must be tier,subject"),
    "no header": (f"{ROW}\n".encode(), 1, "the columns must be tier,subject"),
    "empty": (b"", 1, "the columns must be tier,subject"),
    "number": (GOOD[MEASURED].replace(",0.0,", ",half,").encode(), 2, "could not convert string to float: 'half'"),
    "huge number": (GOOD[MEASURED].replace(",0,cpu", f",{'9' * 5000},cpu").encode(), 2, "Exceeds the limit"),
    "day": (GOOD[MEASURED].replace("2026-01-01T", "2026-01-41T").encode(), 2, "day"),
    "too few values": (GOOD[MEASURED].replace(",cpu", "").encode(), 2, "not as many values as columns"),
    "too many values": (GOOD[MEASURED].replace(",cpu", ",cpu,cpu").encode(), 2, "not as many values as columns"),
    "blank line": (f"{GOOD[MEASURED]}\n{ROW}\n".encode(), 3, "not as many values as columns"),
    "NUL": (GOOD[MEASURED].replace("cpu", "c\0pu").encode(), 2, "holds the character U+0000"),
    "steers a terminal": (GOOD[MEASURED].replace("cpu", "\x1b[2J").encode(), 2, "holds the character U+001B"),
    "encoding": (GOOD[MEASURED].encode() + b"\xff\n", 3, "not UTF-8"),
    "cut off in a row": (GOOD[MEASURED].encode()[:-30], 2, "not as many values as columns"),
    "cut off in the last value": (GOOD[MEASURED].encode()[:-2], 2, "the last line is cut off"),
    "long field": (GOOD[MEASURED].replace("cpu", "c" * 200_000).encode(), 2, "field larger than field limit"),
}


@pytest.mark.parametrize(("numbers", "line", "said"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_damaged_numbers_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: bytes, line: int, said: str) -> None:
    monkeypatch.setattr(cli, "ROOT", plant(tmp_path, {**GOOD, MEASURED: numbers}))
    code, text = run("show", "slim")
    assert (code, text.count("error")) == (1, 1)
    (problem,) = check(tmp_path)
    assert text.endswith(f"error: {problem}\n")
    assert str(problem).startswith(f"{MEASURED}:{line}: {said}")
    assert "restore it with git" in text


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_numbers_that_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]) -> None:
    monkeypatch.setattr(cli, "ROOT", plant(tmp_path, GOOD))
    (tmp_path / MEASURED).unlink()
    make(tmp_path / MEASURED)
    code, text = run("show", "slim")
    assert (code, text.count("error")) == (1, 1)
    assert "it is a folder, a pipe or a device" in text


def test_list_as_table_and_json() -> None:
    assert "network_slimming" in run("list", "pruning")[1]
    assert {"id", "family", "name", "year", "method"} == set(json.loads(run("list", "--json")[1])[0])
    code, text = run("list", "prunning")
    assert code == 1
    assert "no family" in text


def test_a_wrong_data_folder_is_one_line(tmp_path: Path) -> None:
    code, text = run("smoke", "gemmlowp", "--data", str(tmp_path))
    assert code == 1
    assert text.count("error") == 1
    assert "not a CIFAR-10 folder" in text
    assert "Traceback" not in text


def test_a_truncated_batch_is_one_line(tmp_path: Path) -> None:
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        (tmp_path / name).write_bytes(pickle.dumps({b"labels": [1]})[:9])
    code, text = run("smoke", "network_slimming", "--tier", "smoke", "--data", str(tmp_path))
    assert code == 1
    assert "truncated" in text
    assert "Traceback" not in text


def test_an_unknown_tier_is_refused() -> None:
    code, text = run("smoke", "gemmlowp", "--tier", "quick")
    assert code == 1
    assert "must be one of exact, smoke, long, full" in text


def test_a_sweep_needs_operating_points() -> None:
    code, text = run("sweep", "adaround")
    assert code == 1
    assert "methods/quantization/adaround.py has no SWEEP; add" in text


def test_an_unwritable_results_folder_is_one_line(tmp_path: Path) -> None:
    root = checkout(tmp_path, {"toy": {}})
    (root / "catalog/measured").write_text("")
    done = smallprint(root, "smoke", "toy", "--tier", "exact", "--record")
    assert done.returncode == 1
    assert "cannot be written" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_recorded_rows_can_be_resumed(tmp_path: Path) -> None:
    root = checkout(tmp_path, {"toy": {}})
    assert smallprint(root, "smoke", "toy", "--seeds", "2", "--record").returncode == 0
    place = records.path_of(root, "pruning", "toy")
    rows = records.read(place)
    assert {row.data for row in rows} == {"none", "standin"}
    assert [(row.tier, row.seed, row.metric) for row in rows if row.subject == "run"] == [
        ("exact", 0, "seconds"), ("smoke", 0, "seconds"), ("smoke", 1, "seconds")
    ]  # fmt: skip
    assert all(len(row.code) == 16 and row.torch for row in rows)
    records.write(place, rows)
    assert records.read(place) == rows
    again = smallprint(root, "smoke", "toy", "--tier", "smoke", "--seeds", "3", "--record", "--resume")
    assert again.returncode == 0
    seconds = {row.seed: row.value for row in records.read(place) if (row.tier, row.subject) == ("smoke", "run")}
    assert [seconds[seed] for seed in (0, 1)] == [row.value for row in rows if (row.tier, row.subject) == ("smoke", "run")]
    assert seconds.keys() == {0, 1, 2}


def test_a_foreign_results_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(records.RecordError, match="the columns must be"):
        records.read(tmp_path / "x.csv")


def test_a_closed_pipe_is_no_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m scripts.cli list | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_a_paper_that_is_here_is_refused_before_anything_is_fetched() -> None:
    for paper in ("1708.06519", "https://arxiv.org/abs/1708.06519v1", "10.48550/arXiv.1708.06519"):
        code, text = run("new", paper, "--family", "pruning")
        assert code == 1
        assert "catalog/pruning/network_slimming.yaml has the same arXiv id" in " ".join(text.split())

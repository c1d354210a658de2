"""The command as its user meets it: help, names, clear refusals, exit codes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts import cli, records

ROOT = Path(__file__).resolve().parent.parent
runner = CliRunner()
VERBS = ["check", "list", "show", "smoke", "sweep", "bite", "links", "validate", "site", "data", "new", "bib"]


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
    program = "import sys, pathlib; from scripts import cli, check; print(*check.check(pathlib.Path())); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


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


def test_an_unwritable_results_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(records, "path_of", lambda root, family, slug: tmp_path / "file" / "x.csv")
    code, text = run("smoke", "hinton_distillation", "--tier", "exact", "--record")
    assert code == 1
    assert "cannot be written" in text
    assert "Traceback" not in text


def test_recorded_rows_can_be_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(records, "path_of", lambda root, family, slug: tmp_path / "x.csv")
    assert run("smoke", "hinton_distillation", "--tier", "exact", "--record")[0] == 0
    rows = records.read(tmp_path / "x.csv")
    assert {row.data for row in rows} == {"none"}
    assert [row.metric for row in rows if row.subject == "run"] == ["seconds"]
    assert all(row.subject.startswith(("claim_", "run")) and len(row.code) == 16 and row.torch for row in rows)
    records.write(tmp_path / "x.csv", rows)
    assert records.read(tmp_path / "x.csv") == rows


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
    for source in ("1708.06519", "https://arxiv.org/abs/1708.06519v1", "10.48550/arXiv.1708.06519"):
        code, text = run("new", source, "--family", "pruning")
        assert code == 1
        assert "catalog/pruning/network_slimming.yaml has the same arXiv id" in " ".join(text.split())

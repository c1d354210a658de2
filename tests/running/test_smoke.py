"""Claims as the bench calls them, and what becomes of a method that raises, returns nothing, leaves or dies."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from catalog.schema import Bound
from scripts.running.smoke import call
from tests.toys import checkout, smallprint

BOUNDS = {"at_most": Bound(at_most=1), "at_least": Bound(at_least=1), "within": Bound(paper=1, within=0.5)}


@pytest.mark.parametrize(
    ("bound", "values", "worst"),
    [
        ("at_most", "[0.5, 2.0, -3.0]", 2.0), ("at_least", "(0.5, 2.0, -3.0)", -3.0), ("within", "[0.5, 2.0, -3.0]", -3.0),
        ("within", "[0.5, 2.0]", 2.0), ("at_most", "7", 7.0), ("at_most", "[1.0, float('nan'), 2.0]", math.nan),
        ("at_least", "[2.0, float('nan')]", math.nan), ("within", "[float('nan')]", math.nan), ("at_most", "[]", math.nan),
    ],
)  # fmt: skip
def test_of_several_numbers_the_worst_counts(bound: str, values: str, worst: float) -> None:
    module = ModuleType("claims")
    exec(f"def claim_some(lab):\n    return {values}", vars(module))
    claim: Any = SimpleNamespace(bounds=lambda: {None: BOUNDS[bound]})
    lab: Any = None
    assert call(module, "some", claim, lab, 0)[None] == pytest.approx(worst, nan_ok=True)


SEGV = "os.kill(os.getpid(), signal.SIGSEGV)"
DEADLY: dict[str, dict[str, str]] = {
    "aa_healthy": {},
    "zz_segv": {"claim": SEGV},
    "zz_abort": {"claim": "os.abort()"},
    "zz_killed": {"compress": "os.kill(os.getpid(), signal.SIGKILL)"},
    "zz_exits": {"claim": "sys.exit(0)"},
    "zz_exits_hard": {"claim": "os._exit(0)"},
    "zz_exits_at_import": {"top": "sys.exit(0)"},
    "zz_leaves": {"compress": "sys.exit()"},
    "zz_raises": {"compress": "raise RuntimeError('too [bold]narrow[/bold]')"},
    "zz_none": {"returned": "None"},
    "zz_nan": {"value": "float('nan')"},
    "zz_memory": {"claim": "raise MemoryError"},
    "zz_stopped": {"claim": "raise KeyboardInterrupt"},
}
CLAIMS = "methods/pruning/claims"
SAID = {
    "zz_segv": f"its process died of SIGSEGV at {CLAIMS}/zz_segv.py:14 in claim_second while it measured claim_second",
    "zz_abort": f"its process died of SIGABRT at {CLAIMS}/zz_abort.py:14 in claim_second while it measured claim_second",
    "zz_killed": "its process died of SIGKILL (killed from outside, or memory ran out) while it measured method",
    "zz_exits": f"{CLAIMS}/zz_exits.py:14: claim_second: left the program with sys.exit(0)",
    "zz_exits_hard": "its process ended by itself, with exit code 0, while it measured claim_second",
    "zz_exits_at_import": "methods/pruning/zz_exits_at_import.py:14: <module>: left the program with sys.exit(0), while it was imported",
    "zz_leaves": "methods/pruning/zz_leaves.py:26: compress: left the program with sys.exit(None), while it measured method",
    "zz_raises": "methods/pruning/zz_raises.py:26: compress: RuntimeError: too [bold]narrow[/bold], while it measured method",
    "zz_none": "methods/pruning/zz_none.py:25: compress returned NoneType, no network; return the one that ships, while it measured method",
    "zz_nan": "is not a number",
    "zz_memory": f"{CLAIMS}/zz_memory.py:14: claim_second: MemoryError: no reason given",
    "zz_stopped": f"{CLAIMS}/zz_stopped.py:14: claim_second: KeyboardInterrupt: no reason given, while it measured claim_second",
}


def section(text: str, id: str) -> str:
    """What stands under a method's heading."""
    return " ".join(text.partition(f"pruning/{id} ")[2].partition("\npruning/")[0].split("\n\n")[0].split())


def test_whatever_dies_is_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    done = smallprint(checkout(tmp_path, DEADLY), "smoke", "-j", "2")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for id in DEADLY:
        assert (SAID.get(id, "meets its bound, not recorded")) in section(done.stdout, id), section(done.stdout, id)
    assert "first §1 exact wiring 0 <= 0 holds" in section(done.stdout, "zz_segv"), "exact verdicts that were measured are shown"
    assert "second §1 exact identity 0 <= 0 holds" in section(done.stdout, "zz_none")
    bad = ", ".join(sorted(id for id in DEADLY if id != "aa_healthy"))
    assert f"{len(DEADLY)} methods in" in done.stdout
    assert f"{len(DEADLY) - 1} with surprises: {bad}" in done.stdout
    assert sorted(line.rpartition(" ")[2] for line in done.stderr.splitlines() if " done, " in line) == sorted(DEADLY)


def rows(root: Path, id: str) -> list[dict[str, str]]:
    with (root / f"catalog/measured/pruning/{id}.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_record_judges_the_next_run_in_either_direction(tmp_path: Path) -> None:
    """Recorded on two instruction sets; then a value that moved is measured with two more seeds before it is red."""
    level = "0.25 + 0.5 * (lab.task.seed == 0) * Path('moved').exists() + 0.001 * os.environ.get('ATEN_CPU_CAPABILITY', '').startswith('a')"
    root = checkout(tmp_path, {"toy": {"level": level}, "other": {}})
    assert smallprint(root, "smoke", "toy").stdout.count("meets its bound, not recorded") == 1
    done = smallprint(root, "smoke", "toy", "--seeds", "3", "--record")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [(row["tier"], row["seed"], row["threads"]) for row in rows(root, "toy") if row["subject"] == "claim_level"]
    assert found == [*(("rounding", str(seed), "2") for seed in range(3)), *(("smoke", str(seed), "1") for seed in range(3))]
    assert "level §1 smoke effect 0.25 >= 0 meets, as recorded" in section(smallprint(root, "smoke", "toy").stdout, "toy")
    (root / "moved").touch()
    moved = smallprint(root, "smoke", "toy")
    assert moved.returncode == 1
    assert "departs from the recorded 0.25 ± 0.002 of 3 seeds" in section(moved.stdout, "toy")


def test_a_method_without_its_record_does_not_gate(tmp_path: Path) -> None:
    done = smallprint(checkout(tmp_path, {"toy": {"level": "-1.0"}}), "smoke", "toy")
    assert "misses its bound, not recorded" in section(done.stdout, "toy")
    assert done.returncode == 0


def test_what_was_green_is_not_run_again(tmp_path: Path) -> None:
    root = checkout(tmp_path, {"good": {}, "bad": {"value": "1.0"}})
    first, second, again = smallprint(root, "smoke"), smallprint(root, "smoke"), smallprint(root, "smoke", "--again")
    assert "not run" not in first.stdout
    assert "1 methods were green before and have not changed since: not run" in second.stdout
    assert "pruning/bad" in second.stdout
    assert "pruning/good" not in second.stdout
    assert (second.returncode, again.returncode) == (1, 1)
    assert "pruning/good" in again.stdout
    program = root / "methods/pruning/good.py"
    program.write_text(program.read_text().replace("rate: float = 1.0", "rate: float = 2.0"))
    assert "pruning/good" in smallprint(root, "smoke").stdout
    assert "pruning/good" in smallprint(root, "smoke", "good").stdout, "who asks for one by name wants to see it"


def test_what_a_method_prints_is_shown(tmp_path: Path) -> None:
    done = smallprint(checkout(tmp_path, {"toy": {"claim": "print('a rank of 7')"}}), "smoke", "toy")
    assert "a rank of 7" in done.stderr
    assert done.returncode == 0


CHILDREN = """
import os, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_DFL)  # which is deaf where the tests run in the background of a shell
command = subprocess.Popen([sys.executable, "-P", "-m", "scripts.cli", *sys.argv[2:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
began = time.monotonic()
while not Path("measuring").exists() and time.monotonic() - began < 60:
    time.sleep(0.05)
os.kill(command.pid, getattr(signal, sys.argv[1]))
print(command.wait())
mark = b"SMALLPRINT_TEST=" + os.environ["SMALLPRINT_TEST"].encode()
for _ in range(100):
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes() and process.name != str(os.getpid()):
                left.append(process.name)
    if not left:
        break
    time.sleep(0.1)
print(left)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("verb", ["smoke", "bite"])
@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -9), ("SIGTERM", 130), ("SIGINT", 130)])
def test_its_processes_end_with_the_command(tmp_path: Path, verb: str, name: str, code: int) -> None:
    busy = textwrap.indent("import time\n    Path('measuring').touch()\n    time.sleep(600)", "").strip()
    root = checkout(tmp_path, {"toy": {"claim": busy}})
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, name, verb, "toy"], cwd=root, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(root), "SMALLPRINT_TEST": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == [str(code), "[]"], done.stderr


def test_stale_numbers_that_come_again_are_carried_over(tmp_path: Path) -> None:
    """A definition that they reach is another, but computes the same; what computes something else stays stale."""
    root = checkout(tmp_path, {"toy": {"level": "float(method.Config().rate > 0)"}})
    assert smallprint(root, "smoke", "toy", "--seeds", "2", "--record").returncode == 0
    before = {(row["subject"], row["metric"], row["seed"], row["tier"]): row["code"] for row in rows(root, "toy")}
    program = root / "methods/pruning/toy.py"
    program.write_text(program.read_text().replace("rate: float = 1.0", "rate: float = 2.0"))
    done = smallprint(root, "smoke", "toy", "--carry")
    assert "stale numbers are current again; 0 of seed 0 are others now" in done.stdout, done.stdout + done.stderr
    after = {(row["subject"], row["metric"], row["seed"], row["tier"]): row["code"] for row in rows(root, "toy")}
    moved = {key for key in before if before[key] != after[key]}
    assert {subject for subject, *_ in moved} == {"method", "control_none", "claim_level", "run"}
    assert {seed for _, _, seed, _ in moved} == {"0", "1"}
    assert "toy: 0 stale numbers are current again" in smallprint(root, "smoke", "toy", "--carry").stdout
    program.write_text(program.read_text().replace("rate: float = 2.0", "rate: float = -2.0"))
    done = smallprint(root, "smoke", "toy", "--carry")
    assert "1 of seed 0 are others now and stay stale\n  claim_level: 0, recorded 1\n" in done.stdout, done.stdout
    assert "leave out --record" in smallprint(root, "smoke", "toy", "--carry", "--record").stderr

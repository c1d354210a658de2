"""However a command ends, it says so in one line; and it runs the code of the checkout that one stands in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import program

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has other signals, shells and streams")


def smallprint(line: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which `smallprint` is the command."""
    defined = f'smallprint() {{ "{sys.executable}" -P -m scripts.cli "$@"; }}\n{line}'
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["bash", "-c", defined], cwd=cwd, env=given, capture_output=True, encoding="utf-8", timeout=60)


def assert_one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> None:
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert "Traceback" not in done.stderr


# Streams


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("smallprint list >&-", "error: standard output is closed; send it to a file, or to /dev/null"),
        ("smallprint list > /dev/full", "error: standard output: No space left on device; make room, or send it elsewhere"),
        ("smallprint list --json > /dev/full", "error: standard output: No space left on device; make room, or send it elsewhere"),
        ("smallprint bib adaround > /dev/full", "error: standard output: No space left on device; make room, or send it elsewhere"),
        ("smallprint bib adaround -o /dev/full", "error: /dev/full: cannot be written: No space left on device; choose another file"),
        ("smallprint bib adaround -o /", "error: /: cannot be written: Is a directory; choose another file"),
        (f"smallprint bib adaround -o {'x' * 300}", "cannot be written: File name too long; choose another file"),
        (f"smallprint show {'x' * 300}", "nothing is called similarly"),
        ("mkdir $HERE/x; cd $HERE/x; rmdir $HERE/x; smallprint check", "error: the working folder: No such file or directory; change into"),
    ],
)
def test_what_cannot_be_is_one_line(line: str, said: str, tmp_path: Path) -> None:
    done = smallprint(line, HERE=str(tmp_path))
    assert_one_line(done)
    assert said in done.stderr


def test_streams_that_are_closed_or_lack_letters_do_no_harm() -> None:
    assert smallprint("smallprint check 2>&-").returncode == 0
    assert smallprint("smallprint check <&-").returncode == 0
    assert smallprint("smallprint list nothing 2>/dev/full").returncode == 1
    done = smallprint("smallprint list | head -n 1")
    assert (done.stderr, done.stdout.split()[0]) == ("", "family")


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_output_that_is_only_ascii(environment: dict[str, str], tmp_path: Path) -> None:
    for line in ("smallprint check", "smallprint list", "smallprint show adaround", f"smallprint bib -o {tmp_path / 'a.bib'}"):
        done = smallprint(line, **environment)
        assert (done.returncode, done.stderr) == (0, ""), line
    assert smallprint("smallprint bib", **environment).stdout == (tmp_path / "a.bib").read_text("utf-8")
    assert_one_line(smallprint("smallprint show $'\\xff'", **environment))


# Errors and interruptions

FAULT = """
import sys
from pathlib import Path
from scripts import cli
from scripts.curation import check
cli.ROOT = Path(sys.argv.pop(1))
def broken(root):
    with cli.progress() as say:
        say("reading\\nall")
        {fault}
check.examine = broken
cli.main()
"""


def ended(fault: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FAULT.format(fault=fault), str(root), *(arguments or ("check",))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise ValueError('x' * 10000)", "ValueError: " + "x" * 300 + "…"),
        ("[0] * 10 ** 17", "MemoryError"),
        ("broken(root)", "RecursionError: maximum recursion depth exceeded"),
        ("open('/nowhere/at/all')", "/nowhere/at/all: No such file or directory"),
        ("raise BaseException('from a library')", "BaseException: from a library"),
        ("int('1' * 5000)", "ValueError: Exceeds the limit"),
    ],
)
def test_what_nobody_foresaw_is_one_line_and_a_file(tmp_path: Path, fault: str, said: str) -> None:
    done = ended(fault, tmp_path)
    assert_one_line(done)
    assert done.stderr.startswith("error: smallprint check: "), done.stderr
    assert said in done.stderr
    if "BaseException" not in fault:
        assert ": reading all: " in done.stderr
    (kept,) = (tmp_path / "build").iterdir()
    assert done.stderr.endswith(f"; the traceback is in {kept}\n")
    assert kept.read_text().startswith("Traceback")


def test_where_there_is_no_room_for_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("")
    done = ended("raise ValueError('x')", tmp_path)
    place = re.fullmatch(r".*; the traceback is in (.*)\n", done.stderr)
    assert place, done.stderr
    assert Path(place[1]).read_text().startswith("Traceback")
    Path(place[1]).unlink()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_an_interruption_is_one_line(tmp_path: Path, how: signal.Signals) -> None:
    text = FAULT.format(fault="print('here', flush=True); import time; time.sleep(30)").replace("import sys\n", f"import sys\n{DEAF}", 1)
    with subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path), "check"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
        time.sleep(0.1)
        process.send_signal(how)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "interrupted\n")
    assert not list(tmp_path.iterdir())


DEAF = (  # jobs in the background do not hear them
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
)


def test_what_a_process_was_told_not_to_hear_stays_unheard(tmp_path: Path) -> None:
    fault = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); sys.exit(7)"
    text = FAULT.format(fault=fault)
    done = subprocess.run(["nohup", sys.executable, "-c", text, str(tmp_path), "check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 7


# Where


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with an entry less and a word of its own in the code."""
    tree = tmp_path_factory.mktemp("other") / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    for part in ("catalog", "methods", "scripts"):
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    (tree / "catalog" / "lists" / "below").mkdir()
    code = tree / "scripts" / "curation" / "check.py"
    code.write_text(code.read_text().replace("def check(root: Path", "print('code of the copy')\n\n\ndef check(root: Path", 1))
    (tree / "catalog" / "pruning" / "amc.yaml").write_text("name: broken\n")
    return tree


def test_the_checkout_that_one_stands_in_is_worked_on_with_its_own_code(other: Path) -> None:
    for folder in (other, other / "catalog" / "lists"):
        done = smallprint("smallprint check", folder)
        assert done.returncode == 1
        assert done.stdout.startswith("code of the copy\ncatalog/pruning/amc.yaml:1: ")
        assert done.stderr == f"in {other}\n"
    assert '"amc"' in smallprint("smallprint list --json").stdout
    assert '"amc"' not in smallprint("smallprint list --json", other / "methods").stdout


def test_elsewhere_it_works_on_its_own(tmp_path: Path) -> None:
    for folder in (tmp_path, ROOT / "catalog" / "pruning"):
        done = smallprint("smallprint check", folder)
        assert (done.returncode, done.stderr) == (0, "")
    for part in ("catalog", "methods"):
        (tmp_path / part).mkdir()
    assert smallprint("smallprint check", tmp_path).stderr == ""


def test_a_checkout_whose_code_is_a_link_does_not_run_for_ever(other: Path, tmp_path: Path) -> None:
    for part in ("catalog", "methods"):
        (tmp_path / part).symlink_to(other / part)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    done = smallprint("smallprint check", tmp_path)
    assert (done.returncode, done.stderr) == (1, f"in {tmp_path}\n")
    assert done.stdout.startswith("catalog/pruning/amc.yaml:1: ")


def test_the_checkout_of_a_folder(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(other / "catalog" / "pruning")
    assert program.checkout() == other
    monkeypatch.chdir(ROOT)
    assert program.checkout() == program.OWN

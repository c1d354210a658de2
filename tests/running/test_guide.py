"""The worked example of the guide is a paper like any other: it passes, and notices what tired people do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.toys import ROOT, checkout, smallprint

METHOD = "methods/pruning/magnitude.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose only method is the example."""
    place = checkout(tmp_path_factory.mktemp("guide"), {})
    (place / "catalog/networks.csv").unlink()  # of the real methods
    guide = (ROOT / "site/guides/contribute.md").read_text()
    blocks = re.findall(r"```(?:yaml|python)\n# ((?:catalog|methods)/\S+)\n(.*?)```", guide, re.S)
    assert [path.partition("/pruning/")[2] for path, _ in blocks] == ["magnitude.yaml", "magnitude.py", "claims/magnitude.py"]
    for path, text in blocks:
        (place / path).write_text(text)
    for weights in (ROOT / "methods/kit/weights").glob("resnet8-standin*"):
        shutil.copy(weights, place / "methods/kit/weights")
    return place


def test_it_is_a_whole_paper(root: Path) -> None:
    done = smallprint(root, "check")
    assert (done.returncode, done.stdout) == (0, "1 entries, 0 comparison tables, 1 methods: no problems\n"), done.stdout
    done = smallprint(root, "smoke", "magnitude")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "meets its bound" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("retrained(model, task, [(w, mask(torch.rand", "retrained(model, task.with_steps(task.steps // 2), [(w, mask(torch.rand",
         "unfair: methods/pruning/magnitude.py"),
        ("return fit(model, task, after_step=hold)", "return fit(model, replace(task, train=task.test), after_step=hold)", "LeakError"),
        ("return fit(model, task, after_step=hold)", "return fit(model, replace(task, train=task.validation), after_step=hold)", "stages"),
        ("return fit(model, task, after_step=hold)", "return model.eval()", "stages"),
        ("return fit(model, task, after_step=hold)", "return fit(model, task)", "zeros_stay"),
        ("return fit(model, task, after_step=hold)", "return fit(model, task, after_step=hold, lr=0.01)", "stages"),
        ("scores.flatten().topk(", "(-scores.flatten()).topk(", "smallest_go"),
        ("mask(torch.rand(w.shape, generator=chance), config.kept)", "mask(w.detach().abs(), config.kept)",
         "answers exactly as the method"),
    ],
)  # fmt: skip
def test_it_notices(root: Path, old: str, new: str, said: str) -> None:
    program = root / METHOD
    text = program.read_text()
    assert old in text
    try:
        program.write_text(text.replace(old, new).replace("import dataclass", "import dataclass, replace"))
        done = smallprint(root, "smoke", "magnitude")
    finally:
        program.write_text(text)
    assert done.returncode == 1, done.stdout
    lines = [line for line in done.stdout.splitlines() if said in line]
    assert any(word in line for line in lines for word in ("fails", "error", "unfair", "LeakError")), done.stdout

from pathlib import Path

import pytest

from scripts.evidence.owed import LIST, OwedError, owed, summary


def written(root: Path, text: str) -> Path:
    (root / "catalog").mkdir()
    (root / LIST).write_text(text)
    return root


def test_without_a_list_nobody_owes(tmp_path: Path) -> None:
    assert owed(tmp_path) == {}
    assert owed(written(tmp_path, "# paid\n")) == {}


def test_debts_by_method(tmp_path: Path) -> None:
    debts = owed(written(tmp_path, "slim: [wiring, length]\nthin:\n- wiring\nfree: []\n"))
    assert debts == {"slim": {"wiring", "length"}, "thin": {"wiring"}, "free": set()}
    assert summary(debts) == "2 methods owe lines (1), a wiring claim (2): catalog/owed.yaml"
    assert summary({"slim": {"wiring"}}) == "1 method owes a wiring claim (1): catalog/owed.yaml"
    assert summary({"free": set()}) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- slim\n", ":1: must be methods with their debts; write method: [debt, …]"),
        ("slim: wiring\n", ":1: slim must have a list of debts; write slim: [because, …]"),
        ("\nslim: [money]\n", ":2: there is no debt money; the debts are because, chance, control, ledger, length, wiring"),
        ("slim: [wiring]\nslim: [length]\n", ":2: slim is listed twice; keep one"),
        ("slim: [wiring\n", "catalog/owed.yaml:2: expected ',' or ']', but got '<stream end>'; correct it"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(OwedError) as refusal:
        owed(written(tmp_path, text))
    assert said in str(refusal.value)

"""What a run is compared with, how far it may be from that, and what follows."""

from __future__ import annotations

import math
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from catalog import Record, load
from catalog.schema import Claim
from scripts.evidence import records
from scripts.evidence.outcome import Report, Verdict, blanks, grown, judge, known, recorded, sampling, t_quantile
from scripts.running.report import as_text

ROOT = Path(__file__).resolve().parents[2]
ENTRY = """
name: Toy
title: A toy
authors: [N. Obody]
year: 2020
url: https://example.org
start: trained
returns: same
summary: A toy.
claims:
  exact: {says: It is zero., where: §1, tier: exact, kind: identity, at_most: 0.5}
  missed: {says: It is zero., where: §1, tier: exact, kind: count, at_most: 0.5, because: The table is wrong.}
  images: {says: It is better., where: §1, tier: smoke, kind: effect, against: random, at_least: 0, unit: share of images}
  more: {says: It is better., where: §1, tier: smoke, kind: effect, against: random, at_least: 0, unit: share of images}
  ratio: {says: It is smaller., where: §1, tier: smoke, kind: effect, against: random, at_most: 2.0, unit: ratio}
  regained:
    {says: Some comes back., where: §1, tier: smoke, kind: effect, against: none, at_least: 0.5, unit: share of the accuracy that was lost}
  tiny: {says: It is small., where: §1, tier: smoke, kind: effect, against: random, at_most: 0.0001}
  minutes: {says: It is better., where: §1, tier: long, kind: effect, against: random, at_least: 0, unit: share of images}
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    root = tmp_path_factory.mktemp("catalogue") / "catalog"
    (root / "pruning").mkdir(parents=True)
    shutil.copy(ROOT / "catalog/vocabulary.yaml", root)
    (root / "pruning/toy.yaml").write_text(ENTRY)
    return load(root).entries["toy"]


def row(
    subject: str, value: float, seed: int = 0, tier: str = "smoke", data: str = "standin", code: str = "c", digest: str = "d"
) -> records.Row:
    return records.Row(tier, f"claim_{subject}", "value", value, data, f"{digest}{seed}", seed, "cpu", 1, "3", "2", "c", code, "2026-01-01")


def judged(
    record: Record, rows: list[records.Row], subject: str, values: dict[int, float], data: str = "standin", digest: str = "d"
) -> Verdict:
    beside = known(record, rows, "smoke", data, {seed: f"{digest}{seed}" for seed in values})
    (blank,) = (v for tier in ("exact", "smoke", "long") for v in blanks(record, tier) if v.claim == subject)
    return replace(blank, values=values, known=beside.get(f"claim_{subject}"))


def test_a_value_is_compared_with_its_own_seed_in_either_direction(record: Record) -> None:
    rows = [row("images", 0.30), row("images", 0.10, 1)]
    for value, verdict in ((0.30, "as recorded"), (0.302, "as recorded"), (0.303, "departs"), (0.297, "departs"), (0.10, "departs")):
        assert judged(record, rows, "images", {0: value}).verdict == verdict
    assert judged(record, rows, "images", {1: 0.10}).verdict == "as recorded"
    assert judged(record, rows, "images", {1: 0.30}).surprising, "better than recorded is a change, too: a control may have become weaker"
    missed = judged(record, [row("images", -0.30)], "images", {0: -0.30})
    assert (missed.meets, missed.surprising) == (False, False), "the record is expected, whether it meets the bound or not"


def test_the_tolerance_is_three_deviations_of_pairs_of_one_unit(record: Record) -> None:
    """Pooled over the claims of a unit, of the same seed, images and code on two processors; never below two images of a thousand."""
    smoke = [row("images", 0.3), row("images", 0.3, 1), row("more", 0.2), row("ratio", 1.5)]
    rounding = [row("images", 0.31, 0, "rounding"), row("images", 0.3, 1, "rounding"), row("more", 0.2, 0, "rounding")]
    found = known(record, [*smoke, *rounding], "smoke", "standin")
    deviation = math.sqrt(statistics.fmean([0.01**2, 0, 0]))
    assert found["claim_images"].spread == found["claim_more"].spread == pytest.approx(3 * deviation)
    assert found["claim_images"].allowed(4) == pytest.approx(3 * deviation / 2, rel=0.01)
    assert found["claim_ratio"].allowed(1) == pytest.approx(2.0 / 1000, rel=0.01), "a thousandth of the number, or of its bound"
    for other in (row("images", 0.9, 0, "rounding", code="older"), row("images", 0.9, 0, "rounding", digest="others")):
        assert known(record, [*smoke, other], "smoke", "standin")["claim_images"].allowed(1) == pytest.approx(0.002, rel=0.01)


def test_a_small_number_has_a_small_tolerance(record: Record) -> None:
    """Or a claim of a ten-thousandth could not depart from anything."""
    rows = [row("tiny", 5e-5)]
    assert judged(record, rows, "tiny", {0: 5.005e-5}).verdict == "as recorded"
    assert judged(record, rows, "tiny", {0: 5.2e-5}).verdict == "departs"


def test_what_counts_the_images_of_a_part_is_never_surer_than_two_of_them(record: Record) -> None:
    """One image more or less is four times as much of a quarter of them."""
    assert judged(record, [row("regained", 0.6)], "regained", {0: 0.608}).verdict == "as recorded"
    assert judged(record, [row("regained", 0.6)], "regained", {0: 0.612}).verdict == "departs"


def test_three_seeds_are_judged_by_their_mean(record: Record) -> None:
    rows = [row("images", 0.3, seed) for seed in range(3)]
    assert judged(record, rows, "images", {0: 0.306, 1: 0.3, 2: 0.3}).verdict == "as recorded"
    assert judged(record, rows, "images", {0: 0.31, 1: 0.3, 2: 0.3}).verdict == "departs"
    assert judged(record, rows[:1], "images", {0: 0.3, 1: 0.9}).compared == [0], "seeds without a record say nothing"


def test_official_images_are_judged_by_their_copy_two_points_wider(record: Record) -> None:
    rows = [row("images", 0.3, data="cifar10-jpeg75"), row("ratio", 1.0, data="cifar10-jpeg75")]
    official = {"data": "cifar10", "digest": "other"}
    assert judged(record, rows, "images", {0: 0.319}, **official).verdict == "as recorded"
    assert judged(record, rows, "images", {0: 0.321}, **official).verdict == "departs"
    assert judged(record, rows, "ratio", {0: 1.039}, **official).verdict == "as recorded"
    own = [*rows, row("images", 0.5, data="cifar10", digest="other")]
    assert judged(record, own, "images", {0: 0.5}, **official).verdict == "as recorded"
    assert judged(record, own, "images", {0: 0.3}, **official).verdict == "departs"


def test_without_a_record_nothing_gates(record: Record) -> None:
    for rows in ([], [row("images", 0.3, data="cifar10-jpeg75")], [row("images", 0.3, 5)], [row("images", 0.3, digest="others")]):
        found = judged(record, rows, "images", {0: -1.0})
        assert (found.verdict, found.surprising) == ("misses", False)
        assert judged(record, rows, "images", {0: 1.0}).verdict == "meets"


def test_long_runs_never_gate(record: Record) -> None:
    assert known(record, [row("minutes", 0.3, tier="long")], "long", "standin") == {}
    assert not judged(record, [], "minutes", {0: -1.0}).surprising


def test_errors_and_no_numbers_gate_with_or_without_a_record(record: Record) -> None:
    for rows in ([], [row("images", 0.3)]):
        assert judged(record, rows, "images", {0: math.nan}).surprising
        assert replace(judged(record, rows, "images", {}), error="ValueError: no").surprising
    nan = judged(record, [row("images", 0.3, seed) for seed in range(3)], "images", {0: 0.3, 1: math.nan, 2: 0.3})
    assert nan.verdict == "error"


def test_the_bound_alone_judges_exact_claims(record: Record) -> None:
    assert judged(record, [row("exact", 0.9, tier="exact")], "exact", {0: 0.4}).verdict == "holds"
    assert judged(record, [], "exact", {0: 0.6}).surprising
    missed, met = judged(record, [], "missed", {0: 0.6}), judged(record, [], "missed", {0: 0.4})
    assert (missed.verdict, missed.surprising) == ("fails", False), "the entry says why"
    assert (met.verdict, met.surprising) == ("holds", True), "what meets its bound needs no reason"


def test_a_stale_record_judges_like_a_fresh_one(record: Record) -> None:
    assert judged(record, [row("images", 0.3, code="older")], "images", {0: 0.9}).verdict == "departs"


def test_a_page_says_what_the_terminal_would(record: Record) -> None:
    report = recorded(record, [row("images", 0.3), row("exact", 0.1, tier="exact")], "smoke", "standin")
    assert [(v.claim, v.verdict) for v in report.verdicts] == [("exact", "holds"), ("images", "as recorded")]
    assert report.compared == 1
    assert not Report("toy", "smoke", problem="no").good


def test_what_is_more_than_the_reference_is_said_unless_that_is_the_method_s_nature(record: Record) -> None:
    numbers = {
        "reference": {"multiply_adds": [1e6], "parameters": [1000.0], "file_bytes": [4000.0]},
        "method": {"multiply_adds": [3.3e6, 3.5e6], "parameters": [900.0], "file_bytes": [4010.0], "latency": [1.9]},
        "control_random": {"multiply_adds": [9e6], "latency": [9.0]},
    }
    report = Report("toy", "smoke", numbers=numbers)
    assert grown(record, report) == "3.40 times the multiply-adds, 1.90 times the time"
    assert "note: more than what it was made from: 3.40 times the multiply-adds" in as_text(record, report)
    executable = record.executable
    assert executable
    larger = replace(record, entry=executable.model_copy(update={"returns": "larger"}))
    assert grown(larger, report) == ""
    numbers["method"] = {"multiply_adds": [1e6], "latency": [1.2]}
    assert grown(record, report) == ""
    assert grown(record, Report("toy", "smoke")) == ""


# The verdict on a record


def effect(**fields: Any) -> Claim:
    return Claim.model_validate({"says": "A", "where": "B", "tier": "smoke", "kind": "effect", "against": "random", **fields})


POINTS = {"unit": "share of images"}


@pytest.mark.parametrize(
    ("fields", "values", "verdict"),
    [
        ({"at_least": 0, **POINTS}, [0.05, 0.06, 0.07], "holds"),
        ({"at_least": 0, **POINTS}, [-0.05, -0.06, -0.07], "fails"),
        ({"at_least": 0, **POINTS}, [0.01, 0.01, 0.01], "level"),  # three thousand images cannot tell one point
        ({"at_least": 0, **POINTS}, [0.01, -0.01, 0.0], "level"),
        ({"at_least": 0, **POINTS}, [0.2, 0.2], "undecided"),
        ({"at_least": 0, **POINTS}, [0.2, 0.2, math.nan], "fails"),
        ({"at_most": 0.5}, [0.4, 0.4, 0.4], "holds"),  # no count of images: the seeds alone tell
        ({"at_most": 0.5}, [0.4, 0.5, 0.45], "level"),
        ({"at_most": 0.5}, [0.6, 0.61, 0.62], "fails"),
        ({"paper": 8, "within": 0}, [8, 8, 8], "holds"),
        ({"paper": 8, "within": 1}, [8, 8.1, 7.9], "holds"),
        ({"paper": 8, "within": 1}, [7, 8, 9], "level"),
        ({"paper": 8, "within": 0.1}, [7.2, 8, 8.8], "level"),  # the interval holds the bound
        ({"paper": 8, "within": 1}, [5, 5.1, 5.2], "fails"),
    ],
)
def test_the_interval_judges(fields: dict[str, Any], values: list[float], verdict: str) -> None:
    claim = effect(**fields)
    assert judge(claim, claim.bounds()[None], values, 1000 * len(values)).verdict == verdict


def test_a_level_claim_says_what_could_have_been_seen() -> None:
    claim = effect(at_least=0, paper=0.008, **POINTS)
    found = judge(claim, claim.bounds()[None], [0.01] * 5, 5000)
    assert (found.verdict, round(found.half, 4), found.too_small) == ("level", 0.0196, True)
    claim = effect(at_least=0, paper=0.05, **POINTS)
    assert not judge(claim, claim.bounds()[None], [0.01] * 5, 5000).too_small


def test_an_exact_claim_is_judged_by_its_bound_alone() -> None:
    claim = Claim(says="A", where="B", tier="exact", kind="identity", at_most=1.0)
    assert [judge(claim, claim.bounds()[None], [value], 0).verdict for value in (1.0, 1.1, math.nan)] == ["holds", "fails", "fails"]


def test_an_interval_is_never_narrower_than_the_images_allow() -> None:
    """Two networks that are right on independent images have the largest error that a difference of shares can have."""
    generator, images = np.random.default_rng(0), 2_000
    for a, b in ((0.5, 0.5), (0.6, 0.4), (0.9, 0.1), (0.95, 0.9)):
        found = [np.mean(generator.random(images) < a) - np.mean(generator.random(images) < b) for _ in range(2_000)]
        assert np.std(found) <= 1.05 * sampling(effect(at_least=0, **POINTS), a - b, images)
    share = Claim(says="A", where="B", tier="smoke", kind="wiring", at_least=0, unit="share of images")
    assert sampling(share, 0.3, 1000) == pytest.approx(math.sqrt(0.3 * 0.7 / 1000))
    regained = effect(at_least=0, unit="share of the accuracy that was lost")
    assert sampling(regained, 0.5, 1000) > 3 * sampling(effect(at_least=0, **POINTS), 0.5, 1000), "of a quarter of the images"
    assert sampling(effect(at_most=1, unit="ratio"), 0.5, 1000) == 0


@pytest.mark.parametrize("freedom", [*range(1, 31), 100, 1000])
def test_quantiles_of_student_s_t(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-4)

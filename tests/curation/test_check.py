"""The checker, against a small catalogue that is right and a table of ways to break it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from catalog import Problem, parse
from scripts.curation.check import check, render, schema
from scripts.evidence.records import COLUMNS

SLIM, TUCKER, TOOL = "catalog/pruning/slim.yaml", "catalog/low_rank/tucker.yaml", "catalog/frameworks/tool.yaml"
SURVEY, TABLE, WORDS = "catalog/overviews/survey.yaml", "catalog/comparisons/table.yaml", "catalog/vocabulary.yaml"
METHOD, CLAIMS, MEASURED = "methods/pruning/slim.py", "methods/pruning/claims/slim.py", "catalog/measured/pruning/slim.csv"
ROW = "exact,claim_same,value,0.0,none,,0,cpu,1,3.12.1,2.9.0,abc,0123,2026-01-01T00:00:00Z"

GOOD = {
    WORDS: """\
datasets: {CIFAR-10: 60000 small images}
models: {ResNet-8: eight layers}
metrics: {top1_error: {name: Top-1 error, unit: "%", direction: lower}}
tags: {channel: whole channels go, rank: low rank}
""",
    SLIM: """\
name: Slim
title: Thinner networks
authors: [Ada Lovelace]
year: 2017
arxiv: "1708.06519"
tags: [channel]
start: trained
returns: smaller
builds_on: [tucker]
summary: Cut channels.
claims:
  same: {says: Nothing changes., where: §3, tier: exact, kind: wiring, at_most: 1.0e-5}
  counts: {says: Sizes., where: Table 1, tier: exact, kind: count, within: 2%, cases: {B0: {paper: 5.3}, B1: {paper: 7.8}}}
  better: {says: Beats random., where: §4, tier: smoke, kind: effect, against: random, at_least: 0.02}
results:
  - {dataset: CIFAR-10, model: ResNet-8, metric: top1_error, baseline: 6.34, result: 6.2, delta: -0.14, where: Table 1}
  - {dataset: CIFAR-10, model: ResNet-8, metric: top1_error, result: 7.1, params_before: 138, params_after: 11.3, params_kept: 0.082,
     where: Table 2}
""",
    TUCKER: """\
name: Tucker
title: Low rank
authors: [Charles Babbage]
year: 2016
doi: 10.1000/abc
formerly: [old_tucker]
summary: Decompose.
""",
    TOOL: """\
name: Tool
title: A tool
year: 2020
url: https://example.org
summary: A library.
techniques: [{name: Slimming, entry: slim}]
""",
    SURVEY: """\
name: Survey
title: A survey
authors: [Grace Hopper]
year: 2020
summary: Much.
covers: [slim]
""",
    TABLE: """\
title: Table
caption: As printed.
dataset: CIFAR-10
model: ResNet-8
source: {url: "https://example.org/table", label: table}
baseline: {top1: 93.52}
columns: [{id: d1, name: Change, unit: points, direction: higher, delta_of: top1}]
rows:
  - {method: Slim, entry: slim, values: {d1: -0.4}, result: {d1: 93.1}}
""",
    METHOD: '''\
"""Slim (Lovelace, 1843).

Departures: none.
"""

from dataclasses import dataclass

from methods.low_rank.tucker import rank


@dataclass(frozen=True)
class Config:
    cut: float = 0.7  # Table 1


def compress(model, task, config):
    return rank(model)


def control_random(model, task, config, like):
    return model
''',
    CLAIMS: '''\
"""The claims of Slim."""

from methods.pruning import slim as method


def claim_same(lab):
    return float(lab.trace("method") != [])


def claim_counts(lab, case):
    return 0.0


def claim_better(lab):
    return 0.0
''',
    "methods/kit/task.py": "class Task: ...\n",
    MEASURED: f"{','.join(COLUMNS)}\n{ROW}\n",
}
ROOT = Path(__file__).parents[2]
NOT_OURS = "this file is machine-written: restore it with git, or record again with `smallprint smoke --record`"


def plant(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("tree"), GOOD)


@contextmanager
def edited(tree: Path, file: str, content: str | bytes) -> Iterator[None]:
    """The shared tree with one other file: planting a new one for each row takes far longer than checking it."""
    plant(tree, {file: content})
    try:
        yield
    finally:
        (tree / file).unlink()
        if file in GOOD:
            plant(tree, {file: GOOD[file]})


def problems(root: Path) -> list[str]:
    return [str(problem) for problem in check(root)]


def test_the_good_tree_has_no_problem(tree: Path) -> None:
    assert problems(tree) == []


# name, file, text in it, what takes its place ("" for the text: the whole file), what must be said
BROKEN: list[tuple[str, str, str, str | bytes, list[str]]] = [
    ("unknown field", SLIM, "tags: [channel]", "tagz: [channel]",
     ["6: tagz: unknown field; remove it or correct its name; did you mean tags?"]),
    ("unknown nested field", SLIM, "at_least: 0.02", "atleast: 0.02",
     ["14: claims.better.atleast: unknown field; remove it or correct its name; did you mean at_least?"]),
    ("missing", SLIM, "title: Thinner networks\n", "", ["1: title: is missing; add it"]),
    ("missing nested", SLIM, ", where: Table 1}\n  - {dataset", "}\n  - {dataset", ["16: results.0.where: is missing; add it"]),
    ("arXiv as a number", SLIM, '"1708.06519"', "1708.06519", ["5: arxiv: must be text, got 1708.06519; put it in quotes"]),
    ("arXiv form", SLIM, '"1708.06519"', "arXiv:1708.06519",
     ['5: arxiv: \'arXiv:1708.06519\' does not have the form of an arXiv id such as "1708.06519"; correct it']),
    ("wrong literal", SLIM, "returns: smaller", "returns: smaler",
     ["8: returns: 'smaler' is not one of 'smaller', 'same' or 'larger'; did you mean smaller?"]),
    ("year in quotes", SLIM, "2017", '"2017"', ["4: year: must be a whole number, got '2017'; correct it"]),
    ("text for a list", SLIM, "[Ada Lovelace]", "Ada Lovelace", ["3: authors: must be a list, got 'Ada Lovelace'; correct it"]),
    ("no authors", SLIM, "[Ada Lovelace]", "[]", ["3: authors: is empty; add at least one"]),
    ("exponent without point", SLIM, "1.0e-5", "1e-5",
     ["12: claims.same.at_most: '1e-5' is text to YAML, which wants a point in such a number; write 1.0e-5"]),
    ("not finite", SLIM, "at_least: 0.02", "at_least: .nan",
     ["14: claims.better.at_least: must be a finite number of at most 100 characters; correct it"]),
    ("summary too long", SLIM, "Cut channels.", "x" * 701, ["10: summary: has 701 characters, at most 700 are allowed; shorten it"]),
    ("equation", SLIM, "claims:\n",
     "equations: [{tex: '\\frac{a}{', says: A., where: §1}, {tex: '\\unheard', says: A., where: §1}]\nclaims:\n",
     ["11: equations.0.tex: has an opening brace too many; correct it",
      "11: equations.1.tex: has the command \\unheard, which is not known; correct it"]),
    ("function of an equation", SLIM, "claims:\n", "equations:\n  - {tex: a, says: A., where: §1, function: compres}\nclaims:\n",
     ["12: equations.0.function: methods/pruning/slim.py has no function compres; did you mean compress?"]),
    ("equation without a program", TUCKER, "summary:", "equations: [{tex: a, says: A., where: §1, function: fit}]\nsummary:",
     ["7: equations.0.function: methods/low_rank/tucker.py has no function fit; correct or remove it"]),
    ("named twice", SLIM, "[channel]", "[channel, channel]", ["6: tags: names channel twice; keep one"]),
    ("no reference", SLIM, 'arxiv: "1708.06519"\n', "", ["1: a paper needs one of arxiv, doi, url; add one"]),
    ("no start", SLIM, "start: trained\n", "",
     ["1: has claims but not both start and returns; add start: trained | scratch and returns: smaller | same | larger"]),
    ("web address", TOOL, "https://example.org", "javascript:alert(1)",
     ["4: url: 'javascript:alert(1)' does not have the form of a web address (http:// or https://, then a host, without user name or"
      " password); correct it"]),
    ("claim name", SLIM, "  same:", "  Same-1:",
     ["12: claims.Same-1: 'Same-1' does not have the form of a slug: small letters, digits and _; correct it"]),
    ("two bounds", SLIM, "at_least: 0.02", "at_least: 0.02, at_most: 1.0",
     ["14: claims.better: needs exactly one of at_least, at_most, within, has at_least and at_most; keep one"]),
    ("no bound", SLIM, ", at_least: 0.02", "", ["14: claims.better: needs exactly one of at_least, at_most, within, has none; keep one"]),
    ("within without paper", SLIM, "at_least: 0.02", "within: 0.1",
     ["14: claims.better: within needs paper: add the number to be within of"]),
    ("within is no tolerance", SLIM, "within: 2%", "within: two",
     ['13: claims.counts.within: must be a number (absolute) or a percentage such as "2%" (relative)']),
    ("within is a list", SLIM, "within: 2%", "within: [2]", ["13: claims.counts.within: must be a number, got [2]; correct it"]),
    ("case with another bound", SLIM, "B0: {paper: 5.3}", "B0: {paper: 5.3, at_most: 6}",
     ["13: claims.counts: needs exactly one of at_least, at_most, within in case B0, has at_most and within; keep one"]),
    ("what nobody expects", SLIM, "at_least: 0.02", "at_least: 0.02, expected: fails",
     ["14: claims.better.expected: unknown field; remove it or correct its name"]),
    ("no kind", SLIM, "kind: count, ", "", ["13: claims.counts.kind: is missing; add it"]),
    ("another kind", SLIM, "kind: count", "kind: size",
     ["13: claims.counts.kind: 'size' is not one of 'effect', 'count', 'identity' or 'wiring'; correct it"]),
    ("an effect against nothing", SLIM, "against: random, ", "",
     ["14: claims.better: an effect needs against: name the control that it is measured against, or reference"]),
    ("an effect against a control that is not there", SLIM, "against: random", "against: chance",
     ["14: claims.better.against: methods/pruning/slim.py has no control_chance; write it, or name one of its controls or reference"]),
    ("an exact effect", SLIM, "kind: count", "kind: effect, against: random",
     ["13: claims.counts: an effect is measured on data; let its tier be smoke, long or full, or choose another kind"]),
    ("a count against a control", SLIM, "kind: count", "kind: count, against: random",
     ["13: claims.counts: against is for an effect, and this is of kind count; remove it or correct the kind"]),
    ("an identity that is the same as another", SLIM, "kind: count", "kind: identity, same_as: better",
     ["13: claims.counts: same_as is for an effect, and this is of kind identity; remove it or correct the kind"]),
    ("no wiring claim", SLIM, "kind: wiring", "kind: identity",
     ["11: claims: has no exact wiring claim; add one that compares the trace of compress with the paper's algorithm box"]),
    ("a method that is too long", METHOD, "Table 1\n", "Table 1\n" + "    # and on\n" * 150,
     ["1: has 157 lines, at most 150 are allowed; move to methods/kit what other methods need too, or say in the docstring which"
      " algorithms it has (Algorithms: …)"]),
    ("duplicate key", SLIM, "year: 2017\n", "year: 2017\nname: Slimmer\n", ["5: name is given twice; keep one"]),
    ("syntax: colon", SLIM, "Thinner networks", "Thin: networks",
     ["2: not YAML: mapping values are not allowed in this context; put text that holds ': ' in quotes, or correct the indentation"]),
    ("syntax: open bracket", SLIM, "[channel]", "[channel",
     ["7: not YAML: while parsing a flow sequence, did not find expected ',' or ']'; close the bracket, and put a comma between items"]),
    ("syntax: open quote", SURVEY, "Much.", "'Much.",
     ["5: not YAML: while scanning a quoted scalar, found unexpected end of stream; close the quote"]),
    ("syntax: at", SLIM, "Cut channels.", "@home",
     ["10: not YAML: while scanning for the next token, found character that cannot start any token; put text that begins with @,"
      " ` or % in quotes"]),
    ("tab", SLIM, "  same: {", "\tsame: {", ["12: not YAML: a tab; indent with spaces"]),
    ("not UTF-8", SLIM, "", b'name: Slim\ntitle: caf\xe9\n', ["2: not UTF-8; save the file in that encoding"]),
    ("control character", SLIM, "Cut channels.", "Cut\x00",
     ["10: not YAML: unacceptable character #x0000: control characters are not allowed; remove that character"]),
    ("alias", SLIM, "", "name: &a Slim\ntitle: *a\n", ["2: aliases (*name) are not used here; write the value out"]),
    ("empty", SLIM, "", "", ["1: the file is empty; write its fields or delete it"]),
    ("only a comment", SLIM, "", "# nothing\n", ["1: the file is empty; write its fields or delete it"]),
    ("a list", SLIM, "", "- name\n", ["1: must be fields and values, got list; write name: value"]),
    ("two documents", SURVEY, "covers: [slim]\n", "---\ncovers: [slim]\n", ["6: a second document begins here; remove the line ---"]),
    ("too deep", SLIM, "", "[" * 100_000, ["1: nested more than 50 levels deep; flatten it"]),
    ("bad tag", SLIM, "2017", "!!int ''", ["4: cannot read the value: string index out of range; put it in quotes"]),
    ("code in a tag", SLIM, "Cut channels.", "!!python/name:os.system x",
     ["10: cannot read the value: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'; put it"
      " in quotes"]),
    ("file name", "catalog/pruning/Bad-Name.yaml", "", "x: 1\n",
     ["1: an entry's file is called <slug>.yaml: small letters, digits and _; rename it",
      "1: authors: is missing; add it",
      "1: name: is missing; add it",
      "1: summary: is missing; add it",
      "1: title: is missing; add it",
      "1: x: unknown field; remove it or correct its name",
      "1: year: is missing; add it"]),
    ("suffix", "catalog/pruning/other.yml", "", GOOD[TUCKER].replace("10.1000/abc", "10.1000/abd"),
     ["1: an entry's file is called <slug>.yaml: small letters, digits and _; rename it"]),
    ("folder", "catalog/prunning/other.yaml", "", "x: 1\n",
     ["1: is in none of the folders low_rank, pruning, distillation, quantization, architecture, frameworks, overviews, lists, "
      "comparisons; move or remove it; did you mean pruning?"]),
    ("two families", "catalog/quantization/slim.yaml", "", GOOD[TUCKER].replace("10.1000/abc", "10.1000/abd"),
     ["1: the id slim is taken by catalog/pruning/slim.yaml; rename one"]),
    ("table's file name", "catalog/comparisons/other.yml", "", GOOD[TABLE],
     ["1: a table's file is called <slug>.yaml: small letters, digits and _; rename it"]),
    ("table: value without column", TABLE, "values: {d1: -0.4}", "values: {d2: 1}",
     ["1: row 'Slim' has values for d2, which is no column; add the column or remove the value"]),
    ("vocabulary broken", WORDS, "tags: {", "tags: [",
     ["4: not YAML: while parsing a flow sequence, did not find expected ',' or ']'; close the bracket, and put a comma between items"]),
    ("unknown tag", SLIM, "[channel]", "[chanel]",
     ["6: tags.0: 'chanel' is not among the known tags; did you mean channel? If not, correct it or add it to catalog/vocabulary.yaml"]),
    ("unknown tag, nothing near", SLIM, "[channel]", "[channel, zzz]",
     ["6: tags.1: 'zzz' is not among the known tags; correct it or add it to catalog/vocabulary.yaml"]),
    ("unknown dataset", SLIM,
     "{dataset: CIFAR-10, model: ResNet-8, metric: top1_error, baseline",
     "{dataset: CIFAR10, model: ResNet-8, metric: top1_error, baseline",
     ["16: results.0.dataset: 'CIFAR10' is not among the known datasets; did you mean CIFAR-10? If not, correct it or add it to"
      " catalog/vocabulary.yaml"]),
    ("unknown model", SLIM, "model: ResNet-8, metric: top1_error, baseline", "model: ResNet8, metric: top1_error, baseline",
     ["16: results.0.model: 'ResNet8' is not among the known models; did you mean ResNet-8? If not, correct it or add it to"
      " catalog/vocabulary.yaml"]),
    ("unknown metric", SLIM, "top1_error, baseline", "error_rate, baseline",
     ["16: results.0.metric: 'error_rate' is not among the known metrics; correct it or add it to catalog/vocabulary.yaml"]),
    ("table: unknown dataset", TABLE, "CIFAR-10", "ImageNet",
     ["3: dataset: 'ImageNet' is not among the known datasets; correct it or add it to catalog/vocabulary.yaml"]),
    ("table: unknown model", TABLE, "ResNet-8", "ResNet-9",
     ["4: model: 'ResNet-9' is not among the known models; did you mean ResNet-8? If not, correct it or add it to"
      " catalog/vocabulary.yaml"]),
    ("builds on nothing", TUCKER, "summary", "builds_on: [slimm]\nsummary",
     ["7: builds_on.0: there is no entry slimm; did you mean slim?"]),
    ("compared with nothing", TUCKER, "summary", "compared_with: [zzz]\nsummary",
     ["7: compared_with.0: there is no entry zzz; write it or remove the name"]),
    ("former name", SURVEY, "[slim]", "[old_tucker]", ["6: covers.0: there is no entry old_tucker; it is now called tucker"]),
    ("two former names", SURVEY, "summary", "formerly: [old_tucker]\nsummary",
     ["5: formerly.0: tucker was formerly old_tucker too; remove one"]),
    ("covers nothing", SURVEY, "[slim]", "[slim, tucke]", ["6: covers.1: there is no entry tucke; did you mean tucker?"]),
    ("technique is nothing", TOOL, "entry: slim", "entry: slam", ["6: techniques.0.entry: there is no entry slam; did you mean slim?"]),
    ("table: row is nothing", TABLE, "entry: slim", "entry: slimm", ["9: rows.0.entry: there is no entry slimm; did you mean slim?"]),
    ("names itself", TUCKER, "summary", "builds_on: [tucker]\nsummary", ["7: builds_on.0: an entry cannot name itself; remove it"]),
    ("circle", TUCKER, "summary", "builds_on: [slim]\nsummary",
     ["catalog/pruning/slim.yaml:9: builds_on.0: goes in a circle, slim -> tucker -> slim; remove one of these"]),
    ("formerly an entry", SURVEY, "summary", "formerly: [tucker]\nsummary", ["5: formerly.0: tucker is an entry today; remove it here"]),
    ("the family's address", "catalog/overviews/index.yaml", "", GOOD[SURVEY],
     ["1: index is the page of the whole family; rename the file"]),
    ("a page's address", "catalog/comparisons/measured.yaml", "", GOOD[TABLE],
     ["1: measured is a page of all comparisons; rename the file"]),
    ("same DOI", SLIM, 'arxiv: "1708.06519"', "doi: 10.1000/ABC",
     ["5: doi: 10.1000/ABC is in catalog/low_rank/tucker.yaml already; remove one entry or correct the number"]),
    ("same arXiv id", TUCKER, "doi: 10.1000/abc", 'arxiv: "1708.06519"',
     ["catalog/pruning/slim.yaml:5: arxiv: 1708.06519 is in catalog/low_rank/tucker.yaml already; remove one entry or correct the"
      " number"]),
    ("arXiv's DOI", TUCKER, "10.1000/abc", "10.48550/arXiv.1708.06519",
     ["catalog/pruning/slim.yaml:5: arxiv: 1708.06519 is in catalog/low_rank/tucker.yaml already; remove one entry or correct the"
      " number"]),
    ("claim without function", CLAIMS, "def claim_same(lab)", "def same(lab)",
     ["catalog/pruning/slim.yaml:12: claims.same: methods/pruning/claims/slim.py has no claim_same; write it or remove the claim"]),
    ("misspelt function", CLAIMS, "claim_same", "claim_sane",
     ["catalog/pruning/slim.yaml:12: claims.same: methods/pruning/claims/slim.py has no claim_same; did you mean claim_sane?",
      "6: claim_sane: catalog/pruning/slim.yaml has no claim sane; did you mean same?"]),
    ("function without claim", CLAIMS, "def claim_better", "def claim_other(lab):\n    return 0.0\n\n\ndef claim_better",
     ["14: claim_other: catalog/pruning/slim.yaml has no claim other; add the claim or remove the function"]),
    ("case too many", CLAIMS, "def claim_same(lab)", "def claim_same(lab, case)",
     ["6: claim_same: takes (lab, case), but its claim has no cases; let it take (lab)"]),
    ("case missing", CLAIMS, "def claim_counts(lab, case)", "def claim_counts(lab)",
     ["10: claim_counts: takes (lab), but its claim has cases; let it take (lab, case)"]),
    ("no lab", CLAIMS, "def claim_same(lab)", "def claim_same()",
     ["6: claim_same: takes (), but its claim has no cases; let it take (lab)"]),
    ("claims file gone", CLAIMS, GOOD[CLAIMS], "def", ["1: not Python: invalid syntax; correct it"]),
    ("claims without their method's file", "methods/pruning/claims/other.py", "", "x = 1\n",
     ["1: methods/pruning/other.py is missing; write it or remove this file"]),
    ("a method that imports claims", METHOD, "from dataclasses", "from methods.pruning.claims import slim\nfrom dataclasses",
     ["6: import: nothing may import methods.pruning.claims; claims import methods, never the other way round"]),
    ("claims that import a stranger", CLAIMS, "from methods.pruning import", "from methods.pruning import fat\nfrom methods.pruning import",
     ["3: import: fat is neither in builds_on nor in compared_with of catalog/pruning/slim.yaml; add it there or do without it"]),
    ("claims without method", TUCKER,
     "summary",
     "start: trained\nreturns: same\nclaims: {a: {says: A., where: B, tier: exact, kind: identity, at_most: 1}}\nsummary",
     ["9: claims: methods/low_rank/tucker.py is missing; write it or remove the claims"]),
    ("method without entry", "methods/pruning/other.py", "", GOOD[METHOD].replace("from methods.low_rank.tucker import rank", ""),
     ["1: catalog/pruning/other.yaml is missing; write it or remove this file"]),
    ("method in the wrong family", "methods/quantization/tucker.py", "", GOOD[METHOD],
     ["1: the entry is in low_rank; move this file to methods/low_rank/tucker.py"]),
    ("method in no family", "methods/prunning/slim2.py", "", GOOD[METHOD], ["1: prunning is no family of methods; did you mean pruning?"]),
    ("too few claims", SLIM, "tier: smoke", "tier: long",
     ["11: claims: 2 exact and 0 smoke are too few; a method has at least two exact claims and one smoke claim"]),
    ("no docstring", METHOD, '"""Slim (Lovelace, 1843).\n\nDepartures: none.\n"""\n', "",
     ["1: docstring: is missing; write name, authors and venue, then the idea, then Departures:"]),
    ("no departures", METHOD, "Departures: none.", "Nothing departs.",
     ['1: docstring: has no "Departures:" from the paper; add what differs, or "Departures: none."']),
    ("empty departures", METHOD, "Departures: none.", "Departures:",
     ['1: docstring: has no "Departures:" from the paper; add what differs, or "Departures: none."']),
    ("no compress", METHOD, "def compress", "def squeeze", ["1: compress: is missing; write compress(model, task, config)"]),
    ("compress arguments", METHOD, "def compress(model, task, config)", "def compress(model, config)",
     ["16: compress: takes (model, config); let it take (model, task, config)"]),
    ("no Config", METHOD, "class Config", "class Settings",
     ["1: Config: is missing; write a frozen dataclass with the paper's numbers as defaults"]),
    ("Config without default", METHOD, "cut: float = 0.7", "cut: float", ["13: Config.cut: has no default; give it the paper's value"]),
    ("no control", METHOD, "def control_random", "def random",
     ["1: control: there is none; write control_<name>(model, task, config, like), the naive alternative"]),
    ("control arguments", METHOD, "def control_random(model, task, config, like)", "def control_random(model, task, config)",
     ["20: control_random: takes (model, task, config); let it take (model, task, config, like)"]),
    ("syntax error", METHOD, "def compress(", "def compress((",
     ["16: not Python: Function parameters cannot be parenthesized; correct it"]),
    ("method not UTF-8", METHOD, "", b'"""caf\xe9"""', ["1: not UTF-8; save the file in that encoding"]),
    ("null byte", METHOD, "", "x = '\x00'", ["1: holds the character U+0000, which no page can hold; remove it or write its escape"]),
    ("unrelated import", METHOD,
     "from methods.low_rank.tucker import rank",
     "import methods.low_rank.tucker\nfrom methods.quantization import bits",
     ["9: import: bits is neither in builds_on nor in compared_with of catalog/pruning/slim.yaml; add it there or do without it"]),
    ("import from scripts", METHOD, "    return rank(model)", "    from scripts.evidence.records import Row\n    return Row",
     ["17: import: a method may not import scripts.evidence.records; move what it needs to methods/kit"]),
    ("delta", SLIM, "delta: -0.14", "delta: 0.14",
     ["16: results.0.delta: is 0.14, but result - baseline is -0.14; correct one or remove delta"]),
    ("params_kept", SLIM, "params_kept: 0.082", "params_kept: 0.09",
     ["17: results.1.params_kept: is 0.09, but params_after / params_before is 0.08188; correct one or remove params_kept"]),
    ("madds_kept", SLIM,
     "params_before: 138, params_after: 11.3, params_kept: 0.082",
     "madds_before: 10.0, madds_after: 2.5, madds_kept: 0.4",
     ["17: results.1.madds_kept: is 0.4, but madds_after / madds_before is 0.25; correct one or remove madds_kept"]),
    ("table: delta", TABLE, "d1: -0.4}", "d1: -0.5}", ["9: rows.0.values.d1: is -0.5, but result - baseline is -0.42; correct one"]),
    ("table: no baseline", TABLE, "{top1: 93.52}", "{top5: 93.52}",
     ["7: columns.0.delta_of: top1 is not in the table's baseline; did you mean top5?"]),
    ("table: result of no delta", TABLE, "result: {d1: 93.1}", "result: {top1: 93.1}",
     ["9: rows.0.result.top1: top1 is no column with delta_of; add delta_of to the column or remove the number"]),
    ("networks: damaged", "catalog/networks.csv", "", "network,id\n",
     ["1: damaged: the columns must be network,family,id,outcome,said; this file is machine-written: restore it with git, "
      "or make it again with `smallprint networks --record`"]),
    ("networks: no such method", "catalog/networks.csv", "", "network,family,id,outcome,said\nvit,pruning,gone,works,\n",
     ["2: gone: is no method; this file is machine-written: restore it with git, "
      "or make it again with `smallprint networks --record`"]),
    ("links: damaged", "catalog/links.json", "", '{"https://example.org/": {"verdict": "fine"}}',
     ["1: damaged: https://example.org/: verdict: Input should be 'alive', 'moved', 'gone', 'unreachable' or 'refused'; "
      "this file is machine-written: restore it with git, or delete it and run `smallprint links`"]),
    ("measured: header", MEASURED, "tier,", "tear,",
     [f"1: the columns must be tier,subject,metric,value,data,data_digest,seed,device,threads,python,torch,commit,code,date; {NOT_OURS}"]),
    ("measured: number", MEASURED, ",0.0,", ",half,", [f"2: could not convert string to float: 'half'; {NOT_OURS}"]),
    ("measured: no entry", "catalog/measured/pruning/other.csv", "", "x\n",
     ["1: there is no entry catalog/pruning/other.yaml; rename or remove this file"]),
    ("measured: wrong family", "catalog/measured/low_rank/slim.csv", "", "x\n",
     ["1: there is no entry catalog/low_rank/slim.yaml; rename or remove this file"]),
    ("measured: not UTF-8", MEASURED, "", b'\xff\n',
     [f"1: not UTF-8; {NOT_OURS}"]),
    ("measured: no claim", MEASURED, "claim_same", "claim_sane", ["2: subject: claim_sane: there is no claim sane; remove its rows"]),
    ("measured: other tier", MEASURED, "exact,claim_same", "smoke,claim_same",
     ["2: subject: claim_same: claim same is of the tier exact, not smoke; remove its rows"]),
    ("measured: no case", MEASURED, "claim_same", "claim_counts[B7]",
     ["2: subject: claim_counts[B7]: claim counts has no case B7; remove its rows"]),
    ("measured: case missing", MEASURED, "claim_same", "claim_counts",
     ["2: subject: claim_counts: claim counts has cases; remove its rows"]),
    ("measured: case too many", MEASURED, "claim_same", "claim_same[B0]",
     ["2: subject: claim_same[B0]: claim same has no cases; remove its rows"]),
    ("measured: no control", MEASURED, "claim_same", "control_naive",
     ["2: subject: control_naive: the method has no control_naive; remove its rows"]),
    ("measured: no sweep", MEASURED, "exact,claim_same", "sweep,method@0",
     ["2: subject: method@0: the method has no SWEEP; remove its rows"]),
    ("measured: no subject", MEASURED, "claim_same", "teacher", ["2: subject: teacher: is no subject of a measurement; remove its rows"]),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken(tree: Path, file: str, old: str, new: str | bytes, said: list[str]) -> None:
    before = GOOD.get(file, "")
    assert not old or before.count(old) == 1
    after = before.replace(old, new) if old and isinstance(new, str) else new
    with edited(tree, file, after):
        assert problems(tree) == [f"{file}:{line}" if line[0].isdigit() else line for line in said]


HUGE = {
    "decimal": "9" * 5000, "hexadecimal": "0x" + "f" * 6000, "octal": "0" + "7" * 6000, "binary": "0b" + "1" * 20_000,
    "base 60": "1" + ":59" * 100_000, "base 60, broken": "1" + ":59" * 100_000 + ".5", "exponent": "1.0e+999999", "infinite": "-.inf",
    "no number": ".nan", "tagged": f'!!int "{"9" * 5000}"', "zeros": "1." + "0" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("number", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize(
    ("file", "old", "new", "field"),
    [
        (SLIM, "year: 2017", "year: {}", "4: year"),
        (SLIM, "at_least: 0.02", "at_least: {}", "14: claims.better.at_least"),
        (SLIM, "within: 2%", "within: {}", "13: claims.counts.within"),
        (SLIM, "params_before: 138", "params_before: {}", "17: results.1.params_before"),
        (SLIM, "summary: Cut channels.", "summary: {}", "10: summary"),
        (TABLE, "d1: -0.4", "d1: {}", "9: rows.0.values.d1"),
    ],
)
def test_numbers_without_end_are_one_line(tree: Path, file: str, old: str, new: str, field: str, number: str) -> None:
    assert GOOD[file].count(old) == 1
    with edited(tree, file, GOOD[file].replace(old, new.format(number))):
        assert problems(tree) == [f"{file}:{field}: must be a finite number of at most 100 characters; correct it"]


def test_a_tolerance_of_more_than_everything(tree: Path) -> None:
    for share in ("101%", "9" * 400 + "%"):
        with edited(tree, SLIM, GOOD[SLIM].replace("2%", share)):
            assert problems(tree) == [f"{SLIM}:13: claims.counts.within: must be at most 100%, or hardly any number fails; correct it"]


UNFIT = {
    "control": "\\e", "bell": "\\a", "C1": "\\x9b", "separator": "\\u2028", "override": "\\u202E", "isolate": "\\u2066", "none": "\\uFFFE",
}  # fmt: skip


@pytest.mark.parametrize("escape", UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize(
    ("file", "old", "new", "field"),
    [
        (SLIM, "title: Thinner networks", 'title: "Thin{}ner"', "2: title: "),
        (SLIM, "[Ada Lovelace]", '["Ada{}"]', "3: authors.0: "),
        (SLIM, "summary: Cut channels.", 'summary: "Cut{}"', "10: summary: "),
        (SLIM, "summary: Cut channels.", 'summary: Cut.\n"sum{}mary": Cut.', "11: sum{}mary: its name "),
        (SLIM, "claims:", 'equations: [{{tex: "a{}", says: A, where: B}}]\nclaims:', "11: equations.0.tex: "),
        (SLIM, "where: §4", 'where: "§{}4"', "14: claims.better.where: "),
        (SLIM, "{{B0: {{paper: 5.3}}, B1", '{{"B0{}": {{paper: 5.3}}, B1', "13: claims.counts.cases.B0{}: its name "),
        (TABLE, "title: Table", 'title: "Table{}"', "1: title: "),
        (TABLE, "method: Slim", 'method: "Sl{}im"', "9: rows.0.method: "),
        (WORDS, "rank: low rank", 'rank: "low{}"', "4: tags.rank: "),
        (WORDS, "{{ResNet-8:", '{{ResNet-8: ok, "ResNet{}9":', "2: models.ResNet{}9: its name "),
    ],
)
def test_characters_that_no_page_can_hold_are_one_line(tree: Path, file: str, old: str, new: str, field: str, escape: str) -> None:
    old = old.format()
    assert GOOD[file].count(old) == 1
    character = str(parse(f'"{escape}"')[0])
    with edited(tree, file, GOOD[file].replace(old, new.format(escape))):
        found = check(tree)
    said = f"holds the character U+{ord(character):04X}, which no page can hold; remove it"
    assert list(map(str, found)) == [f"{file}:{field.format(repr(character)[1:-1])}{said}"]
    for format in ("text", "json", "github"):
        assert character not in render(found, format)
        assert format == "json" or "\n" not in render(found, format)


@pytest.mark.parametrize("text", ["\\u200b\\u200d", "\\ufeff", "\\u3164", "\\u0301", "\\u2800"])
def test_text_that_cannot_be_seen_is_none(tree: Path, text: str) -> None:
    for file, old in ((SLIM, "Thinner networks"), (TABLE, "As printed."), (WORDS, "eight layers")):
        with edited(tree, file, GOOD[file].replace(old, f'"{text}"')):
            (said,) = problems(tree)
        assert said.endswith("holds only characters that are not seen; fill it in, or remove it")


@pytest.mark.parametrize("format", ["text", "json", "github"])
def test_nothing_in_a_file_forges_a_line(tmp_path: Path, format: str) -> None:
    forged = "x\n::error file=README.md,line=1::not from us\x1b[2J"
    key = json.dumps(forged)
    files = {**GOOD, SLIM: f"{key}: 1\n", TUCKER: f"{key}: 1\n{key}: 1\n", f"catalog/pruning/{forged.replace('/', '')}.yaml": "name: x\n"}
    found = check(plant(tmp_path, files))
    lines = render(found, format).splitlines()
    assert sum("not from us" in line for line in lines) >= 3
    assert not [line for line in lines if line.startswith("::error file=README") or not line.isprintable()]
    assert format == "json" or len(lines) == len(found)


NO_ADDRESSES = (
    *("http://", "https:///x", "https://:80/", "https://?x", "https://#x", "https://./x", "ftp://example.org", "https://["),
    *("https://a@example.org", "https://a:b@example.org/", "https://exa mple.org/", "https://example.org/a b", "https://\\example.org"),
    *("https://example.org:x/", "https://example.org:99999/", "https://[1::2::3]/"),
)
ADDRESSES = ("http://example.org:8080/a@b?c=d#e", "https://bücher.example/", "http://[::1]:80/", "https://a_b.example", "http://10.0.0.1")


@pytest.mark.parametrize("word", NO_ADDRESSES)
def test_addresses_have_a_host_and_no_password(tree: Path, word: str) -> None:
    with edited(tree, TOOL, GOOD[TOOL].replace("https://example.org", f"'{word}'")):
        (said,) = problems(tree)
    assert said.startswith(f"{TOOL}:4: url: ")
    assert "web address" in said


@pytest.mark.parametrize("word", ADDRESSES)
def test_addresses_that_are_fine(tree: Path, word: str) -> None:
    with edited(tree, TOOL, GOOD[TOOL].replace("https://example.org", f"'{word}'")):
        assert problems(tree) == []


def _many(count: int, form: str) -> str:
    return ", ".join(form.format(number) for number in range(count))


BETTER, PRINTED = (
    "{says: A, where: B, tier: exact, kind: identity, at_least: 0}",
    "{dataset: CIFAR10, model: Net, metric: top, result: 1, where: T}",
)
LONG = {
    "authors": (SLIM, "[Ada Lovelace]", f"[{_many(60_000, 'A{}')}]", 1),
    "authors that fit": (SLIM, "[Ada Lovelace]", f"[{_many(4_800, 'A{}')}]", 0),
    "tags": (SLIM, "[channel]", f"[{_many(4_800, 'chanel{}')}]", 4_800),
    "one tag": (SLIM, "[channel]", f"[{'channel' * 100_000}]", 1),
    "names of entries": (SLIM, "[tucker]", f"[tucker, {_many(4_800, 'tuck{}')}]", 4_800),
    "unknown fields": (SLIM, "arxiv:", "".join(f"summ{n}: 1\n" for n in range(4_800)) + "arxiv:", 4_800),
    "cases": (SLIM, "B1: {paper: 7.8}", f"B1: {{paper: 7.8}}, {_many(2_300, 'C{}: {{paper: 1}}')}", 0),
    "claims": (SLIM, "claims:\n", "claims:\n" + "".join(f"  bet{n}: {BETTER}\n" for n in range(800)), 800),
    "results": (SLIM, "results:\n", "results:\n" + 700 * f"  - {PRINTED}\n", 2_100),
    "rows": (TABLE, "rows:", "rows:\n" + 1_200 * "  - {method: Slim, entry: slam, values: {}}\n", 1_200),
}


@pytest.mark.parametrize(("file", "old", "new", "count"), LONG.values(), ids=LONG)
def test_long_lists_take_no_minutes(tree: Path, file: str, old: str, new: str, count: int) -> None:
    assert GOOD[file].count(old) == 1
    started = time.process_time()
    with edited(tree, file, GOOD[file].replace(old, new)):
        assert len(problems(tree)) == count
    assert time.process_time() - started < 4  # one takes half a second, and they took minutes


def test_several_broken_files_are_reported_at_once(tmp_path: Path) -> None:
    broken: dict[str, str | bytes] = {
        **GOOD,
        WORDS: GOOD[WORDS].replace("unit", "units"),
        SLIM: "name: [",
        TUCKER: b"\xff",
        TABLE: "",
        METHOD: "def",
        CLAIMS: "def",
        "methods/low_rank/tucker.py": "",
        MEASURED: "x",
    }
    found = check(plant(tmp_path, broken))
    assert found == sorted(found)
    assert {problem.path for problem in found} == broken.keys() - {TOOL, SURVEY, CLAIMS, "methods/kit/task.py"}
    assert not [problem for problem in found if "there is no entry" in problem.message], "an unreadable entry is still an entry"


def test_a_missing_vocabulary_is_one_problem(tmp_path: Path) -> None:
    files = {name: text for name, text in GOOD.items() if name != WORDS}
    assert problems(plant(tmp_path, files)) == [f"{WORDS}:1: cannot be opened: No such file or directory; restore it"]


def test_every_circle_is_reported(tmp_path: Path) -> None:
    entry = "name: {0}\ntitle: T\nauthors: [A]\nyear: 2000\nurl: https://example.org\nsummary: S.\nbuilds_on: [{1}]\n"
    around = {"a": "b", "b": "c", "c": "a", "d": "e", "e": "d"}
    files = {f"catalog/pruning/{id}.yaml": entry.format(id, other) for id, other in around.items()}
    assert problems(plant(tmp_path, {WORDS: GOOD[WORDS], **files})) == [
        "catalog/pruning/a.yaml:7: builds_on.0: goes in a circle, a -> b -> c -> a; remove one of these",
        "catalog/pruning/d.yaml:7: builds_on.0: goes in a circle, d -> e -> d; remove one of these",
    ]


@pytest.mark.parametrize(
    ("parts", "agrees"),
    [
        ("baseline: 93.52, result: 93.0, delta: -0.5", True),  # 93.0 was printed as 93.00, and -0.52 rounds to -0.5
        ("baseline: 93.52, result: 93.0, delta: -0.52", True),
        ("baseline: 93.52, result: 93.0, delta: -0.6", False),
        ("baseline: 6.34, result: 6.2, delta: -0.15", True),  # unrounded, 6.344 and 6.196 give -0.148
        ("baseline: 6.34, result: 6.2, delta: -0.16", False),
        ("baseline: 6.34, result: 6.2, delta: 0.14", False),
        ("baseline: 70, result: 69, delta: -1.4", True),
        ("result: 69, delta: -1.4", True),
        ("result: 69, params_before: 138, params_after: 11.3, params_kept: 0.0819", True),
        ("result: 69, params_before: 138, params_after: 11.3, params_kept: 0.0827", False),
        ("result: 69, params_before: 2, params_after: 2, params_kept: 1", True),
        ("result: 69, params_before: 2.0, params_after: 1.2, params_kept: 1.0", False),
        ("result: 69, params_before: 0.27, params_after: 0.085, params_kept: 0.32", True),
        ("result: 69, madds_before: 0.3, params_after: 0.1, madds_kept: 0.9", True),  # parts are missing: nothing to compare
    ],
)
def test_derived_numbers_allow_for_rounding(tree: Path, parts: str, agrees: bool) -> None:
    with edited(tree, SLIM, GOOD[SLIM].replace("baseline: 6.34, result: 6.2, delta: -0.14", parts)):
        found = problems(tree)
    assert (found == []) == agrees
    assert len(found) <= 1


def test_text_and_json() -> None:
    found = [Problem("a.yaml", 3, "tags.0", "no; yes"), Problem("b.py", 1, "", "é")]
    assert render(found) == "a.yaml:3: tags.0: no; yes\nb.py:1: é"
    assert json.loads(render(found, "json")) == [
        {"path": "a.yaml", "line": 3, "field": "tags.0", "message": "no; yes"},
        {"path": "b.py", "line": 1, "field": "", "message": "é"},
    ]
    assert render([]) == ""
    assert json.loads(render([], "json")) == []


def test_github_commands_cannot_be_broken_out_of() -> None:
    found = [Problem("a,b:c.yaml", 3, "title", "100%\r\n::error::gotcha")]
    assert render(found, "github") == "::error file=a%2Cb%3Ac.yaml,line=3::title: 100%25\\r\\n::error::gotcha"


def test_a_quantity_may_have_no_unit(tree: Path) -> None:
    for file, unit in ((WORDS, ' unit: "%",'), (TABLE, " unit: points,")):
        text = GOOD[file].replace(unit, "")
        kind = "vocabulary" if file == WORDS else "comparison"
        jsonschema.Draft202012Validator(schema()[kind]).validate(parse(text)[0])
        with edited(tree, file, text):
            assert problems(tree) == []
        with edited(tree, file, GOOD[file].replace(unit, " unit: ,")):
            (said,) = problems(tree)
        assert said.endswith("unit: is empty; fill it in, or remove it")


def test_unknown_format() -> None:
    with pytest.raises(ValueError, match="there is no format 'xml'; use text, json or github"):
        render([], "xml")


def test_schema_accepts_what_the_loader_accepts() -> None:
    exported = schema()
    assert set(exported) == {"paper", "framework", "overview", "list", "comparison", "vocabulary"}
    for kind, file in (("paper", SLIM), ("framework", TOOL), ("overview", SURVEY), ("comparison", TABLE), ("vocabulary", WORDS)):
        jsonschema.Draft202012Validator.check_schema(exported[kind])
        jsonschema.Draft202012Validator(exported[kind]).validate(parse(GOOD[file])[0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(exported["paper"]).validate({"name": "Slim"})


def test_checking_needs_neither_torch_nor_network() -> None:
    code = "import sys, pathlib; from scripts.curation.check import check; check(pathlib.Path('.')); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not {"torch", "numpy", "requests", "rich", "typer"} & set(loaded)

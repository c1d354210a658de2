"""The measured half of an entry's page: claims with their verdicts, numbers, their place among others, where they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from catalog import Record
from catalog.schema import Claim
from scripts.evidence.facts import Condition, Facts, Finding, Measured, word
from scripts.evidence.outcome import Word, counted
from scripts.evidence.records import ROUNDING, Row
from scripts.evidence.source import Source
from scripts.evidence.text import code, escape  # fmt: skip
from scripts.website import entry_code, entry_ledger
from scripts.website.charts import charts
from scripts.website.markup import figure, inside, raw_table, section
from scripts.website.names import (
    COSTS,
    anchor,
    bound_text,
    condition_name,
    data_name,
    in_unit,
    origin,
    path_of,
    seeds,
    stale_mark,
    subject_name,
)
from scripts.website.numbers import NONE, fixed, plain, plural, quantity, spread, times

QUANTITIES = {  # name, explanation; what is really measured first, then what is counted
    "accuracy": ("Accuracy", "share of test images, after the last step"),
    "latency": ("Time", "over the reference's, one thread, batch of 16"),
    "parameters": ("Parameters", "numbers in the network"),
    "nonzeros": ("Non-zeros", "of these"),
    "bits": ("Bits", "stored per weight, scales included"),
    "multiply_adds": ("Multiply-adds", "for one image, attention included"),
    "bit_operations": ("Bit operations", "multiply-adds times both bit widths"),
    "file_bytes": ("File", "written and read back"),
}
CLAIM_COLUMNS = ("Measured on", "Printed", "We measure", "Must be", "Verdict")  # the style sheet repeats three of them for phones
MEASURED, COUNTED = ("accuracy", "latency"), ("parameters", "nonzeros", "bits", "multiply_adds", "bit_operations", "file_bytes")


def verdict_mark(finding: Finding | None) -> str:
    """A verdict in words and colour, with what could have been seen where nothing is decided."""
    if finding is None:
        return '<span class="sp-verdict sp-open">not measured</span>'
    judged, stale = finding.judged, stale_mark(finding.sample.stale)
    if not finding.evidence:
        return f'<span class="sp-verdict sp-open">no evidence</span>{stale}'
    if finding.verdict == "undecided":
        return f'<span class="sp-verdict sp-open">undecided: {seeds(finding.sample)}</span>{stale}'
    if finding.verdict == "level":
        small = "; too small to see here" if judged.too_small else ""
        return f'<span class="sp-verdict sp-level">level</span>{stale}<br><small>{resolution(finding)}{small}</small>'
    return f'<span class="sp-verdict sp-{finding.verdict}">{finding.verdict}</span>{stale}'


def resolution(finding: Finding) -> str:
    """What could have been seen: "±1.9 points; the paper prints 0.8"."""
    unit, paper = finding.said.unit, finding.bound.paper
    printed = f"; the paper prints {in_points(paper, unit)}" if paper is not None else ""
    return f"±{in_points(finding.judged.half, unit)}{' points' if counted(unit) else ''}{printed}"


def in_points(value: float, unit: str | None) -> str:
    """A share of images in points, anything else as it is."""
    return fixed(100 * value, 1) if counted(unit) else plain(value, 3)


def size(finding: Finding) -> str:
    """An effect's size against print: "4.8 of 44.7 points"; empty where the paper prints none."""
    unit, paper = finding.said.unit, finding.bound.paper
    if paper is None:
        return ""
    return f"{in_points(finding.judged.mean, unit)} of {in_points(paper, unit)}{' points' if counted(unit) else ''}"


PARTS = {  # kind -> anchor and what stands above its claims
    "effect": ("effects", "What the paper achieves"),
    "count": ("counts", "Sizes and costs that it prints"),
    "identity": ("identities", "The program is the paper’s"),
    "wiring": ("wiring", "Our own checks that the program does its stages"),
}


def claims(facts: Facts, record: Record, source: Source | None, measured: Measured) -> str:
    """Effects first, then counts; identities and our own checks are folded, as they are no results of the paper."""
    entry = record.executable
    if entry is None or not entry.claims:
        return ""
    leading = {name: word(findings) for name, findings in facts.effects(record).items()}
    parts = []
    for kind, (part, title) in PARTS.items():
        mine = {name: claim for name, claim in entry.claims.items() if claim.kind == kind}
        if not mine:
            continue
        printed = any(bound.paper is not None for claim in mine.values() for bound in claim.bounds().values())
        order = [name for names in entry.effects().values() for name in names] if kind == "effect" else list(mine)
        bodies = "\n".join(_claim(name, mine[name], source, measured, printed=printed) for name in order)
        table = _claims_table(bodies, printed=printed)
        if kind == "effect":
            told = "On one reference network, judged by the longest run on real images: " + _counted(list(leading.values()))
            parts.append(f"### {title} {{ #{part} }}\n\n{told}.\n\n{table}")
        elif kind == "count":
            parts.append(f"### {title} {{ #{part} }}\n\n{table}")
        else:
            summary = f"{title}: {_held(mine, measured)} of {plural(len(mine), 'claim')} hold"
            parts.append(f'<details class="sp-folded" id="{part}"><summary>{summary}</summary>{table}</details>')
    guide = inside("How to read this", path_of(record), "guides/read.md#claims")
    told = f"What the {origin(record)} says, and what the reimplementation measures. {_bite(measured)}{guide}."
    return section("Claims", "claims", told, *parts)


def _counted(words: list[Word]) -> str:
    """ "2 of 5 hold, 2 are level, 1 fails"."""
    there = {kind: words.count(kind) for kind in ("level", "fails", "undecided")}
    verbs = {"level": ("is level", "are level"), "fails": ("fails", "fail"), "undecided": ("is open", "are open")}
    rest = [f"{count} {verbs[kind][count > 1]}" for kind, count in there.items() if count]
    held = words.count("holds")
    return ", ".join([f"{held} of {plural(len(words), 'effect')} hold{'s' if held == 1 else ''}", *rest])


def _held(claims: Mapping[str, Claim], measured: Measured) -> int:
    """How many hold, in every case."""
    return sum(
        word([next(iter(measured.findings(name, case, claim, bound)), None) for case, bound in claim.bounds().items()]) == "holds"
        for name, claim in claims.items()
    )


def _bite(measured: Measured) -> str:
    """How many planted faults the claims notice, in words."""
    if not (bite := measured.bite):
        return ""
    sample = f" (of {bite.possible} possible ones)" if bite.planted < bite.possible else ""
    parts = [f"{found.killed} of {found.judged} {FAULTS[kind]}" for kind, found in measured.bites.items() if found.judged]
    return f"Of {bite.planted} faults planted{sample}, what runs here notices {', '.join(parts)}; the rest change nothing or end the run. "


FAULTS = {"outcome": "in what is returned", "arithmetic": "in the arithmetic", "wiring": "in the wiring", "control": "in the controls"}


def _claims_table(bodies: str, *, printed: bool) -> str:
    """The column of printed numbers stays away where the paper prints none."""
    heads = [name for name in CLAIM_COLUMNS if printed or name != "Printed"]
    return raw_table("sp-claims" if printed else "sp-claims sp-unprinted", heads, bodies)


def _claim(name: str, claim: Claim, source: Source | None, measured: Measured, *, printed: bool) -> str:
    place = [escape(claim.where), *([f"{claim.tier} claim"] if claim.tier != "exact" else [])]
    place += [f"against {subject_name(f'control_{claim.against}').removeprefix('control: ')}"] if claim.against else []
    place += [in_unit(claim.unit)] if claim.unit else []
    place += [f'measures the same as <a href="#claim-{claim.same_as}">the longer claim</a>'] if claim.same_as else []
    lines = []
    for case, bound in claim.bounds().items():
        every = measured.findings(name, case, claim, bound)
        found: list[Finding | None] = [*([f for f in every if f.evidence] or every)] or [None]  # drawn shapes only where nothing else is
        for finding in found:
            where = [code(case)] if case is not None else []
            if finding:
                seen = "" if claim.tier == "exact" else data_name(finding.condition.data)
                where.append(f"{seen}, {seeds(finding.sample)}" if len(finding.sample.values) > 1 else seen)
            ours = spread(finding.sample.mean, finding.sample.sd) if finding else NONE
            if finding and claim.kind == "effect" and (beside := size(finding)):
                ours += f"<br><small>{beside}</small>"
            because = f'<br><small class="sp-because">{escape(bound.because)}</small>' if bound.because and finding is found[0] else ""
            paper = [plain(bound.paper)] if printed else []
            cells = [" · ".join(filter(None, where)), *paper, ours, bound_text(bound), verdict_mark(finding) + because]
            lines.append("<tr>" + "".join(f"<td>{text}</td>" for text in cells) + "</tr>")
    told = f"{escape(claim.says)} <small>{' · '.join(place)}</small>{entry_code.of_claim(source, name)}"
    head = f'<th scope="rowgroup" colspan="{5 if printed else 4}">{told}</th>'
    return f'<tbody id="claim-{name}"><tr>{head}</tr>\n' + "\n".join(lines) + "</tbody>"


def numbers(facts: Facts, record: Record, source: Source | None, measured: Measured) -> str:
    if source is None:
        return ""
    guide = inside("What these data are", path_of(record), "guides/read.md#data")
    told = f"The same network, the same budget: what matters is how far the method gets beyond its controls. {guide}."
    title = "Reference · control · method"
    if not measured.conditions:
        command = code(f"smallprint smoke {record.id} --record")
        return section(title, "numbers", told, f'<p class="sp-empty">Not measured yet: {command} writes the numbers that stand here.</p>')
    shown = [condition for condition in measured.conditions if condition.data != "standin"] or measured.conditions
    tables = [_condition(measured, condition, explained=not place) for place, condition in enumerate(shown)]
    tables[1:1] = [entry_ledger.table(measured, shown[0])]  # of the condition before it
    others = ", ".join(
        inside(condition_name(condition), path_of(record), f"comparisons/measured.md#{anchor(condition)}")
        for condition in measured.conditions
        if condition not in shown  # drawn shapes, which are no evidence of what the method does to photographs
    )
    beside = f"Elsewhere: {others}." if others else ""
    return section(title, "numbers", told, _among(facts, record, measured), *tables, beside)


def _condition(measured: Measured, condition: Condition, *, explained: bool) -> str:
    """Under one condition; the first table of a page is `explained`, as the others have the same columns."""
    subjects = measured.subjects(condition)
    known = [q for q in QUANTITIES if any(measured.sample(condition, s, q) for s in subjects)]
    if all(_cell(measured, condition, s, "nonzeros") == _cell(measured, condition, s, "parameters") for s in subjects):
        known = [q for q in known if q != "nonzeros"]  # where no weight is zero, it would say the same again
    groups = [
        ("Really measured", [q for q in MEASURED if q in known]),
        ("Counted on the network as it ships", [q for q in COUNTED if q in known]),
    ]
    top = "".join(f'<th scope="colgroup" colspan="{len(names)}">{title}</th>' for title, names in groups if names)
    order = [q for _, names in groups for q in names]
    words = {q: f' title="{QUANTITIES[q][1]}"' if explained else "" for q in order}
    names = [f'<th scope="col"{words[q]}>{QUANTITIES[q][0]}</th>' for q in order]
    lines = []
    for subject in subjects:
        cells = "".join(f"<td>{_cell(measured, condition, subject, q)}</td>" for q in order)
        role = "method" if subject == "method" else "control" if subject.startswith("control_") else "reference"
        lines.append(f'<tr class="sp-{role}"><th scope="row">{subject_name(subject)}</th>{cells}</tr>')
    sample = next(s for s in (measured.sample(condition, subject, order[0]) for subject in subjects) if s) if order else None
    note = {"smoke": "A smoke run is seconds on a slice of the data: it shows a difference, not what a method can reach."}.get(
        condition.tier, ""
    )
    note += " The stand-in is drawn by a program; its accuracies say nothing about photographs." if condition.data == "standin" else ""
    title = f"### {condition_name(condition)} {{ #{anchor(condition)} }}"
    rows = [row for row in measured.rows if (row.tier, row.data) == condition]
    runs, stale = seeds(sample) if sample else "", stale_mark(measured.stale(rows))
    facts = f"{runs}; accuracy after the last step, mean ± standard deviation.{stale} {note}"
    body = "<tbody>" + "\n".join(lines) + "</tbody>"
    return f'{title}\n\n<p class="sp-under">{facts}</p>\n\n{raw_table("sp-numbers", ["Network", *names], body, f"<td></td>{top}")}'


def _cell(measured: Measured, condition: Condition, subject: str, metric: str) -> str:
    sample = measured.sample(condition, subject, metric)
    if sample is None:
        return "1.00×" if (subject, metric) == ("reference", "latency") else NONE
    ratio = measured.ratio(condition, metric, subject) if metric in COUNTED and subject != "reference" else None
    small = f" <small>{times(ratio)}</small>" if ratio not in (None, 1) else ""  # that a number is the same is plain to see
    return f"{quantity(metric, sample.mean, sample.sd)}{small}"


def _among(facts: Facts, record: Record, measured: Measured) -> str:
    """Accuracy against what the method saves most of, before the family's other methods."""
    if not measured.conditions:
        return ""
    condition = measured.conditions[0]
    saved = {cost: measured.ratio(condition, cost) or 1.0 for cost in ("file_bytes", "multiply_adds")}
    cost = min(saved, key=lambda name: saved[name])
    points = []
    for id, theirs in facts.measured.items():
        other = facts.catalogue.entries[id]
        if other.family != record.family or (other is not record and facts.own_task(record.id) | facts.own_task(id)):
            continue
        for subject in theirs.subjects(condition) if other is record else ["method"]:
            accuracy, paid = theirs.sample(condition, subject, "accuracy"), theirs.sample(condition, subject, cost)
            if accuracy and paid and paid.mean > 0:
                role = "control" if subject.startswith("control_") else subject
                points.append(charts.Point(other.entry.name, other.family, role, paid.mean, accuracy.mean))
    if len(points) < 2:
        return ""
    chart = charts.among(points, record.entry.name, record.family, COSTS[cost][1], f"among-{record.id}")
    grey = "; grey circles are the other methods of the family, which may start from another network"
    told = f"{condition_name(condition)}{'' if facts.own_task(record.id) else grey}: "
    told += inside("all numbers", path_of(record), f"comparisons/measured.md#{anchor(condition)}")
    return f"{figure(chart, anchor(condition))}\n\n{told}.\n{{ .sp-under }}"


def provenance(measured: Measured) -> str:
    if not measured.rows:
        return ""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in (row for row in measured.rows if row.tier != ROUNDING):
        where = f"{row.device}, {plural(row.threads, 'thread')}", f"Python {row.python}, torch {row.torch}"
        groups[row.tier, row.data, *where, row.commit].append(row)
    heads = ("Data", "Run", "Seeds", "Device", "Versions", "Commit", "Date", "Numbers")
    lines = []
    for (tier, data, device, versions, commit), rows in sorted(groups.items(), key=lambda item: (Condition(*item[0][:2]).rank, item[0])):
        used = ", ".join(str(seed) for seed in sorted({row.seed for row in rows}))
        digests = list(dict.fromkeys(row.data_digest for row in sorted(rows, key=lambda row: row.seed)))
        images = " ".join(digest[: 16 // len(digests) + 3] for digest in digests)  # in whole they are in measured.csv
        old = sum(measured.stale([row]) for row in rows)
        lines.append([
            f"{data_name(data)}{f'<br>{code(images)}' if images else ''}", escape(tier), used, escape(device), escape(versions),
            code(commit), _dates(row.date for row in rows), f"{len(rows)}{f', {old} stale' if old else ''}",
        ])  # fmt: skip
    # What is the same for all is said once, above.
    same = [column for column in (3, 4, 5, 6) if len(lines) > 1 and len({line[column] for line in lines}) == 1]
    shared = f"All of them: {' · '.join(lines[0][c] for c in same)}. " if same else ""
    told = f"{shared}A number is *stale* where a definition that it rests on, in method, claims or kit, has changed since."
    if again := sum(row.tier == ROUNDING for row in measured.rows):
        told += f" {plural(again, 'smoke number')} came again from another instruction set."
    kept = [column for column in range(len(heads)) if column not in same]
    rows_of = ("<tr>" + "".join(f"<td>{line[column]}</td>" for column in kept) + "</tr>" for line in lines)
    body = raw_table("sp-provenance", [heads[column] for column in kept], "<tbody>" + "\n".join(rows_of) + "</tbody>")
    return section("Where the numbers come from", "provenance", told, body, searched=False)


def _dates(dates: Iterable[str]) -> str:
    days = sorted({date[:10] for date in dates})
    return escape(days[0]) if len(days) == 1 else f"{escape(days[0])} to {escape(days[-1])}"

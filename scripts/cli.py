"""The command `smallprint`. Verbs import what they need when they run, so that `--help` and `check` start at once."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
import typer.core

from scripts import program
from scripts.evidence import source
from scripts.evidence.terminal import Interrupted, err, fail, out, plain, progress

if TYPE_CHECKING:
    from catalog import Catalogue, Problem, Record
    from scripts.evidence.outcome import Report

ROOT = program.OWN


class Verbs(typer.core.TyperGroup):
    """The verbs; an interruption is said, where a verb has no more to say of it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as end:
            raise typer.Exit(program.interrupted(end)) from None


app = typer.Typer(
    cls=Verbs,
    help="Read the small print: an executable catalogue of the papers on making neural networks small and fast.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

CORES = os.cpu_count() or 1
NAMES = "network_slimming, network-slimming or pruning/network_slimming"
Names = Annotated[list[str] | None, typer.Argument(metavar="[METHOD]...", help=NAMES)]
Name = Annotated[str, typer.Argument(metavar="NAME", help=NAMES)]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="SMALLPRINT_CIFAR10", help="CIFAR-10 folder (see `smallprint data`); else the stand-in"),
]

Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, max=256, help="Methods side by side, one thread each")]
Changed = Annotated[bool, typer.Option("--changed", help="Only what this branch changes, uncommitted and new files too")]
Since = Annotated[str | None, typer.Option("--since", metavar="REF", help="With --changed: what the branch left; else main")]


def refuse(*messages: object) -> typer.Exit:
    """One clear line each and exit code 1: `raise refuse(...)`."""
    for message in messages:
        fail(str(message))
    return typer.Exit(1)


def catalogue() -> Catalogue:
    from catalog import load

    return load(ROOT / "catalog")


def pick(names: list[str] | None, facts: Catalogue, *, methods: bool) -> list[str]:
    """Ids for the names a user typed; all with a method file when there are none.

    Refuses what cannot be read, and all where one cannot be read: a method that is left out in silence looks like one that passed.
    """
    unread: list[Problem] = []
    known = source.methods(ROOT, unread) if methods else facts.entries
    if not names:
        if unread:
            raise refuse(*sorted(unread))
        return [id for id in known if id in facts.entries]
    places = {id: record.family for id, record in facts.entries.items()}
    picked = []
    for name in names:
        try:
            id = source.resolve(name, places)
        except LookupError as problem:
            broken(facts, [name.rpartition("/")[2].replace("-", "_")])  # it may be there, but not readable yet
            raise refuse(str(problem.args[0])) from None
        if id not in known:
            if why := [problem for problem in unread if problem.path == facts.entries[id].program]:
                raise refuse(*why)
            raise refuse(f"{id} is in the catalogue but not reimplemented yet: there is no {facts.entries[id].program}")
        picked.append(id)
    return list(dict.fromkeys(picked))


def broken(facts: Catalogue, ids: list[str]) -> None:
    """Refuse to run methods whose entries could not be read."""
    from scripts.curation.check import render

    mine = [p for p in facts.problems if not ids or any(p.path.endswith(f"/{id}.yaml") for id in ids)]
    if mine:
        err.print(plain(render(mine, "text")))
        raise refuse("the catalogue has problems; `smallprint check` lists them all")


def changed_files(since: str | None) -> set[str]:
    from scripts.evidence.changed import GitError, files

    try:
        return files(ROOT, since)
    except GitError as problem:
        raise refuse(str(problem)) from None


def run_methods(entries: list[Record], jobs: int, options: dict[str, Any], **how: Any) -> dict[str, Report]:
    from methods.kit.batches import DataError
    from scripts.running import watch

    try:
        return watch.run_methods(ROOT, entries, jobs, options, **how)
    except DataError as problem:
        raise refuse(str(problem)) from None


@app.command()
def check(
    format: Annotated[str, typer.Option("--format", help="text, json or github")] = "text",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of every kind of file and stop")] = False,
    changed: Changed = False,
    since: Since = None,
) -> None:
    """Check every file of the catalogue and its link to the code. Needs no torch and no network; takes under a second."""
    from scripts.curation import check as checker
    from scripts.evidence.owed import owed, summary

    if schema:
        print(json.dumps(checker.schema(), indent=2))
        return
    if format not in ("text", "json", "github"):
        raise refuse(f"--format {format}: must be text, json or github")
    tree, problems = checker.examine(ROOT)
    if changed or since:
        mine = changed_files(since)
        problems = [problem for problem in problems if problem.path in mine]
    if problems or format == "json":
        print(checker.render(problems, format))
    if problems:
        raise typer.Exit(1)
    if format == "text" and (changed or since):
        out.print(f"{len(mine)} changed files: no problems in them")
    elif format == "text":
        facts = tree.catalogue
        counts = f"{len(facts.entries)} entries, {len(facts.comparisons)} comparison tables, {len(tree.sources)} methods"
        out.print(f"{counts}: no problems")
        if debts := summary(owed(ROOT)):
            out.print(debts)


@app.command(name="list")
def list_(
    family: Annotated[str | None, typer.Argument(help="Only this family")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
) -> None:
    """List the entries: family, name, year, how many claims, whether there is a method."""
    from scripts.curation.show import entries

    unread: list[Problem] = []
    facts, methods = catalogue(), source.methods(ROOT, unread)
    missing = {problem.path: "cannot be read" for problem in unread}
    families = {record.family for record in facts.entries.values()}
    if family and family.replace("-", "_") not in families:
        raise refuse(f"{family} is no family with entries; there are {', '.join(sorted(families))}")
    rows = [r for r in facts.entries.values() if not family or r.family == family.replace("-", "_")]
    if as_json:
        fields = [{"id": r.id, "family": r.family, "name": r.entry.name, "year": r.entry.year, "method": r.id in methods} for r in rows]
        print(json.dumps(fields, indent=2))
    else:
        out.print(entries(rows, {r.id: "yes" if r.id in methods else missing.get(r.program, "not yet") for r in rows}))
    if facts.problems or unread:
        raise refuse(*sorted(facts.problems + unread))


@app.command()
def show(name: Name) -> None:
    """Show one entry: the paper, the idea, departures, claims and what was measured last."""
    from scripts.curation import show as showing

    facts = catalogue()
    (id,) = pick([name], facts, methods=False)
    if wrong := showing.show(ROOT, facts.entries[id]):
        raise refuse(*wrong)


@app.command()
def smoke(
    names: Names = None,
    data: Data = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Repeat with so many seeds; verdicts use the mean")] = 1,
    tier: Annotated[list[str] | None, typer.Option("--tier", help="exact, smoke, long or full, repeatable; else exact and smoke")] = None,
    jobs: Jobs = 1,
    device: Annotated[str, typer.Option(help="cpu, or cuda for the tiers long and full")] = "cpu",
    record: Annotated[bool, typer.Option("--record", help="Write the numbers to catalog/measured")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out seeds already recorded with this code and data")] = False,
    again: Annotated[bool, typer.Option("--again", help="Without a name: run also what was green before and has not changed")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Tell what was done to each network, in order")] = False,
    carry: Annotated[bool, typer.Option("--carry", help="Call stale numbers current where seed 0 gives them again to the digit")] = False,
    changed: Changed = False,
    since: Since = None,
) -> None:
    """Run methods (all without a name): reference, controls and method on CIFAR-10 or the stand-in, then every claim.

    A claim of the smoke tier is compared with what is recorded of the same seed, an exact one with its bound. Exit code 1 when one
    departs from its record, an exact one is not what its entry says, a control got more or less than the method and does not say so,
    or a method does not come to its end.
    """
    from catalog.schema import Tier
    from scripts.running import kept

    if carry and (record or seeds > 1):
        raise refuse("--carry compares one run of seed 0 with the record: leave out --record and --seeds")
    tiers = tuple(tier or ("exact", "smoke"))
    for wrong in (t for t in tiers if t not in get_args(Tier)):
        raise refuse(f"--tier {wrong}: must be one of {', '.join(get_args(Tier))}")
    facts = catalogue()
    ids = pick(names, facts, methods=True)
    if changed or since:
        from scripts.evidence.changed import GitError
        from scripts.evidence.changed import methods as touched

        try:
            mine = touched(ROOT, since)
        except GitError as problem:
            raise refuse(str(problem)) from None
        ids = [id for id in ids if id in mine]
        if not ids:
            out.print("no method has changed")
            return
    broken(facts, ids if names or changed or since else [])
    entries = [facts.entries[id] for id in ids]
    options = {"tiers": tiers, "data": data, "seeds": tuple(range(seeds)), "device": device, "record_rows": record, "resume": resume}
    options["trace"] = trace
    threads = 1 if jobs > 1 else None
    keys = {} if record else {entry.id: kept.key(ROOT, entry, options, threads) for entry in entries}
    anyway = names or again or record or trace or carry
    green = {entry.id for entry in entries if not anyway and kept.was_green(ROOT, entry, keys[entry.id])}

    def ended(entry: Record, report: Report) -> None:
        if report.good and not record:
            kept.keep(ROOT, entry, keys[entry.id])
        if carry and not report.problem:
            from scripts.evidence import records
            from scripts.running.carry import carry as carried

            try:
                rows, others = carried(ROOT, entry, report)
            except records.RecordError as problem:
                raise refuse(str(problem)) from None
            out.print(f"{entry.id}: {rows} stale numbers are current again; {len(others)} of seed 0 are others now and stay stale")
            for what, before, now in others:
                out.print(plain(f"  {what}: {now:.6g}, recorded {before:.6g}"))

    reports = run_methods([entry for entry in entries if entry.id not in green], jobs, options, ended=ended)
    if green:
        out.print(f"{len(green)} methods were green before and have not changed since: not run (--again runs them)")
    if not all(report.good for report in reports.values()):
        raise typer.Exit(1)


@app.command()
def sweep(
    names: Names = None,
    data: Data = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Repeat with so many seeds")] = 1,
    jobs: Jobs = 1,
    record: Annotated[bool, typer.Option("--record", help="Write the numbers to catalog/measured")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out seeds already recorded with this code and data")] = False,
) -> None:
    """Run methods at several sizes or for several lengths of training, their controls too, for a family's chart.

    They stand in a method's SWEEP; without a name, all methods that have one.
    """
    from scripts.running.runs import SWEEP

    facts, known = catalogue(), source.methods(ROOT)
    ids = pick(names, facts, methods=True)
    for missing in (id for id in ids if names and not known[id].sweeps):
        raise refuse(f"{known[missing].path} has no SWEEP; add a tuple of its Configs, or of pairs of a Config and a number of steps")
    ids = [id for id in ids if known[id].sweeps]
    broken(facts, ids if names else [])
    options = {"data": data, "seeds": tuple(range(seeds)), "record_rows": record, "resume": resume}
    if not all(report.good for report in run_methods([facts.entries[id] for id in ids], jobs, options, work=SWEEP).values()):
        raise typer.Exit(1)


@app.command()
def bite(
    name: Name,
    data: Data = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, max=256, help="Faults side by side")] = CORES,
    most: Annotated[int | None, typer.Option(min=1, help="Plant only so many, spread evenly over the file")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Exact claims only")] = False,
    record: Annotated[bool, typer.Option("--record", help="Write the score to catalog/measured")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run of the same code stopped")] = False,
) -> None:
    """Plant faults in a method's source and list those that every exact and smoke claim survives.

    A line that ends in "# equivalent: reason" says that a surviving fault there changes nothing. Faults that end their process or
    take too long are counted apart. Exit code 1 when fewer than 90% of the others are killed.
    """
    from scripts.evidence import records
    from scripts.running import bite as biting
    from scripts.running.stamp import Stamp

    facts = catalogue()
    (id,) = pick([name], facts, methods=True)
    broken(facts, [id])
    entry = facts.entries[id]
    done, planted, killed_so_far = 0, 0, 0

    def heard(count: int, of: int, outcome: biting.Outcome) -> None:
        nonlocal done, planted, killed_so_far
        done, planted = count, of
        killed_so_far += bool(outcome.killed_by)
        say(f"{count} of {of} faults · {outcome.fault.what}")
        if not out.is_terminal and count % 20 == 0:
            err.print(f"{count} of {of} faults, {killed_so_far} of them killed")

    try:
        if record:
            stamp = Stamp(ROOT, entry)
            records.read(stamp.path)  # before the work: it must not be in vain
        with progress() as say:
            outcomes, possible = biting.bite(
                ROOT, entry, data=data, jobs=jobs, most=most, tiers=("exact",) if exact else ("exact", "smoke"), resume=resume, heard=heard
            )
    except (ValueError, OSError) as problem:
        raise refuse(str(problem)) from None
    except KeyboardInterrupt:
        raise Interrupted(f" after {done} of {planted or 'all'} faults; they are kept, go on with --resume") from None
    score = biting.score(outcomes)
    for outcome in outcomes:
        if not outcome.killed_by:
            mark = f"[dim]equivalent: {plain(outcome.equivalent)}[/dim]" if outcome.equivalent else "[red]survives[/red]"
            mark = f"[yellow]{plain(outcome.died)}[/yellow]" if outcome.died else mark
            out.print(f"{entry.program}:{outcome.fault.line}: {plain(outcome.fault.what)}: {mark}")
    sample = f" (an even sample of {possible})" if score.planted < possible else ""
    died = f", {score.died} ended their process" if score.died else ""
    out.print(f"{id}: {score.killed} of {score.planted} faults{sample} killed, {score.equivalent} equivalent{died}: {score.share:.0%}")
    if record and not exact:
        used = "standin" if data is None else "cifar10"
        numbers = {**score._asdict(), "possible": possible}
        stamp.write([stamp.row("bite", "bite", what, value, used, "", 0) for what, value in numbers.items()])
    if score.share < 0.9:
        raise typer.Exit(1)


@app.command()
def networks(
    names: Names = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, max=256, help="Methods side by side, one thread each")] = CORES,
    export: Annotated[bool, typer.Option("--export", help="Export one result a method as well: torch.export, ONNX, pickle")] = False,
    record: Annotated[bool, typer.Option("--record", help="Write the outcomes to catalog/networks.csv")] = False,
) -> None:
    """Try methods on some twenty small networks of other people's making: each works, or is refused by a layer's name.

    Exit code 1 when one fails, or refuses a network on which it is known to have worked.
    """
    from scripts.evidence import networks as table
    from scripts.running.runs import NETWORKS, stream

    facts = catalogue()
    ids = pick(names, facts, methods=True)
    broken(facts, ids if names else [])
    try:
        known = table.read(table.path_of(ROOT))
    except table.NetworksError as problem:
        raise refuse(str(problem)) from None
    found, bad = list[table.Tried](), list[str]()
    with progress() as say:
        for id, event in stream(NETWORKS, [(id, (facts.entries[id], export)) for id in ids], jobs):
            if not isinstance(event, table.Tried):
                bad.append(f"{id}: {event.death} on a network of the zoo: {event.output.strip()[-500:]}")
                continue
            found.append(event)
            say(f"{len(found)} tried, {id} on {event.network}")
            if wrong := table.worse(event, known.get((event.network, id))):
                bad.append(f"{id} {wrong}")
            elif names and event.outcome == table.REFUSED:
                out.print(f"{id} refuses {event.network}: [dim]{plain(event.said)}[/dim]")
    counts = {outcome: sum(one.outcome == outcome for one in found) for outcome in (table.WORKS, table.REFUSED, table.FAILS)}
    out.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
    if record:
        if bad:
            err.print("not recorded")
        else:
            table.write(table.path_of(ROOT), found, source.methods(ROOT))
    if bad:
        raise refuse(*bad)


@app.command()
def plan(
    network: Annotated[str, typer.Argument(metavar="FILE.py:FUNCTION", help="A function without arguments that returns your network")],
    names: Names = None,
    shape: Annotated[str, typer.Option("--input", metavar="C,H,W", help="Size of one image")] = "3,224,224",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, max=256, help="Methods side by side, one thread each")] = CORES,
) -> None:
    """Say what methods would do to your network, layer by layer, and what it would cost then, without training it.

    A method is rehearsed with its default settings and a few random images, all training left out. Where training or accuracy decides
    what is removed, the numbers are those of a choice without either, and the plan says so.
    """
    from scripts.running import plans

    size = shape.split(",")
    if len(size) != 3 or not all(part.strip().isdigit() and int(part) for part in size):
        raise refuse(f"--input {shape}: must be C,H,W, for instance 3,224,224")
    facts = catalogue()
    ids = pick(names, facts, methods=True)
    broken(facts, ids if names else [])
    with progress() as say:
        try:
            plans.show([facts.entries[id] for id in ids], network, tuple(map(int, size)), jobs, say)
        except ValueError as problem:
            raise refuse(str(problem)) from None


@app.command()
def new(
    paper: Annotated[str, typer.Argument(metavar="SOURCE", help="arXiv id, DOI, BibTeX, a file of BibTeX, or - for standard input")],
    family: Annotated[str | None, typer.Option(help="Where it belongs, such as pruning; asked for when left out")] = None,
    slug: Annotated[str | None, typer.Option(help="Its id, such as network_slimming; else made of the title")] = None,
    method: Annotated[bool, typer.Option("--method/--no-method", help="Write the method's skeleton too")] = True,
) -> None:
    """Begin an entry: write its YAML, its method and its claims, ready to fill in. Refuses papers that are here already.

    Examples: [cyan]smallprint new 1611.06440 --family pruning[/cyan] · [cyan]smallprint new 10.1109/ICCV.2017.298[/cyan] ·
    [cyan]smallprint new refs.bib --family low_rank --slug my_paper[/cyan] · [cyan]smallprint new - --no-method < refs.bib[/cyan]
    """
    from catalog import FAMILIES, nearest
    from scripts.curation import new as making

    if family is None:
        if not sys.stdin.isatty():
            raise refuse(f"--family is missing; add one of {', '.join(FAMILIES)}")
        family = typer.prompt(f"Family ({', '.join(FAMILIES)})", err=True)
    family = family.strip().replace("-", "_")
    if family not in FAMILIES:
        raise refuse(f"--family {family}: must be one of {', '.join(FAMILIES)}{nearest(family, FAMILIES)}")
    try:
        with progress() as say:
            making.known(ROOT, paper)
            say("looking up the paper")
            texts = making.files(ROOT, making.look_up(paper), family, slug, method=method)
        making.write(texts)
    except making.NewError as problem:
        raise refuse(str(problem)) from None
    places = [path.relative_to(ROOT).as_posix() for path in texts]
    id = next(iter(texts)).stem
    steps = (f"smoke {id}", f"bite {id}") if len(texts) > 1 else (f"show {id}", "site --serve")
    out.print(f"wrote {' and '.join(places)}\nfill in what the first command lists, then go on:")
    for step in ("check", *steps):
        out.print(f"  smallprint {step}")


@app.command()
def take(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write this new file instead of standard output")
    ] = None,
) -> None:
    """Take a method home: one file with compress, its controls and all that they use, which needs nothing of this project.

    Its first lines name the packages that it needs. Reference weights, sweeps and claims stay here.
    Example: [cyan]smallprint take adaround -o adaround.py[/cyan]
    """
    from scripts.evidence import files
    from scripts.running import take as taking

    facts = catalogue()
    (id,) = pick([name], facts, methods=True)
    text = taking.take(ROOT, facts.entries[id], source.methods(ROOT)[id])
    if output is None:
        typer.echo(text.encode(), nl=False)
        return
    if os.path.lexists(output):
        raise refuse(f"{output}: is there already; remove it, or choose another file")
    try:
        files.write(output, text)
    except OSError as problem:
        raise refuse(f"{output}: cannot be written: {problem.strerror}; choose another file") from None
    out.print(plain(f"{output}: {len(text.splitlines())} lines"))


@app.command()
def bib(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME|FAMILY]...", help=f"Families, or entries: {NAMES}; else all")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write this file instead of standard output")
    ] = None,
) -> None:
    """Export citations as BibTeX, under the keys that the site shows.

    Examples: [cyan]smallprint bib > all.bib[/cyan] · [cyan]smallprint bib pruning thinet --output pruning.bib[/cyan]
    """
    from scripts.curation import bibtex
    from scripts.evidence import files

    facts = catalogue()
    broken(facts, [])
    ids: list[str] = []
    for name in names or []:
        members = [record.id for record in facts.family(name.strip("/").replace("-", "_"))]
        ids += members or pick([name], facts, methods=False)
    text = bibtex.export(facts.entries.values(), dict.fromkeys(ids) if names else facts.entries)
    if output is None:
        typer.echo(text.encode(), nl=False)  # BibTeX is UTF-8 here, whatever a terminal can show
        return
    try:
        files.write(output, text)
    except OSError as problem:
        raise refuse(f"{output}: cannot be written: {problem.strerror or problem}; choose another file") from None


@app.command()
def links(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Only these entries: {NAMES}")] = None,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="Only addresses that hold this; * and ? stand for any letters")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what was checked lately, in an interrupted run for instance")] = False,
    days: Annotated[int, typer.Option(min=0, help="With --resume: how many days old a check may be")] = 1,
    fail_on: Annotated[str | None, typer.Option(metavar="gone", help="Exit code 1 when a link is gone")] = None,
) -> None:
    """Check politely whether the links of all entries (or of some) are alive, and record it in catalog/links.json.

    A failure that may pass never fails the command: exit code 0, unless --fail-on gone finds some.
    """
    from scripts.curation import links as linking
    from scripts.evidence.link_health import LinksError

    if fail_on not in (None, "gone"):
        raise refuse(f"--fail-on {fail_on}: must be gone")
    facts = catalogue()
    ids = pick(names, facts, methods=False) if names else None
    try:
        known = linking.check_links(ROOT, facts, ids, only, days=days if resume else None)
    except LinksError as problem:
        raise refuse(str(problem)) from None
    if fail_on and any(health.verdict == "gone" for health in known.values()):
        raise typer.Exit(1)


@app.command()
def validate(
    data: Data = None,
    jobs: Jobs = CORES,
) -> None:
    """Everything a validator should do: check, links, every smoke test, comparison with the recorded rows. One report, one exit code."""
    from scripts.curation import check as checker
    from scripts.curation import links as linking
    from scripts.evidence.link_health import LinksError
    from scripts.running import validate as validating

    started = time.monotonic()
    out.rule("check")
    problems = checker.check(ROOT)
    print(checker.render(problems, "text") if problems else "no problems")
    out.rule("links")
    facts = catalogue()
    try:
        linking.check_links(ROOT, facts, None, days=7, save=False)
    except LinksError as problem:
        out.print(plain(str(problem)))  # `check` has counted it
    out.rule("smoke tests")
    ids = pick(None, facts, methods=True)
    options = {"tiers": ("exact", "smoke"), "data": data, "seeds": (0,), "device": "cpu", "record_rows": False, "resume": False}
    reports = run_methods([facts.entries[id] for id in ids], jobs, options)
    out.rule("against the recorded numbers")
    findings = [finding for id in ids for finding in validating.compare(ROOT, facts.entries[id], reports[id])]
    if ids and not any(report.compared for report in reports.values()):
        findings.append(validating.Finding("no claim of any method could be compared with a record: nothing was validated", bad=True))
    for finding in findings:
        out.print(plain(finding.text))
    bad = [id for id, report in reports.items() if not report.good]
    wrong = [finding for finding in findings if finding.bad]
    out.rule("result")
    counts = f"{len(problems)} problems, {len(bad)} methods with surprises, {len(wrong)} numbers that differ"
    out.print(f"{counts}, {time.monotonic() - started:.0f} s")
    if problems or bad or wrong:
        raise typer.Exit(1)


@app.command()
def site(
    serve: Annotated[bool, typer.Option("--serve", help="Serve on http://127.0.0.1:8000 and rebuild when something changes")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Build the bundle that opens as a file, in build/site-offline")] = False,
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to put it")] = None,
) -> None:
    """Build the website from the catalogue and print the address to open."""
    from scripts.website import site as making

    try:
        if serve:
            making.serve(ROOT)
            return
        with progress() as say:
            place = making.build(ROOT, folder, offline=offline, say=say)
    except making.SiteError as problem:
        raise refuse(str(problem)) from None
    if offline:
        out.print(f"open {(place / 'index.html').as_uri()}")
    else:
        out.print(f"site in {place}, for any web server; `smallprint site --serve` serves it on http://127.0.0.1:8000/")


@app.command()
def data(
    folder: Annotated[Path, typer.Argument(help="Where to put cifar-10-batches-py")] = Path("data"),
) -> None:
    """Download CIFAR-10 from its authors (170 MB): resumable, verified, unpacked whole or not at all."""
    from scripts.running.data import DownloadError, download

    try:
        place = download(folder)
    except DownloadError as problem:
        raise refuse(str(problem)) from None
    except KeyboardInterrupt:
        raise Interrupted(": what was fetched is kept, and the next run goes on from there") from None
    out.print(f"{place}\nuse it with: smallprint smoke --data {place}")


def main() -> None:
    """Entry point: works on the checkout that one stands in, else on its own."""
    gc.freeze()  # what is imported stays, and looking whether it may go takes a tenth of what `check` does

    def work() -> None:
        program.move()
        app(prog_name="smallprint")

    program.run(work, ROOT)


if __name__ == "__main__":
    main()

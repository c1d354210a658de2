"""The command `smallprint`. Verbs import what they need when they run, so that `--help` and `check` start at once."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
import typer.core
from rich.console import Console

from scripts import program, source
from scripts.program import err, plain

if TYPE_CHECKING:
    from rich.table import Table

    from catalog import Catalogue, Problem, Record
    from scripts.links import Health
    from scripts.outcome import Report

ROOT = program.OWN


class Verbs(typer.core.TyperGroup):
    """The verbs; an interruption is said, where a verb has no more to say of it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(program.interrupted()) from None


app = typer.Typer(
    cls=Verbs,
    help="Read the small print: an executable catalogue of the papers on making neural networks small and fast.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
terminal = sys.stdout is not None and sys.stdout.isatty()
out = Console(highlight=False, soft_wrap=not terminal, width=None if terminal else 150)

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
        program.fail(str(message))
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
    from scripts.check import render

    mine = [p for p in facts.problems if not ids or any(p.path.endswith(f"/{id}.yaml") for id in ids)]
    if mine:
        err.print(plain(render(mine, "text")))
        raise refuse("the catalogue has problems; `smallprint check` lists them all")


def changed_files(since: str | None) -> set[str]:
    from scripts.changed import GitError, files

    try:
        return files(ROOT, since)
    except GitError as problem:
        raise refuse(str(problem)) from None


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line that says what is running, on a terminal; silence otherwise. An error is told what was running."""
    last, started = "", time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        last = text
        if status:
            status.update(f"{plain(text)} [dim]{time.monotonic() - started:.0f} s[/dim]")

    with out.status("starting") if out.is_terminal else nullcontext() as status:
        try:
            yield say
        except Exception as problem:
            if last:
                problem.add_note(last)
            raise


@app.command()
def check(
    format: Annotated[str, typer.Option("--format", help="text, json or github")] = "text",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of every kind of file and stop")] = False,
    changed: Changed = False,
    since: Since = None,
) -> None:
    """Check every file of the catalogue and its link to the code. Needs no torch and no network; takes under a second."""
    from scripts import check as checker

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


@app.command(name="list")
def list_(
    family: Annotated[str | None, typer.Argument(help="Only this family")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
) -> None:
    """List the entries: family, name, year, how many claims, whether there is a method."""
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
        out.print(_entries(rows, {r.id: "yes" if r.id in methods else missing.get(r.program, "not yet") for r in rows}))
    if facts.problems or unread:
        raise refuse(*sorted(facts.problems + unread))


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("year", "claims") else "left")
    return table


def _entries(rows: list[Record], methods: dict[str, str]) -> Table:
    table = _table("family", "id", "name", "year", "claims", "method")
    for r in rows:
        claims = len(r.executable.claims) if r.executable else 0
        table.add_row(r.family, r.id, plain(r.entry.name), str(r.entry.year), str(claims or ""), methods[r.id])
    return table


@app.command()
def show(name: Name) -> None:
    """Show one entry: the paper, the idea, departures, claims and what was measured last."""
    from scripts import records

    facts = catalogue()
    (id,) = pick([name], facts, methods=False)
    record = facts.entries[id]
    unread: list[Problem] = []
    entry, method = record.entry, source.methods(ROOT, unread).get(id)
    wrong: list[object] = [problem for problem in unread if problem.path == record.program]
    out.print(f"[bold]{plain(entry.title)}[/bold]\n{plain(', '.join(entry.authors))} · {plain(entry.venue or '')} · {entry.year}")
    for label, value in (("arXiv", entry.arxiv and f"https://arxiv.org/abs/{entry.arxiv}"), ("DOI", entry.doi), ("Home", entry.url)):
        if value:
            out.print(f"{label}: {plain(value)}")
    out.print(f"\n{plain(entry.summary)}")
    departures = method.departures if method else None
    for label, text in (("Use it for", entry.when_to_use), ("Not for", entry.when_not), ("Departures", departures)):
        if text:
            out.print(f"\n[bold]{label}:[/bold] {plain(' '.join(text.split()))}")
    if method:
        out.print(f"\n{record.program} · smallprint smoke {id}")
    try:
        rows, none = records.read(records.path_of(ROOT, record.family, id)), "not yet"
    except records.RecordError as problem:
        rows, none = [], "cannot be read"
        wrong.append(str(problem).removeprefix(f"{ROOT}/"))
    if record.executable and record.executable.claims:
        table = _table("claim", "where", "tier", "bound", "expected", "measured")
        for claim_id, claim in record.executable.claims.items():
            for case, bound in claim.bounds().items():
                subject = f"claim_{claim_id}" + (f"[{case}]" if case else "")
                seen: dict[str, list[float]] = {}
                for row in rows:
                    if row.subject == subject:
                        seen.setdefault(row.data, []).append(row.value)
                values = ", ".join(f"{sum(v) / len(v):.4g}" + ("" if data == "none" else f" on {data}") for data, v in seen.items())
                label = claim_id + (f" {case}" if case else "")
                table.add_row(label, plain(claim.where), claim.tier, bound.text, bound.expected, values or none)
        out.print(table)
    if wrong:
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
    changed: Changed = False,
    since: Since = None,
) -> None:
    """Run methods (all without a name): reference, controls and method on CIFAR-10 or the stand-in, then every claim.

    A claim of the smoke tier is compared with what is recorded of the same seed, an exact one with its bound. Exit code 1 when one
    departs from its record, an exact verdict is not the expected one, or a method does not come to its end.
    """
    from catalog.schema import Tier
    from scripts import kept

    tiers = tuple(tier or ("exact", "smoke"))
    for wrong in (t for t in tiers if t not in get_args(Tier)):
        raise refuse(f"--tier {wrong}: must be one of {', '.join(get_args(Tier))}")
    facts = catalogue()
    ids = pick(names, facts, methods=True)
    if changed or since:
        from scripts.changed import methods as touched

        mine = touched(ROOT, changed_files(since))
        ids = [id for id in ids if id in mine]
        if not ids:
            out.print("no method has changed")
            return
    broken(facts, ids if names or changed or since else [])
    entries = [facts.entries[id] for id in ids]
    options = {"tiers": tiers, "data": data, "seeds": tuple(range(seeds)), "device": device, "record_rows": record, "resume": resume}
    threads = 1 if jobs > 1 else None
    keys = {} if record else {entry.id: kept.key(ROOT, entry, options, threads) for entry in entries}
    green = {entry.id for entry in entries if not (names or again or record) and kept.was_green(ROOT, entry, keys[entry.id])}

    def ended(entry: Record, report: Report) -> None:
        if report.good and not record:
            kept.keep(ROOT, entry, keys[entry.id])

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
    from scripts.runs import SWEEP

    facts, known = catalogue(), source.methods(ROOT)
    ids = pick(names, facts, methods=True)
    for missing in (id for id in ids if names and not known[id].sweeps):
        raise refuse(f"{known[missing].path} has no SWEEP; add a tuple of its Configs, or of pairs of a Config and a number of steps")
    ids = [id for id in ids if known[id].sweeps]
    broken(facts, ids if names else [])
    options = {"data": data, "seeds": tuple(range(seeds)), "record_rows": record, "resume": resume}
    if not all(report.good for report in run_methods([facts.entries[id] for id in ids], jobs, options, SWEEP).values()):
        raise typer.Exit(1)


def run_methods(
    entries: list[Record],
    jobs: int,
    options: dict[str, Any],
    work: str | None = None,
    ended: Callable[[Record, Report], None] = lambda entry, report: None,
) -> dict[str, Report]:
    """Run with progress and print each report as it comes, and a last line that counts. `work` is `smoke.run` if not given."""
    from scripts import report as reporting
    from scripts.runs import SMOKE, run_many

    if options["data"] is not None:
        from methods.kit.batches import DataError, find

        try:
            find(options["data"])
        except DataError as problem:
            raise refuse(str(problem)) from None
    started, total = time.monotonic(), len(entries)
    known = {entry.id: entry for entry in entries}
    running, done = dict[str, str](), list[str]()
    try:
        with progress() as say:

            def heard(id: str, event: str | Report | None) -> None:
                if event is None or isinstance(event, str):
                    running[id] = event or "starting"
                else:
                    del running[id]
                    done.append(id)
                    if event.output.strip():
                        err.print(plain(event.output.rstrip()))
                    reporting.print_report(out, known[id], event)
                    ended(known[id], event)
                    if total > 1 and not out.is_terminal:
                        err.print(f"{len(done)} of {total} done, {event.seconds:.1f} s: {id}")
                if total == 1 or jobs == 1:
                    say(" · ".join((f"{len(done)} of {total}", *next(iter(running.items()), ("",)))))
                else:
                    say(f"{len(done)} of {total} done · running {', '.join(running)}")

            reports = run_many(ROOT, entries, jobs, options, heard, work or SMOKE)
    except KeyboardInterrupt:
        kept = "what was recorded is kept; go on with --resume" if options["record_rows"] else "what was green is not run again"
        err.print(f"\ninterrupted after {len(done)} of {total} methods; {kept}")
        raise typer.Exit(130) from None
    bad = [entry.id for entry in entries if not reports[entry.id].good]
    if total > 1:
        verdict = f"[red]{len(bad)} with surprises: {', '.join(bad)}[/red]" if bad else "[green]every verdict as expected[/green]"
        out.print(f"\n{total} methods in {time.monotonic() - started:.0f} s: {verdict}")
    return reports


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
    from scripts import bite as biting
    from scripts import records
    from scripts.stamp import Stamp

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
        err.print(f"\ninterrupted after {done} of {planted or 'all'} faults; they are kept, go on with --resume")
        raise typer.Exit(130) from None
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
def new(
    paper: Annotated[str, typer.Argument(metavar="SOURCE", help="arXiv id, DOI, BibTeX, a file of BibTeX, or - for standard input")],
    family: Annotated[str | None, typer.Option(help="Where it belongs, such as pruning; asked for when left out")] = None,
    slug: Annotated[str | None, typer.Option(help="Its id, such as network_slimming; else made of the title")] = None,
    method: Annotated[bool, typer.Option("--method/--no-method", help="Write the method's skeleton too")] = True,
) -> None:
    """Begin an entry: write its YAML and its method, ready to fill in. Refuses papers that are here already.

    Examples: [cyan]smallprint new 1611.06440 --family pruning[/cyan] · [cyan]smallprint new 10.1109/ICCV.2017.298[/cyan] ·
    [cyan]smallprint new refs.bib --family low_rank --slug my_paper[/cyan] · [cyan]smallprint new - --no-method < refs.bib[/cyan]
    """
    from catalog import FAMILIES, nearest
    from scripts import new as making

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
def bib(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME|FAMILY]...", help=f"Families, or entries: {NAMES}; else all")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write this file instead of standard output")
    ] = None,
) -> None:
    """Export citations as BibTeX, under the keys that the site shows.

    Examples: [cyan]smallprint bib > all.bib[/cyan] · [cyan]smallprint bib pruning thinet --output pruning.bib[/cyan]
    """
    from scripts import bibtex, files

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
    from scripts.links import LinksError

    if fail_on not in (None, "gone"):
        raise refuse(f"--fail-on {fail_on}: must be gone")
    facts = catalogue()
    ids = pick(names, facts, methods=False) if names else None
    try:
        known = check_links(facts, ids, only, days=days if resume else None)
    except LinksError as problem:
        raise refuse(str(problem)) from None
    if fail_on and any(health.verdict == "gone" for health in known.values()):
        raise typer.Exit(1)


def check_links(
    facts: Catalogue, ids: list[str] | None, only: str = "", *, days: int | None = None, save: bool = True
) -> dict[str, Health]:
    """Check links with a bar, print all that are not alive, and return what is known of those that were asked for.

    What was checked at most `days` days ago is not asked again. Raises `LinksError`.
    """
    from contextlib import closing

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from scripts import links as linking

    path, policy, everything = linking.path_of(ROOT), linking.policy(), linking.addresses(facts)
    where = linking.addresses(facts, ids, only)
    if only and not where:
        raise refuse(f"--only {only}: no address holds this; write a shorter part of one")
    known, why = linking.read(path), dict[str, str]()
    recent = linking.fresh(known, days) if days is not None else set()
    asked = [url for url in where if url not in recent]
    if asked and not linking.online(everything, policy):
        out.print("skipped: offline, none of the hosts with most links can be reached; nothing is recorded")
        return {}
    if not facts.problems:  # or the links of an unreadable entry would be forgotten
        known = {url: health for url, health in known.items() if url in everything}
    bar = Progress(TextColumn("links"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, disable=not err.is_terminal)
    try:
        with bar, closing(linking.update(asked, known, policy, path if save else None)) as found:
            for link in bar.track(found, total=len(asked)):
                why[link.url] = link.why
    except KeyboardInterrupt:
        kept = "kept; go on with --resume" if save else "not recorded"
        err.print(f"\ninterrupted: {len(why)} of {len(asked)} links are checked and {kept}")
        raise typer.Exit(130) from None
    told = {url: known[url] for url in where if url in known}
    for url in where:
        verdict = told[url].verdict if url in told else "not checked"
        if verdict != "alive":
            reason = f", {why[url]}" if url in why else f" on {told[url].checked}"
            out.print(f"{verdict}{plain(reason)}: {plain(url)} ({', '.join(where[url])})")
    counts = {verdict: sum(health.verdict == verdict for health in told.values()) for verdict in get_args(linking.Verdict)}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    out.print(f"{len(where)} links, {len(asked)} of them checked now: {said or 'nothing known'}")
    return told


@app.command()
def validate(
    data: Data = None,
    jobs: Jobs = CORES,
) -> None:
    """Everything a validator should do: check, links, every smoke test, comparison with the recorded rows. One report, one exit code."""
    from scripts import check as checker
    from scripts import validate as validating
    from scripts.links import LinksError

    started = time.monotonic()
    out.rule("check")
    problems = checker.check(ROOT)
    print(checker.render(problems, "text") if problems else "no problems")
    out.rule("links")
    facts = catalogue()
    try:
        check_links(facts, None, days=7, save=False)
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
    from scripts import site as making

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
    from scripts.data import DownloadError, download

    try:
        place = download(folder)
    except DownloadError as problem:
        raise refuse(str(problem)) from None
    except KeyboardInterrupt:
        err.print("interrupted: what was fetched is kept, and the next run goes on from there")
        raise typer.Exit(130) from None
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

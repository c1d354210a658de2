"""Are the catalogue's links alive? Every address is asked politely; the verdicts stand in the machine-written catalog/links.json.

- alive: it answers, directly or by way of redirects; http -> https and a trailing slash are no move.
- moved: permanent redirects (301, 308) lead to another address, and it answers; `final` is what to write instead. What a server
  hands out to one reader for a while (a password, a signature, a token) is followed, but neither told nor recorded.
- gone: 404, 410 or an unknown host, confirmed. A 404 must survive a GET after the HEAD; a link once recorded as anything better,
  and one whose host is unknown, must besides have failed in the run before. Until then it is unreachable.
- unreachable: no answer, a server's error, a bad certificate, a circle of redirects: whatever may pass.
- refused: the server lets no program in (401, 403 ...), or the address is none of the public web (then there is no status).
"""

from __future__ import annotations

import datetime
import os
import queue
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, get_args
from urllib.parse import quote, urldefrag, urljoin, urlsplit

from catalog import Catalogue
from catalog.schema import Entry
from scripts.curation import web
from scripts.evidence.link_health import Health, LinksError, Verdict, paper_addresses, path_of, read, write
from scripts.evidence.terminal import Interrupted, err, out, plain

ALLOW_LOCAL = "SMALLPRINT_LINKS_ALLOW_LOCAL"  # for tests: this machine's own servers are asked too, and without delay
MOST_REDIRECTS = 10
PATIENCE = 5  # links in a row that a host tells to wait; the rest of its links are left for another run
SAVE_EVERY = 1.0  # seconds
REDIRECT, PERMANENT, MISSING, BUSY = (301, 302, 303, 307, 308), (301, 308), (404, 410), (408, 425, 429)
FAILING = ("unreachable", "gone")


def addresses(catalogue: Catalogue, ids: Collection[str] | None = None, only: str = "") -> dict[str, list[str]]:
    """Every address that the catalogue holds or derives -> where, in words; of these entries only, of these addresses only.

    `only` is a part of an address, or a pattern with * and ?.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for id, record in catalogue.entries.items():
        for url in of_entry(record.entry) if ids is None or id in ids else []:
            found[url].append(id)
    for name, table in catalogue.comparisons.items() if ids is None else []:
        found[table.source.url].append(f"comparisons/{name}")
    return {url: list(dict.fromkeys(found[url])) for url in sorted(found) if fnmatchcase(url, f"*{only}*")}


def of_entry(entry: Entry) -> list[str]:
    return [*paper_addresses(entry), *(code.url for code in entry.code), *(item.url for item in entry.links)]


# One link


@dataclass(frozen=True)
class Policy:
    """How to ask: seconds, counts, and which IP addresses may be connected to. The defaults are for strangers' servers."""

    workers: int = 24
    connections: int = 2  # at once to one host
    delay: float = 1.0  # between the starts of two requests to one host
    tries: int = 3
    backoff: float = 2.0  # before the second try; twice that before the third
    longest_wait: float = 60.0  # of what a server asks for with Retry-After
    timeout: float = 15.0  # for one request, from connecting to the end of the header
    limit: float = 300.0  # for one link with its redirects, retries and waits
    allow: Callable[[str], bool] = web.public


LOCAL = Policy(connections=24, delay=0.0, allow=web.public_or_local)


def policy() -> Policy:
    return LOCAL if os.environ.get(ALLOW_LOCAL) == "1" else Policy()


class Look(NamedTuple):
    """What one look at a link showed. "gone" means missing now; `judge` makes a verdict of it."""

    verdict: Verdict
    status: int | None
    final: str | None
    why: str


class _Host:
    """Whose turn it is at one host."""

    def __init__(self, connections: int) -> None:
        self.slots, self.lock, self.free, self.told_to_wait = threading.Semaphore(connections), threading.Lock(), 0.0, 0

    def hold(self, seconds: float) -> None:
        with self.lock:
            self.free = max(self.free, time.monotonic() + seconds)

    def claim(self, delay: float) -> float:
        """Seconds to wait before claiming again; 0 when the turn is ours."""
        with self.lock:
            now = time.monotonic()
            if self.free > now:
                return self.free - now
            self.free = now + delay
            return 0.0


@dataclass
class Round:
    """What the threads of one round through the links share."""

    policy: Policy
    stop: threading.Event = field(default_factory=threading.Event)
    hosts: dict[str, _Host] = field(default_factory=dict)

    def host(self, url: str) -> _Host:
        return self.hosts.setdefault(web.parts(url)[1], _Host(self.policy.connections))

    @contextmanager
    def turn(self, host: _Host, deadline: float) -> Iterator[None]:
        with host.slots:
            while wait := host.claim(self.policy.delay):
                if self.stop.wait(min(wait, web.left(deadline))):
                    raise TimeoutError
            yield

    def answer(self, url: str, deadline: float) -> web.Answer:
        """A HEAD, a GET where that is not welcome, and further tries while the failure may pass."""
        policy, host = self.policy, self.host(url)
        answer = web.Answer(None, f"no end after {policy.limit:g} s")
        try:
            for attempt in range(1, policy.tries + 1):
                for method in ("HEAD", "GET") if attempt == 1 else ("GET",):
                    with self.turn(host, deadline):
                        answer = web.ask(method, url, min(policy.timeout, web.left(deadline)), policy.allow)
                    if answer.status is None or answer.status < 400 or answer.status == 429:
                        break
                if not _temporary(answer.status):
                    break
                if answer.wait is not None:
                    host.hold(min(policy.longest_wait, answer.wait))
                elif attempt < policy.tries:
                    host.hold(policy.backoff * 2 ** (attempt - 1))
        except TimeoutError:
            pass  # of the whole link: the last answer stands
        host.told_to_wait = host.told_to_wait + 1 if answer.status == 429 else 0
        return answer

    def look(self, url: str) -> Look | None:
        """Follow a link to its end. None where its host has asked for patience too often."""
        deadline = time.monotonic() + self.policy.limit
        here, lasting, seen = url, url, {urldefrag(url).url}
        try:
            if self.host(url).told_to_wait >= PATIENCE:
                return None
            for _ in range(MOST_REDIRECTS + 1):
                answer = self.answer(here, deadline)
                if answer.status not in REDIRECT or not answer.location:
                    break
                there = web.anonymous(urljoin(here, answer.location))
                lasting = there if here == lasting and answer.status in PERMANENT and web.open_to_all(there) else lasting
                here = there
                if urldefrag(here).url in seen:
                    return Look("unreachable", answer.status, None, "redirects go in a circle")
                seen.add(urldefrag(here).url)
            else:
                return Look("unreachable", answer.status, None, f"more than {MOST_REDIRECTS} redirects")
        except web.Refused as problem:
            return Look("refused", None, None, str(problem))
        except ValueError:  # urljoin's
            return Look("refused", None, None, "redirects to no web address")
        status, final = answer.status, web.shown(here) if here != url else None
        if status in MISSING or answer.why == web.UNKNOWN:
            return Look("gone", status, final, answer.why)
        if status is None or _temporary(status):
            return Look("unreachable", status, final, answer.why)
        if not 200 <= status < 300:
            return Look("refused", status, final, answer.why)
        if _core(lasting) != _core(url):
            return Look("moved", status, lasting, f"to {lasting}")
        return Look("alive", status, final, answer.why)


def _temporary(status: int | None) -> bool:
    return status is None or status in BUSY or 500 <= status < 600


def _core(url: str) -> str:
    """What tells two addresses apart when scheme, fragment, the host's case and a trailing slash do not."""
    split = urlsplit(url)
    return f"{split.netloc.lower()}{split.path.rstrip('/')}?{split.query}"


def judge(look: Look, before: Health | None, today: datetime.date) -> Health:
    """What to record of a look, given what was recorded before; the module's docstring has the rules."""
    failed = before is not None and before.verdict in FAILING
    verdict = look.verdict
    if verdict == "gone" and not failed and (before is not None or look.status is None):
        verdict = "unreachable"
    elif verdict == "unreachable" and before is not None and before.verdict == "gone":
        verdict = "gone"
    same = before is not None and (before.verdict == verdict or (failed and verdict in FAILING))
    since = None if verdict == "alive" else (before.since if before and same else None) or today
    final = "".join(c if c.isprintable() and c != " " else quote(c) for c in look.final or "")
    return Health(verdict=verdict, status=look.status, checked=today, since=since, final=final if 0 < len(final) <= 2048 else None)


# Many links


def _origin(url: str) -> str:
    try:
        return "://".join(urlsplit(url)[:2]).lower()
    except ValueError:
        return url


def survey(urls: Iterable[str], policy: Policy) -> Generator[tuple[str, Look | None], None, None]:
    """Looks as they come in, every host at its own pace; closing the generator ends the round."""
    links: dict[str, deque[str]] = defaultdict(deque)
    for url in urls:
        links[_origin(url)].append(url)
    total = sum(map(len, links.values()))
    lanes: queue.SimpleQueue[deque[str]] = queue.SimpleQueue()
    for lane in sorted(links.values(), key=len, reverse=True):  # the longest way first
        for _ in range(min(policy.connections, len(lane))):
            lanes.put(lane)
    results: queue.SimpleQueue[tuple[str, Look | Exception | None]] = queue.SimpleQueue()
    round = Round(policy)

    def work() -> None:
        while not round.stop.is_set():
            try:
                lane = lanes.get_nowait()
            except queue.Empty:
                return
            while lane and not round.stop.is_set():
                try:
                    url = lane.popleft()
                except IndexError:  # another thread took the last one
                    break
                try:
                    results.put((url, round.look(url)))
                except Exception as problem:  # a mistake of ours is raised where the results are read
                    results.put((url, problem))

    for _ in range(min(policy.workers, lanes.qsize())):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(total):
            url, look = results.get()
            if isinstance(look, Exception):
                raise look
            yield url, look
    finally:
        round.stop.set()


class Found(NamedTuple):
    """A link that was looked at; `health` is None where it is left for another run."""

    url: str
    health: Health | None
    why: str


def update(urls: Iterable[str], known: dict[str, Health], policy: Policy, path: Path | None = None) -> Generator[Found, None, None]:
    """Look at every link and bring `known` up to date, and with it the file at `path`: every second, and at the end whatever
    ends it. Raises `LinksError`."""
    saved = time.monotonic()
    try:
        with closing(survey(urls, policy)) as looks:
            for url, look in looks:
                if look is None:
                    yield Found(url, None, f"left for another run: its host told {PATIENCE} links in a row to wait")
                    continue
                known[url] = judge(look, known.get(url), today())
                if path and time.monotonic() - saved > SAVE_EVERY:
                    write(path, known)
                    saved = time.monotonic()
                yield Found(url, known[url], look.why)
    finally:
        if path:
            write(path, known)


def today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def fresh(known: Mapping[str, Health], days: int) -> set[str]:
    """The links that were checked at most so many days ago."""
    return {url for url, health in known.items() if (today() - health.checked).days <= days}


def online(urls: Iterable[str], policy: Policy) -> bool:
    """Whether one of the three hosts with most links takes a connection: without a network every host looks unknown."""
    for origin, _ in Counter(map(_origin, urls)).most_common(3):
        try:
            _, host, port, _ = web.parts(origin)
            web.connect(host, port, time.monotonic() + 5, policy.allow).close()
        except web.Refused:
            return True  # to refuse takes no network
        except OSError:
            continue
        return True
    return False


# On a terminal


def check_links(
    root: Path, facts: Catalogue, ids: list[str] | None, only: str = "", *, days: int | None = None, save: bool = True
) -> dict[str, Health]:
    """Check links with a bar, print all that are not alive, and return what is known of those that were asked for.

    What was checked at most `days` days ago is not asked again. Raises `LinksError`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    path, asking, everything = path_of(root), policy(), addresses(facts)
    where = addresses(facts, ids, only)
    if only and not where:
        raise LinksError(f"--only {only}: no address holds this; write a shorter part of one")
    known, why = read(path), dict[str, str]()
    recent = fresh(known, days) if days is not None else set()
    asked = [url for url in where if url not in recent]
    if asked and not online(everything, asking):
        out.print("skipped: offline, none of the hosts with most links can be reached; nothing is recorded")
        return {}
    if not facts.problems:  # or the links of an unreadable entry would be forgotten
        known = {url: health for url, health in known.items() if url in everything}
    bar = Progress(TextColumn("links"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, disable=not err.is_terminal)
    try:
        with bar, closing(update(asked, known, asking, path if save else None)) as found:
            for one in bar.track(found, total=len(asked)):
                why[one.url] = one.why
    except KeyboardInterrupt:
        kept = "kept; go on with --resume" if save else "not recorded"
        raise Interrupted(f": {len(why)} of {len(asked)} links are checked and {kept}") from None
    told = {url: known[url] for url in where if url in known}
    for url in where:
        verdict = told[url].verdict if url in told else "not checked"
        if verdict != "alive":
            reason = f", {why[url]}" if url in why else f" on {told[url].checked}"
            out.print(f"{verdict}{plain(reason)}: {plain(url)} ({', '.join(where[url])})")
    counts = {verdict: sum(health.verdict == verdict for health in told.values()) for verdict in get_args(Verdict)}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    out.print(f"{len(where)} links, {len(asked)} of them checked now: {said or 'nothing known'}")
    return told

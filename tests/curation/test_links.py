"""The link check, against a server on this machine that misbehaves in every way that servers do."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from email.utils import formatdate
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote

import markdown
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from catalog import load
from scripts import cli
from scripts.curation import links, web
from scripts.curation.links import Look, Policy, Round, addresses, judge, online, survey, update
from scripts.curation.web import ask, public, public_or_local
from scripts.evidence import link_health
from scripts.evidence.facts import FactsError, gather
from scripts.evidence.link_health import Health, LinksError, read, write
from scripts.website.entry import entry_page
from scripts.website.names import archived, note
from tests.helpers import Quiet, serving

ROOT = Path(__file__).parents[2]
DAY = datetime.date(2026, 7, 1)
QUICK = Policy(
    connections=8, delay=0.0, backoff=0.01, longest_wait=0.3, timeout=0.4, limit=5.0, allow=lambda address: address == "127.0.0.1"
)  # fmt: skip


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    latency = 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, float]] = []
        self.agents: set[str] = set()
        self.sent = 0  # bytes of a huge body
        self.now = self.most = 0  # connections
        self.lock, self.closing = threading.Lock(), threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def to(self, address: str, status: int = 302) -> str:
        return self.url(f"/to/{status}?{quote(address, safe='')}")

    def methods(self, path: str) -> list[str]:
        return [method for method, asked, _ in self.asked if asked == path]

    def handle_error(self, *_: object) -> None:
        pass


class Handler(Quiet):
    server: Server

    def do_HEAD(self) -> None:
        server = self.server
        with server.lock:
            server.asked.append((self.command, self.path, time.monotonic()))
            server.agents.add(self.headers["User-Agent"])
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(server.latency)
        with server.lock:
            server.now -= 1  # before the answer: whoever gets it may ask again at once
        self.reply(self.path.split("?")[0], len(server.methods(self.path)))

    do_GET = do_HEAD

    def reply(self, path: str, times: int) -> None:
        head = self.command == "HEAD"
        word, _, number = path.strip("/").partition("/")
        if word == "to":
            self.say(int(number), Location=next(iter(parse_qs("x=" + self.path.partition("?")[2])["x"])))
        elif word == "hops":
            self.say(302, Location=f"/hops/{int(number) - 1}") if int(number) else self.say(200)
        elif word == "circle":
            self.say(301, Location="/circle/2" if number == "1" else "/circle/1")
        elif word == "busy":
            self.say(200) if times > 1 else self.say(
                429, Retry_After=number if number.isdigit() else formatdate(time.time() + 60, usegmt=True)
            )
        elif word == "flaky":
            self.say(200 if times > 2 else 500)
        elif word == "nohead":
            self.say(int(number) if head else 200)
        elif word == "slow":
            self.server.closing.wait(5)
        elif word == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif word in ("trickle", "endless"):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            while not self.server.closing.wait(0.02 if word == "trickle" else 0):
                self.wfile.write(b"X" if word == "trickle" else b"X: " + b"x" * 1000 + b"\r\n")
        elif word == "interim":
            for status in number.split(",")[:-1]:
                self.wfile.write(f"HTTP/1.1 {status} Wait\r\nLink: </style.css>; rel=preload\r\nLocation: /404\r\n\r\n".encode())
            self.say(int(number.split(",")[-1]), Location="/ok")
        elif word == "endless_interim":
            while not self.server.closing.is_set():
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        elif word == "only_interim":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        elif word == "garbage":
            self.wfile.write(b"\x00\xff\x00 what?\r\n\r\n")
        elif word == "huge":
            self.say(405 if head else 200)
            while not head:
                self.server.sent += self.connection.send(b"x" * 65536)
        else:
            self.say(int(word) if word.isdigit() else 200)

    def say(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(server, server.closing.set):
        yield server


def look(url: str, policy: Policy = QUICK) -> Look:
    found = Round(policy).look(url)
    assert found is not None
    return found


# What a look shows


@pytest.mark.parametrize(
    ("path", "verdict", "status"),
    [
        ("/ok", "alive", 200), ("/204", "alive", 204), ("/404", "gone", 404), ("/410", "gone", 410), ("/401", "refused", 401),
        ("/403", "refused", 403), ("/999", "refused", 999), ("/503", "unreachable", 503), ("/429", "unreachable", 429),
        ("/nohead/405", "alive", 200), ("/nohead/403", "alive", 200), ("/nohead/501", "alive", 200), ("/nohead/404", "alive", 200),
        ("/flaky", "alive", 200), ("/reset", "unreachable", None), ("/slow", "unreachable", None), ("/trickle", "unreachable", None),
        ("/endless", "unreachable", None), ("/garbage", "unreachable", None), ("/a b/ü?q=\"'<>", "alive", 200),
        ("/interim/100,200", "alive", 200), ("/interim/103,200", "alive", 200), ("/interim/102,103,100,103,204", "alive", 204),
        ("/interim/103,404", "gone", 404), ("/interim/103,301", "moved", 200), ("/interim/103,403", "refused", 403),
        ("/interim/103,503", "unreachable", 503), ("/endless_interim", "unreachable", None), ("/only_interim", "unreachable", None),
    ],
)  # fmt: skip
def test_verdicts(server: Server, path: str, verdict: str, status: int | None) -> None:
    found = look(server.url(path), replace(QUICK, timeout=0.15))
    assert (found.verdict, found.status) == (verdict, status)


def test_get_only_where_head_is_not_welcome(server: Server) -> None:
    for path in ("/ok", "/nohead/405", "/404", "/flaky"):
        look(server.url(path))
    assert [server.methods(path) for path in ("/ok", "/nohead/405", "/404")] == [["HEAD"], ["HEAD", "GET"], ["HEAD", "GET"]]
    assert server.methods("/flaky") == ["HEAD", "GET", "GET"]
    assert server.agents == {web.USER_AGENT}


def test_a_huge_body_is_not_downloaded(server: Server) -> None:
    assert look(server.url("/huge")).verdict == "alive"
    deadline = time.monotonic() + 5
    while server.now and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.now == 0, "the connection is closed"
    assert server.sent < 16 << 20, "what the two systems buffer, not what the server would send"


def test_no_tls_where_there_should_be(server: Server) -> None:
    found = look(server.url("/ok").replace("http:", "https:"), replace(QUICK, tries=1))
    assert found.verdict == "unreachable"
    assert "TLS" in found.why


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert look(f"http://127.0.0.1:{port}/").why == "no connection (ECONNREFUSED)"


# Redirects


def test_redirects(server: Server) -> None:
    ok = server.url("/ok")
    lasting = server.to(ok, 308)
    for status in (302, 303, 307):
        assert look(server.to(ok, status))[:3] == ("alive", 200, ok)
    for status in (301, 308):
        assert look(server.to(ok, status))[:3] == ("moved", 200, ok)
    assert look(server.to(lasting, 301))[:3] == ("moved", 200, ok)
    passing = server.to(ok, 302)
    assert look(server.to(passing, 301))[:3] == ("moved", 200, passing), "only as far as it is for good"
    assert look(server.to(lasting, 302))[:3] == ("alive", 200, ok), "the catalogue's address itself is fine"
    assert look(server.to(server.url("/404"), 301))[:2] == ("gone", 404)
    assert look(server.to(server.url("/403"), 301))[:2] == ("refused", 403)


def test_a_slash_or_https_is_no_move() -> None:
    assert links._core("http://Example.org/a") == links._core("https://example.org/a/#b")
    assert links._core("http://example.org/a") != links._core("http://example.org/a?b")
    assert links._core("http://example.org/a") != links._core("http://www.example.org/a")


def test_circles_and_long_ways(server: Server) -> None:
    assert look(server.url("/circle/1")).why == "redirects go in a circle"
    assert look(server.url("/hops/10")).verdict == "alive"
    assert look(server.url("/hops/11"))[::3] == ("unreachable", "more than 10 redirects")
    assert server.methods("/hops/1") == ["HEAD", "HEAD"]
    assert server.methods("/hops/0") == ["HEAD"], "the eleventh redirect is not followed"


KEYS = [
    "?token=SECRET",
    "?a=b&access_token=SECRET",
    "?X-Amz-Date=1&X-Amz-Credential=SECRET&X-Amz-Signature=SECRET",
    "#access_token=SECRET",
    "?X-Goog-Signature=SECRET",
    "?se=2026&sig=SECRET",
    "?Expires=1&Signature=SECRET&Key-Pair-Id=SECRET",
    ";jsessionid=SECRET?a=b",
    "?next=%2Fx%3Ftoken%3DSECRET",
    "?next=%252Fx%253Ftoken%253DSECRET",
    "?AUTH_TOKEN=SECRET",
    "?accessToken=SECRET",
    "/token=SECRET/x",
    "%3Ftoken%3DSECRET",
    "?u=https%3A%2F%2Fme%3ASECRET%40example.org%2F",
    "/http:\\\\me:SECRET@example.org/",
]


@pytest.mark.parametrize("key", KEYS)
def test_what_a_server_hands_to_one_reader_is_not_passed_on(server: Server, tmp_path: Path, key: str) -> None:
    target = server.url(f"/ok{key}")
    for status in (301, 302, 308):
        url = server.to(target, status)
        [found] = update([url], {}, QUICK, tmp_path / "links.json")
        assert found.health is not None
        assert (found.health.verdict, found.health.status) == ("alive", 200), "an address that will not last is no place to move to"
        recorded = (tmp_path / "links.json").read_text(encoding="utf-8").replace(url, "")
        assert "SECRET" not in f"{found.why} {found.health} {note(url, found.health).replace(url, '')} {recorded}"
    assert any("SECRET" in path for _, path, _ in server.asked if path.startswith("/ok")) or "#" in key, "it is followed as the server says"


@pytest.mark.parametrize("user", ["me:SECRET@", "SECRET@", "me:SEC@RET:SECRET@"])
def test_a_password_in_a_redirect_is_dropped(server: Server, user: str) -> None:
    def to(path: str, status: int = 301) -> Look:
        return look(server.to(server.url(path).replace("//", f"//{user}"), status))

    assert to("/ok") == ("moved", 200, server.url("/ok"), f"to {server.url('/ok')}")
    assert to("/ok", 302)[:3] == ("alive", 200, server.url("/ok"))
    assert to("/404") == ("gone", 404, server.url("/404"), "404")
    wrong = (
        "http://{}10.0.0.1/",
        "ftp://{}example.org/?token=SECRET",
        "https:{}example.org",
        "http://{}[::1",
        "//{}",
        "http://{}127.0.0.2/",
    )
    for url in wrong:
        found = look(server.to(url.format(user)))
        assert (found.verdict, "SECRET" in str(found)) == ("refused", False), url


def test_a_circle_that_a_password_or_a_fragment_hides(server: Server) -> None:
    for url in (server.url("/circle/1").replace("//", "//me:SECRET@"), server.url("/circle/1#top")):
        assert look(server.to(url)).why == "redirects go in a circle"


def test_ordinary_queries_are_kept(server: Server) -> None:
    for query in ("?id=abc&noteId=x", "?author=me&codes=1", "?via%3Dihub", "?tokens=12", "/@me/x@1"):
        assert web.shown(f"https://example.org/a{query}") == f"https://example.org/a{query}"
    target = server.url("/ok?id=abc")
    assert look(server.to(target, 301))[:3] == ("moved", 200, target)


# Only the public web


FORBIDDEN = [
    "http://127.0.0.2/", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://192.168.1.1/",
    "http://172.16.0.1/", "http://100.64.0.1/", "http://0.0.0.0/", "http://224.0.0.1/", "http://255.255.255.255/", "http://[::ffff:10.0.0.1]/",
    "http://[fe80::1]/", "http://[fd00::1]/", "http://[64:ff9b::a00:1]/", "http://2130706434/", "http://0x7f000002/", "http://127.2/",
    "file:///etc/passwd", "ftp://example.org/", "gopher://127.0.0.1/", "javascript:alert(1)", "http://[::1", "http://a:b/",
    "http://127.0.0.1:99999/", f"http://{'x' * 64}.org/",
]  # fmt: skip


@pytest.mark.parametrize("url", FORBIDDEN)
def test_what_is_not_public_is_refused(server: Server, url: str) -> None:
    assert look(url)[:3] == ("refused", None, None)
    assert look(server.to(url))[:3] == ("refused", None, None), "after a redirect as well"


def test_the_default_refuses_this_machine(server: Server) -> None:
    assert look(server.url("/ok"), Policy()).why == "127.0.0.1 is 127.0.0.1, no public address"
    assert server.asked == []
    seen: list[str] = []
    first_only = replace(QUICK, allow=lambda address: not seen and not seen.append(address))  # type: ignore[func-returns-value]
    assert look(server.to(server.url("/ok")), first_only).verdict == "refused"
    assert [path.partition("?")[0] for _, path, _ in server.asked] == ["/to/302"], "the way back to this machine is not gone"


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("2a00:1450:4001::1", True), ("::ffff:8.8.8.8", True), ("64:ff9b::8.8.8.8", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.31.0.1", False), ("192.168.0.1", False), ("169.254.169.254", False),
        ("100.100.100.100", False), ("0.0.0.0", False), ("224.0.0.1", False), ("239.1.1.1", False), ("240.0.0.1", False),
        ("192.0.2.1", False), ("198.18.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False), ("fe80::1%eth0", False),
        ("fc00::1", False), ("fec0::1", False), ("ff02::1", False), ("2001:db8::1", False), ("::ffff:127.0.0.1", False),
        ("::ffff:a9fe:a9fe", False), ("::7f00:1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("64:ff9b:1::1", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, verdict: bool) -> None:
    assert public(address) is verdict
    assert public_or_local(address) is (verdict or address in ("127.0.0.1", "::1"))


def resolver(*answers: list[str]) -> Callable[..., list[object]]:
    rest = list(answers)

    def look_up(host: str, port: int, **_: object) -> list[object]:
        found = rest.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    return look_up


def test_a_name_is_looked_up_once_and_pinned(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(["127.0.0.1"]))  # a second look-up would fail
    url = f"http://rebinding.test:{server.server_port}/ok"
    assert ask("HEAD", url, 1, QUICK.allow).status == 200
    monkeypatch.setattr(socket, "getaddrinfo", resolver(["127.0.0.1", "10.0.0.1"]))
    with pytest.raises(web.Refused, match=r"rebinding.test is 10.0.0.1"):
        ask("HEAD", url, 1, QUICK.allow)


def test_the_next_address_when_one_is_dead(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(["203.0.113.1", "127.0.0.1"]))
    assert ask("HEAD", f"http://two.test:{server.server_port}/ok", 1, lambda address: True).status == 200


def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    code = socket.EAI_NONAME
    found = look("http://no.test/")
    assert found == Look("gone", None, None, "unknown host")
    assert not online(["http://no.test/"], QUICK)
    code = socket.EAI_AGAIN
    assert look("http://no.test/").verdict == "unreachable"


# Politeness


def test_retry_after(server: Server) -> None:
    for path, least, most in (("/busy/0", 0.0, 0.25), ("/busy/100", 0.3, 2.0), ("/busy/date", 0.3, 2.0)):
        assert look(server.url(path)).verdict == "alive"
        first, second = (at for _, asked, at in server.asked if asked == path)
        assert least <= second - first < most


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("7", 7), (" 7 ", 7), ("soon", None), ("-1", None), ("1" * 50, 111111111)])
def test_what_retry_after_may_hold(text: str | None, seconds: float | None) -> None:
    assert web._seconds(text) == seconds


@given(st.text())
def test_any_retry_after(text: str) -> None:
    seconds = web._seconds(text)
    assert seconds is None or seconds >= 0


def test_few_connections_and_a_delay(server: Server) -> None:
    server.latency = 0.03
    found = dict(survey([server.url(f"/{n}") for n in range(200, 208)], replace(QUICK, connections=2, delay=0.0)))
    assert len(found) == 8
    assert server.most <= 2
    server.asked.clear()
    list(survey([server.url(f"/{n}") for n in range(200, 206)], replace(QUICK, delay=0.04)))
    times = sorted(at for _, _, at in server.asked)
    assert times[-1] - times[0] >= 5 * 0.04 - 0.02


def test_a_host_that_always_says_wait_is_left_alone(server: Server) -> None:
    urls = [server.url(f"/429?{n}") for n in range(9)]
    found = dict(survey(urls, replace(QUICK, connections=1, longest_wait=0.0)))
    assert Counter(look.verdict if look else None for look in found.values()) == {"unreachable": 5, None: 4}
    known: dict[str, Health] = {}
    quick = replace(QUICK, connections=1, longest_wait=0.0)
    assert [found.health is None for found in update(urls, known, quick)] == 5 * [False] + 4 * [True]
    assert set(known) == set(urls[:5])


def test_many_links(server: Server) -> None:
    server.latency = 0.05
    urls = [server.url(f"/ok?{n}") for n in range(100)]
    started = time.monotonic()
    found = dict(survey(urls, replace(links.LOCAL, timeout=5.0)))
    assert {look.verdict for look in found.values() if look} == {"alive"}
    assert set(found) == set(urls)
    assert time.monotonic() - started < 3, "a hundred one by one take five seconds"


@pytest.mark.slow
def test_a_thousand_links_in_ten_seconds(server: Server) -> None:
    server.latency = 0.05
    started = time.monotonic()
    found = dict(survey([server.url(f"/ok?{n}") for n in range(1000)], links.LOCAL))
    seconds = time.monotonic() - started
    print(f"1,000 links in {seconds:.1f} s")
    assert Counter(look.verdict for look in found.values() if look) == {"alive": 1000}
    assert seconds <= 10


# Verdicts over several runs


GONE, UNKNOWN, DOWN = Look("gone", 404, None, "404"), Look("gone", None, None, web.UNKNOWN), Look("unreachable", 503, None, "503")
FINE, SHUT = Look("alive", 200, None, "200"), Look("refused", 403, None, "403")


@pytest.mark.parametrize(
    ("looks", "verdicts"),
    [
        ([GONE], ["gone"]),
        ([UNKNOWN, UNKNOWN], ["unreachable", "gone"]),
        ([FINE, GONE, GONE], ["alive", "unreachable", "gone"]),
        ([SHUT, GONE, FINE, GONE], ["refused", "unreachable", "alive", "unreachable"]),
        ([FINE, DOWN, DOWN, DOWN], ["alive", "unreachable", "unreachable", "unreachable"]),
        ([DOWN, GONE, DOWN, FINE], ["unreachable", "gone", "gone", "alive"]),
    ],
)
def test_gone_is_confirmed(looks: list[Look], verdicts: list[str]) -> None:
    before = None
    for days, (seen, verdict) in enumerate(zip(looks, verdicts, strict=True)):
        before = judge(seen, before, DAY + datetime.timedelta(days))
        assert before.verdict == verdict


def test_since_when() -> None:
    days = [DAY + datetime.timedelta(n) for n in range(5)]
    health = None
    for look, day, since in zip([FINE, GONE, GONE, SHUT, FINE], days, [None, days[1], days[1], days[3], None], strict=True):
        health = judge(look, health, day)
        assert (health.checked, health.since) == (day, since)


@given(st.text())
def test_any_final_address_can_be_read_again(text: str) -> None:
    health = judge(Look("moved", 200, f"http://example.org/{text}", ""), None, DAY)
    raw = health.model_dump_json()
    assert Health.model_validate_json(raw) == health


# The file


def test_the_file_is_sorted_and_stable(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    assert read(path) == {}
    known = {"https://b.org/é": judge(GONE, None, DAY), "https://a.org/": judge(FINE, None, DAY), "http://c.org": judge(UNKNOWN, None, DAY)}
    write(path, known)
    assert path.read_text(encoding="utf-8").splitlines() == [
        "{",
        '"http://c.org": {"verdict": "unreachable", "status": null, "checked": "2026-07-01", "since": "2026-07-01"},',
        '"https://a.org/": {"verdict": "alive", "status": 200, "checked": "2026-07-01"},',
        '"https://b.org/é": {"verdict": "gone", "status": 404, "checked": "2026-07-01", "since": "2026-07-01"}',
        "}",
    ]
    assert read(path) == known
    write(path, dict(reversed(known.items())))
    assert read(path) == known
    assert list(tmp_path.iterdir()) == [path]


FINE_TEXT = '{"https://a.org": {"verdict": "alive", "status": 200, "checked": "2026-07-01"}}'


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\xff", FINE_TEXT[:-1], FINE_TEXT.replace("alive", "well"), FINE_TEXT.replace("200", '"200"'),
     FINE_TEXT.replace("https", "file"), FINE_TEXT.replace("07-01", "07-41"), FINE_TEXT.replace("status", "state")],
)  # fmt: skip
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "links.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(LinksError) as refusal:
        read(path)
    said = str(refusal.value)
    assert said.startswith(f"{path}: damaged: ")
    assert said.endswith("restore it with git, or delete it and run `smallprint links`")
    assert "\n" not in said


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LinksError, match="cannot be written"):
        write(tmp_path / "missing" / "links.json", {})
    with pytest.raises(LinksError, match="cannot be read"):
        read(tmp_path)


def test_results_are_saved_as_they_come(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SAVE_EVERY", 0.0)
    path = tmp_path / "links.json"
    with closing(update([server.url(f"/ok?{n}") for n in range(20)], {}, replace(QUICK, connections=1), path)) as found:
        next(found)
        next(found)
        assert len(read(path)) == 2
    assert len(read(path)) == 2


def test_what_is_fresh() -> None:
    known = {str(n): Health(verdict="alive", status=200, checked=links.today() - datetime.timedelta(n)) for n in range(4)}
    assert links.fresh(known, 0) == {"0"}
    assert links.fresh(known, 2) == {"0", "1", "2"}


# The catalogue and the command


ENTRY = """
name: Slim
title: Slim
authors: [A B]
year: 2017
arxiv: "1708.06519"
doi: 10.1109/ICCV.2017.298
url: "{0}/ok"
code: [{{url: "{0}/404", framework: PyTorch}}]
links: [{{url: "{0}/403", label: Slides}}, {{url: "{0}/to/301?/204", label: Talk}}]
tags: [channel]
summary: It makes networks slim.
"""
TABLE = """
title: Table
caption: Numbers
dataset: CIFAR-10
model: VGG-19
source: {{url: "{0}/table", label: The table}}
columns: [{{id: top1, name: top-1, unit: "%", direction: higher}}]
rows: [{{method: Slim, entry: slim, values: {{top1: 1}}}}]
"""
VOCABULARY = "datasets: {CIFAR-10: images}\nmodels: {VGG-19: convolutions}\nmetrics: {}\ntags: {channel: channels}\n"


def tree(folder: Path, base: str, entry: str = ENTRY) -> Path:
    for name, text in (("pruning/slim.yaml", entry), ("comparisons/table.yaml", TABLE)):
        path = folder / "catalog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(base))
    (folder / "catalog" / "vocabulary.yaml").write_text(VOCABULARY)
    return folder


def test_every_address_is_found(tmp_path: Path) -> None:
    facts = load(tree(tmp_path, "http://x.org") / "catalog")
    assert facts.problems == []
    found = addresses(facts)
    assert list(found) == [
        "http://x.org/403", "http://x.org/404", "http://x.org/ok", "http://x.org/table", "http://x.org/to/301?/204",
        "https://arxiv.org/abs/1708.06519", "https://doi.org/10.1109/ICCV.2017.298",
    ]  # fmt: skip
    assert found["http://x.org/table"] == ["comparisons/table"]
    assert set(addresses(facts, ["slim"])) == set(found) - {"http://x.org/table"}
    assert list(addresses(facts, only="x.org/ta*e")) == ["http://x.org/table"]
    assert list(addresses(facts, only="arxiv")) == ["https://arxiv.org/abs/1708.06519"]


def test_no_address_of_the_real_catalogue_is_missed() -> None:
    written = re.findall(r"url: *[\"']?(https?://[^\s\"',}]+)", "\n".join(p.read_text() for p in (ROOT / "catalog").rglob("*.yaml")))
    assert set(written) <= set(addresses(load(ROOT / "catalog")))


OFFLINE_ENTRY = re.sub(r"(?m)^(arxiv|doi): .*\n", "", ENTRY)


@pytest.fixture
def repository(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue whose links all lead to the server."""
    monkeypatch.setattr(cli, "ROOT", tree(tmp_path, server.url(""), OFFLINE_ENTRY))
    monkeypatch.setenv(links.ALLOW_LOCAL, "1")
    return tmp_path


def run(*words: str, verb: str = "links") -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, [verb, *words])
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command(server: Server, repository: Path) -> None:
    code, text = run()
    assert code == 0
    assert f"gone, 404: {server.url('/404')} (slim)" in text
    assert f"refused, 403: {server.url('/403')} (slim)" in text
    assert f"moved, to {server.url('/204')}: {server.url('/to/301?/204')} (slim)" in text
    assert "5 links, 5 of them checked now: 2 alive, 1 moved, 1 gone, 1 refused" in text
    path = link_health.path_of(repository)
    known = json.loads(path.read_text())
    today = str(links.today())
    assert known[server.url("/ok")] == {"verdict": "alive", "status": 200, "checked": today}
    assert known[server.url("/to/301?/204")] == {
        "verdict": "moved", "status": 204, "checked": today, "final": server.url("/204"), "since": today,
    }  # fmt: skip
    assert run("--fail-on", "gone")[0] == 1
    assert run("--fail-on", "gone", "--only", "ok")[0] == 0


def test_resume_asks_nothing_twice(server: Server, repository: Path) -> None:
    run("--only", "table")
    assert {path for _, path, _ in server.asked} == {"/table"}
    server.asked.clear()
    code, text = run("--resume")
    assert code == 0
    assert server.methods("/table") == []
    assert "5 links, 4 of them checked now" in text
    server.asked.clear()
    assert run("--resume", "--fail-on", "gone")[0] == 1, "what is known to be gone counts"
    assert server.asked == []


def test_names_and_patterns(server: Server, repository: Path) -> None:
    assert "4 links, 4 of them" in run("pruning/slim")[1]
    assert server.methods("/table") == []
    for words, said in ((("slimm",), "slim"), (("--only", "nowhere"), "no address holds this"), (("--fail-on", "moved"), "must be gone")):
        code, text = run(*words)
        assert code == 1
        assert text.count("error") == 1
        assert said in text


def test_forgotten_links_are_dropped(server: Server, repository: Path) -> None:
    path = link_health.path_of(repository)
    write(path, {"http://old.org/": judge(FINE, None, DAY), server.url("/ok"): judge(FINE, None, DAY)})
    run("--only", "404")
    assert set(read(path)) == {server.url("/404"), server.url("/ok")}


def test_a_damaged_file_stops_the_command(repository: Path) -> None:
    link_health.path_of(repository).write_text("{")
    code, text = run()
    assert code == 1
    assert len(text.splitlines()) == 1
    assert "links.json: damaged: " in text
    with pytest.raises(FactsError, match="damaged"):
        gather(repository)


def test_offline_is_said_and_nothing_recorded(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    code, text = run("--fail-on", "gone")
    assert code == 0
    assert "skipped: offline" in text
    assert not link_health.path_of(repository).exists()


def test_validate_reports_links_and_records_nothing(server: Server, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "run_methods", lambda *_: {})
    code, text = run(verb="validate")
    assert code == 0, text
    assert "5 links, 5 of them checked now" in text
    assert not link_health.path_of(repository).exists()
    link_health.path_of(repository).write_text("{")
    code, text = run(verb="validate")
    assert code == 1
    assert "damaged" in text
    assert "1 problems" in text


def test_ctrl_c_leaves_a_whole_file(server: Server, tmp_path: Path) -> None:
    root = tree(tmp_path, server.url(""), OFFLINE_ENTRY)
    more = "".join(f'  - {{url: "{server.url("")}/slow?{n}", label: L{n}}}\n' for n in range(10))
    slim = root / "catalog" / "pruning" / "slim.yaml"
    slim.write_text(re.sub(r"(?m)^links: .*\n", f"links:\n{more}", slim.read_text()))
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a job in the background inherits deaf ears
    program = f"{listens}; import pathlib, sys; from scripts import cli; cli.ROOT = pathlib.Path(sys.argv.pop(1)); cli.main()"
    running = subprocess.Popen(
        [sys.executable, "-c", program, str(root), "links"], cwd=ROOT, env={**os.environ, links.ALLOW_LOCAL: "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not {"/ok", "/table"} <= {path for _, path, _ in server.asked} and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # the answers are on their way
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "go on with --resume" in said
    assert "Traceback" not in said
    assert {server.url("/ok"), server.url("/table")} <= set(read(link_health.path_of(root)))
    assert not list((root / "catalog").glob("*.part"))


# The pages


def test_notes() -> None:
    url = "https://example.org/a_(b)|<c>"
    health = Health(verdict="gone", status=404, checked=DAY, since=datetime.date(2025, 3, 1))
    assert archived(url, 2025) == f"https://web.archive.org/web/2025/{url}"
    assert note(url, None) == ""
    assert note(url, judge(FINE, None, DAY)) == " <small>checked 2026-07-01</small>"
    assert note(url, health).startswith(
        " <small>checked 2026-07-01, gone since 2025-03-01; [archived copy](https://web.archive.org/web/2025/"
    )
    assert "not reachable since 2026-07-01" in note(url, judge(DOWN, None, DAY))
    assert "lets no program in" in note(url, judge(SHUT, None, DAY))
    assert "not a public address" in note(url, judge(Look("refused", None, None, ""), None, DAY))
    moved = note(url, judge(Look("moved", 200, "https://x.org/<script>|`", ""), None, DAY))
    assert "<script>" not in markdown.markdown(moved)


def test_pages_show_health(tmp_path: Path) -> None:
    base = "http://x.org"
    root = tree(tmp_path, base)
    facts = gather(root)
    assert "checked" not in entry_page(facts, facts.catalogue.entries["slim"])
    write(
        link_health.path_of(root),
        {f"{base}/404": judge(GONE, None, DAY), f"{base}/403": judge(FINE, None, DAY), f"{base}/ok": judge(FINE, None, DAY)},
    )
    facts = gather(root)
    page = entry_page(facts, facts.catalogue.entries["slim"])
    assert f"(PyTorch) <small>checked 2026-07-01, gone since 2026-07-01; [archived copy]({archived(f'{base}/404', 2026)})</small>" in page
    assert f"[Slides]({base}/403) <small>checked 2026-07-01</small>" in page
    assert page.count("<small>checked") == 3, "at the head of the page the paper's own address is noted only where it does not answer"


def test_a_mistake_of_ours_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterable[str]:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Round, "look", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        list(survey(["http://x.org/"], QUICK))

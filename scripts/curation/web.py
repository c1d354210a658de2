"""One question to one public server: only the header of its answer is read, within bounded seconds and bytes.

The addresses asked come from strangers, so nothing but the public internet is ever connected to. A host is looked up once, every
address found is checked, and the socket is opened to that very address: no second look-up can lead elsewhere. The standard
library's client takes such a socket as it is. Proxies are not used: behind one, nobody knows what is connected to.
"""

from __future__ import annotations

import errno
import functools
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

USER_AGENT = "smallprint-links/0.1 (checks now and then whether the links of a catalogue of papers are alive)"
MOST_BYTES = 1 << 15  # of a header; bodies are never read
WINDOW = 1 << 13  # bytes that the system may receive ahead of us
UNKNOWN = "unknown host"
NAT64 = ipaddress.ip_network("64:ff9b::/96")
SECRETS = (  # ends of names, letters only: X-Amz-Signature, access_token, jsessionid, AWSAccessKeyId, sig
    "token", "secret", "signature", "sig", "credential", "credentials", "password", "passwd", "pwd", "pass", "key", "keyid", "keypairid",
    "auth", "authorization", "session", "sessionid", "sid", "ticket", "code", "jwt", "assertion", "verifier", "samlresponse", "samlrequest",
)  # fmt: skip
UNICAST = ipaddress.ip_network("2000::/3")


class Refused(Exception):
    """An address that is not asked, and why."""


def public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it is an IPv4 address in IPv6 clothes."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    inner = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
    return public(str(inner)) if inner else ip in UNICAST and ip.is_global


def public_or_local(address: str) -> bool:
    """For tests: this machine as well, but nothing else of a private network."""
    return public(address) or ipaddress.ip_address(address.partition("%")[0]).is_loopback


def parts(url: str) -> tuple[bool, str, int, str]:
    """Whether TLS, host, port, and what to ask for. User names and passwords are dropped. Raises `Refused`."""
    try:
        split = urlsplit(url)
        host = (split.hostname or "").encode("idna").decode()
        port = split.port or (443 if split.scheme == "https" else 80)
    except ValueError:
        raise Refused("no web address") from None  # not named: a server may have told it, with a password in it
    if split.scheme not in ("http", "https") or not host:
        raise Refused("no web address (http or https)")
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    return split.scheme == "https", host, port, quote(path, safe="!#$%&'()*+,/:;=?@[]~")


def anonymous(url: str) -> str:
    """An address without user name and password, as it is asked. Raises `ValueError` where it is none."""
    split = urlsplit(url)
    return split._replace(netloc=split.netloc.rpartition("@")[2]).geturl() if "@" in split.netloc else url


def open_to_all(url: str) -> bool:
    """Whether nothing in an address, encoded twice or not, looks like what lets one reader in: a password, a token, a signature."""
    plain = unquote(unquote(url))
    names = re.findall(r"([^=/?#&;]+)=", plain)
    return not re.search(r"[/\\]{2}[^/\\?#]*@", plain) and not any(re.sub("[^a-z]", "", name.lower()).endswith(SECRETS) for name in names)


def shown(url: str) -> str:
    """An address as it may be told and recorded: of one that is not open to all the path, or the host where even the path is not."""
    if open_to_all(url):
        return url
    path = re.split(r"[;?#=]|%(?:25)*(?:3[bdf]|23)", url, maxsplit=1, flags=re.IGNORECASE)[0]
    return path if open_to_all(path) else "/".join([*anonymous(url).split("/")[:3], ""])


def left(deadline: float) -> float:
    """Seconds until a moment of the monotonic clock; raises `TimeoutError` after it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def connect(host: str, port: int, deadline: float, allow: Callable[[str], bool]) -> socket.socket:
    """A socket to an address that was checked. Raises `OSError`, and `Refused` where any of the host's addresses is not allowed."""
    found = list(dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    for *_, address in found:
        if not allow(str(address[0])):
            raise Refused(f"{host} is {address[0]}, no public address")
    failure = OSError("no address")
    for index, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
            sock.settimeout(left(deadline) / (len(found) - index))
            sock.connect(address)
            return sock
        except OSError as problem:
            sock.close()
            failure = problem
    raise failure


class _Wire(io.RawIOBase):
    """A socket as http.client wants it, which breaks after `deadline` or `MOST_BYTES`, however slowly they trickle in."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock, self.deadline, self.room = sock, deadline, MOST_BYTES

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 4096)

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(left(self.deadline))
        self.sock.sendall(data)

    def close(self) -> None:
        """Nothing: http.client closes its socket before its file. `ask` closes the real one."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self.room:
            raise http.client.LineTooLong("header")
        self.sock.settimeout(left(self.deadline))
        count = self.sock.recv_into(buffer[: self.room])
        self.room -= count
        return count


class _Final(http.client.HTTPResponse):
    """The answer itself. What comes before it (100 Continue, 103 Early Hints) is passed over; the library does so with 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while 100 <= (line := super()._read_status())[1] < 200:  # type: ignore[misc]  # the library's own, which typeshed leaves out
            http.client.parse_headers(self.fp)
        return line


class Answer(NamedTuple):
    """What a server said; without a status, `why` says what happened instead."""

    status: int | None
    why: str
    location: str | None = None
    wait: float | None = None  # seconds that the server asks us to wait


@functools.cache
def _tls() -> ssl.SSLContext:
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)  # where the system has no certificates of its own
    return context


def ask(method: str, url: str, seconds: float, allow: Callable[[str], bool] = public) -> Answer:
    """One request, one header. `allow` says which IP addresses may be connected to. Raises `Refused`, and for nothing else:
    a failure is an answer without status."""
    deadline = time.monotonic() + seconds
    secure, host, port, path = parts(url)
    try:
        sock = connect(host, port, deadline, allow)
        try:
            if secure:
                sock.settimeout(left(deadline))
                sock = _tls().wrap_socket(sock, server_hostname=host)
            client = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(host, port)
            client.sock, client.response_class = _Wire(sock, deadline), _Final
            client.request(method, path, headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"})
            with client.getresponse() as response:
                location = response.getheader("Location")
                to = location.encode("latin-1", "replace").decode("utf-8", "replace") if location else None
                return Answer(response.status, str(response.status), to, _seconds(response.getheader("Retry-After")))
        finally:
            sock.close()
    except socket.gaierror as problem:
        unknown = problem.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
        return Answer(None, UNKNOWN if unknown else f"{host} cannot be looked up now")
    except TimeoutError:
        return Answer(None, "no answer in time")
    except ssl.SSLError as problem:
        return Answer(None, f"no TLS ({getattr(problem, 'verify_message', '') or problem.reason})")
    except OSError as problem:
        return Answer(None, f"no connection ({errno.errorcode.get(problem.errno or 0) or problem})")
    except (http.client.HTTPException, ValueError) as problem:
        return Answer(None, f"no HTTP ({type(problem).__name__})")


def _seconds(text: str | None) -> float | None:
    """Retry-After, which gives seconds or a date."""
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

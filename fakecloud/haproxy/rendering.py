"""Text of a typed configuration: the configuration file and the files that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import config, words

SETTLE_MS: Final = 200
"""So long a connection waits at most for what the predecessor remembers of its client."""
EVERYBODY: Final = (words.Word("0.0.0.0/0"), words.Word("::/0"))

CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
"""Mozilla's intermediate list (https://wiki.mozilla.org/Security/Server_Side_TLS), without DHE."""
HEADER_TIMEOUT_S: Final = 30
COOKIE: Final = "FAKECLOUDLB"

Line = words.Line


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two processes of one configuration.

    number: of the generation; its files are named after it and are, like the `spare` socket,
    relative to the directory HAProxy is started in.
    """

    socket: words.Word
    number: int
    spare: words.Word | None = None
    run_as: tuple[int, int] | None = None

    def file(self, suffix: str) -> words.Word:
        """Return the name of one of the generation's files."""
        return words.Word(f"g{self.number}.{suffix}")

    @property
    def ranges(self) -> words.Word:
        """Return the file of allowed networks."""
        return self.file("lst")

    @property
    def settled(self) -> words.Word:
        """Return the file of clients who need not wait: nobody or everybody."""
        return self.file("settled")

    def routes(self, frontend: config.Frontend) -> words.Word:
        """Return the map of a frontend's rules."""
        return self.file(f"{frontend.name}.map")

    def certificates(self, frontend: config.Frontend) -> words.Word:
        """Return the list of a frontend's certificates."""
        return self.file(f"{frontend.name}.crt")

    def certificate(self, name: words.Word) -> words.Word:
        """Return the file of a certificate, its chain and its key."""
        return self.file(f"{words.Word(name)}.pem")


def files(whole: config.Config, place: Place) -> dict[words.Word, str]:
    """Return every file of a generation by name. The same arguments give the same bytes."""
    made = {
        place.file("cfg"): text(whole, place),
        place.ranges: _lines(whole.source_ranges),
    }
    if whole.remembers():
        made[place.settled] = _lines(EVERYBODY if whole.settled else ())
    for certificate in whole.certificates:
        made[place.certificate(certificate.name)] = certificate.pem or ""
    for frontend in whole.frontends:
        if frontend.routes:
            rules = (f"{key} {backend}" for key, backend in frontend.routes)
            made[place.routes(frontend)] = _lines(rules)
        if frontend.tls is not None:
            named = (place.certificate(name) for name in frontend.tls.certificates)
            made[place.certificates(frontend)] = _lines(named)
    return made


def text(whole: config.Config, place: Place) -> str:
    """Return the configuration file."""
    sections = [_global(whole, place), _defaults()]
    sections += [_frontend(frontend, place, whole.disturbance) for frontend in whole.frontends]
    sections += [_backend(backend, place) for backend in whole.backends]
    return "\n".join(_section(section) for section in sections)


def _lines(entries: Iterable[str]) -> str:
    return "".join(f"{entry}\n" for entry in entries)


def _section(lines: Iterable[Line]) -> str:
    head, *body = lines
    return "".join([" ".join(head) + "\n", *("  " + " ".join(line) + "\n" for line in body)])


def _global(whole: config.Config, place: Place) -> Iterator[Line]:
    line = words.line
    yield line("global")
    yield line("nbthread", 1)
    yield line("maxconn", whole.max_connections)
    # Otherwise a second process on the same port would silently take part of the traffic.
    yield line("noreuseport")
    # Spares every process its own copy of the system's certificate authorities.
    yield line("httpclient.ssl.verify", "none")
    # The second one lies beside this file: a cleaned runtime directory doesn't take the control.
    spare = () if place.spare is None else (f"unix@{place.spare}",)
    for socket in (place.socket, *spare):
        options = ("mode", 600, "level", "admin", "expose-fd", "listeners")
        yield line("stats", "socket", socket, *options)
    yield line("hard-stop-after", "1h")
    if whole.certificates:
        yield line("ssl-default-bind-ciphers", CIPHERS)
        # Tickets would be good for one process only; each swap would make clients start over.
        yield line("ssl-default-bind-options", "no-tls-tickets")
        yield line("ssl-load-extra-files", "none")
        yield line("tune.ssl.cachesize", 2000)
    if place.run_as is not None:
        if whole.is_transparent():
            # Kept when the process stops being root, and nothing else; HAProxy >= 2.9.
            yield line("setcap", "cap_net_raw")
        uid, gid = place.run_as
        yield line("uid", uid)
        yield line("gid", gid)


def _defaults() -> Iterator[Line]:
    line = words.line
    yield line("defaults")
    yield line("mode", "tcp")
    yield line("no", "log")
    # Without it one connection in n waits out every retry on a target that died just now.
    yield line("option", "redispatch", 1)
    yield line("retries", 3)
    # Counts the bytes of connections that still live.
    yield line("option", "contstats")
    yield line("option", "clitcpka")
    yield line("option", "srvtcpka")
    yield line("timeout", "client-fin", "30s")
    yield line("timeout", "server-fin", "30s")


def _frontend(frontend: config.Frontend, place: Place, disturbance: Disturbance) -> Iterator[Line]:
    line = words.line
    yield line("frontend", frontend.name)
    if frontend.mode == "http":
        yield line("mode", "http")
    accept = ("accept-proxy",) if frontend.accept_proxy else ()
    for bind in frontend.endpoints():
        yield line("bind", bind, *accept, *_tls(frontend, place))
    yield line("maxconn", frontend.max_connections)
    yield line("timeout", "client", f"{frontend.idle_timeout_s}s")
    if frontend.mode == "http":
        yield line("timeout", "http-keep-alive", f"{frontend.idle_timeout_s}s")
        header_s = min(frontend.idle_timeout_s, HEADER_TIMEOUT_S)
        yield line("timeout", "http-request", f"{header_s}s")
    # In the order in which HAProxy applies them: connection, session, content, requests.
    yield from _reset(disturbance)
    yield line("acl", "allowed", "src", "-f", place.ranges)
    # "connection" sees the peer; the address in a PROXY header is known from "session" on.
    layer = "session" if frontend.accept_proxy else "connection"
    yield line("tcp-request", layer, "reject", "unless", "allowed")
    yield from _delayed(disturbance)
    if frontend.mode == "http":
        yield from _requests(frontend, place)
    if frontend.redirect_port is None:
        yield line("default_backend", frontend.backend)


def _tls(frontend: config.Frontend, place: Place) -> Line:
    if frontend.tls is None:
        return ()
    alpn = ("alpn", words.Fixed.ALPN) if frontend.mode == "http" else ()
    listed = ("ssl", "crt-list", place.certificates(frontend))
    return words.line(*listed, "ssl-min-ver", frontend.tls.min_version, *alpn)


def _requests(frontend: config.Frontend, place: Place) -> Iterator[Line]:
    """What becomes of a request: told who asked for what, sent elsewhere, or routed."""
    line, fixed = words.line, words.Fixed
    if frontend.redirect_port is not None:
        where = words.Location(frontend.redirect_port)
        yield line("acl", "named", fixed.HOST, "-m", "len", "1:")
        yield line("http-request", "deny", "deny_status", 400, "unless", "named")
        yield line("http-request", "redirect", "location", where, "code", 301)
        return
    yield line("option", "forwardfor")
    scheme = "http" if frontend.tls is None else "https"
    yield line("http-request", "set-header", "X-Forwarded-Proto", scheme)
    yield line("http-request", "set-header", "X-Forwarded-Port", fixed.FORWARDED_PORT)
    yield line("http-request", "set-header", "X-Forwarded-Host", fixed.FORWARDED_HOST)
    if frontend.routes:
        yield from _routes(place.routes(frontend))


def _routes(rules: words.Word) -> Iterator[Line]:
    """The longest matching path of the host; else of its domain; else of any host."""
    line, fixed = words.line, words.Fixed
    yield line("http-request", fixed.SET_HOST, fixed.HOST)
    yield line("http-request", fixed.SET_PATH, "path")
    yield line("acl", "routed", fixed.BACKEND, "-m", "found")
    for key in (fixed.HOST_AND_PATH, fixed.WILDCARD_AND_PATH, fixed.ANY_AND_PATH):
        yield line("http-request", fixed.SET_BACKEND, words.Lookup(key, rules), "unless", "routed")
    yield line("use_backend", fixed.CHOSEN_BACKEND, "if", "routed")


def _reset(faults: Disturbance) -> Iterator[Line]:
    line = words.line
    if faults.reset_share:
        # Without a range `rand` gives 32 bits.
        yield line("acl", "unlucky", "rand", "lt", round(faults.reset_share * 2**32))
        yield line("tcp-request", "connection", "reject", "if", "unlucky")


def _delayed(faults: Disturbance) -> Iterator[Line]:
    line = words.line
    if faults.delay_ms:
        yield line("tcp-request", "inspect-delay", f"{faults.delay_ms}ms")
        end = "reject" if faults.hang_up else "accept"
        yield line("tcp-request", "content", end, "if", "WAIT_END")


def _backend(backend: config.Backend, place: Place) -> Iterator[Line]:
    line = words.line
    yield line("backend", backend.name)
    if backend.mode == "http":
        yield line("mode", "http")
        # No target that serves: the connection closes, we don't answer in its place.
        yield line("errorfile", 503, "/dev/null")
    yield line("balance", backend.balance)
    if backend.balance == "source":
        # The map-based default can't take servers at run time and moves most clients.
        yield line("hash-type", "consistent")
    yield line("timeout", "connect", f"{backend.connect_timeout_s}s")
    yield line("timeout", "server", f"{backend.idle_timeout_s}s")
    if backend.source is not None:
        yield line("source", backend.source, "usesrc", "clientip")
    if backend.affinity_s is not None:
        yield from _affinity(backend.affinity_s, place)
    if backend.cookie is not None:
        # Made of the server's address and the key: equal in every process, also for new servers.
        yield line("dynamic-cookie-key", backend.cookie.key)
        insert = ("insert", "indirect", "nocache", "httponly", "dynamic")
        secure = ("secure",) if backend.cookie.secure else ()
        timeout = ("maxidle", f"{backend.cookie.timeout_s}s")
        yield line("cookie", COOKIE, *insert, *secure, *timeout)
    for server in backend.servers:
        state = () if server.ready else ("disabled",)
        yield line("server", server.name, *config.server_options(backend, server), *state)


def _affinity(timeout_s: int, place: Place) -> Iterator[Line]:
    """Send a client where it went before.

    Who comes between the start of this process and the moment it was told what its predecessor
    remembers waits until then; nobody waits later.
    """
    line = words.line
    yield line("stick-table", "type", "ipv6", "size", "50k", "expire", f"{timeout_s}s")
    yield line("stick", "on", "src")
    yield line("acl", "settled", "src", "-f", place.settled)
    yield line("tcp-request", "inspect-delay", f"{SETTLE_MS}ms")
    yield line("tcp-request", "content", "accept", "if", "settled")
    yield line("tcp-request", "content", "accept", "if", "WAIT_END")

"""Whatever a user writes, the configuration has exactly the sections it should have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fakecloud import errors, model
from fakecloud.haproxy import config, rendering, words

PLACE = rendering.Place(socket=words.Word("/run/fakecloud/0123456789.g1.sock"), number=1)
KEYWORDS = {
    "global": {
        "nbthread", "maxconn", "noreuseport", "httpclient.ssl.verify", "stats", "hard-stop-after",
        "ssl-default-bind-ciphers", "ssl-default-bind-options", "ssl-load-extra-files",
        "tune.ssl.cachesize",
    },
    "defaults": {"mode", "no", "option", "retries", "timeout"},
    "frontend": {
        "mode", "bind", "maxconn", "timeout", "acl", "tcp-request", "http-request", "option",
        "use_backend", "default_backend",
    },
    "backend": {
        "mode", "errorfile", "balance", "hash-type", "timeout", "stick-table", "stick", "acl",
        "tcp-request", "dynamic-cookie-key", "cookie", "server",
    },
}  # fmt: skip
HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["x\nlisten evil\n  bind :1", 'a" "b', "${HOME}", "a;disable frontend f0", "#", "\\", "\r"]
    ),
    st.builds("{}\nglobal\n".format, st.text(max_size=5)),
)


PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
IPS = st.one_of(st.ip_addresses().map(str), st.ip_addresses(v=6).map(str), HOSTILE)
NETWORKS = st.one_of(st.ip_addresses().map(str), st.just("10.0.0.0/8"), HOSTILE)
TARGETS = st.builds(
    model.Target,
    ip=IPS,
    port=st.integers(-1, 70_000),
    weight=st.integers(-1, 300),
    node=HOSTILE,
    drain=st.booleans(),
)
HOSTS = st.one_of(st.none(), st.just("shop.example"), st.just("*.example"), HOSTILE)
PATHS = st.one_of(st.none(), st.just("/cart"), HOSTILE, HOSTILE.map("/{}".format))


@st.composite
def groups(draw: st.DrawFn, name: str) -> model.TargetGroup:
    return model.TargetGroup(
        name=name,
        targets=tuple(draw(st.lists(TARGETS, max_size=3))),
        algorithm=draw(st.sampled_from(["round_robin", "least_connections", "source_hash"])),
        affinity=model.Affinity(kind=draw(st.sampled_from(["none", "client_ip", "cookie"]))),
        send_proxy_protocol=draw(st.sampled_from(["none", "v1", "v2"])),
        health_check=model.HealthCheck(path=draw(HOSTILE)),
    )


@st.composite
def listeners(draw: st.DrawFn, name: str, certificates: list[str]) -> model.Listener:
    protocol = draw(st.sampled_from(["tcp", "udp", "http", "https"]))
    secured = protocol == "https" or (protocol == "tcp" and draw(st.booleans()))
    named = draw(st.lists(st.sampled_from(certificates), min_size=1, unique=True))
    routes = st.builds(model.Route, target_group=st.just(name), host=HOSTS, path_prefix=PATHS)
    return model.Listener(
        name=draw(HOSTILE),
        protocol=protocol,
        port=draw(st.integers(1, 65535)),
        target_group=name,
        tls=model.Tls(certificates=tuple(named)) if secured else None,
        routes=tuple(draw(st.lists(routes, max_size=2))) if protocol.startswith("http") else (),
        redirect_https=protocol == "http" and draw(st.booleans()),
    )


@st.composite
def wishes(draw: st.DrawFn) -> model.Desired:
    """Return documents with hostile text wherever a field is text."""
    names = draw(st.lists(HOSTILE, min_size=1, max_size=3, unique=True))
    certificates = draw(st.lists(HOSTILE, min_size=1, max_size=3, unique=True))
    pems = st.one_of(st.just(PEM), st.just(PEM), HOSTILE, HOSTILE.map((PEM + "{}").format))
    return model.Desired(
        lb_id=draw(HOSTILE),
        epoch=1,
        generation=1,
        spec=model.Spec(
            listeners=tuple(draw(listeners(name, certificates)) for name in names),
            target_groups=tuple(draw(groups(name)) for name in names),
            type=draw(HOSTILE),
            region=draw(HOSTILE),
            source_ranges=tuple(draw(st.lists(NETWORKS, max_size=3))),
        ),
        addresses=(model.Address(family="ipv4", ip=draw(IPS), pool=draw(HOSTILE)),),
        certificates=tuple(
            model.CertificateChain(name=name, pem=draw(pems), fingerprint=draw(HOSTILE))
            for name in certificates
        ),
    )


def parse(text: str) -> list[tuple[list[str], list[list[str]]]]:
    """Return sections as HAProxy splits them: a head at the margin, indented lines below."""
    sections: list[tuple[list[str], list[list[str]]]] = []
    for line in text.split("\n"):
        if line and not line.startswith(" "):
            sections.append((line.split(" "), []))
        elif line:
            sections[-1][1].append(line.split())
    return sections


@given(wishes())
@settings(max_examples=300)
def test_hostile_text_never_changes_the_shape(wish: model.Desired) -> None:
    try:
        built = config.build(wish, connections=1000)
    except errors.Permanent:
        return
    files = rendering.files(built, PLACE)
    sections = parse(files[words.Word("g1.cfg")])
    heads = [" ".join(head) for head, _ in sections]
    count = sum(listener.protocol != "udp" for listener in wish.spec.listeners)
    assert heads == [
        "global",
        "defaults",
        *(f"frontend f{i}" for i in range(count)),
        *(f"backend b{i}" for i in range(len(built.backends))),
    ]
    for head, lines in sections:
        assert {line[0] for line in lines} <= KEYWORDS[head[0]]
        assert sum(line[0] == "bind" for line in lines) == (head[0] == "frontend")
        assert not any(
            "#" in word or '"' in word or "\\" in word for line in lines for word in line
        )
    servers = [line for _, lines in sections for line in lines if line[0] == "server"]
    assert len(servers) == sum(len(backend.servers) for backend in built.backends)
    assert files[words.Word("g1.lst")].count("\n") == len(built.source_ranges)
    for frontend in built.frontends:
        if frontend.routes:
            rules = files[PLACE.routes(frontend)].splitlines()
            assert len(rules) == len(frontend.routes)
            assert all(len(rule.split()) == 2 and ";" not in rule for rule in rules)


@given(HOSTILE.map((PEM + "{}").format))
def test_hostile_text_never_becomes_a_certificate(text: str) -> None:
    """What ends a payload is an empty line."""
    try:
        pem = words.Pem(text)
    except ValueError:
        return
    assert "" not in pem.split("\n")[:-1]
    assert pem.isascii()


@given(HOSTILE)
def test_hostile_text_never_becomes_a_word(text: str) -> None:
    try:
        word = words.Word(text)
    except ValueError:
        return
    assert word.isascii()
    assert word.isprintable()
    assert not set(word) & set(" \t;#$\"'\\{}<>|")


@given(st.one_of(HOSTILE, HOSTILE.map("shop.example/{}/".format)))
def test_hostile_text_never_becomes_a_key_of_a_map(text: str) -> None:
    try:
        key = words.MapKey(text)
    except ValueError:
        return
    assert key.isascii()
    assert key.isprintable()
    assert not set(key) & set(" \t;#$\"'\\{}<>|")

"""Whatever a user writes, the configuration has exactly the sections it should have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fakecloud import errors, model
from fakecloud.haproxy import config, rendering, words

PLACE = rendering.Place(socket=words.Word("/run/fakecloud/0123456789.g1.sock"), number=1)
KEYWORDS = {
    "global": {
        "nbthread", "maxconn", "noreuseport", "httpclient.ssl.verify", "stats", "hard-stop-after"
    },
    "defaults": {"mode", "no", "option", "retries", "timeout"},
    "frontend": {"bind", "maxconn", "timeout", "acl", "tcp-request", "default_backend"},
    "backend": {
        "balance", "hash-type", "timeout", "stick-table", "stick", "acl", "tcp-request", "server"
    },
}  # fmt: skip
HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["x\nlisten evil\n  bind :1", 'a" "b', "${HOME}", "a;disable frontend f0", "#", "\\", "\r"]
    ),
    st.builds("{}\nglobal\n".format, st.text(max_size=5)),
)


@st.composite
def wishes(draw: st.DrawFn) -> model.Desired:
    """Return documents with hostile text wherever a field is text."""
    names = draw(st.lists(HOSTILE, min_size=1, max_size=3, unique=True))
    ips = st.one_of(st.ip_addresses().map(str), st.ip_addresses(v=6).map(str), HOSTILE)
    networks = st.one_of(st.ip_addresses().map(str), st.just("10.0.0.0/8"), HOSTILE)
    targets = st.builds(
        model.Target,
        ip=ips,
        port=st.integers(-1, 70_000),
        weight=st.integers(-1, 300),
        node=HOSTILE,
        drain=st.booleans(),
    )
    groups = tuple(
        model.TargetGroup(
            name=name,
            targets=tuple(draw(st.lists(targets, max_size=3))),
            algorithm=draw(st.sampled_from(["round_robin", "least_connections", "source_hash"])),
            affinity=draw(st.sampled_from([model.Affinity(), model.Affinity(kind="client_ip")])),
            send_proxy_protocol=draw(st.sampled_from(["none", "v1", "v2"])),
            health_check=model.HealthCheck(path=draw(HOSTILE)),
        )
        for name in names
    )
    listeners = tuple(
        model.Listener(
            name=draw(HOSTILE), protocol="tcp", port=draw(st.integers(1, 65535)), target_group=name
        )
        for name in names
    )
    return model.Desired(
        lb_id=draw(HOSTILE),
        epoch=1,
        generation=1,
        spec=model.Spec(
            listeners=listeners,
            target_groups=groups,
            type=draw(HOSTILE),
            region=draw(HOSTILE),
            source_ranges=tuple(draw(st.lists(networks, max_size=3))),
        ),
        addresses=(model.Address(family="ipv4", ip=draw(ips), pool=draw(HOSTILE)),),
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
def test_hostile_text_never_changes_the_shape(wish: model.Desired) -> None:
    try:
        built = config.build(wish, connections=1000)
    except errors.Permanent:
        return
    files = rendering.files(built, PLACE)
    sections = parse(files[words.Word("g1.cfg")])
    heads = [" ".join(head) for head, _ in sections]
    count = len(wish.spec.listeners)
    assert heads == [
        "global",
        "defaults",
        *(f"frontend f{i}" for i in range(count)),
        *(f"backend b{i}" for i in range(len(built.backends))),
    ]
    for head, lines in sections:
        assert {line[0] for line in lines} <= KEYWORDS[head[0]]
        assert sum(line[0] == "bind" for line in lines) == (head[0] == "frontend")
    servers = [line for _, lines in sections for line in lines if line[0] == "server"]
    assert len(servers) == sum(len(backend.servers) for backend in built.backends)
    assert files[words.Word("g1.lst")].count("\n") == len(built.source_ranges)


@given(HOSTILE)
def test_hostile_text_never_becomes_a_word(text: str) -> None:
    try:
        word = words.Word(text)
    except ValueError:
        return
    assert word.isascii()
    assert word.isprintable()
    assert not set(word) & set(" \t;#$\"'\\{}<>|")

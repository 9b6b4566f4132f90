"""Address pools: what `--pool` says, and which address comes next."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from fakecloud import model
from fakecloud.domain import addresses
from fakecloud.errors import StartError, ValidationFailed
from fakecloud.network.allocation import Allocator

SMALL = addresses.parse_pool("small=loopback:127.9.0.0/29")  # gives .1 to .6


@pytest.mark.parametrize(
    ("text", "family", "interface"),
    [
        ("default=loopback:127.77.0.0/16", "ipv4", None),
        ("lan=interface:172.18.200.0/24@eth0", "ipv4", "eth0"),
        ("lan-6=interface:fd00:1::/64@br-0.1", "ipv6", "br-0.1"),
        ("local6=loopback:fd00:77::/64", "ipv6", None),
    ],
)
def test_a_pool_is_read(text, family, interface):
    pool = addresses.parse_pool(text)
    assert (pool.family, pool.interface) == (family, interface)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not of the form NAME=KIND:CIDR"),
        ("127.0.0.0/8", "is not of the form"),
        ("Big=loopback:127.1.0.0/16", "is not of the form"),
        ("a=loopback:127.1.0.0/16@", "is not of the form"),
        ("a=loopback:127.1.0.0/99", "'127.1.0.0/99' is not a network"),
        ("a=loopback:127.1.0.1/16", "has host bits set"),
        ("a=loopback:127.1.0.0/31", "is too small"),
        ("a=loopback:10.0.0.0/24", "is not inside 127.0.0.0/8; use kind interface"),
        ("a=loopback:127.1.0.0/16@eth0", "a loopback pool takes no @eth0"),
        ("a=interface:10.0.0.0/24", "say the interface, for example 10.0.0.0/24@eth0"),
        ("a=interface:10.0.0.0/24@a-name-of-16-bytes", "no interface has a name like"),
        ("a=docker:10.0.0.0/24", "say the container network, for example 10.0.0.0/24@kind"),
        ("a=vpc:10.0.0.0/24", "kind 'vpc' is not one of loopback, interface, docker"),
    ],
)
def test_a_wrong_pool_is_refused_with_what_is_wrong(text, reason):
    with pytest.raises(StartError, match="--pool") as refusal:
        addresses.parse_pool(text)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param(None, "127.9.0.1", id="first"),
        pytest.param("127.9.0.1", "127.9.0.2", id="next"),
        pytest.param("127.9.0.6", "127.9.0.1", id="around"),
        pytest.param("127.9.0.0", "127.9.0.1", id="network address, asked for by a customer"),
        pytest.param("127.9.0.7", "127.9.0.2", id="last of the range, asked for"),
        pytest.param("10.0.0.1", "127.9.0.1", id="given before the range was changed"),
    ],
)
def test_the_next_address_follows_the_last_one(last, expected):
    assert next(addresses.after(SMALL, last)) == expected


def test_each_address_comes_once():
    assert [ip[-1] for ip in addresses.after(SMALL, "127.9.0.4")] == list("561234")


@pytest.mark.parametrize(
    ("pools", "protocol", "pointer", "reason"),
    [
        (["inside"], "udp", "/spec/listeners/0/protocol", "a docker pool has no UDP"),
        (["inside", "small"], "tcp", "/spec/addresses/1/pool", "don't go with those of others"),
        (["small", "inside"], "tcp", "/spec/addresses/0/pool", "don't go with those of others"),
    ],
)
def test_what_no_container_can_do_is_refused_by_name(cloud, pools, protocol, pointer, reason):
    allocator = Allocator([SMALL, addresses.parse_pool("inside=docker:10.1.0.0/24@kind")])
    spec = model.Spec(
        listeners=(model.Listener(name="a", protocol=protocol, port=80, target_group="a"),),
        target_groups=(),
        addresses=tuple(model.AddressRequest(family="ipv4", pool=pool) for pool in pools),
    )
    with cloud.database.read() as connection:
        with pytest.raises(ValidationFailed) as refused:
            allocator.choose(connection, [("p", spec, ())], datetime(2026, 1, 1, tzinfo=UTC))
        (error,) = refused.value.errors
        assert (error.pointer, reason in error.message) == (pointer, True)
        good = msgspec.structs.replace(spec, addresses=spec.addresses[:0])
        assert allocator.choose(
            connection, [("p", good, ())], datetime(2026, 1, 1, tzinfo=UTC)
        ) == [()]

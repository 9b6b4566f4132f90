"""Which part of a network a pool takes by itself."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest

from fakecloud import errors
from fakecloud.domain import addresses, ranges


def choose(own: str, used: tuple[str, ...] = (), remembered: str | None = None) -> str:
    taken = [ip_network(one) for one in used]
    known = ip_network(remembered) if remembered else None
    is_used = lambda block: any(block.overlaps(one) for one in taken)  # noqa: E731
    return str(ranges.choose(ip_interface(own), is_used, known))


@pytest.mark.parametrize(
    ("own", "used", "expected"),
    [
        ("172.18.0.5/16", (), "172.18.255.0/24"),
        ("172.18.0.5/16", ("172.18.255.9/32",), "172.18.254.0/24"),
        ("172.18.255.5/16", (), "172.18.254.0/24"),
        ("192.168.228.5/24", (), "192.168.228.192/26"),
        ("192.168.228.5/26", (), "192.168.228.48/28"),
        ("10.0.0.5/8", (), "10.255.255.0/24"),
        ("fc00:f853:ccd:e793::5/64", (), "fc00:f853:ccd:e793:ffff:ffff:ffff:ff00/120"),
    ],
    ids=["usual", "used-at-top", "own-at-top", "small", "smallest", "large", "ipv6"],
)
def test_highest_block_in_which_nobody_answers(own, used, expected):
    assert choose(own, used) == expected


def test_a_block_that_was_chosen_once_stays_while_it_is_part_of_the_network():
    kept = "172.18.250.0/24"
    assert choose("172.18.0.5/16", ("172.18.250.0/24",), kept) == kept
    assert choose("172.19.0.5/16", (), kept) == "172.19.255.0/24"
    assert choose("172.18.250.7/16", (), kept) == "172.18.255.0/24"
    assert choose("fd00::5/64", (), kept).startswith("fd00::")


@pytest.mark.parametrize(
    ("own", "used"),
    [("10.0.0.5/28", ()), ("10.0.0.5/26", ("10.0.0.0/26",))],
    ids=["too small", "full"],
)
def test_no_free_block_names_the_way_out(own, used):
    with pytest.raises(errors.StartError, match="give the range"):
        choose(own, used)


def test_only_an_interface_pool_finds_its_range_itself():
    assert addresses.automatic("default=interface:auto@eth0") == ("default", "eth0")
    assert addresses.automatic("default=interface:10.0.0.0/24@eth0") is None
    with pytest.raises(errors.StartError, match="auto@eth0"):
        addresses.automatic("default=interface:auto")
    with pytest.raises(errors.StartError, match="not a network"):
        addresses.parse_pool("default=loopback:auto")

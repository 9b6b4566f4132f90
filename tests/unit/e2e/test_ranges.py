"""Which addresses `make kind` gives to load balancers."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from tests.e2e import ranges


def network(*configs: dict[str, Any], containers: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "Name": "kind",
        "IPAM": {"Config": list(configs)},
        "Containers": {f"c{n}": {"IPv4Address": ip} for n, ip in enumerate(containers)},
    }


KIND = {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}
KIND6 = {"Subnet": "fc00:f853:ccd:e793::/64", "Gateway": "fc00:f853:ccd:e793::1"}


@pytest.mark.parametrize(
    ("subnet", "taken", "expected"),
    [
        ("172.18.0.0/16", ["172.18.0.1", "172.18.0.2"], "172.18.255.0/24"),
        ("172.18.0.0/16", ["172.18.255.9"], "172.18.254.0/24"),
        ("172.18.0.0/16", ["172.18.192.0/18"], "172.18.191.0/24"),
        ("192.168.228.0/24", ["192.168.228.1"], "192.168.228.192/26"),
        ("192.168.228.0/26", ["192.168.228.1"], "192.168.228.48/28"),
        ("172.18.0.0/16", ["fc00:f853:ccd:e793::1"], "172.18.255.0/24"),
    ],
    ids=["usual", "container-at-top", "engine-range-at-top", "small", "smallest", "ipv6-ignored"],
)
def test_highest_block_that_nothing_uses(subnet, taken, expected):
    assert ranges.choose(IPv4Network(subnet), taken) == IPv4Network(expected)


@pytest.mark.parametrize(
    ("subnet", "taken"),
    [("10.0.0.0/28", []), ("10.0.0.0/26", ["10.0.0.20", "10.0.0.40", "10.0.0.60"])],
    ids=["too-small", "full"],
)
def test_no_free_block_names_the_way_out(subnet, taken):
    with pytest.raises(ranges.NoRange, match="FAKECLOUD_POOL_RANGE"):
        ranges.choose(IPv4Network(subnet), taken)


def test_what_the_engine_shows_is_read_as_taken():
    config = KIND | {"IPRange": "172.18.128.0/17", "AuxiliaryAddresses": {"dns": "172.18.3.3"}}
    shown = network(config, KIND6, containers=("172.18.0.2/16",))
    assert set(ranges.taken_of(shown)) == {
        "172.18.0.2",
        "172.18.0.1",
        "172.18.128.0/17",
        "172.18.3.3",
        "fc00:f853:ccd:e793::1",
    }
    assert ranges.subnet_of(shown) == IPv4Network("172.18.0.0/16")


def test_network_without_ipv4_is_refused_by_name():
    with pytest.raises(ranges.NoRange, match="kind has no IPv4 subnet"):
        ranges.subnet_of(network(KIND6))

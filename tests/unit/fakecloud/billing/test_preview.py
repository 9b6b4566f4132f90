"""What manifests would cost, and which load balancers should share one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fakecloud import errors
from fakecloud.billing import books, consolidation, money, preview
from fakecloud.billing.usage import Attribution, Span
from fakecloud.model import (
    AddressRequest,
    Affinity,
    Listener,
    LoadBalancer,
    OperatingState,
    Spec,
    State,
    TargetGroup,
)
from tests.fakes.clock import FakeClock

AWS, GCP = books.load("aws-nlb-us-east-1"), books.load("gcp-us-central1")


def service(name: str, *ports: int, type: str = "LoadBalancer", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": type, "ports": [{"port": port} for port in ports or (80,)], **spec},
    }


def span(name: str) -> Span:
    return Span(start_us=0, end_us=1, attribution=name, type="lb-s", ports=1, protocols=1, ipv4=1)


def person(name: str) -> Attribution:
    labels = {"namespace": "shop", "service": name}
    return Attribution(id=name, account="default", name=f"k8s-{name}", labels=labels)


THERE = [("lb_web", span("web")), ("lb_api", span("api"))]
PEOPLE = {name: person(name) for name in ("web", "api")}


def asked(*manifests: Any, whole: bool = False, book: Any = AWS) -> dict[str, Any]:
    wanted = preview.planned(manifests)
    return preview.document(preview.items(THERE, PEOPLE, wanted, book, whole=whole), book)


def test_a_new_service_costs_a_month_of_one_more() -> None:
    """730 x (0.0225 + 0.005) = 20.075."""
    made = asked(service("search"))
    assert made["summary"] == {
        "added": 1,
        "changed": 0,
        "removed": 0,
        "monthly_before": "40.15",
        "monthly_after": "60.225",
        "delta": "20.075",
    }
    assert [(one["service"], one["delta"]) for one in made["items"]] == [("search", "20.075")]


def test_invariant_16_what_is_there_already_changes_nothing() -> None:
    made = asked(service("web"), service("api"), whole=True)
    assert (made["summary"]["delta"], made["items"]) == ("0.00", [])


def test_manifests_that_are_everything_take_away_the_rest() -> None:
    made = asked(service("web"), whole=True)
    assert [(one["change"], one["service"], one["delta"]) for one in made["items"]] == [
        ("remove", "api", "-20.075")
    ]


def test_the_first_five_rules_cost_the_same_as_one() -> None:
    made = asked(service("a"), service("b"), service("c"), book=GCP)
    assert made["summary"]["delta"] == "0.00"
    assert asked(*(service(f"s{n}") for n in range(4)), book=GCP)["summary"]["delta"] == "7.30"


def test_lists_other_kinds_and_other_types() -> None:
    listed = {"kind": "List", "apiVersion": "v1", "items": [service("x"), {"kind": "Pod"}]}
    wanted = preview.planned([listed, None, service("y", type="ClusterIP"), service("x", 80, 443)])
    assert [(one.name, one.ports, one.ipv4) for one in wanted] == [("x", 2, 1)]
    six = preview.planned([service("z", ipFamilies=["IPv6"])])
    assert [one.ipv4 for one in six] == [0]


@pytest.mark.parametrize(
    ("manifest", "pointer"),
    [
        ([], "/manifests/0"),
        (service("") | {"metadata": {}}, "/manifests/0/metadata/name"),
        (service("x", ports=[]), "/manifests/0/spec/ports"),
        (service("x") | {"spec": "y"}, "/manifests/0/spec"),
        ({"kind": "List", "items": ["x"]}, "/manifests/0/items/0"),
    ],
)
def test_a_wrong_manifest_is_named(manifest: Any, pointer: str) -> None:
    with pytest.raises(errors.ValidationFailed, match=pointer):
        preview.planned([manifest])


NOW = FakeClock().now()


def candidate(name: str, *ports: int, **changes: Any) -> consolidation.Candidate:
    listeners = tuple(
        Listener(name=f"http-{port}", protocol="tcp", port=port, target_group="all")
        for port in ports or (80,)
    )
    spec: dict[str, Any] = {
        "listeners": listeners,
        "target_groups": (TargetGroup(name="all", targets=()),),
    }
    labels = {"cluster": "kind", "namespace": "shop", "service": name}
    lb = LoadBalancer(
        pk=1,
        id=f"lb_{name}",
        project="default",
        name=f"k8s-{name}",
        labels=labels,
        annotations={},
        spec=Spec(**(spec | changes)),
        addresses=(),
        generation=1,
        observed_generation=1,
        resource_version=1,
        state=State.ACTIVE,
        operating_state=OperatingState.ONLINE,
        conditions=(),
        targets=(),
        last_error=None,
        operation="op",
        was_active=True,
        attempts=0,
        due_at=None,
        ready_at=None,
        lease_epoch=1,
        asked_at=NOW,
        created_at=NOW,
        updated_at=NOW,
    )
    return consolidation.Candidate(lb=lb, span=span(name))


def test_ten_services_should_share_one() -> None:
    """10 x 20.075 become 20.075."""
    found, excluded = consolidation.advise([candidate(f"s{n}") for n in range(10)], AWS)
    assert (len(found), excluded) == (1, [])
    advice = found[0]
    assert money.text(advice.current_pico) == "200.75"
    assert money.text(advice.proposed_pico) == "20.075"
    assert money.text(advice.saves_pico) == "180.675"
    assert advice.confidence == "high"
    kinds = [one["kind"] for one in yaml.safe_load_all(advice.manifest)]
    assert kinds == ["Gateway", *["HTTPRoute"] * 10]


def test_no_advice_where_the_book_gives_no_saving() -> None:
    """Planted bug it catches: the price of one times the number of load balancers."""
    found, excluded = consolidation.advise([candidate(f"s{n}") for n in range(5)], GCP)
    assert found == []
    assert {one.why for one in excluded} == {
        "one load balancer for 5 costs as much under gcp-us-central1@1"
    }


def listener(protocol: Any, port: int, **more: Any) -> tuple[Listener, ...]:
    return (Listener(name="x", protocol=protocol, port=port, target_group="all", **more),)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"listeners": listener("udp", 53)}, "UDP 53"),
        ({"listeners": listener("tcp", 1883)}, "TCP 1883"),
        ({"listeners": listener("tcp", 80, accept_proxy_protocol=True)}, "PROXY"),
        ({"addresses": (AddressRequest(ip="127.0.0.9"),)}, "address of its own"),
        (
            {
                "target_groups": (
                    TargetGroup(name="all", targets=(), affinity=Affinity(kind="client_ip")),
                )
            },
            "ClientIP",
        ),
        ({"source_ranges": ("10.0.0.0/8",)}, "no other"),
    ],
)
def test_who_cannot_share_is_told_why(changes: dict[str, Any], why: str) -> None:
    there = [candidate("a"), candidate("b"), candidate("odd", **changes)]
    found, excluded = consolidation.advise(there, AWS)
    assert found[0].services == ("shop/a", "shop/b")
    assert [one.service for one in excluded] == ["shop/odd"]
    assert why in excluded[0].why

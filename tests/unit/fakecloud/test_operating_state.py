"""What clients of a load balancer meet, from its targets' probes."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud.model import OperatingState, Target, TargetGroup, operating_state, probe_key
from tests.fakes.small_cloud import spec

A, B = (Target(ip="127.0.9.1", port=port) for port in (1, 2))
DRAINING = Target(ip="127.0.9.1", port=3, drain=True)


@pytest.mark.parametrize(
    ("targets", "down", "unknown", "group", "expected"),
    [
        pytest.param((A, B), (), (), {}, "ONLINE", id="all well"),
        pytest.param((A, B), (A,), (), {}, "DEGRADED", id="one fails"),
        pytest.param((A, B), (A, B), (), {}, "OFFLINE", id="all fail"),
        pytest.param((A, B), (A, B), (), {"fail_open": True}, "DEGRADED", id="fails open"),
        pytest.param((A, B), (), (B,), {}, "UNKNOWN", id="no answer yet"),
        pytest.param((), (), (), {}, "NO_TARGETS", id="none"),
        pytest.param((A, DRAINING), (DRAINING,), (), {}, "ONLINE", id="draining fails"),
        pytest.param((A, DRAINING), (A,), (), {}, "OFFLINE", id="only a draining one is well"),
        pytest.param((DRAINING,), (), (), {}, "ONLINE", id="nothing but draining"),
    ],
)
def test_operating_state(targets, down, unknown, group, expected) -> None:
    of = TargetGroup(name="web", targets=targets, **group)
    keys = {target: probe_key(target, of.health_check) for target in targets}
    found = operating_state(
        msgspec.structs.replace(spec(), target_groups=(of,)),
        frozenset(keys[target] for target in down),
        frozenset(keys[target] for target in unknown),
    )
    assert found is OperatingState(expected)

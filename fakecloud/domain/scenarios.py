"""Named scenarios: sets of faults that make this cloud behave as others were seen to.

Times of aws-like and octavia-stuck: creation of NLBs took 142 to 161 s in public CI logs; Octavia
is known for load balancers that stay PENDING_CREATE until somebody acts.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fakecloud.domain.faults import Action, Layer, Match, Trigger


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a scenario."""

    layer: Layer
    action: Action
    match: Match = Match()
    trigger: Trigger = Trigger()


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What it imitates, for how long unless said otherwise, and its faults in order."""

    description: str
    expires_in_s: int
    faults: tuple[Template, ...]


SCENARIOS: Final[dict[str, Scenario]] = {
    "aws-like": Scenario(
        description="creation takes some 157 s, changes some 10 s, 2 of 100 requests are throttled",
        expires_in_s=3600,
        faults=(
            Template(
                layer=Layer.PROVISION,
                match=Match(operation="create"),
                action=Action(
                    type="delay", seconds=157, distribution="lognormal", sigma=0.06, most_s=300
                ),
            ),
            Template(
                layer=Layer.PROVISION,
                match=Match(operation="update"),
                action=Action(
                    type="delay", seconds=10, distribution="lognormal", sigma=0.25, most_s=60
                ),
            ),
            Template(
                layer=Layer.API,
                trigger=Trigger(probability=0.02),
                action=Action(type="rate_limit", retry_after_s=2),
            ),
        ),
    ),
    "octavia-stuck": Scenario(
        description="creations and changes stay in progress until the fault is removed",
        expires_in_s=600,
        faults=(Template(layer=Layer.PROVISION, action=Action(type="stuck")),),
    ),
    "hetzner-ratelimited": Scenario(
        description="every third request is answered 429 with Retry-After: 1",
        expires_in_s=600,
        faults=(
            Template(
                layer=Layer.API,
                trigger=Trigger(every_n=3),
                action=Action(type="rate_limit", retry_after_s=1),
            ),
        ),
    ),
    "flaky-5": Scenario(
        description="4 of 100 requests are answered 503, 1 of 100 is done but its answer is lost",
        expires_in_s=600,
        faults=(
            Template(
                layer=Layer.API,
                trigger=Trigger(probability=0.04),
                action=Action(type="status", code=503, retry_after_s=1),
            ),
            Template(
                layer=Layer.API,
                trigger=Trigger(probability=0.01),
                action=Action(type="drop_after_commit"),
            ),
        ),
    ),
    "blackout-60s": Scenario(
        description="every connection is cut for 60 s, open watches too",
        expires_in_s=60,
        faults=(
            Template(layer=Layer.API, action=Action(type="reset_before")),
            Template(layer=Layer.WATCH, action=Action(type="disconnect")),
        ),
    ),
    "slow-ip": Scenario(
        description="a new load balancer answers on its address only after 20 to 40 s",
        expires_in_s=600,
        faults=(
            Template(
                layer=Layer.PROVISION,
                match=Match(operation="create"),
                action=Action(type="delay", seconds=20, distribution="uniform", most_s=40),
            ),
        ),
    ),
}

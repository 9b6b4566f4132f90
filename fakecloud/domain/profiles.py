"""How long other clouds take: catalogue of latency profiles, and the delay of one load balancer.

Times are medians of measurements. Grades say how good they are: `log` from `terraform apply` logs
found in public repositories, `documented` from a vendor's text or source, `guess` from neither.
A delay is a floor: the real HAProxy is made at once, and the cloud says so when the delay is over.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Final, Literal

import msgspec

KEY: Final = "chaos.fakecloud.dev/profile"
"""Label or annotation of a load balancer that names its profile; the annotation is stronger."""

Kind = Literal["create", "update", "delete"]
Grade = Literal["exact", "log", "documented", "guess"]


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, lognormally distributed around a median and cut off at both ends."""

    median_s: float
    sigma: float
    min_s: float = 0.0
    max_s: float = 900.0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud's pace; a kind of operation without a delay ends as soon as the work is done."""

    name: str
    description: str
    grade: Grade
    source: str
    create: Delay | None = None
    update: Delay | None = None
    delete: Delay | None = None


_APPLY_LOGS = "terraform apply logs in public repositories"
_ALL: Final = (
    Profile(
        name="dev",
        description="as fast as this machine; no limits",
        grade="exact",
        source="no delay is added",
    ),
    Profile(
        name="instant",
        description="no delay, for tests",
        grade="exact",
        source="no delay is added",
    ),
    Profile(
        name="aws-alb",
        description="AWS Application Load Balancer",
        grade="log",
        source=f"{_APPLY_LOGS}: 132 to 187 s, n=11",
        create=Delay(median_s=148, sigma=0.10, min_s=132),
    ),
    Profile(
        name="aws-nlb",
        description="AWS Network Load Balancer; a change waits for target registration",
        grade="log",
        source=f"{_APPLY_LOGS}: 142, 157, 161 s; targets stay `initial` up to 180 s (documented)",
        create=Delay(median_s=157, sigma=0.06),
        update=Delay(median_s=120, sigma=0.25, max_s=180),
    ),
    Profile(
        name="gcp",
        description="Google Cloud forwarding rule; its backends take minutes more",
        grade="log",
        source=f"{_APPLY_LOGS}: 22, 22, 23 s",
        create=Delay(median_s=22, sigma=0.03),
    ),
    Profile(
        name="azure",
        description="Azure Load Balancer",
        grade="log",
        source=f"{_APPLY_LOGS}: azurerm_lb 2 to 3 s",
        create=Delay(median_s=2.5, sigma=0.2),
    ),
    Profile(
        name="digitalocean",
        description="DigitalOcean Load Balancer",
        grade="log",
        source=f"{_APPLY_LOGS}: 61, 101 s; its own controller gave up after 90 s",
        create=Delay(median_s=80, sigma=0.25),
    ),
    Profile(
        name="octavia",
        description="OpenStack Octavia with an amphora VM",
        grade="log",
        source=f"{_APPLY_LOGS}: 71 s including the VM's boot",
        create=Delay(median_s=75, sigma=0.35, max_s=180),
    ),
    Profile(
        name="hetzner",
        description="Hetzner Load Balancer",
        grade="guess",
        source="no measurement found; its clients ask every 500 ms, which implies seconds",
        create=Delay(median_s=3, sigma=0.25),
    ),
)
CATALOGUE: Final[Mapping[str, Profile]] = {profile.name: profile for profile in _ALL}
ALIASES: Final[Mapping[str, str]] = {"do": "digitalocean"}


class UnknownProfile(LookupError):
    """There is no profile of that name; the text says which there are."""

    def __init__(self, name: str) -> None:
        known = ", ".join([*CATALOGUE, *ALIASES])
        super().__init__(f"there is no profile {name!r}; there are: {known}")


def find(name: str) -> Profile:
    """Return the profile of that name or alias. Raises: UnknownProfile."""
    try:
        return CATALOGUE[ALIASES.get(name, name)]
    except KeyError:
        raise UnknownProfile(name) from None


def chosen(default: Profile, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Profile:
    """Return the profile of a load balancer. Raises: UnknownProfile."""
    name = annotations.get(KEY) or labels.get(KEY)
    return find(name) if name else default


def delay_s(profile: Profile, kind: Kind, lb_id: str, generation: int) -> float:
    """Return how long an operation takes at least, in seconds of the simulated cloud.

    The same arguments give the same seconds, in every process and on every day.
    """
    delay: Delay | None = getattr(profile, kind)
    if delay is None:
        return 0.0
    seed = hashlib.sha256(f"{profile.name}/{kind}/{lb_id}/{generation}".encode()).digest()
    share = (int.from_bytes(seed[:6], "big") + 0.5) / (1 << 48)  # never 0, never 1
    seconds = delay.median_s * math.exp(delay.sigma * NormalDist().inv_cdf(share))
    return min(max(seconds, delay.min_s), delay.max_s)

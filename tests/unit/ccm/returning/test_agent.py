"""What the agent on a node tells the kernel, and when."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ccm.returning import agent as agents
from ccm.returning import rules

MAC, OTHER = "02:42:ac:12:00:05", "02:42:ac:12:00:09"


class Clock:
    """Monotonic seconds, by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


class Kernel:
    """Names and neighbours to look at; rules and routes as they were told."""

    def __init__(self) -> None:
        self.names = {"fakecloud": ("172.18.0.5", "fc00::5")}
        self.macs = {"172.18.0.5": MAC, "fc00::5": MAC}
        self.told: list[str] = []
        self.routes: dict[tuple[int, str], str] = {}

    def addresses(self, host: str) -> tuple[str, ...]:
        return self.names.get(host, ())

    def mac(self, ip: str) -> str | None:
        return self.macs.get(ip)

    def tell(self, ruleset: str) -> None:
        self.told.append(ruleset)

    def route(self, index: int, ip: str) -> None:
        self.routes[index, "IPv6" if ":" in ip else "IPv4"] = ip

    def remove(self, index: int) -> None:
        self.routes = {key: ip for key, ip in self.routes.items() if key[0] != index}


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agent(kernel: Kernel, clock: Clock) -> agents.Agent:
    return agents.Agent(kernel, ["fakecloud"], "eth0", clock)  # type: ignore[arg-type]


def test_told_once_and_again_after_a_while(agent, kernel, clock):
    assert agent.step()
    assert agent.ready
    assert kernel.routes == {(0, "IPv4"): "172.18.0.5", (0, "IPv6"): "fc00::5"}
    assert not agent.step()
    clock.seconds += agents.AGAIN_S
    assert agent.step(), "somebody may have removed it"
    assert kernel.told[0] == kernel.told[1]


def test_a_gateway_that_moved_is_followed(agent, kernel):
    agent.step()
    kernel.names["fakecloud"] = ("172.18.0.9",)
    kernel.macs["172.18.0.9"] = OTHER
    assert agent.step()
    assert OTHER in kernel.told[-1]
    assert MAC not in kernel.told[-1]
    assert kernel.routes[0, "IPv4"] == "172.18.0.9"


def test_one_that_starts_anew_keeps_its_way(agent, kernel):
    agent.step()
    kernel.names.clear()
    assert not agent.step()
    assert agent.ready


def test_nothing_is_told_of_an_unknown_host(agent, kernel):
    kernel.macs.clear()
    assert not agent.step()
    assert not agent.ready
    assert not kernel.told


def test_nothing_is_left(agent, kernel):
    agent.step()
    agent.remove()
    assert not kernel.routes
    assert "{" not in kernel.told[-1]


@pytest.mark.parametrize("mac", ["", "02:42", 'aa:bb:cc:dd:ee:ff" accept #', "AA:BB:CC:DD:EE:FF"])
def test_nothing_but_a_mac_gets_into_the_rules(mac):
    with pytest.raises(ValueError, match="MAC"):
        rules.Gateway(("172.18.0.5",), mac)


def test_marks_leave_the_bits_of_others_alone():
    marks = {rules.mark(index) for index in range(rules.MOST)}
    assert len(marks) == rules.MOST
    assert all(mark & ~rules.MASK == 0 for mark in marks)
    assert rules.MASK & 0xC000 == 0, "kube-proxy's"


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_nft_understands_the_rules():
    gateways = [rules.Gateway(("172.18.0.5",), MAC), rules.Gateway(("172.18.0.9",), OTHER)]
    for text in (rules.ruleset(gateways, "eth0"), rules.removal()):
        subprocess.run(["nft", "--check", "-f", "-"], input=text, text=True, check=True)

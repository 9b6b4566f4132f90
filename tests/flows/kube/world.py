"""Both programs as processes on the embedded cluster, and what they leave behind."""

from __future__ import annotations

import os
import signal
import ssl
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import httpx2

from fakecloud.clock import SystemClock
from tests.cluster import embedded
from tests.demo import programs

Json = dict[str, Any]

CLOCK = SystemClock()
RBAC = Path(__file__).parents[3] / "manifests" / "base" / "rbac.yaml"
_SERVICES = "/api/v1/services"
_QUIET_POLL_S = 0.05


class World:
    """One cloud and one controller; the controller has the rights of the shipped rbac.yaml."""

    def __init__(self, cluster: embedded.EmbeddedCluster, directory: Path) -> None:
        """directory: an empty one with a short path: sockets live below it."""
        self.cluster = cluster
        self.state_dir = directory / "state"
        self.runtime_dir = directory / "run"
        self.token_file = directory / "token"
        self.port = programs.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._pool, self._claim = programs.free_pool()
        self._http: httpx2.Client | None = None
        self.serve = programs.Program(
            "fakecloud",
            [
                "serve",
                f"--listen=127.0.0.1:{self.port}",
                f"--state-dir={self.state_dir}",
                f"--runtime-dir={self.runtime_dir}",
                f"--pool=default=loopback:{self._pool}",
            ],
            directory / "serve.log",
            {},
        )
        self._directory = directory
        self.ccm = self.controller("ccm.log", "--no-leader-elect")

    def controller(self, log: str, *flags: str, kubeconfig: Path | None = None) -> Controller:
        """Return a controller that isn't started; `flags` are added to the usual ones."""
        return Controller(self, self._directory / log, flags, kubeconfig)

    def start(self) -> None:
        """Start both; return when the controller works."""
        self.serve.start("ready at")
        self.token_file.write_text((self.state_dir / "admin.token").read_text())
        self.cluster.kubectl("apply", "--namespace=kube-system", "-f", str(RBAC))
        self.ccm.start()
        self.ccm.wait_for("caches_synced")

    def ensure_running(self) -> None:
        """Start again what a test has ended."""
        if not self.serve.running():
            self.serve.start("ready at")
        if not self.ccm.running():
            self.ccm.start()
            self.ccm.wait_for("caches_synced")

    def remove_services(self) -> None:
        """Delete every Service that the controller might serve."""
        for one in self.cluster.request("GET", _SERVICES)["items"]:
            if one["spec"]["type"] == "LoadBalancer":
                self.cluster.request("DELETE", path(one))
        embedded.eventually(lambda: not self.balancers())

    def end(self) -> None:
        """Stop both and their HAProxy processes."""
        self.ccm.stop()
        self.serve.stop()
        for _, pid in self.haproxies():
            os.kill(pid, signal.SIGTERM)
        if self._http is not None:
            self._http.close()
        self._claim.close()

    @property
    def http(self) -> httpx2.Client:
        """The cloud's API, with a token."""
        if self._http is None:
            token = self.token_file.read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            self._http = httpx2.Client(base_url=f"{self.url}/v1", headers=headers, timeout=15)
        return self._http

    def balancers(self) -> dict[str, Json]:
        """Return the cloud's load balancers by name."""
        answer = self.http.get("/load-balancers", params={"page_size": 1000})
        answer.raise_for_status()
        return {one["name"]: one for one in answer.json()["items"]}

    def haproxies(self) -> list[tuple[str, int]]:
        """Return (load balancer id, pid) of every HAProxy process, also of two for one id."""
        found = []
        root = f"{self.state_dir}/lb/"
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            ids = {word.removeprefix(root).split("/")[0] for word in words if word.startswith(root)}
            if "haproxy" in words[0]:
                found += [(one, int(entry.name)) for one in ids]
        return sorted(found)

    def has_one_process_each(self) -> bool:
        """Say whether every load balancer has exactly one HAProxy process, and nobody else has."""
        ids = sorted(one["status"]["id"] for one in self.balancers().values())
        return ids == [id_ for id_, _ in self.haproxies()]

    def leftovers(self) -> list[str]:
        """Return what is still there of load balancers: documents, processes, files."""
        left = list(self.balancers())
        left += [f"pid {pid}" for _, pid in self.haproxies()]
        for folder in (self.state_dir / "lb", self.runtime_dir):
            left += [str(one) for one in folder.rglob("*") if "lb_" in str(one)]
        return left


class Controller(programs.Program):
    """`fakecloud-ccm run` with a health port."""

    def __init__(
        self, world: World, log: Path, flags: tuple[str, ...], kubeconfig: Path | None
    ) -> None:
        self._world = world
        self._flags = flags
        self._kubeconfig = kubeconfig
        self._port = 0
        self._offset = 0
        super().__init__("fakecloud-ccm", [], log, {})

    def start(self, ready: str | None = None, timeout_s: float = 60.0) -> str:
        """Run it; see Program.start."""
        self._port = programs.free_port()  # late: others take ports too
        plane = self._world.cluster.control_plane
        kubeconfig = self._kubeconfig or plane.kubeconfig_for_service_account(
            "kube-system", "fakecloud-ccm"
        )
        self._command[1:] = [
            "run",
            f"--kubeconfig={kubeconfig}",
            f"--cloud-url={self._world.url}",
            f"--cloud-token-file={self._world.token_file}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--cluster-name=flows",
            "--orphan-grace-period=1s",
            *self._flags,
        ]
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        return super().start(ready, timeout_s)

    def lines(self, word: str = "") -> list[str]:
        """Return the log lines since the last start that contain `word`."""
        if not self.log.exists():
            return []
        text = self.log.read_bytes()[self._offset :].decode(errors="replace")
        return [line for line in text.splitlines() if word in line]

    def wait_for(self, word: str, timeout_s: float = 30.0) -> str:
        """Return the first log line since the last start that contains `word`.

        Raises: ProgramError if it ends without a word.
        """

        def found() -> list[str]:
            running = self.running()
            lines = self.lines(word)
            if not lines and not running:
                raise programs.ProgramError(f"{self.name} ended: {self.last_words()}")
            return lines

        return embedded.eventually(found, timeout_s=timeout_s)[0]

    def readiness(self) -> tuple[int, str]:
        """Return status and text of /readyz."""
        return self._get("/readyz")

    def work_done(self) -> Counter[str]:
        """Return how many looks at Services and requests to the cloud there were, by label."""
        done: Counter[str] = Counter()
        for line in self._get("/metrics")[1].splitlines():
            if line.startswith(("ccm_cloud_requests_total{", "ccm_reconciles_total{")):
                what, _, count = line.rpartition(" ")
                done[what] = int(float(count))
        return done

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        for line in self._get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)

    def _get(self, where: str) -> tuple[int, str]:
        trust = ssl.create_default_context()
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
        url = f"https://127.0.0.1:{self._port}{where}"
        try:
            response = urllib.request.urlopen(url, timeout=5, context=trust)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, response.read().decode()


def path(service: Json) -> str:
    """Return where a Service lives in the API."""
    meta = service["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}"


def stays(read: Callable[[], Any], seconds: float) -> bool:
    """Say whether `read` gives the same value for so long."""
    first = read()
    deadline = CLOCK.monotonic() + seconds
    while CLOCK.monotonic() < deadline:
        if read() != first:
            return False
        CLOCK.wait(Event(), _QUIET_POLL_S)
    return True

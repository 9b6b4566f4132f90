"""The acts of the demo. Each prints what it sees and raises StoryError when it doesn't hold."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import yaml

from tests.cluster import embedded
from tests.demo import programs, samples, traffic
from tests.demo.cloud import Cloud
from tests.demo.screen import Screen

T = TypeVar("T")
Json = dict[str, Any]

MONTH = "month (730 h)"


class StoryError(Exception):
    """Something that should hold doesn't; says what and where the log is."""


def until(
    what: str, read: Callable[[], T | None], timeout_s: float = 30.0, pause_s: float = 0.004
) -> T:
    """Return the first answer of `read` that isn't None or False. Raises: StoryError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = read()
        if answer is not None and answer is not False:
            return answer
        time.sleep(pause_s)
    raise StoryError(f"{what}: not within {timeout_s:g} s")


class CloudActs:
    """What needs only fakecloud: played while the control plane is built, and at the end."""

    def __init__(self, screen: Screen, state_dir: Path) -> None:
        pool, self._pool_lock = programs.free_pool()
        self.screen = screen
        self.state_dir = state_dir
        self.port = programs.free_port()
        self.server = programs.Program(
            "fakecloud",
            [
                "serve",
                f"--listen=127.0.0.1:{self.port}",
                f"--state-dir={state_dir}",
                f"--runtime-dir={state_dir.parent / 'run'}",
                f"--pool=default=loopback:{pool}",
            ],
            state_dir.parent / "fakecloud.log",
            {},
        )
        self._cloud: Cloud | None = None

    @property
    def cloud(self) -> Cloud:
        """The client of the running server."""
        if self._cloud is None:
            self._cloud = Cloud(f"http://127.0.0.1:{self.port}", self.token_file)
        return self._cloud

    @property
    def token_file(self) -> Path:
        """Where the server wrote its first token."""
        return self.state_dir / "admin.token"

    def start(self) -> None:
        """Start the server."""
        began = time.monotonic()
        self.server.start("ready at")
        self.screen.fact(f"fakecloud serve answers at {self.cloud.url}", f"{_ms(began)} ms, SQLite")

    def rest_half(self) -> None:
        """A load balancer by one PUT, traffic through it, its cost, and away."""
        self.screen.act("Meanwhile: the cloud alone, by its REST API")
        self.start()
        document = {
            "labels": {"namespace": "by-hand"},
            "spec": {
                "listeners": [
                    {"name": "api", "protocol": "tcp", "port": 8080, "target_group": "api"}
                ],
                "target_groups": [
                    {"name": "api", "targets": [{"ip": "127.0.0.1", "port": self.port}]}
                ],
            },
        }
        began = time.monotonic()
        made = self.cloud.put("by-hand", document)
        ip = made["status"]["addresses"][0]["ip"]
        self.screen.fact(
            f"PUT /v1/load-balancers/by-hand: {made['status']['state']} at {ip}",
            f"{_ms(began)} ms",
        )
        if made["status"]["state"] != "ACTIVE":
            raise StoryError(f"the load balancer is {made['status']['state']}; {self._log()}")
        connection = http.client.HTTPConnection(ip, 8080, timeout=5)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        self.screen.fact(
            f"GET http://{ip}:8080/healthz through it: {answer.status}",
            "its target is the cloud's own API",
        )
        connection.close()
        self.costs()

    def costs(self) -> None:
        """The cost report as a table."""

        def begun() -> Json | None:
            # It ends with the last whole second: what was made within this one isn't in it yet.
            report = self.cloud.cost_report("namespace,service,load_balancer")
            return report if report["groups"] else None

        report = until("the cost report has a line", begun, 5, 0.1)
        rows = [
            [
                str(group["key"].get("namespace") or "-"),
                str(group["key"].get("service") or group["key"].get("load_balancer") or "-"),
                group["amount"],
                group["monthly_run_rate"],
            ]
            for group in report["groups"]
        ]
        rows.append(["total", "", report["total"], report["monthly_run_rate"]])
        money = report["currency"]
        self.screen.table(
            ["namespace", "service", f"so far, {money}", f"run rate per {MONTH}, {money}"],
            rows,
            {2, 3},
        )
        self.screen.line(
            f"prices of {report['price_book']}; a deleted one costs what it has cost", "dim"
        )

    def end(self) -> None:
        """Delete every load balancer and stop the server, in whatever state they are."""
        if self.server.running():
            with contextlib.suppress(httpx2.HTTPError):
                self.cloud.delete_all()
        self.server.stop()
        programs.end_haproxies(self.state_dir)
        if self._cloud is not None:
            self._cloud.close()
        self._pool_lock.close()

    def _log(self) -> str:
        return self.server.last_words()


class ClusterActs:
    """What needs a cluster: from `<pending>` to an address, and through trouble."""

    def __init__(
        self, screen: Screen, cloud: CloudActs, cluster: embedded.EmbeddedCluster, logs: Path
    ) -> None:
        self.screen = screen
        self.cloud = cloud
        self.cluster = cluster
        self.controller = programs.Program(
            "fakecloud-ccm",
            [
                "run",
                f"--kubeconfig={cluster.kubeconfig}",
                f"--cloud-url={cloud.cloud.url}",
                f"--cloud-token-file={cloud.token_file}",
                "--cluster-name=demo",
                "--secure-port=0",
            ],
            logs / "fakecloud-ccm.log",
            {},
        )
        self.services: dict[str, tuple[str, int]] = {}

    def start(self) -> None:
        """Start the controller and wait until it leads."""
        began = time.monotonic()
        self.controller.start()
        until(
            f"fakecloud-ccm becomes leader ({self.controller.log})",
            lambda: self._lease_holder() or self._controller_died(),
            60,
        )
        self.screen.fact("fakecloud-ccm run leads the cluster", f"{_ms(began)} ms")

    def pending_to_address(self) -> None:
        """Apply the samples; each Service goes from <pending> to an address."""
        self.screen.act("Two Services of type LoadBalancer: from <pending> to an address")
        objects, raised = samples.load()
        if raised:
            self.screen.line(
                f"ports below {samples.lowest_port()} need root here, so 80 becomes 8080", "yellow"
            )
        others = [one for one in objects if one["kind"] != "Service"]
        services = [one for one in objects if one["kind"] == "Service"]
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(others))
        self._wait_for_pods(others)
        waiting: dict[str, tuple[float, Json]] = {}
        for one in services:
            name = one["metadata"]["name"]
            self.cluster.request("POST", "/api/v1/namespaces/default/services", one)
            waiting[name] = (time.monotonic(), one)
            policy = one["spec"].get("externalTrafficPolicy", "Cluster")
            ports = ", ".join(str(port["port"]) for port in one["spec"]["ports"])
            self.screen.line(f"{name:<12} <pending>        ports {ports}, traffic policy {policy}")
        for name, (began, one) in waiting.items():
            try:
                ip = until(
                    f"Service {name} gets an address",
                    lambda name=name: self._address(name),  # type: ignore[misc]
                )
            except StoryError as error:
                raise StoryError(f"{error}; {self._why(name)}") from None
            self.services[name] = (ip, one["spec"]["ports"][0]["port"])
            self.screen.fact(f"{name:<9} {ip:<16} address in status", f"{_ms(began)} ms")
        self._events()

    def answers(self) -> None:
        """Ask each Service through its load balancer; show who answered."""
        self.screen.act("HTTP through the load balancers: which node and pod answered")
        for name, (ip, port) in self.services.items():
            until(f"{name} answers at {ip}:{port}", lambda ip=ip, port=port: ask(ip, port))  # type: ignore[misc]
            seen = []
            for _ in range(6):
                body = json.loads(traffic.get(ip, port))
                seen.append(f"{body['node']}/{body['pod']}")
            shown = ", ".join(sorted(set(seen)))
            self.screen.fact(f"curl http://{ip}:{port}/  6 times: {shown}")
        self.screen.line("(stand-in nodes answer for their pods; they say so in the body)", "dim")

    def kill_the_cloud(self) -> None:
        """kill -9 of the server while requests run: nobody notices."""
        self.screen.act("kill -9 of fakecloud serve, while requests run")
        name, (ip, port) = next(iter(self.services.items()))
        before = programs.haproxies(self.cloud.state_dir)
        with traffic.Traffic(ip, port) as load:
            load.wait_for(100)
            self.cloud.server.kill()
            load.wait_for(150)
            began = time.monotonic()
            self.cloud.server.start("ready at")
            ready = _ms(began)
            load.wait_for(150)
        after = programs.haproxies(self.cloud.state_dir)
        if before != after:
            raise StoryError(f"HAProxy processes changed from {before} to {after}")
        self.screen.fact(f"{len(after)} HAProxy processes run on and are re-adopted", f"{ready} ms")
        self.screen.fact(f"{load.done} requests to {name}, failed: {load.failed}")
        if load.failed:
            raise StoryError(f"requests failed: {dict(load.failures)}")

    def delete_one(self) -> None:
        """Delete a Service: address, process and status are gone."""
        self.screen.act("One Service is deleted")
        name, (ip, port) = list(self.services.items())[-1]
        before = programs.haproxies(self.cloud.state_dir)
        began = time.monotonic()
        self.cluster.kubectl("delete", "service", name, "--wait=true", "--timeout=30s")
        self.screen.fact(f"{name} is gone from the cluster, finalizer and all", f"{_ms(began)} ms")
        left = until(
            "one HAProxy process less",
            lambda: _fewer(programs.haproxies(self.cloud.state_dir), before),
        )
        self.screen.fact(f"its HAProxy process is gone, {len(left)} left")
        if ask(ip, port):
            raise StoryError(f"{ip}:{port} still answers")
        self.screen.fact(f"{ip} answers no more")
        del self.services[name]

    def costs(self) -> None:
        """What it has cost, and would."""
        self.screen.act("What it costs")
        self.cloud.costs()

    def how_to_use(self) -> None:
        """Print the lines to use what runs."""
        self.screen.act("It stays up. In another terminal:")
        kubectl = self.cluster.control_plane.kubectl
        for line in (
            f"export KUBECONFIG={self.cluster.kubeconfig}",
            f"export PATH={kubectl.parent}:$PATH",
            "kubectl get svc -w",
            f"export FAKECLOUD_URL={self.cloud.cloud.url}",
            f"export FAKECLOUD_TOKEN_FILE={self.cloud.token_file}",
            f"{Path(sys.executable).parent / 'fakecloud'} lb list",
            f"{Path(sys.executable).parent / 'fakecloud'} cost report --group-by namespace,service",
        ):
            self.screen.line(line, "bold")
        self.screen.line(f"API documentation: {self.cloud.cloud.url}/docs")
        self.screen.line("Ctrl-C removes everything.")

    def end(self) -> None:
        """Stop the controller."""
        self.controller.stop()

    def _lease_holder(self) -> str | None:
        try:
            lease = self.cluster.request(
                "GET",
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"
                "cloud-controller-manager",
            )
        except OSError:
            return None
        holder: str | None = lease["spec"].get("holderIdentity") or None
        return holder

    def _controller_died(self) -> None:
        if not self.controller.running():
            raise StoryError(f"fakecloud-ccm ended: {self.controller.last_words()}")

    def _wait_for_pods(self, objects: list[Json]) -> None:
        for one in objects:
            if one["kind"] != "Deployment":
                continue
            name, wanted = one["metadata"]["name"], one["spec"]["replicas"]
            path = f"/apis/apps/v1/namespaces/default/deployments/{name}"

            def ready(path: str = path, wanted: int = wanted) -> bool:
                status = self.cluster.request("GET", path).get("status", {})
                return status.get("readyReplicas", 0) >= wanted

            until(f"Deployment {name} is ready", ready, 60, 0.05)
            self.screen.fact(f"Deployment {name}: {wanted} pods ready")

    def _address(self, name: str) -> str | None:
        self._controller_died()
        service = self.cluster.request("GET", f"/api/v1/namespaces/default/services/{name}")
        ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
        ip: str | None = ingress[0].get("ip")
        return ip

    def _why(self, name: str) -> str:
        """Return what the Service's conditions say."""
        service = self.cluster.request("GET", f"/api/v1/namespaces/default/services/{name}")
        said = [
            f"{one['type']}={one['status']}: {one.get('message') or one.get('reason')}"
            for one in service.get("status", {}).get("conditions", [])
        ]
        return "; ".join(said) or f"it has no condition (log: {self.controller.log})"

    def _events(self) -> None:
        wanted = len(self.services) * 2

        def read() -> list[Json] | None:
            events: list[Json] = self.cluster.request("GET", "/api/v1/namespaces/default/events")[
                "items"
            ]
            ours = [one for one in events if one["involvedObject"]["kind"] == "Service"]
            return ours if len(ours) >= wanted else None

        for one in until("events of the Services", read, 10, 0.05):
            name = one["involvedObject"]["name"]
            self.screen.line(
                f"event  {one['reason']:<22} service/{name:<10} {one['message']}", "dim"
            )


def ask(ip: str, port: int) -> str | None:
    """Return the answer to one request, None when there is none."""
    try:
        return traffic.get(ip, port)
    except (OSError, http.client.HTTPException):
        return None


def _fewer(now: dict[str, int], before: dict[str, int]) -> dict[str, int] | None:
    return now if len(now) < len(before) else None


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

"""A real etcd, kube-apiserver and kube-controller-manager on loopback.

Flags follow controller-runtime's envtest and kwok where they agree. There is no scheduler and no
kubelet: StandIns do what the rest of the system sees of them.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cluster import errors, pki, processes

ADDRESS = "127.0.0.1"
SERVICE_CIDR = "10.96.0.0/16"
# TEST-NET-1: the API server refuses to advertise loopback and needs no route to what it advertises.
_ADVERTISED = "192.0.2.1"
# Above the ports of the Kubernetes components themselves (kube-proxy's 10256, the controller's 10258).
_FIRST_NODE_PORT = 11000
_LAST_NODE_PORT = 62000
_ENOUGH_NODE_PORTS = 15000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORT_TRIES = 3
_POLL_S = 0.05
_REQUEST_TIMEOUT_S = 10.0
_TOKEN_LIFETIME_S = 24 * 3600

# No scheduler-bound or kubelet-bound controllers; node-lifecycle is left out so that stand-ins stay
# Ready without heartbeats; service, route and cloud-node controllers belong to the cloud's manager.
_CONTROLLERS = (
    "deployment-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "serviceaccount-controller",
    "statefulset-controller",
)


class ControlPlane:
    """The three processes, from `start()` to `stop()`, or as a context manager.

    Attributes (once started): `url` of the API server, `kubeconfig` (cluster administrator),
    `directory` with the logs. Nothing survives this process, not even its kill -9.
    """

    def __init__(
        self,
        binaries: Path,
        directory: Path | None = None,
        *,
        service_cidr: str = SERVICE_CIDR,
        timeout_s: float = 90.0,
    ) -> None:
        """binaries: a directory with the executables. directory: where to work, default temporary.

        timeout_s bounds each process' start, generously: machines may be small and busy.
        """
        self._binaries = binaries
        self._wanted_directory = directory
        self._service_cidr = service_cidr
        self._timeout_s = timeout_s
        self._children = processes.Children()
        self._owned: processes.OwnedDirectory | None = None
        self._authority = pki.Authority()
        self._ssl: ssl.SSLContext | None = None
        self.url = ""

    @property
    def directory(self) -> Path:
        """Where logs, keys and kubeconfigs are."""
        assert self._owned is not None, "not started"
        return self._owned.path

    @property
    def kubeconfig(self) -> Path:
        """The cluster administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def credentials(self) -> ssl.SSLContext:
        """The administrator's client certificate, for clients that take an SSLContext."""
        assert self._ssl is not None, "not started"
        return self._ssl

    @property
    def kubectl(self) -> Path:
        """The kubectl executable that belongs to this control plane."""
        return self._binaries / "kubectl"

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the API server answers and the controllers run.

        Raises: StartError that names the component, its log and the log's last lines;
        the directory stays for reading until the next start. ClusterError if it can't be used.
        """
        self._owned = processes.OwnedDirectory(self._wanted_directory)
        try:
            (self.directory / "logs").mkdir(exist_ok=True)
            self._write_keys()
            self._start_on_free_ports()
        except BaseException as error:
            self._children.close()
            self._owned.close(keep=isinstance(error, errors.StartError))
            raise

    def stop(self) -> None:
        """Kill the processes and remove the temporary directory; a given one is kept."""
        self._children.close()
        if self._owned is not None:
            self._owned.close()

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig of any user, by a client certificate (so RBAC applies to it)."""
        credential = self._authority.client(user, groups)
        return self._write_kubeconfig(
            user,
            {
                "client-certificate-data": _base64(credential.certificate),
                "client-key-data": _base64(credential.key),
            },
        )

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig with a bearer token of an existing ServiceAccount, good for a day."""
        answer = self.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"spec": {"expirationSeconds": _TOKEN_LIFETIME_S}},
        )
        return self._write_kubeconfig(
            f"{namespace}-{name}", {"token": answer["status"]["token"]}, namespace
        )

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Return the API server's JSON answer to a request as administrator.

        Raises: urllib.error.HTTPError for an answer of 400 or more, OSError without an answer.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # the URL is always our own https one
            self.url + path, data=data, method=method, headers={"Content-Type": content_type}
        )
        with urllib.request.urlopen(
            request, timeout=_REQUEST_TIMEOUT_S, context=self._ssl
        ) as response:
            parsed: dict[str, Any] = json.loads(response.read())
            return parsed

    def metrics(self) -> str:
        """Return the API server's metrics as Prometheus gets them."""
        with urllib.request.urlopen(
            f"{self.url}/metrics", timeout=_REQUEST_TIMEOUT_S, context=self._ssl
        ) as response:
            text: str = response.read().decode()
            return text

    def _write_keys(self) -> None:
        keys = self.directory / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        first_service_ip = self._service_cidr.split(",")[0].rsplit(".", 1)[0] + ".1"
        server = self._authority.server((ADDRESS, first_service_ip), names)
        admin = self._authority.client("kubernetes-admin", ["system:masters"])
        for name, content in {
            "ca.crt": self._authority.certificate,
            "apiserver.crt": server.certificate,
            "apiserver.key": server.key,
            "admin.crt": admin.certificate,
            "admin.key": admin.key,
            "serviceaccounts.key": pki.signing_key(),
        }.items():
            path = keys / name
            path.touch(mode=0o600)
            path.write_bytes(content)
        self._ssl = ssl.create_default_context(cadata=self._authority.certificate.decode())
        self._ssl.load_cert_chain(keys / "admin.crt", keys / "admin.key")

    def _start_on_free_ports(self) -> None:
        for attempt in range(1, _PORT_TRIES + 1):
            try:
                self._start_processes()
            except errors.PortTakenError:
                self._children.stop_all()
                if attempt == _PORT_TRIES:
                    raise
            else:
                return

    def _start_processes(self) -> None:
        client, peer, secure, controllers = processes.free_ports(4, ADDRESS)
        self.url = f"https://{ADDRESS}:{secure}"
        admin = self.directory / "keys"
        self._write_kubeconfig(
            "kubernetes-admin",
            {
                "client-certificate-data": _base64((admin / "admin.crt").read_bytes()),
                "client-key-data": _base64((admin / "admin.key").read_bytes()),
            },
            path=self.kubeconfig,
        )
        etcd = self._start("etcd", self._etcd_flags(client, peer))
        self._wait(etcd, lambda: _answers(f"http://{ADDRESS}:{client}/readyz", None))
        api = self._start("kube-apiserver", self._apiserver_flags(client, secure))
        self._wait(api, lambda: _answers(f"{self.url}/readyz", self._ssl))
        manager = self._start("kube-controller-manager", self._manager_flags(controllers))
        for namespace in ("default", "kube-system"):
            self._wait(api, lambda path=f"/api/v1/namespaces/{namespace}": self._exists(path))
        anyone = ssl.create_default_context()
        anyone.check_hostname = False
        anyone.verify_mode = ssl.CERT_NONE  # a health answer of our own child, self-signed
        self._wait(manager, lambda: _answers(f"https://{ADDRESS}:{controllers}/healthz", anyone))

    def _start(self, name: str, flags: Sequence[str]) -> processes.Child:
        command = [str(self._binaries / name), *flags]
        child = self._children.start(name, command, self.directory / "logs" / f"{name}.log")
        with (self.directory / "pids").open("a") as pids:
            pids.write(f"{child.pid} {name}\n")
        return child

    def _wait(self, child: processes.Child, ready: Any) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not ready():
            code = child.exit_code()
            if code is not None:
                self._fail(child, f"ended with exit code {code}")
            if time.monotonic() > deadline:
                self._fail(child, f"was not ready after {self._timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def _fail(self, child: processes.Child, what: str) -> None:
        last = child.last_lines()
        taken = "address already in use" in last
        kind = errors.PortTakenError if taken else errors.StartError
        raise kind(f"{child.name} {what}; its log is {child.log}, and ends:\n{last}")

    def _exists(self, path: str) -> bool:
        try:
            self.request("GET", path)
        except (urllib.error.URLError, OSError):
            return False
        return True

    def _etcd_flags(self, client: int, peer: int) -> list[str]:
        peer_url = f"http://{ADDRESS}:{peer}"
        client_url = f"http://{ADDRESS}:{client}"
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=8589934592",
            "--log-level=warn",
        ]

    def _apiserver_flags(self, etcd: int, secure: int) -> list[str]:
        keys = self.directory / "keys"
        first, last = node_port_range()
        return [
            f"--etcd-servers=http://{ADDRESS}:{etcd}",
            f"--bind-address={ADDRESS}",
            f"--secure-port={secure}",
            f"--advertise-address={_ADVERTISED}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={keys / 'apiserver.crt'}",
            f"--tls-private-key-file={keys / 'apiserver.key'}",
            f"--client-ca-file={keys / 'ca.crt'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys / 'serviceaccounts.key'}",
            f"--service-account-signing-key-file={keys / 'serviceaccounts.key'}",
            f"--service-cluster-ip-range={self._service_cidr}",
            f"--service-node-port-range={first}-{last}",
            "--allow-privileged=true",
            # Pods are created at once, without waiting for their namespace's ServiceAccount.
            "--disable-admission-plugins=ServiceAccount",
            # One client at full speed is what the benches are about.
            "--max-requests-inflight=0",
            "--max-mutating-requests-inflight=0",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
        ]

    def _manager_flags(self, port: int) -> list[str]:
        keys = self.directory / "keys"
        return [
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--bind-address={ADDRESS}",
            f"--secure-port={port}",
            f"--cert-dir={keys / 'controller-manager'}",
            f"--root-ca-file={keys / 'ca.crt'}",
            f"--service-account-private-key-file={keys / 'serviceaccounts.key'}",
            "--kube-api-qps=5000",
            "--kube-api-burst=10000",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--profiling=false",
        ]

    def _write_kubeconfig(
        self,
        user: str,
        credential: dict[str, str],
        namespace: str = "default",
        path: Path | None = None,
    ) -> Path:
        cluster = {
            "server": self.url,
            "certificate-authority-data": _base64(self._authority.certificate),
        }
        context = {"cluster": "embedded", "user": user, "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "embedded", "cluster": cluster}],
            "users": [{"name": user, "user": credential}],
            "contexts": [{"name": "embedded", "context": context}],
            "current-context": "embedded",
        }
        path = path or self.directory / f"kubeconfig-{user.replace(':', '-').replace('/', '-')}"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2))  # JSON is YAML
        return path


def node_port_range(ephemeral: Path = _EPHEMERAL_RANGE) -> tuple[int, int]:
    """Return the first and last nodePort: many, and clear of the ports that clients get.

    A client socket on all addresses that holds a port would keep a stand-in from listening on it,
    so the range ends below the kernel's ephemeral ports unless those begin very low.
    """
    try:
        low = int(ephemeral.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = _LAST_NODE_PORT
    if low - _FIRST_NODE_PORT < _ENOUGH_NODE_PORTS:
        return _FIRST_NODE_PORT, _LAST_NODE_PORT
    return _FIRST_NODE_PORT, min(low - 1, _LAST_NODE_PORT)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _answers(url: str, context: ssl.SSLContext | None) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_REQUEST_TIMEOUT_S, context=context) as response:
            return bool(response.status == 200)
    except OSError:  # URLError and HTTPError are OSErrors
        return False

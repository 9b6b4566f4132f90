"""`make scoreboard`: Kubernetes' own LoadBalancer specs against the cluster that `make kind` set up.

    python3 -m tests.e2e.upstream [--cluster NAME] [--e2e-test FILE] [--ginkgo FILE]
        [--focus REGEX] [--procs N] [--option TEXT] [--provider NAME] [--no-save]
        [--client ADDRESS --pool CIDR]

Needs kind and kubectl, and Kubernetes' `e2e.test` and `ginkgo` (kubernetes-test-linux-….tar.gz of a
release), by flag or on PATH. Ends with 1 if a spec failed.

One spec takes every source address in the nodes' /16 for one that was not preserved, and on kind
this machine itself has one of those. With --client (root) the specs ask the load balancers of
--pool from another address, which this machine has for that time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.e2e import kind_cluster, scoreboard
from tests.e2e.commands import Failure, Kubectl, run

FOCUS: Final = r"\[Feature:LoadBalancer\]"
RELEASES: Final = "https://dl.k8s.io/release/VERSION/kubernetes-test-linux-amd64.tar.gz"
CONTROLLER: Final = ("-n", "kube-system", "get", "deployment", "fakecloud-ccm")


def main(arguments: list[str]) -> int:
    """Run the specs and say what came; 0 none failed, 1 some did or could not be run."""
    wish = _parser().parse_args(arguments)
    try:
        done = run_specs(wish)
    except Failure as failure:
        sys.stderr.write(f"make scoreboard: {failure}\n")
        return 1
    if wish.save:
        scoreboard.save(scoreboard.merged(scoreboard.load(), done))
    for one in done.results:
        print(f"{one.outcome:<8} {one.seconds:>6.0f} s  {one.spec}  {one.reason}")
    counts = {name: done.count(name) for name in ("passed", "failed", "skipped")}
    print(json.dumps({f"specs_{name}": count for name, count in counts.items()}))
    return 1 if counts["failed"] or not done.results else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.e2e.upstream", description=__doc__)
    parser.add_argument("--cluster", help="kind cluster; may be left out if there is one")
    parser.add_argument("--e2e-test", default="e2e.test", help="path of Kubernetes' e2e.test")
    parser.add_argument("--ginkgo", default="ginkgo", help="path of ginkgo")
    parser.add_argument("--focus", default=FOCUS, help="which specs")
    parser.add_argument("--skip", default="", help="which not")
    parser.add_argument("--procs", type=int, default=4, help="specs at a time")
    parser.add_argument("--timeout-s", type=int, default=3600, help="for all of them")
    parser.add_argument("--provider", default="fakecloud", help="who makes the load balancers")
    parser.add_argument("--option", default="", help="what is special about the installation")
    parser.add_argument("--logs", type=Path, help="a folder that keeps the specs' output")
    parser.add_argument("--client", help="an address to ask from, outside the nodes' network")
    parser.add_argument("--pool", help="the addresses of load balancers, in CIDR form")
    parser.add_argument("--no-save", dest="save", action="store_false", help="only show")
    return parser


def run_specs(wish: argparse.Namespace) -> scoreboard.Run:
    """Return the results of the specs of `wish.focus`. Raises: Failure."""
    binary, ginkgo = _program(wish.e2e_test), _program(wish.ginkgo)
    cluster = wish.cluster or kind_cluster.only()
    with tempfile.TemporaryDirectory(prefix="fakecloud-e2e-") as scratch:
        folder = Path(wish.logs or scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        kubeconfig = Path(scratch) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(run("kind", "get", "kubeconfig", "--name", cluster))
        seen = _setting(Kubectl(kubeconfig))
        with _asking_from(wish.client, wish.pool):
            report = _ginkgo(ginkgo, binary, kubeconfig, folder, wish, seen["workers"])
    return scoreboard.Run(
        provider=wish.provider,
        proxy=seen["proxy"],
        families=seen["families"],
        nodes=seen["nodes"],
        option=wish.option,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        versions=seen["versions"],
        results=scoreboard.results_of(report, wish.focus),
    )


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Failure(f"{name} not found; it is part of Kubernetes' test archive, {RELEASES}")
    return str(Path(found).absolute())


@contextmanager
def _asking_from(client: str | None, pool: str | None) -> Iterator[None]:
    """Let this machine have the address `client` and use it for connections to `pool`."""
    if client is None or pool is None:
        yield
        return
    network = run("docker", "network", "inspect", "kind", "--format", "{{.Id}}").strip()
    bridge, width = f"br-{network[:12]}", 128 if ":" in client else 32
    run("ip", "address", "replace", f"{client}/{width}", "dev", "lo", hint="--client needs root")
    try:
        run("ip", "route", "replace", pool, "dev", bridge, "src", client)
        yield
    finally:
        run("ip", "route", "delete", pool, "dev", bridge)
        run("ip", "address", "delete", f"{client}/{width}", "dev", "lo")


def _setting(kubectl: Kubectl) -> dict[str, str]:
    """Return what of the cluster may make a difference."""
    nodes = kubectl.get("nodes")["items"]
    proxy = kubectl("-n", "kube-system", "get", "configmap", "kube-proxy",
                    "-o", "jsonpath={.data.config\\.conf}")  # fmt: skip
    mode = next((line.split(":")[1].strip() for line in proxy.splitlines()
                 if line.startswith("mode:")), "")  # fmt: skip
    ranges = nodes[0]["spec"].get("podCIDRs") or []
    families = [name for sign, name in ((".", "IPv4"), (":", "IPv6"))
                if any(sign in text for text in ranges)]  # fmt: skip
    info = nodes[0]["status"]["nodeInfo"]
    return {
        "proxy": mode.strip('"') or "iptables",
        "families": "dual-stack" if len(families) > 1 else families[0],
        "nodes": "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes",
        # Only one of e2e.test's processes counts them by itself; specs of the others would skip.
        "workers": str(sum(not _repels(node) for node in nodes)),
        "versions": f"Kubernetes {info['kubeletVersion']}",
    }


def _repels(node: Mapping[str, Any]) -> bool:
    taints = node["spec"].get("taints") or []
    return any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints)


def _ginkgo(
    ginkgo: str,
    binary: str,
    kubeconfig: Path,
    folder: Path,
    wish: argparse.Namespace,
    workers: str,
) -> list[dict[str, object]]:
    """Return Ginkgo's report. Raises: Failure if there is none."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [ginkgo, f"--procs={wish.procs}", f"--focus={wish.focus}", "--no-color",
               f"--skip={wish.skip}", "--silence-skips", f"--timeout={wish.timeout_s}s",
               f"--output-dir={folder}", f"--json-report={report.name}", binary, "--",
               "--provider=skeleton", f"--kubeconfig={kubeconfig}", "--disable-log-dump",
               f"--num-nodes={workers}"]  # fmt: skip
    with (folder / "specs.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, cwd=folder, check=False,
                       timeout=wish.timeout_s + 120)  # fmt: skip
    if not report.exists():
        words = (folder / "specs.log").read_text().splitlines()[-8:]
        raise Failure("e2e.test made no report:\n    " + "\n    ".join(words))
    found: list[dict[str, object]] = json.loads(report.read_text())
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

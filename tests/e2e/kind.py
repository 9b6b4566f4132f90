"""`make kind`: fakecloud beside a kind cluster, until a Service has an address that answers.

    python3 -m tests.e2e.kind up | down [--name CLUSTER] [--config FILE]
        [--class-only] [--pod-routes] [--transparent]

Needs docker, kind and kubectl on PATH, and Python's standard library. Without --name the current
context's cluster is used, or the only one; a cluster named `fakecloud` is made if there is none.
One that is named is made if it isn't there, from --config if given (manifests/kind has some).
Several clusters share one cloud, each with a project and a token of its own. Environment:
  FAKECLOUD_POOL_RANGE  the load balancers' IPv4 addresses; otherwise the cloud finds a free part
                        of the network by itself, for IPv4 and IPv6
  FAKECLOUD_IMAGE       an image that exists; otherwise fakecloud:dev is built from the Dockerfile
  FAKECLOUD_PORT        the API's port on 127.0.0.1, 8440
  FAKECLOUD_HOST_PORTS  ports of 127.0.0.1 for the listeners, such as 20000-20031; elsewhere than
                        on Linux these by themselves, as containers' addresses aren't reachable
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.e2e import kind_cloud, kind_cluster
from tests.e2e.commands import Failure, need_tools, say
from tests.e2e.kind_cluster import kubectl_of
from tests.e2e.story import answer_everywhere, watch_addresses


def main(arguments: list[str]) -> int:
    """Run one of the two stories; 0 done, 1 a step failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.e2e.kind")
    parser.add_argument("story", choices=("up", "down"))
    parser.add_argument("--name", help="the cluster")
    parser.add_argument("--config", help="kind's configuration of a cluster that has to be made")
    parser.add_argument("--class-only", action="store_true",
                        help="leave Services without a class to another provider")  # fmt: skip
    parser.add_argument("--pod-routes", action="store_true",
                        help="the cloud gets routes to pods: Services need no nodePorts")  # fmt: skip
    parser.add_argument("--transparent", action="store_true",
                        help="pods see the client's own address with externalTrafficPolicy Local")  # fmt: skip
    parser.add_argument("--no-samples", action="store_true", help="install, and no more")
    chosen = parser.parse_args(arguments)
    try:
        need_tools()
        if chosen.story == "up":
            options = kind_cluster.Options(chosen.class_only, chosen.pod_routes, chosen.transparent)
            up(chosen.name, chosen.config, options, samples=not chosen.no_samples)
        else:
            down(chosen.name)
    except Failure as failure:
        sys.stderr.write(f"make kind: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("make kind: interrupted; `make kind-down` removes what is there\n")
        return 1
    return 0


def up(
    name: str | None,
    config: str | None = None,
    options: kind_cluster.Options = kind_cluster.PLAIN,
    *,
    samples: bool = True,
) -> None:
    """Bring everything up and show one Service going from <pending> to an address."""
    began = time.monotonic()
    cluster, made = kind_cluster.choose(name, config)
    with kubectl_of(cluster) as kubectl:
        nodes = kind_cluster.control_planes(kubectl)
        network = kind_cloud.network_of(nodes[0])
        if not options.class_only:
            kind_cluster.refuse_beside_another(kubectl, cluster)
        image = kind_cloud.build_image()
        kind_cloud.start(image, network, transparent=options.transparent)
        # The controller runs on control planes, the agents of --transparent on every node.
        kind_cluster.load(cluster, image, [] if options.transparent else nodes)
        kind_cluster.install(kubectl, cluster, image, options, made=made)
        if samples:
            services = watch_addresses(kubectl)
            answer_everywhere(kubectl, nodes[0], services)
    say(f"\nready after {time.monotonic() - began:.0f} s")
    say_how_to_use(cluster)


def down(name: str | None) -> None:
    """Remove what `up` made: samples, controller, a cluster of ours; last of all the container.

    With `name` only that cluster's; the container stays while another cluster uses it.
    """
    names = kind_cluster.names()
    if name and name not in names:
        raise Failure(f"no kind cluster {name!r}; there are: {', '.join(names) or 'none'}")
    left = []
    for cluster in names:
        with kubectl_of(cluster) as kubectl:
            marker = kind_cluster.marker_of(kubectl)
            if marker is None:
                continue  # not a cluster that `up` was used on
            if name not in (None, cluster):
                left.append(cluster)
                continue
            kind_cluster.remove_from(cluster, kubectl, made=marker)
    if left:
        say(f"the container stays: it serves {', '.join(left)} too")
        return
    kind_cloud.stop()
    kind_cloud.remove_image()
    say("nothing of fakecloud is left")


def say_how_to_use(cluster: str) -> None:
    project, token_file = kind_cloud.project_of(cluster), kind_cloud.TOKEN_FILE
    inside = f"docker exec -e FAKECLOUD_PROJECT={project} {kind_cloud.CONTAINER} fakecloud"
    say(f"""
From now on every Service of type LoadBalancer in this cluster gets an address:
  kubectl --context kind-{cluster} get services --watch
What there is, and what it costs:
  {inside} lb list
  {inside} cost report
The API's pages: http://127.0.0.1:{kind_cloud.port()}/docs   the log: docker logs -f {kind_cloud.CONTAINER}
An administrator's token: docker exec {kind_cloud.CONTAINER} cat {token_file}
The end: make kind-down""")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Command lines written for upstream's controller managers run here as they are.

Flags that mean something here are knobs in settings.py. The others are taken and said to have no
effect; switches may be written as Go reads them, --leader-elect=false.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import typer
from typer.core import TyperCommand

_HERE: Final = "the cloud is named by --cloud-url and --cloud-token-file"
_PACE: Final = "requests are bounded by the number of workers, and by back-off"
_CIDRS: Final = "kube-controller-manager allocates them"
_GO: Final = "it concerns Go programs"
_WEBHOOKS: Final = "no webhook is served"

WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "--allocate-node-cidrs": _CIDRS,
    "--allow-untagged-cloud": "the cluster's UID marks what is in the cloud",
    "--cert-dir": "give --tls-cert-file and --tls-private-key-file, or none",
    "--cidr-allocator-type": _CIDRS,
    "--cloud-config": _HERE,
    "--concurrent-node-status-updates": "they are done by the workers of --concurrent-node-syncs",
    "--contention-profiling": _GO,
    "--controller-start-interval": "controllers start as soon as their caches are filled",
    "--external-cloud-volume-plugin": "it has none upstream either",
    "--feature-gates": "there are none",
    "--kube-api-burst": _PACE,
    "--kube-api-content-type": "requests are JSON",
    "--kube-api-qps": _PACE,
    "--logging-format": "logs are structured; see --log-level",
    "--min-resync-period": "every Service is looked at each ten minutes, from memory",
    "--node-sync-period": "it has none upstream either",
    "--profiling": _GO,
    "--use-service-account-credentials": "one account with the union of the rules is less",
    "--v": "see --log-level",
    "--webhook-bind-address": _WEBHOOKS,
    "--webhook-secure-port": _WEBHOOKS,
    "--webhooks": _WEBHOOKS,
    "-v": "see --log-level",
}
"""Upstream's flags that are taken, and why nothing comes of them."""
_SWITCHES: Final = frozenset(
    {
        "--allocate-node-cidrs",
        "--allow-untagged-cloud",
        "--contention-profiling",
        "--profiling",
        "--use-service-account-credentials",
    }
)
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # as Go's ParseBool
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Command(TyperCommand):
    """A command that is given upstream's flags as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; say on standard error what has no effect."""
        pairs = {
            one.opts[0]: one.secondary_opts[0]
            for one in self.params
            if getattr(one, "secondary_opts", None)
        }
        for flag in idle(args):
            why = WITHOUT_EFFECT[flag]
            typer.echo(f"fakecloud-ccm: {flag} has no effect: {why}", err=True)
        return super().parse_args(ctx, list(ours(args, pairs)))


def idle(arguments: Collection[str]) -> list[str]:
    """Return the flags among `arguments` that have no effect."""
    names = (one.partition("=")[0] for one in arguments)
    return [one for one in names if one in WITHOUT_EFFECT]


def ours(arguments: Collection[str], switches: Mapping[str, str]) -> Iterator[str]:
    """Yield `arguments` without flags that have no effect, switches as we have them.

    switches: each with its opposite, --leader-elect: --no-leader-elect.
    """
    rest = iter(arguments)
    for one in rest:
        name, equals, value = one.partition("=")
        if name in WITHOUT_EFFECT:
            if not equals and name not in _SWITCHES:
                next(rest, None)
        elif name in switches and value in _TRUE:
            yield name
        elif name in switches and value in _FALSE:
            yield switches[name]
        else:
            yield one

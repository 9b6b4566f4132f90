"""Why a load balancer can't be put into effect: every code of a failed operation, for people.

Operations carry them in `error.code`, load balancers in `status.last_error.code`; a fault may
put one of its own there.
"""

from __future__ import annotations

from typing import Final

MEANINGS: Final = {
    "address_in_use": "Another machine on the link answers for the address.",
    "bind_failed": "The address or port can't be listened on; the message says what to do.",
    "cancelled": "Somebody cancelled the operation.",
    "certificate_sealed": "The key of a certificate was sealed with another file than there is.",
    "config_invalid": "The data plane refuses the configuration as it is.",
    "engine_refused": "The container engine refused; the message is its own.",
    "engine_unavailable": "The container engine doesn't answer; it is tried again.",
    "fault_injected": "A fault that somebody asked for; it ends when the fault does.",
    "haproxy_missing": "HAProxy isn't installed on the host.",
    "host_exhausted": "The host has no more processes, memory or file descriptors to give.",
    "internal": "The cloud met something that nobody foresaw; the server's log has more.",
    "range_in_use": "Another route leads to the same addresses; delete one of the two.",
    "relay_refused": "The UDP relay refused what it was told.",
    "route_failed": "The host's kernel refused the route; the message says why.",
    "runtime_unavailable": "A running process doesn't answer its control socket; it is tried again.",
    "start_failed": "A process ended as soon as it was started; the message says why.",
    "start_timeout": "A process was started and wasn't ready in time.",
    "unsupported": "The load balancer's pool or data plane doesn't offer what was asked for.",
}

"""Why a Service has no address, or one that doesn't answer: what is known, as findings.

From the Service outwards: is it ours, can it be served, does the cloud know of it, how far is it,
do the targets answer. The first problem is usually the cause of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ccm import errors
from ccm.cloud import documents
from ccm.kube import objects
from ccm.service import annotations as annotations_
from ccm.service import conditions, desired, dialects, nodes, ownership


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    WAIT = "wait"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is known. remedy: what helps, "" if nothing has to be done."""

    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What both sides say. plan: or why there is none; slices: None = not readable.

    cloud_problem: why the cloud said nothing; holder: who holds the Lease, "" = nobody.
    """

    service: objects.Service
    owner: ownership.Ownership
    plan: desired.Plan | errors.Rejected
    nodes: tuple[objects.Node, ...]
    slices: tuple[objects.EndpointSlice, ...] | None
    found: documents.Inspection | None
    cloud_problem: str
    holder: str


def explain(situation: Situation) -> list[Finding]:
    """Return the findings, from the Service outwards."""
    service, owner = situation.service, situation.owner
    if service.spec.type != "LoadBalancer" or not owner.class_is_ours(service):
        return [_not_ours(situation)]
    return [
        *_about_deletion(situation),
        *_about_plan(situation),
        *_about_nodes(situation),
        *_about_pods(situation),
        *_about_cloud(situation),
        *_about_health(situation),
        *_about_status(situation),
    ]


def is_serving(findings: list[Finding]) -> bool:
    """Return whether nothing is wrong and nothing is waited for."""
    return all(one.level in (Level.OK, Level.NOTE) for one in findings)


def _not_ours(situation: Situation) -> Finding:
    spec = situation.service.spec
    if spec.type != "LoadBalancer":
        text = f"spec.type is {spec.type}: it asks for no load balancer"
        return Finding(Level.NOTE, text, "set spec.type to LoadBalancer")
    classes = ", ".join(situation.owner.classes)
    return Finding(
        Level.PROBLEM,
        f"spec.loadBalancerClass is {spec.load_balancer_class}, which this controller leaves alone",
        f"use one of its classes ({classes}), or start it with that --load-balancer-class",
    )


def _about_deletion(situation: Situation) -> Iterator[Finding]:
    if situation.service.metadata.deletion_timestamp is None:
        return
    others = [one for one in situation.service.finalizers if one != objects.CLEANUP_FINALIZER]
    if objects.CLEANUP_FINALIZER in situation.service.finalizers:
        yield Finding(Level.WAIT, "it is being deleted; its load balancer goes first")
    if others:
        yield Finding(
            Level.WAIT, f"it is being deleted and waits for finalizers of others: {others}"
        )


def _about_plan(situation: Situation) -> Iterator[Finding]:
    plan = situation.plan
    if isinstance(plan, errors.Rejected):
        yield Finding(Level.PROBLEM, f"{plan.reason}: {plan}", "edit the Service")
        return
    for one in plan.advice:
        yield Finding(Level.NOTE, one.text)


def _about_nodes(situation: Situation) -> Iterator[Finding]:
    if all(not port.node_port for port in situation.service.ports):
        return
    families = situation.service.spec.ip_families or ("IPv4",)
    selector = _selector(situation.service)
    reasons = {node.metadata.name: _why_not(node, families, selector) for node in situation.nodes}
    taking = [name for name, why in reasons.items() if not why]
    out = "; ".join(f"{name}: {why}" for name, why in sorted(reasons.items()) if why)
    if taking:
        text = f"{len(taking)} of {len(reasons)} nodes take traffic"
        yield Finding(Level.OK, f"{text} ({out})" if out else text)
        return
    yield Finding(
        Level.PROBLEM,
        f"no node takes traffic: {out or 'the cluster has none'}",
        f"kubectl label node NAME {nodes.EXCLUDE_LABEL}-" if nodes.EXCLUDE_LABEL in out else "",
    )


def _selector(service: objects.Service) -> tuple[tuple[str, str], ...]:
    try:
        wishes = annotations_.read(dialects.translate(service.annotations).annotations)
        return wishes.get(annotations_.NODE_SELECTOR)
    except errors.Rejected:
        return ()


def _why_not(
    node: objects.Node, families: tuple[str, ...], selector: tuple[tuple[str, str], ...]
) -> str:
    if why := nodes.exclusion(node):
        return why
    backend = nodes.backend(node)
    if backend is None or backend.ip_of(families) is None:
        return f"it has no InternalIP of {' or '.join(families)}"
    return "" if backend.matches(selector) else f"{annotations_.NODE_SELECTOR.name} leaves it out"


def _about_pods(situation: Situation) -> Iterator[Finding]:
    if situation.slices is None:
        return
    ready = [
        one
        for slice_ in situation.slices
        for one in slice_.endpoints or ()
        if one.conditions is None or one.conditions.ready is not False
    ]
    if ready:
        yield Finding(Level.OK, f"{len(ready)} pods are ready")
        return
    yield Finding(
        Level.PROBLEM,
        "no pod is ready behind the Service, so connections are closed",
        "compare spec.selector with the labels of the pods, and their readiness",
    )


def _about_cloud(situation: Situation) -> Iterator[Finding]:
    if situation.cloud_problem:
        yield Finding(Level.PROBLEM, f"the cloud can't be asked: {situation.cloud_problem}")
        return
    if situation.found is None:
        yield _not_asked_for(situation)
        return
    one = situation.found.load_balancer
    if situation.owner.is_foreign(one):
        text = f"load balancer {one.name} belongs to another cluster"
        yield Finding(Level.PROBLEM, text, "delete it in the cloud, or there")
        return
    match one.status.state:
        case "ACTIVE" if one.is_applied:
            yield Finding(Level.OK, f"load balancer {one.name} serves")
        case "ERROR":
            text = f"the cloud failed: {one.problem or 'it does not say why'}"
            yield Finding(Level.PROBLEM, text)
        case state:
            yield Finding(Level.WAIT, f"load balancer {one.name} is {state}{_progress(situation)}")


def _not_asked_for(situation: Situation) -> Finding:
    told = {one.type: one for one in situation.service.conditions}
    stage = told.get(conditions.PROVISIONING)
    if stage is not None and stage.message:
        return Finding(Level.PROBLEM, f"there is no load balancer: {stage.message}")
    if isinstance(situation.plan, errors.Rejected):
        return Finding(Level.NOTE, "there is no load balancer, because of that")
    if not situation.holder:
        return Finding(
            Level.PROBLEM,
            "no controller has asked the cloud for a load balancer, and none holds the Lease",
            "is fakecloud-ccm running? kubectl -n kube-system get pods,lease",
        )
    return Finding(Level.WAIT, f"no load balancer has been asked for yet; {situation.holder} leads")


def _progress(situation: Situation) -> str:
    operation = situation.found.operation if situation.found else None
    if operation is None or operation.done:
        return ""
    phase = f", phase {operation.phase}" if operation.phase else ""
    eta = f", ready at about {operation.eta}" if operation.eta else ""
    return f"{phase}, {operation.progress} %{eta}"


def _about_health(situation: Situation) -> Iterator[Finding]:
    if situation.found is None or not situation.found.targets:
        return
    targets = situation.found.targets
    down = [one for one in targets if one.health == "unhealthy"]
    text = f"{len(targets) - len(down)} of {len(targets)} targets are healthy"
    if not down:
        yield Finding(Level.OK, text)
        return
    whys = Counter(one.reason for one in down)
    text += ": " + ", ".join(f"{count} {reason}" for reason, count in whys.most_common(5))
    if len(down) == len(targets):
        where = ", ".join(f"{one.ip} port {one.port}" for one in down[:3])
        yield Finding(Level.PROBLEM, f"{text} ({where})", _HEALTH_REMEDY)
    elif situation.service.spec.external_traffic_policy == "Local":
        yield Finding(Level.OK, f"{text}; with policy Local, nodes without a pod are")
    else:
        yield Finding(Level.NOTE, text)


_HEALTH_REMEDY = "is kube-proxy running on the nodes, and can the cloud reach them?"


def _about_status(situation: Situation) -> Iterator[Finding]:
    service = situation.service
    for entry in service.ingress:
        yield Finding(Level.OK, f"published: {entry.ip or entry.hostname}")
        for port in entry.ports or ():
            if port.error:
                text = f"port {port.port}/{port.protocol} is not served: {port.error}"
                yield Finding(Level.PROBLEM, text)
    if published := service.annotations.get(annotations_.HOST_PORTS):
        pairs = (one.partition("=") for one in published.split(","))
        text = ", ".join(f"127.0.0.1:{there} → {port}" for port, _, there in pairs)
        yield Finding(Level.OK, f"published on the machine around the cloud's container: {text}")
    told = {one.type: one for one in service.conditions}
    reachable = told.get(conditions.REACHABLE)
    if reachable is not None and service.ingress:
        level = Level.PROBLEM if reachable.status == "False" else Level.NOTE
        yield Finding(level, f"{reachable.reason}: {reachable.message}")
    source_ip = told.get(conditions.SOURCE_IP_PRESERVED)
    if source_ip is not None and service.ingress:
        yield Finding(Level.NOTE, f"the client's address: {source_ip.message}")

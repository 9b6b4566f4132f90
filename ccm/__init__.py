"""Watches Services and Nodes and keeps one cloud load balancer per Service of type LoadBalancer.

    __main__.py     the command line: fakecloud-ccm run
    app.py          the only wiring: start-up order, leadership, shutdown
    workers.py      the loop runner: keys from the queue to the reconciler and back
    triggers.py     what adds keys: Services, Nodes, the cloud, time
    reconciler.py   one Service key → what to do now; finalizer first, status last
    removal.py      taking back what is ours, finalizer last
    reports.py      events and conditions: what people are told
    outcome.py      what a look came to, and what is remembered between two
    doors.py        what the reconciler needs of cluster and cloud, as protocols
    mirror.py       the cloud's load balancers in memory, kept by its watch stream
    cloud.py        the door to the cloud: requests, errors, stream
    kube/           the door to the API server: informers, patches, events, lease
    serving.py      the secure port: health and metrics
    certificate.py  a self-signed certificate, made in a process of its own
    workqueue.py    dedupe, one worker per key, delays, back-off
    desired.py      Service + Nodes → the whole document for the cloud, or why not
    conditions.py   the conditions that say where a Service stands
    nodes.py        which nodes get traffic, as named predicates
    annotations.py  the annotations that are understood
    backoff.py      pauses between attempts that fail
    lines.py        newline-delimited streams cut into whole lines
    model.py        values: parts of Kubernetes objects and cloud documents
    settings.py     every knob
    metrics.py      Prometheus objects, named once
    logs.py         structured logs on standard error
    clock.py        time as an argument
    errors.py       the error tree

__main__ → app → workers | triggers → reconciler | mirror | cloud | kube | serving | certificate | workqueue
(reconciler → removal → reports → doors | outcome) → desired | conditions → nodes | annotations → model | clock | … → errors
"""

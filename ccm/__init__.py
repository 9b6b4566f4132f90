"""Watches Services and Nodes and keeps one cloud load balancer per Service of type LoadBalancer.

    __main__.py     the command line: fakecloud-ccm run
    commands.py     the commands that run once
    app.py          the only wiring: start-up order, leadership, shutdown
    inquiry.py      the commands that look once: explain, teardown
    installation.py  the command that prints what is applied to a cluster
    releasing.py    the command that gives a cluster's Services back
    service/        the service controller: load balancers and the addresses in status
    node/           the node controller: addresses, provider ID and labels from the instances
    route/          the route controller: ways to the pods of each Node
    lifecycle/      the node lifecycle controller: stopped and vanished instances
    returning/      a small agent on nodes: answers to clients that were shown go back by us
    context.py      what every controller is given, and what is asked of one
    cloud/          the door to the cloud: requests, errors, stream, mirror
    kube/           the runtime: informers, queue, workers, lease, events, transport
    serving.py      the secure port: health and metrics
    certificate.py  a self-signed certificate, made in a process of its own
    identity.py     which cluster this is, and how what belongs to it is marked
    interning.py    equal values kept once
    streams.py      whole lines of endless answers, and pauses between attempts
    options.py      the settings as options of the command line
    upstream.py     command lines written for upstream's controller managers
    settings.py     every knob
    selection.py    which controllers run: --controllers
    metrics.py      Prometheus objects, named once
    logs.py         structured logs on standard error
    clock.py        time as an argument
    errors.py       the error tree

__main__ → commands → app | inquiry | installation | releasing | options | upstream → service | node | lifecycle | route | returning → context → cloud | kube | serving | certificate → identity | streams | …
→ errors. Each controller is a package beside service/; they are strangers to each other.
"""

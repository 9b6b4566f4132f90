"""A small cloud: it sells load balancers, runs each as a real HAProxy, and bills for them.

    __main__.py        the command line: fakecloud serve, lb, cost
    container.py       process 1 of the container: restarts the server, leaves HAProxy alone
    app.py             the only wiring: start-up order, loops, HTTP server, shutdown
    cli/               the client of the API on the command line
    api/               HTTP in, HTTP out; every refusal is problem+json
    load_balancers.py  what a customer may ask: one request, one transaction
    provisioner.py     what the cloud does about it: claim a row, make it so, tell the result
    health.py          which load balancer cares about which probe, and who is told
    prober.py          asks every distinct target once, whoever shares the answer
    watch.py           the hub that feeds every watcher from one reader of the event history
    tokens.py          who may call
    billing/           everything money
    haproxy/           everything HAProxy: one process per load balancer
    pools.py           addresses of interface pools on this host, put there and taken off
    netlink.py         the door to netlink
    serving.py         uvicorn with the limits that it lacks
    loops.py           threads that turn the steps, and what wakes them
    store/             every query
    migrations/        the schema's history
    tables.py          every table on one page
    lifecycle.py       THE state machine
    addresses.py       pools, and which address comes next
    documents.py       values as the documents of the API
    checks.py          health checks as values
    model.py           frozen values: the wish, the load balancer, what the data plane is told
    settings.py        every knob
    metrics.py         Prometheus objects, named once
    logs.py            structured logs on standard error
    clock.py           time as an argument
    errors.py          the error tree

__main__ | container → app | cli → api → load_balancers | provisioner | prober | watch | tokens | billing | haproxy | netlink | pools | loops | serving
→ health → store → tables → lifecycle | addresses | documents | checks → model | clock | settings | metrics | logs → errors
"""

"""A small cloud: it sells load balancers, runs each as a real HAProxy, and bills for them.

    __main__.py      the command line: fakecloud serve, work, and the client
    container.py     process 1 of the container: restarts the server, leaves HAProxy alone
    serving.py       the HTTP server around the application, and the same loops without one
    app.py           the only wiring: start-up order, loops, shutdown
    cli/             the client of the API on the command line
    restoring.py     load balancers answer again before the server is loaded
    api/             HTTP in, HTTP out; every refusal is problem+json
    housekeeping.py  what has to be done every now and then
    rounds.py        one round of each loop
    hosts.py         this host among others: heartbeats, and what becomes of the dead one's
    requests/        what a customer may ask: one request, one transaction
    accounting/      what accounts owe and are told: reports, invoices, budgets, waste
    chaos/           faults at work: the rules, what they do to workers, traffic and states
    dataplane/       what runs load balancers on this host: processes and containers as one
    insight.py       a look into a running load balancer, whichever host runs it
    provisioning/    what the cloud does about a wish: claim a row, place it, make it so, sweep up
    access/          who may call, for which project, how often, and how much they may have
    health/          every distinct target asked once; who cares about the answer is told
    metering.py      what load balancers carry, from the data plane to the store
    network/         addresses on this host: whose they are, put there and taken off
    timekeeper.py    who sets business time, and moves it forward
    watch/           what every watcher hears, and what the hub has seen for reads without a query
    haproxy/         everything HAProxy: one process per load balancer
    store/           every query
    udp/             UDP ports: one relay process per load balancer that has them
    migrations/      the schema's history
    supervision/     the door to processes: start, know again, notice the end, start again
    loops.py         threads that turn the steps, and what wakes them
    tables/          every table
    domain/          what is true of load balancers, addresses, faults and time, decided purely
    billing/         everything money, purely
    metrics.py       Prometheus objects, named once
    resources.py     frozen values: certificates, addresses, instances, tokens, projects
    model.py         frozen values: the wish, the load balancer, what the data plane is told
    ids.py           ids that sort by time
    files.py         files that are whole or not there
    clock.py         time as an argument
    settings.py      every knob
    logs.py          structured logs on standard error
    errors.py        the error tree

__main__ | container → serving → app | cli | restoring → api | housekeeping | rounds → hosts | requests
→ accounting | chaos | dataplane | insight | provisioning
→ access | health | metering | network | timekeeper | watch → haproxy | store | udp
→ migrations | supervision | loops → tables → domain → billing → metrics → resources → model
→ ids | files | clock | settings | logs → errors
"""

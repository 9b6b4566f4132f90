"""A small cloud: it sells load balancers, runs each as a real HAProxy, and bills for them.

    __main__.py        the command line: fakecloud serve, work, and the client
    container.py       process 1 of the container: restarts the server, leaves HAProxy alone
    serving.py         the HTTP server around the application, and the same loops without one
    restoring.py       load balancers answer again before the server is loaded
    app.py             the only wiring: start-up order, loops, shutdown
    rounds.py          one round of each loop
    housekeeping.py    what has to be done every now and then
    cli/               the client of the API on the command line
    api/               HTTP in, HTTP out; every refusal is problem+json
    load_balancers.py  what a customer may ask: one request, one transaction
    wishes.py          what customers wish of load balancers, and what is refused of it
    actions.py         again, elsewhere, or no more: repair, failover, cancel
    reservations.py    addresses that a customer keeps, and how full the pools are
    snapshots.py       copies of the whole database
    certificates.py    chains and keys that listeners use
    instances.py       the machines that targets run on
    networks.py        ranges of addresses behind the machines, and routes to them
    router.py          what makes routes real on this host
    provisioner.py     what the cloud does about it: claim a row, make it so, tell the result
    hooks.py           where a worker can be disturbed
    interference.py    faults that disturb the workers
    trouble.py         faults of the data plane: imposed on traffic, and lifted
    flapping.py        the fault that lets a state flap
    sweeper.py         removes what deleted load balancers have left behind
    placement.py       which host runs a load balancer
    conflicts.py       an address that somebody else on the link has
    allocation.py      which addresses somebody gets
    outcomes.py        what a worker's attempt means for the load balancer
    health.py          which load balancer cares about which probe, and who is told
    quotas.py          how many of each kind a project may have
    suspension.py      when a project may have no more, and what it has stands still
    prober.py          asks every distinct target once, whoever shares the answer
    probes.py          one target's probe, and the connection that asks it
    metering.py        what load balancers carry, from the data plane to the store
    insight.py         a look into a running load balancer, whichever host runs it
    watch.py           the hub that feeds every watcher from one reader of the event history
    seen.py            what the hub has seen, for reads without a query
    tokens.py          who may call
    projects.py        tenants: nothing in one is seen from another
    rate_limits.py     how fast a token may ask
    costs.py           what people ask about costs
    day_sums.py        what closed days came to, remembered
    open_days.py       what open days come to, remembered up to an hour that is over
    spending.py        what watches over spending, put together
    budgets.py         what may be spent, and who is told
    webhooks.py        news, signed and sent again for a while
    post.py            the door to other people's servers
    waste.py           what costs and serves nobody; what clusters say they have
    invoices.py        a month's bill, closed, proved and exported
    ledger.py          what accounts owe: charges of any time, days closed
    billing/           everything money, purely
    billing_tables.py  the tables of billing
    spending_tables.py  the tables of what watches over spending
    traffic_tables.py  the tables of what load balancers carry
    dataplane.py       what runs load balancers here: HAProxy and relays as one
    premises.py        what the settings mean on this host
    isolation.py       containers and processes as one data plane
    containers.py      the door to a container engine: one container per load balancer
    haproxy/           everything HAProxy: one process per load balancer
    udp/               UDP ports: one relay process per load balancer that has them
    processes.py       the door to processes: start, know again, signal, end
    supervisor.py      notices ended processes and due work
    restarts.py        when a dead process is started again
    pulse.py           when a silent process is looked at, and given up
    refusals.py        what the operating system refuses, and what to do
    fields.py          fields of a spec, checked once more for a data plane
    tally.py           what was carried, over all processes of a load balancer
    files.py           files that are whole or not there
    pools.py           addresses of interface pools on this host, put there and taken off
    netlink.py         the door to netlink: addresses of interfaces
    route_table.py     the door to the kernel's routes
    transparency.py    what connections from clients' addresses need of this host
    hosts.py           this host among others: heartbeats, and what becomes of the dead one's
    timekeeper.py      who sets business time, and moves it forward
    loops.py           threads that turn the steps, and what wakes them
    store/             every query
    migrations/        the schema's history
    invariants.py      the promises of the cloud, checked over its rows
    tables.py          every other table on one page
    lifecycle.py       THE state machine
    addresses.py       pools, and which address comes next
    host_ports.py      ports of the machine around the container, one for each listener
    ranges.py          which part of a network a pool takes by itself
    catalogue.py       types with their limits, regions and zones
    pem.py             certificates as customers bring them
    sealing.py         secrets that a copy of the database doesn't tell
    routing.py         networks and routes as values
    rules.py           what the parts of a spec must have to do with each other
    edits.py           what short requests make of a spec
    documents.py       values as the documents of the API
    traffic.py         from totals that only grow to what every hour carried
    checks.py          health checks as values
    chaos.py           faults at work: rules, hits, the log
    faults.py          whether a fault hits, decided purely
    fault_actions.py   the catalogue of what faults do
    chaos_labels.py    faults asked for by labels and annotations
    scenarios.py       named sets of faults
    filters.py         filters, label selectors, orders and field masks of lists
    merge_patch.py     a document as a patch changes it
    scopes.py          what a token may be allowed to do
    business_time.py   business time as a line over wall time
    profiles.py        how long other clouds take
    ids.py             ids that sort by time
    resources.py       frozen values: certificates, addresses, instances, tokens, projects
    model.py           frozen values: the wish, the load balancer, what the data plane is told
    settings.py        every knob
    metrics.py         Prometheus objects, named once
    logs.py            structured logs on standard error
    clock.py           time as an argument
    failures.py        why operations fail, code by code
    errors.py          the error tree

__main__ | container → serving → app | cli | restoring → premises → isolation → api | rounds | housekeeping | dataplane → spending | post → waste | budgets → webhooks → insight | costs | invoices → day_sums | open_days → containers | route_table → load_balancers | networks | router | provisioner | interference | flapping | trouble | sweeper | prober | watch | tokens | ledger | haproxy | udp | netlink | transparency | pools | loops | hosts | timekeeper | projects | rate_limits | metering
→ wishes | conflicts → probes | health | chaos | placement | host_ports | seen | processes | supervisor | restarts | pulse → quotas | suspension → outcomes | store → billing_tables | spending_tables | traffic_tables → tables → lifecycle | hooks | refusals | fields | tally | business_time | addresses | ranges | documents | checks | traffic | billing | chaos_labels | scenarios | fault_actions | scopes | merge_patch → faults → filters → metrics → resources → model | routing | profiles | ids | files | clock | settings | logs | failures → errors
"""

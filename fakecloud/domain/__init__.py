"""What is true of load balancers, addresses, faults and time, decided purely.

    chaos_labels.py   faults asked for by labels and annotations
    fault_actions.py  the catalogue of what faults do
    scenarios.py      named sets of faults
    documents.py      values as the documents of the API
    faults.py         whether a fault hits, decided purely
    invariants.py     the promises of the cloud, checked over its rows
    outcomes.py       what a worker's attempt means for the load balancer
    addresses.py      pools, and which address comes next
    business_time.py  business time as a line over wall time
    catalogue.py      types with their limits, regions and zones
    checks.py         health checks as values
    disturbances.py   what faults do to connections, as the data plane is told
    edits.py          what short requests make of a spec
    failures.py       why operations fail, code by code
    fields.py         fields of a spec, checked once more for a data plane
    filters.py        filters, label selectors, orders and field masks of lists
    hooks.py          where a worker can be disturbed
    lifecycle.py      THE state machine
    merge_patch.py    a document as a patch changes it
    pem.py            certificates as customers bring them
    profiles.py       how long other clouds take
    ranges.py         which part of a network a pool takes by itself
    routing.py        networks and routes as values
    rules.py          what the parts of a spec must have to do with each other
    scopes.py         what a token may be allowed to do
    sealing.py        secrets that a copy of the database doesn't tell
    tally.py          what was carried, over all processes of a load balancer
    traffic.py        from totals that only grow to what every hour carried

chaos_labels | fault_actions | scenarios → documents | faults | invariants | outcomes → addresses | business_time | catalogue | checks | disturbances | edits | failures | fields | filters | hooks | lifecycle | merge_patch | pem | profiles | ranges | routing | rules | scopes | sealing | tally | traffic
"""

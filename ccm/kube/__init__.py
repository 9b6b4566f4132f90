"""The controller's door to the API server.

    cluster.py     what the reconciler sees: caches to read, patches to write, events to record
    informer.py    list and watch of one resource, kept in memory
    elector.py     the Lease by which one of several instances leads
    events.py      Kubernetes events: aggregated, bounded, never in the way
    patches.py     the bodies of status and finalizer patches
    transport.py   requests and streams over kubernetes.aio; configuration and authentication

cluster → informer | events | patches → transport; elector → transport.
"""

"""The runtime of a controller: caches, queue, workers, lease and events over one transport.

    workers.py     the loop runner: keys from the queue to a reconciler and back
    workqueue.py   dedupe, one worker per key, delays, back-off
    informer.py    list and watch of one resource, kept in memory
    elector.py     the Lease by which one of several instances leads
    events.py      Kubernetes events: aggregated, bounded, never in the way
    compacting.py  objects as caches keep them
    objects.py     the parts of Kubernetes objects that are read
    reviews.py     delegated authentication and authorization
    transport.py   requests and streams over kubernetes.aio; configuration and authentication

workers → workqueue; informer | elector | events | reviews | compacting → objects | transport.
"""

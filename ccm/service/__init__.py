"""The service controller: a load balancer in the cloud for each Service of type LoadBalancer.

    controller.py    queue, triggers, reconciler and workers put together
    triggers.py      what adds keys: Services, Nodes, the cloud, time
    cluster.py       what the reconciler sees of the cluster: caches, patches, events
    reconciler.py    one Service key → what to do now; finalizer first, status last
    removal.py       taking back what is ours, finalizer last
    reports.py       events and conditions: what people are told
    ports.py         what the reconciler needs of cluster and cloud, and what it remembers
    desired.py       Service + Nodes → the whole document for the cloud, or why not
    conditions.py    the conditions that say where a Service stands
    ownership.py     which Services and which load balancers are ours
    nodes.py         which nodes get traffic, as named predicates
    annotations.py   the annotations that are understood

controller → triggers | cluster | (reconciler → removal → reports → ports)
→ desired | conditions → ownership | annotations | nodes
"""

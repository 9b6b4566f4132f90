"""The service controller: a load balancer in the cloud for each Service of type LoadBalancer.

    controller.py    queue, triggers, reconciler and workers put together
    triggers.py      what adds keys: Services, Nodes, EndpointSlices, the cloud, time
    inventory.py     tells the cloud which Services there are
    rates.py         what load balancers cost, asked now and then
    nodesyncs.py     how long a change of nodes takes to reach every load balancer
    cluster.py       what the reconciler sees of the cluster: caches, patches, events
    reconciler.py    one key → what to do now; finalizer first, status last
    groups.py        Services that share a load balancer: one look does for all of them
    removal.py       taking back what is ours, finalizer last; orphans
    asking.py        one document to the cloud, if it differs and wasn't refused
    publishing.py    what the status says: address, stage, facts
    reach.py         trying whether an address answers
    reports.py       events and conditions: what people are told
    memories.py      what is remembered between two looks
    explaining.py    why a Service has no address, as findings
    ports.py         what the reconciler needs of cluster and cloud
    sharing.py       plans of Services that share → one document, and who doesn't fit
    desired.py       Service + targets → what to ask the cloud for, or why not
    listeners.py     ports as listeners and target groups
    endpoints.py     pods as targets
    transparency.py  whether targets see the client's own address
    conditions.py    the conditions that say where a Service stands
    ownership.py     which Services and which load balancers are ours
    nodes.py         which nodes get traffic, as named predicates
    dialects.py      annotations of other controllers in terms of ours
    conversions.py   how their values become ours
    annotations.py   our annotations: a typed table
    values.py        how a value is read

controller → triggers → nodesyncs; triggers | cluster | inventory | rates | reconciler → groups → removal | publishing | asking → reports
→ memories | reach → ports → sharing | explaining → desired → listeners | dialects → conversions → annotations
→ values; below desired also endpoints | conditions | transparency | ownership | nodes
"""

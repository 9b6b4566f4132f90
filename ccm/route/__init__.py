"""The route controller: the cloud's way to the pods of each Node, so that it needs no nodePorts.

    controller.py   queue, triggers, the periodic comparison
    reconciler.py   one look at all Nodes and all routes of this cluster
    decisions.py    which routes a Node needs, which are stale, what its condition says

controller → reconciler → decisions. Routes that this cluster didn't make are never touched.
"""

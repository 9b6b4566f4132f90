"""The node controller: what the cloud knows of an instance, on the Node that runs on it.

    controller.py   queue, triggers, workers, the periodic comparison
    reconciler.py   one look at one Node
    changes.py      what a Node has to become, as pure decisions

controller → reconciler → changes. Nodes of other providers are never touched.
"""

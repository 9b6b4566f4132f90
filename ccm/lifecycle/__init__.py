"""The node lifecycle controller: Nodes whose instance is stopped are tainted, or gone removed.

    controller.py   the periodic look at all Nodes, and the writes
    decisions.py    who is looked at, which taints, how many may go

controller → decisions. Nodes of other providers are never touched, Ready ones never removed.
"""

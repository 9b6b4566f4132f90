"""A small agent on every node: answers to clients that a load balancer showed go back through it.

A load balancer that connects from its client's address must see the answers, or they reach a
client that never asked the node. A connection is known by the sender's MAC of its first packet
(connection tracking keeps a mark), and answers of marked connections have a route of their own.

    __main__.py   the command: python -m ccm.returning --gateway HOST
    agent.py      one look: who are the gateways, and does the kernel know
    kernel.py     the door to the kernel: names, neighbours, routes, nftables
    rules.py      gateways → marks, tables and the text for nft

__main__ → agent → kernel → rules
"""

"""What a customer may ask: one request, one transaction.

    load_balancers.py  what a customer may ask of load balancers
    actions.py         again, elsewhere, or no more: repair, failover, cancel
    certificates.py    chains and keys that listeners use
    instances.py       the machines that targets run on
    networks.py        ranges of addresses behind the machines, and routes to them
    reservations.py    addresses that a customer keeps, and how full the pools are
    snapshots.py       copies of the whole database
    wishes.py          what customers wish of load balancers, and what is refused of it
    desk.py            what all desks for resources with a name do alike

load_balancers | certificates | instances | networks → actions | reservations | snapshots | wishes | desk
"""

"""Addresses on this host: whose they are, put there and taken off.

    conflicts.py     an address that somebody else on the link has
    route_table.py   the door to the kernel's routes
    allocation.py    which addresses somebody gets
    host_ports.py    ports of the machine around the container, one for each listener
    netlink.py       the door to netlink: addresses of interfaces
    pools.py         addresses of interface pools on this host, put there and taken off
    router.py        what makes routes real on this host
    transparency.py  what connections from clients' addresses need of this host

conflicts | route_table → allocation | host_ports | netlink | pools | router | transparency
"""

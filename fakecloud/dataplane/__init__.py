"""What runs load balancers on this host: processes and containers as one.

    premises.py    what the settings mean on this host
    isolation.py   containers and processes as one data plane
    containers.py  the door to a container engine: one container per load balancer
    host.py        what runs load balancers here: HAProxy and relays as one

premises → isolation → containers | host
"""

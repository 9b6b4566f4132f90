"""UDP ports of load balancers, relayed by a process of our own.

On the side of the server:
    dataplane   the front: many load balancers on one host, adopted, watched, swept
    instance    one load balancer's ports: what is relayed becomes what is desired
    meter       what its relays have carried
    worker      one relay process, from its start to its end
    process     door: start a relay, recognise it, tell versions apart
    control     door: a relay's control socket, and the sockets it is given
    config      a desired load balancer as a relay's configuration (pure)
On the side of the relay, where nothing big is imported:
    relay       the process: sockets and the loop
    orders      what the server says to it
    handover    everything passed on to a successor
    sessions    who talks to whom, for how long, how much (pure)
    targets     who is chosen for a new session (pure)
    networks    which clients may come (pure)
    clock       its only clock
On both:
    passing     door: text together with open files
    wire        configuration and counters as text (pure)

dataplane → instance → meter → worker → process | control | config → relay → orders | handover → sessions → targets | networks → passing | clock | wire
"""

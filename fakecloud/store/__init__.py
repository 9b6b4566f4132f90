"""Every query of the cloud; decisions live elsewhere.

database        engine, transactions, migrations, what runs after a commit
load_balancers  rows of load balancers: insert, find, list, claim by lease, save with their event
operations      progress of asynchronous work
events          resource versions and the event history that watches read
addresses       which address belongs to whom
usage           recorded active intervals, the ground of every bill
tokens          who may call
"""

"""What the cloud does about a wish: claim a row, place it, make it so, sweep up.

    placement.py    which host runs a load balancer
    provisioner.py  what the cloud does about it: take a row, make it so, hand in the result
    claims.py       what is due, claimed many rows at a time
    results.py      what became of it, many rows in a transaction
    sweeper.py      removes what deleted load balancers have left behind

placement | provisioner | sweeper → claims | results
"""

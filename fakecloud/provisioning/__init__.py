"""What the cloud does about a wish: claim a row, place it, make it so, sweep up.

    placement.py    which host runs a load balancer
    provisioner.py  what the cloud does about it: claim a row, make it so, tell the result
    sweeper.py      removes what deleted load balancers have left behind

placement | provisioner | sweeper
"""

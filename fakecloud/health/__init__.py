"""Every distinct target asked once; who cares about the answer is told.

    prober.py  asks every distinct target once, whoever shares the answer
    board.py   which load balancer cares about which probe, and who is told
    probes.py  one target's probe, and the connection that asks it

prober → board | probes
"""

"""Who may call, for which project, how often, and how much they may have.

    tokens.py       who may call
    projects.py     tenants: nothing in one is seen from another
    quotas.py       how many of each kind a project may have
    rate_limits.py  how fast a token may ask
    suspension.py   when a project may have no more, and what it has stands still

tokens → projects | quotas | rate_limits | suspension
"""

"""Faults at work: the rules, what they do to workers, traffic and states.

    flapping.py      the fault that lets a state flap
    interference.py  faults that disturb the workers
    trouble.py       faults of the data plane: imposed on traffic, and lifted
    engine.py        faults at work: rules, hits, the log

flapping | interference | trouble → engine
"""

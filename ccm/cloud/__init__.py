"""The controllers' door to the cloud.

    mirror.py      the cloud's load balancers in memory, kept by its watch stream
    client.py      requests, errors, stream
    documents.py   what is asked for and what comes back, as values

mirror | client → documents.
"""

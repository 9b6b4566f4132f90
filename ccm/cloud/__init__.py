"""The controllers' door to the cloud.

    mirror.py      the cloud's load balancers in memory, kept by its watch stream
    client.py      what can be asked of the cloud, noun by noun, and its stream
    connection.py  requests with a deadline, lists, endless answers
    answers.py     what answers mean: values, or errors that say what to do
    documents.py   what is asked for and what comes back, as values

mirror | client → connection → answers | documents.
"""

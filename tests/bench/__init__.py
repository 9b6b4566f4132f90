"""What `make bench` measures, printed as a table and, as its last line, one flat JSON object.

__main__  the run     latency  time to address and to answer     memory  PSS and RSS of processes
updates   failed requests while targets change
"""

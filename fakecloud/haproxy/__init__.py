"""Load balancers as HAProxy processes.

dataplane    the front: many load balancers on one host, adopted, watched, swept
instance     one load balancer: many threads ask, one at a time
upkeep       what runs becomes what is desired, and is kept so
journal      what the directory remembers of it
generations  all processes of a load balancer
departures   servers on their way out of one process
faults       what faults do to it
filing       when its files say what runs
draining     generations that accept nothing any more
meter        what its processes have carried
generation   one process of a load balancer, from its start to its end
artifacts    what a process has on disk: its files and sockets
host         what all load balancers of a server share
affinity     what one process remembers of its clients, told to the next (pure)
diagnosis    why a process didn't start
spoiling     door: connections to targets that are spoiled on purpose
expired      certificates that are over
launcher     where processes run: beside the server, or in a place of their own
changes      what a running process can be told, and what takes a new one (pure)
rendering    a typed configuration as text (pure)
config       a desired load balancer as a typed configuration (pure)
targets      the servers of a target group (pure)
values       fields of a spec in HAProxy's notation (pure)
words        the one type of text that may reach HAProxy (pure)
process      door: find the program, start it, recognise it
runtime      door: the stats socket
state        the load balancer's directory

dataplane → instance → upkeep → journal → generations | departures | faults | filing → draining | meter → generation
→ artifacts → host → spoiling | affinity | changes | rendering | process | runtime | state | expired → config → targets → values → words
"""

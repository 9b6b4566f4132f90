"""The door to processes: start, know again, notice the end, start again.

    processes.py   the door to processes: start, know again, signal, end
    pulse.py       when a silent process is looked at, and given up
    refusals.py    what the operating system refuses, and what to do
    restarts.py    when a dead process is started again
    supervisor.py  notices ended processes and due work

processes | pulse | refusals | restarts | supervisor
"""

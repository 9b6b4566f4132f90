"""What every watcher hears, and what the hub has seen for reads without a query.

    hub.py   the hub that feeds every watcher from one reader of the event history
    seen.py  what the hub has seen, for reads without a query

hub → seen
"""

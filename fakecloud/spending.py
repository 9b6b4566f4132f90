"""What watches over spending, put together."""

from __future__ import annotations

from fakecloud.clock import Clock
from fakecloud.costs import Costs
from fakecloud.store.database import Database
from fakecloud.waste import Waste


class Spending:
    """The desks that look at costs and tell of them."""

    def __init__(self, database: Database, costs: Costs, clock: Clock) -> None:
        """Make them over one database."""
        self.waste = Waste(database, costs, clock)

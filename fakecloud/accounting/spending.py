"""What watches over spending, put together."""

from __future__ import annotations

from fakecloud.accounting.budgets import Budgets
from fakecloud.accounting.costs import Costs
from fakecloud.accounting.opencost import OpenCost
from fakecloud.accounting.waste import Waste
from fakecloud.accounting.webhooks import Post, Webhooks
from fakecloud.clock import Clock
from fakecloud.domain.sealing import Seal
from fakecloud.store.database import Database


class Spending:
    """The desks that look at costs and tell of them."""

    def __init__(
        self, database: Database, costs: Costs, clock: Clock, *, seal: Seal, post: Post
    ) -> None:
        """Make them over one database; webhooks' secrets are sealed, news sent by `post`."""
        self.waste = Waste(database, costs, clock)
        self.webhooks = Webhooks(database, clock, seal, post)
        self.budgets = Budgets(database, costs, clock, self.webhooks)
        self.opencost = OpenCost(database, costs, clock)

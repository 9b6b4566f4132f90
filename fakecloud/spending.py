"""What watches over spending, put together."""

from __future__ import annotations

from fakecloud.budgets import Budgets
from fakecloud.clock import Clock
from fakecloud.costs import Costs
from fakecloud.sealing import Seal
from fakecloud.store.database import Database
from fakecloud.waste import Waste
from fakecloud.webhooks import Post, Webhooks


class Spending:
    """The desks that look at costs and tell of them."""

    def __init__(
        self, database: Database, costs: Costs, clock: Clock, *, seal: Seal, post: Post
    ) -> None:
        """Make them over one database; webhooks' secrets are sealed, news sent by `post`."""
        self.waste = Waste(database, costs, clock)
        self.webhooks = Webhooks(database, clock, seal, post)
        self.budgets = Budgets(database, costs, clock, self.webhooks)

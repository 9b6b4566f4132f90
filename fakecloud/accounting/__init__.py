"""What accounts owe and are told: reports, invoices, budgets, waste.

    spending.py   what watches over spending, put together
    budgets.py    what may be spent, and who is told
    opencost.py   costs for tools that speak OpenCost or Prometheus
    waste.py      what costs and serves nobody; what clusters say they have
    costs.py      what people ask about costs
    invoices.py   a month's bill, closed, proved and exported
    open_days.py  what open days come to, remembered up to an hour that is over
    post.py       the door to other people's servers
    day_sums.py   what closed days came to, remembered
    ledger.py     what accounts owe: charges of any time, days closed
    webhooks.py   news, signed and sent again for a while

spending → budgets | opencost | waste → costs → invoices | open_days | post → day_sums | ledger | webhooks
"""

"""Every table.

    billing.py   the tables of billing
    spending.py  the tables of what watches over spending
    traffic.py   the tables of what load balancers carry
    cloud.py     every other table on one page

billing | spending | traffic → cloud
"""

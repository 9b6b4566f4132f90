"""Every table.

    billing.py   the tables of billing
    spending.py  the tables of what watches over spending
    traffic.py   the tables of what load balancers carry
    access.py    the tables of who may ask, and of what was asked
    cloud.py     every other table on one page

billing | spending | traffic | access → cloud
"""

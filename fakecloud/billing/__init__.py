"""Everything about money: integers and exact decimals, never a float.

money    pico-units to decimal strings          prices  price books: what one hour costs
books    the price books that are shipped
rating   active time to money, cumulatively     report  grouped, with totals and run rate
"""

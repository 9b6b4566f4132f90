"""Everything about money: integers and exact decimals, never a float. Values in, values out.

events         what happened, and the spans it means     usage       spans, hours, lines
prices         price books, checked                      books       those that are shipped
quantities     cumulative functions of use               money       pico-units to decimal strings
corrections    late changes of closed days, as more lines
rating         one resource's use to lines               accounts    what an account costs together
report         charges grouped and totalled              statement   why it costs what it costs
projection     a month at this rate, and the rest of it
preview        what manifests would cost                 consolidation  who could share one
rates          what one by itself costs in an hour
waste          what serves nobody                         budgets     periods and thresholds
anomalies      unusual days, and why                      focus_rows     rows of it by the million
opencost       the shapes of OpenCost
focus          export as FOCUS 1.4                       focus_check    a check of every cell
focus_invoices  its billing periods and invoices         focus_invoice_check  of those, and of sums
"""

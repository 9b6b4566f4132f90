"""Every query of the cloud; decisions live elsewhere.

database        engine, transactions, migrations, what runs after a commit
groups          group commit: writers that wait share a transaction
turns           a lock that goes to who has waited longest
journal         what a transaction writes at its end: its version, events, audit records
bulk            many rows into a table by one statement
load_balancers  rows of load balancers: insert, find, list, save with their event
leases          which worker may work on one, and until when
operations      progress of asynchronous work
events          resource versions and the event history that watches read
addresses       which address belongs to whom
host_ports      which port of the published range belongs to which listener
billing_events  the log of what is billed    charges  lines, and the sums of days
invoices        closed periods               price_assignments  which book when
proof           whether the books are right  inventories   what clusters said they have
budgets         what may be spent            webhooks      who is told, and of what
late            days to be rated again         fences      who of several writers was last
traffic         what listeners carried: totals, hours, and the last look of a host
tokens          who may call                 projects      the tenants
quotas          counters with limits         idempotency   answers under the callers' keys
audit           the chained record           faults        rules of disturbance, and their hits
clocks          business time                hosts         who runs load balancers
certificates    chains, and their keys sealed
instances       machines                     reservations  addresses that are kept
networks        ranges behind machines       routes        ways to them
named           rows of whatever has a name
listings        pages of any list            census        everything, for the invariants
notifications   news between processes       readiness     can the database be written
sqlite_file     nobody takes it away under the server
"""

"""HTTP in, HTTP out; every answer that isn't a success is problem+json.

application     the FastAPI application from its parts
context         what handlers may use, and who is calling
load_balancers  PUT, GET, list, DELETE       operations  progress of asynchronous work
actions         POST, batchGet, targets, drain, repair, failover
insight         status, config, logs, stats  insight_schemas  their wire models
admin           check, reset, export, snapshots
addresses       reserved ones, and pools     instances   the machines
certificates    chains and keys that listeners use
networks        ranges behind the machines   routes      ways to them
catalogues      types and regions            resource_schemas  wire models of the rest
lists           filter, selector, order, fields, pages    waiting  long polls
watch           the stream of changes        watch_views  who sees what of it
costs           reports, forecasts, comparisons, prices    billing  invoices, proof, export
budgets         budgets and webhooks
rates           what load balancers cost in an hour
waste           what serves nobody; inventories of clusters
clock           business time                profiles    how long the simulated cloud takes
projects        tenants                      tokens      who may call, for what, until when
quotas          how many of each kind        audit       what was asked by whom
mutations       key, change and audit record in one transaction
preferences     what `Prefer` asks for
envelope        what every answer carries
opencost        costs where OpenCost's tools look for them
service         health, version, metrics, problem pages
schemas         wire models: limits and defaults of the document
chaos           faults on demand: make, list, log    fault_schemas  their wire models
disturbance     faults that happen to requests       tampering      to answers and streams
page_faults     pages that overlap or leave a gap    reordering     events in another order
description     the OpenAPI document: what all routes have in common
replies         successful answers, pages and tokens
problems        errors to problem+json       guard       limits on requests before any handler
heads           HEAD where there is a GET
reads           plain reads from what the watch hub has seen
puts            plain PUTs without the framework's way to the handler
writer          changes of requests in one thread, those that wait together with one commit
"""

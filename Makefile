# Each task is one line of what it runs; `make help` lists them.
PY := .venv/bin/python
export PATH := $(PATH):/usr/local/sbin:/usr/sbin
.DEFAULT_GOAL := help
.PHONY: help setup demo test check check-cloud check-rest format bench bench-api bench-billing bench-ccm bench-dataplane bench-kind kind kind-down e2e scoreboard lock

help:  ## list the tasks
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 16

setup:  ## install what is missing: uv, the locked environment in .venv, HAProxy
	@sh tests/setup.sh

demo: setup  ## the main job, live: a Service goes from <pending> to an address (ONCE=1: then exit)
	@$(PY) -m tests.demo $(if $(ONCE),--once)

test: setup  ## every test that needs neither root nor Docker
	@$(PY) -m tests.cluster binaries >/dev/null && $(PY) -m pytest

check: setup  ## format, lint, types, import contracts, unit and property tests (minutes)
	@$(MAKE) --no-print-directory -j2 check-cloud check-rest

check-cloud:
	@$(PY) -m pytest -q tests/unit/fakecloud

check-rest:
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy && .venv/bin/lint-imports && $(PY) -m pytest -q tests/unit tests/property --ignore tests/unit/fakecloud

format: setup  ## format the code and sort its imports
	@$(PY) -m ruff format . && $(PY) -m ruff check --fix-only .

bench: setup  ## time to address and answer, memory, failed requests; a table and a line of JSON
	@$(PY) -m tests.bench

bench-api: setup  ## the cloud API: requests, watches, memory, crashes; a table and a line of JSON
	@$(PY) -m tests.bench.api

bench-billing: setup  ## reports over a million lines, closing days, export; a table and a line of JSON
	@$(PY) -m tests.bench.billing

bench-ccm: setup  ## the controller: 1,000 Services at once, faults, memory (PARTS="overhead --idle-s=60")
	@$(PY) -m tests.bench.ccm $(PARTS)

bench-dataplane: setup  ## HAProxy and UDP beside Envoy and nginx; a table and a line of JSON
	@sh tests/bench/get_envoy.sh && $(PY) -m tests.bench.dataplane $(PARTS)

bench-kind:  ## load balancers of a kind cluster beside cloud-provider-kind (ARGS="--peer FILE")
	@python3 -m tests.e2e.bench_kind $(ARGS)

kind:  ## a kind cluster whose LoadBalancer Services get addresses (NAME=, CONFIG=, CLASS_ONLY=1, POD_ROUTES=1, TRANSPARENT=1)
	@python3 -m tests.e2e.kind up $(given) $(if $(CONFIG),--config $(CONFIG)) $(if $(CLASS_ONLY),--class-only) $(if $(POD_ROUTES),--pod-routes) $(if $(TRANSPARENT),--transparent)

kind-down:  ## remove what `make kind` made (NAME=: from that cluster only)
	@python3 -m tests.e2e.kind down $(given)

e2e: setup  ## our cases on a real kind cluster (NAME=, CONFIG=, ONLY=udp, RESUME=1); about 15 minutes
	@E2E_CLUSTER=$(if $(given),$(NAME)) E2E_CONFIG=$(CONFIG) $(PY) -m pytest -q --timeout 600 $(if $(ONLY),-k '$(ONLY)') $(if $(RESUME),--stepwise) tests/e2e/cases_traffic.py tests/e2e/cases_trouble.py tests/e2e/cases_ways_out.py

# Some shells have a NAME of their own.
given = $(if $(filter command line,$(origin NAME)),--name $(NAME))

scoreboard:  ## Kubernetes' own LoadBalancer specs on that cluster, for tests/e2e/SCOREBOARD.md
	@python3 -m tests.e2e.upstream $(ARGS)

lock: setup  ## resolve the dependencies anew
	@sh tests/lock.sh

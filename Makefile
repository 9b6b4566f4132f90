# Each task is one line of what it runs; `make help` lists them.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench kind kind-down e2e lock

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup:  ## what is missing: uv, the locked environment in .venv, HAProxy
	@sh tests/setup.sh

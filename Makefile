# The project's commands. `make demo` and `make test` need Python 3.11+ and nothing else; neither asks for root.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export SIDECAR_SHARED ?= ../shared
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help demo test lint proto bench evaluate faults permutations real-parts clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# One stamp an extra set: it is made again when what is to be installed has changed.
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo "Setting up $(VENV), once: a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[server,demo]"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[server,kafka,demo,test]"
	@touch $@

demo: $(VENV)/.demo ## a small fleet, one agent that turns, and the pause (ONCE=1: ends by itself)
	@$(BIN)/sidecar demo $(if $(ONCE),--once)

test: $(VENV)/.test ## all tests; real servers that this machine cannot give are named and counted
	@$(BIN)/python -m scripts.real_parts --quiet
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.test ## style, types, import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

proto: ## generate the control API's code from proto/
	@scripts/make-proto

bench: $(VENV)/.test ## every latency, CPU and memory figure, as ratios in one run
	@$(BIN)/python -m benchmarks $(ARGS)

evaluate: $(VENV)/.demo ## all corpora in SIDECAR_SHARED, cold, with the shipped policy
	@$(BIN)/python -m scripts.evaluate $(ARGS)

faults: $(VENV)/.test ## the long fault tests, at full round counts (hours)
	@$(BIN)/python -m pytest tests/faults --full-rounds -s $(ARGS)

permutations: $(VENV)/.test ## 500 arrivals of every capture, and each without every attribute (an hour or two)
	@SIDECAR_PERMUTATIONS=500 SIDECAR_DELETIONS=all $(BIN)/python -m pytest tests/captures/test_any_order.py tests/captures/test_deletions.py $(ARGS)

real-parts: $(VENV)/.test ## fetch and build Kafka, the Collector and Prometheus into the cache
	@$(BIN)/python -m scripts.real_parts

clean: ## remove what was made
	@rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis out *.egg-info

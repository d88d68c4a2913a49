# Every target that has a "##" is listed by `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PROTO_FILES := $(wildcard proto/qgjob/v1/*.proto)
SERVICE_FILES := $(wildcard proto/qgjob/v1/*_service.proto)
UV ?= $(or $(shell command -v uv),.cache/uv/bin/uv)
# Only a uv of our own is a file to make.
UV_PROGRAM := $(filter .cache/%,$(UV))
RUN := $(UV) run --frozen --all-extras
export UV
# A distribution builds its Python with a profile, most others do not: it needs an eighth less time for the same work.
SYSTEM_PYTHON := $(wildcard /usr/bin/python3.11)
ifneq ($(SYSTEM_PYTHON),)
export UV_PYTHON ?= $(SYSTEM_PYTHON)
endif
# A Node that was brought for this project, where the system's own is missing or too old.
export PATH := $(CURDIR)/.cache/tools:$(PATH)
PYTEST := $(RUN) pytest
BASELINE := proto/baseline.binpb

.PHONY: help setup tools reference demo test test-fast test-e2e sim sim-mutants soak bench check lint format types imports wire fresh proto baseline

help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(UV_PROGRAM) ## Make the environment (.venv) from uv.lock; brings its own uv where there is none
	@test -d .venv || echo "Making the Python environment in .venv ..."
	@$(UV) sync --frozen --all-extras --quiet

.cache/uv/bin/uv:
	@echo "Bringing uv, which makes the Python environment ..."
	@python3 -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv

tools: setup ## Install what real AppWright needs (root on Debian or Ubuntu), or say what is missing
	@$(RUN) --no-sync python -m examples.tools

demo: tools ## See the grid at work: real AppWright on two virtual phones, in half a minute
	@$(RUN) --no-sync python -m examples.demo

# Files in their own order: those with the fewest tests take longest, and must not come last.
test: tools check ## Everything that CI runs
	$(PYTEST) -q -n 3 --dist loadfile --no-loadscope-reorder

test-fast: setup ## The tests without real processes, under three minutes
	$(PYTEST) -q -n 2 --dist loadfile -m "not e2e and not appwright and not android_tools"

SEEDS ?= 2000
FROM ?= 0
SIM = $(RUN) python -m tests.sim
sim: ## Simulate the whole lab from many seeds (SEEDS=n FROM=n), or replay one (SEED=n)
	$(SIM) $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS) --from $(FROM) $(if $(RECORD),--record $(RECORD)))

sim-mutants: ## Plant defects and see that the simulation notices each
	$(SIM).mutants

KILLS ?= 200
soak: tools ## All faults of real processes at length (KILLS=n), 100,000 simulated seeds, benchmarks: some hours
	QGJOB_KILLS=$(KILLS) QGJOB_FAILOVERS=10 $(PYTEST) -q -s -m "" tests/faults
	QGJOB_OUTAGE_S=120 $(PYTEST) -q tests/e2e/test_outages.py -k away_for_long
	$(PYTEST) -q -m soak tests/e2e/test_browserstack.py tests/e2e/test_builds.py tests/agent/test_emulator.py
	$(SIM).mutants
	$(SIM) --seeds 100000
	$(RUN) python -m benchmarks scheduling
	$(RUN) python -m benchmarks decision
	$(RUN) python -m benchmarks follow
	$(RUN) python -m benchmarks builds

bench: $(UV_PROGRAM) ## Measure beside bare gRPC, SQLite and the classic stack (BENCH="submit ..."): writes docs/performance.md
	@$(UV) sync --frozen --all-extras --group bench --quiet
	$(RUN) --group bench python -m benchmarks.report $(BENCH)

check: lint types imports wire fresh ## Lint, types, import contracts, the wire

lint:
	$(RUN) ruff check
	$(RUN) ruff format --check

format: ## Format the sources
	$(RUN) ruff check --fix
	$(RUN) ruff format
	$(RUN) buf format -w

types:
	$(RUN) mypy coordinator agent qgjob tests examples benchmarks

imports:
	$(RUN) lint-imports

wire:
	$(RUN) buf lint
	$(RUN) buf format --diff --exit-code
	$(RUN) buf breaking --against $(BASELINE)

fresh: ## Check that qgjob/v1 is what proto/ generates, and docs/reference.md what the programs tell
	@rm -rf .cache/fresh && mkdir -p .cache/fresh
	@$(MAKE) --no-print-directory generate OUT=.cache/fresh
	diff -r --exclude=__pycache__ .cache/fresh/qgjob/v1 qgjob/v1
	@$(RUN) python -m examples.reference --check

reference: ## Write docs/reference.md anew from the help of the programs
	$(RUN) python -m examples.reference

proto: ## Generate the Python code of the wire (qgjob/v1) from proto/
	rm -rf qgjob/v1
	@$(MAKE) --no-print-directory generate OUT=.

.PHONY: generate
generate:
	@$(RUN) python -m grpc_tools.protoc -Iproto --python_out=$(OUT) --mypy_out=quiet:$(OUT) $(PROTO_FILES)
	@$(RUN) python -m grpc_tools.protoc -Iproto --grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) $(SERVICE_FILES)
	@touch $(OUT)/qgjob/v1/__init__.py

baseline: ## Accept the wire as it is now as the baseline of the breaking check (at a release)
	$(RUN) buf build -o $(BASELINE)

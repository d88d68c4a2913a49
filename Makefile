# Every target that has a "##" is listed by `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PROTO_FILES := $(wildcard proto/qgjob/v1/*.proto)
SERVICE_FILES := $(wildcard proto/qgjob/v1/*_service.proto)
UV ?= uv
RUN := $(UV) run --frozen --all-extras
PYTEST := $(RUN) pytest

.PHONY: help setup proto lint types imports wire fresh test-fast test demo

help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make the environment (.venv) from uv.lock; installs uv with pip when it is missing
	@command -v $(UV) >/dev/null || python3 -m pip install --quiet uv
	$(UV) sync --frozen --all-extras

proto: ## Generate the Python code of the wire (qgjob/v1) from proto/
	rm -rf qgjob/v1 && mkdir qgjob/v1
	$(RUN) python -m grpc_tools.protoc -Iproto --python_out=. --mypy_out=quiet:. $(PROTO_FILES)
	$(RUN) python -m grpc_tools.protoc -Iproto --grpc_python_out=. --mypy_grpc_out=quiet:. $(SERVICE_FILES)

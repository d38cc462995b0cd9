# Hauberk's commands. `make demo` and `make test` do all their own set-up; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SECONDS ?= 600

# Hundreds of programs are started from this tree: what is compiled is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

# Of `make drill`: certificates live for a minute of each.
MINUTES ?= 60

# Tests at a time in `make test`; 0 runs them one after the other in pytest itself.
PROCESSES ?= 2

# Of `make test`, as pytest's -m; MARKS= takes all, the long ones among them.
MARKS ?= not long

.PHONY: help setup demo drill soak test check format bench bench-ike bench-path bench-xfrm bench-scale interop fuzz image lab \
    requirements clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(STAMP) ## The virtual environment, with pinned and hashed dependencies

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Hauberk needs Python 3.11 or later; give one with make PYTHON=...")'
	@if [ ! -x $(BIN)/pip ]; then \
	    echo "making the virtual environment $(VENV)"; \
	    if ! $(PYTHON) -m venv $(VENV) >/dev/null 2>&1; then \
	        [ "$$(id -u)" = 0 ] || { echo "python3's venv module is missing: sudo apt-get install python3-venv" >&2; exit 1; }; \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	        $(PYTHON) -m venv --clear $(VENV); \
	    fi; \
	fi
	@echo "installing the pinned dependencies into $(VENV) (about a minute the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lab: $(STAMP) ## Build the lab's parts (kernel, Kubernetes, containerd): 12 minutes once, then cached
	@$(BIN)/python -m tests.lab build

demo: $(STAMP) ## Three real nodes: traffic in clear, apply a tunnel, ESP only; a fourth joins; all removed
	@$(BIN)/python -m tests.demo

test: lab ## The tests, those on real kernels too, but for the long ones
	@$(BIN)/python -m compileall -q agent operator crds tests benchmarks
	@$(BIN)/python -m pytest -m "$(MARKS)" --numprocesses $(PROCESSES) --no-loadscope-reorder --durations 25 --durations-min 5

test-long: ## The long tests: minutes each, agents under traffic in bare kernels
	@$(MAKE) --no-print-directory test MARKS=long

check: $(STAMP) ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m tests.hygiene

format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure: IKEv2 handshakes and XFRM messages, against the other way of doing each
	@$(BIN)/python -m benchmarks

fuzz: $(STAMP) ## Look for bytes that do harm to IKEv2, for SECONDS (600); what was found before is in `make test`
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench-ike: $(STAMP) ## Measure: our IKEv2 against strongSwan's charon, CPU, handshakes a second, memory (root)
	@$(BIN)/python -m benchmarks.ike $(ARGUMENTS)

bench-xfrm: $(STAMP) ## Measure: states and policies a second in a real kernel, ours against `ip -batch`
	@$(BIN)/python -m benchmarks.xfrm $(ARGUMENTS)

bench-path: $(STAMP) ## Measure: throughput with our policies, against `ip xfrm` by hand, WireGuard and plain (root)
	@$(BIN)/python -m benchmarks.path $(ARGUMENTS)

drill: lab ## MINUTES (60) of one-minute certificates and two rolls under traffic, then the table of attacks
	@$(BIN)/python -m tests.drill --minutes $(MINUTES) $(ARGUMENTS)

bench-scale: $(STAMP) ## Measure: writes, events, CPU and memory of a mesh of 5,000 simulated nodes on a real API server (root)
	@$(BIN)/python -m benchmarks.scale $(ARGUMENTS)

soak: lab ## Faults without end under traffic on real nodes: rekeys, kills, outages, crashes; 40 minutes
	@$(BIN)/python -m tests.soak $(ARGUMENTS)

interop: $(STAMP) ## IKEv2 against strongSwan, libreswan and OpenIKED in real kernels; writes the table in the docs
	@$(BIN)/python -m tests.interop

image: $(STAMP) ## The container image, from the Dockerfile, as an OCI archive
	@$(BIN)/python -m tests.lab.image

requirements: $(STAMP) ## Pin the dependencies of pyproject.toml anew, with hashes
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 \
	    --extra operator pyproject.toml --output-file requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 \
	    --extra operator --extra dev --constraints requirements/runtime.txt pyproject.toml --output-file requirements/dev.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 \
	    --extra operator --extra dev --extra fuzz --constraints requirements/dev.txt pyproject.toml \
	    --output-file requirements/fuzz.txt
	echo hatchling | $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 \
	    --constraints requirements/dev.txt - --output-file requirements/build.txt

clean: ## Remove what was built in the tree (the lab's cache stays: python -m tests.lab --help)
	rm -rf build $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache

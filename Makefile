# archlbr: `make help` lists the targets. Needs make, and Python 3.11 or newer with its venv module.

# A Python that is position-independent, where there is one: programs linked at fixed addresses then have room beside it.
PYTHON ?= $(shell for python in $$(which -a python3 python3.14 python3.13 python3.12 python3.11 2>/dev/null); do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11) or open(sys.executable, "rb").read(17)[16] != 3)' \
  2>/dev/null && { echo $$python; exit; }; done; echo python3)
BIN := .venv/bin
DEMO := build/demo
SYNCED := .venv/.synced

.PHONY: help setup demo test lint conform-kvm bench campaigns guest man clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(SYNCED) ## Make .venv with the locked dependencies.

$(SYNCED): uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "archlbr needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "no venv module: install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv sync --quiet --locked --compile-bytecode --python $(BIN)/python || { \
	  echo "uv could not sync; pip installs what pyproject.toml allows instead" >&2; \
	  $(BIN)/python -m pip install --quiet --upgrade pip && $(BIN)/python -m pip install --quiet --editable . --group dev; }
	@touch $@

demo: setup ## Record a real program and print its hottest branches.
	@mkdir -p $(DEMO)
	@echo "Recording: sort uv.lock"
	@$(BIN)/archlbr record -c 1009 -o $(DEMO)/perf.data -- sort uv.lock > $(DEMO)/sorted
	@$(BIN)/archlbr report $(DEMO)/perf.data
	@echo
	@echo "The profile is $(DEMO)/perf.data. Open it with any of:"
	@echo "  $(BIN)/archlbr report $(DEMO)/perf.data"
	@echo "  perf report -b -i $(DEMO)/perf.data"
	@echo "  perf script -F ip,sym,brstack -i $(DEMO)/perf.data"

test: lint ## Check the code, then run the tests.
	@$(BIN)/pytest

lint: setup ## Check style, types and the import rules.
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

conform-kvm: setup ## Ask the conformance table of this host's KVM.
	@$(BIN)/archlbr conform --target kvm

bench: setup ## Measure the speeds of docs/benchmarks.md.
	@$(BIN)/python -m bench

campaigns: setup ## Fuzz, mutate, kill and soak: hours; the results go to docs/reliability.md.
	@$(BIN)/uv sync --quiet --locked --group campaigns --python $(BIN)/python
	@for name in fuzz kills mutants soak; do nice -n 15 $(BIN)/python -m campaigns.$$name --write || exit; done

guest: setup ## Fetch a Debian kernel and busybox and pack a Linux guest into build/guest (needs apt, dpkg, gcc).
	@$(BIN)/python -m tests.guests.linux
	@echo "Boot it with:"
	@echo "  $(BIN)/archlbr run --kernel build/guest/vmlinuz --initrd build/guest/guest.cpio --append 'console=ttyS0 mitigations=off'"

man: setup ## Write the manual pages to build/man, from the help.
	@$(BIN)/python -m archlbr.cli.manual build/man

clean: ## Remove what the other targets made.
	@rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# archlbr: `make help` lists the targets. Needs make, and Python 3.11 or newer with its venv module.

# A Python that is position-independent, where there is one: programs linked at fixed addresses then have room beside it.
PYTHON ?= $(shell for python in $$(which -a python3 python3.14 python3.13 python3.12 python3.11 2>/dev/null); do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11) or open(sys.executable, "rb").read(17)[16] != 3)' \
  2>/dev/null && { echo $$python; exit; }; done; echo python3)
BIN := .venv/bin
DEMO := build/demo
GUEST := build/guest
RUN_GUEST = $(BIN)/archlbr run --kernel $(GUEST)/vmlinuz --initrd $(GUEST)/guest.cpio
# What the demo types at the guest's shell.
TYPED := perf record -b -e branches:u -c 10007 -- interpreter 2; cat perf.data > /dev/ttyS1; poweroff -f
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

demo: setup ## Record a real program and print its hottest branches; then do it inside a Linux guest.
	@mkdir -p $(DEMO)
	@echo "Recording: sort uv.lock"
	@$(BIN)/archlbr record -c 1009 -o $(DEMO)/perf.data -- sort uv.lock > $(DEMO)/sorted
	@$(BIN)/archlbr report $(DEMO)/perf.data
	@echo
	@echo "The profile is $(DEMO)/perf.data. Open it with any of:"
	@echo "  $(BIN)/archlbr report $(DEMO)/perf.data"
	@echo "  perf report -b -i $(DEMO)/perf.data"
	@echo "  perf script -F ip,sym,brstack -i $(DEMO)/perf.data"
	@echo
	@echo "The second thing to try: a Linux guest, and perf record -b inside it. Its kernel is booted by:"
	@echo "  $(RUN_GUEST)"
	@test -e $(GUEST)/guest.cpio || { echo "Fetching Debian's kernel and busybox for it, into $(GUEST):"; $(BIN)/python -m tests.guests.linux; } \
	  || echo "Later: make guest, and then the line above."
	@test ! -e $(GUEST)/guest.cpio || { echo '$(TYPED)' | $(RUN_GUEST) -o $(DEMO)/guest.data --timeout 600 && \
	  test -s $(DEMO)/guest.data && echo && echo "What the guest's perf recorded, read here:" && \
	  $(BIN)/archlbr report -n 10 $(DEMO)/guest.data; } || echo "The guest recorded nothing: install linux-perf, make guest, and make demo again."

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
	@for name in fuzz "kills record" "kills snapshot" mutants soak; do nice -n 15 $(BIN)/python -m campaigns.$$name --write || exit; done

guest: setup ## Fetch a Debian kernel and busybox and pack a Linux guest into build/guest (needs apt, dpkg, gcc).
	@$(BIN)/python -m tests.guests.linux
	@echo "Boot it with:"
	@echo "  $(RUN_GUEST)"

man: setup ## Write the manual pages to build/man, from the help.
	@$(BIN)/python -m archlbr.cli.manual build/man

clean: ## Remove what the other targets made.
	@rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

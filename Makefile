# PYTHON only makes .venv; everything else runs in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Marks of a complete installation, without and with the development tools. If pyproject.toml is newer, it is repeated.
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check

# One thread a process, which sleeps while it waits. Otherwise tests that start several processes compete for the cores.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

.PHONY: help setup demo test fuzz chaos test-browser compose-test locks sbom check bench bench-gpu bench-search clean
.DELETE_ON_ERROR:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## run the whole main job on generated images
	$(BIN)/mhist-tune demo

setup: $(DEVELOPED) ## make .venv with the package, editable, and the development tools

test: setup check ## run make check and the tests: no network, no GPU, no data set
	$(PYTEST) --numprocesses auto --dist loadfile

# MHIST_TUNE_CHAOS_SEED chooses another schedule of accidents.
# MHIST_TUNE_FUZZ_SEED chooses other inputs.
fuzz: setup ## run the command line with 3,000 bad inputs
	MHIST_TUNE_FUZZ_CASES=3000 MHIST_TUNE_FUZZ_SEED=$${MHIST_TUNE_FUZZ_SEED:-1} $(PYTEST) tests/system/test_bad_inputs.py

chaos: setup ## run the long form of the chaos test: both databases, little room, two versions, a hundred kills
	MHIST_TUNE_CHAOS_TRIALS=40 $(PYTEST) tests/system/test_chaos.py --durations=0 -rP

test-browser: setup ## test the dashboard in Chromium, on both databases, while workers train; screenshots in build/
	$(PIP) install -e '.[browser]'
	@command -v chromium >/dev/null || $(BIN)/playwright install chromium
	$(PYTEST) -m browser tests/system/test_browser.py

compose-test: setup ## run the Compose stack, with accidents; needs Docker and Compose v2
	$(BIN)/python tests/support/compose_stack.py --build

locks: setup ## write the lock files in locks/ again, with the newest versions
	$(BIN)/python tools/locks.py

sbom: setup ## write build/sbom.json (CycloneDX) and build/licences.csv, of all that is installed in .venv
	mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-file build/sbom.json $(BIN)/python
	$(BIN)/pip-licenses --python $(BIN)/python --format csv --with-urls --output-file build/licences.csv

check: setup ## check format, lint, types, import contracts, deployment files
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/workers.compose.yml
	$(BIN)/kubernetes-validate --strict deploy/worker-job.yaml
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck .ci/run deploy/worker.sbatch storage/postgres/make-credentials.sh

bench: $(DEVELOPED) ## measure the figures of docs/results/performance.md, two hours on two cores
	for bench in speed.startup speed.memory speed.throughput speed.freeze speed.trial_overhead \
	  'speed.against_recipe --n-pilot 0' service.storage; do \
	  echo "== bench.$$bench"; $(BIN)/python -m bench.$$bench || exit; done

bench-gpu: $(DEVELOPED) ## measure a GPU: speed by number format, share of the bare step, memory, trials per hour
	$(BIN)/python -m bench.speed.gpu

bench-search: $(DEVELOPED) ## replay samplers and pruners on the recorded curves of bench/search/curves
	$(BIN)/python -m bench.search.replay

clean: ## remove .venv, caches and build outputs; studies in storage/ stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find mhist_tune tests bench -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: mhist-tune needs Python 3.11 or newer, $(PYTHON) is none; hint: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'error: $(PYTHON) cannot make virtual environments; hint: apt install python3-venv' >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -e .
	@touch $@

$(DEVELOPED): $(INSTALLED)
	$(PIP) install -e '.[dev]'
	@touch $@

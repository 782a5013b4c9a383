# eCan.ai Web. `make help` lists the verbs. Everything is installed into this folder
# (.venv, .make, gui_v2/node_modules); the verbs that say so install system packages of Debian's.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PY_READY := $(VENV)/.ready
GUI_READY := gui_v2/node_modules/.ready
GUI_DIST := gui_v2/dist/index.html
GUI_SOURCES := $(shell find gui_v2/src gui_v2/public -type f 2>/dev/null) gui_v2/index.html gui_v2/package.json gui_v2/vite.config.ts
PYTEST := $(BIN)/pytest -n 2 --dist loadscope
ELSEWHERE := not e2e and not containers and not nginx and not aws and not guide

# $(call debian,program,packages,for what): installs Debian's packages unless the program is there.
define debian
@command -v $(1) >/dev/null || test -x /usr/sbin/$(1) || { \
  echo "installing the system packages $(2) (for $(3))"; \
  SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
  $$SUDO apt-get update -qq && $$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null; }
endef

.DEFAULT_GOAL := help
.PHONY: help run test check image image-test image-test-as-root nginx nginx-test guide-test deploy-check deploy-tools systemd sbom licences audit fmt lint types imports cov e2e gui gui-dev gui-test chromium promtool bench bench-smoke perf-check perf-baseline valgrind kill soak soak-sim lock clean py-test setup

help: ## List the verbs.
	@grep -hE '^[a-z0-9-]+:.*?## ' $(MAKEFILE_LIST) | sort | awk -F ':.*?## ' '{printf "  %-13s %s\n", $$1, $$2}'

# -- what everything needs ---------------------------------------------------------------

$(PY_READY): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (PYTHON=/path/to/python make ...)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older (PYTHON=/path/to/python make ...)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(GUI_READY): gui_v2/package-lock.json
	cd gui_v2 && npm ci --no-audit --no-fund
	@touch $@

$(GUI_DIST): $(GUI_READY) $(GUI_SOURCES)
	cd gui_v2 && npm run build
	@touch $@

setup: $(PY_READY) $(GUI_READY) ## Install what run and test need, into this folder.

# -- verbs -------------------------------------------------------------------------------

run: $(PY_READY) $(GUI_DIST) ## Build the browser app and serve it on http://localhost:8765.
	ECAN_MODE=web exec $(BIN)/python web_server.py

test: py-test gui-test ## Run all tests but those in a browser.

py-test: $(PY_READY)
	$(PYTEST) -m "$(ELSEWHERE)"

gui-test: $(GUI_READY) ## Test, type-check and lint the browser app.
	cd gui_v2 && npm run --silent types && npm run --silent lint && npm run --silent test

check: lint types imports cov gui-test e2e bench-smoke perf-check promtool licences guide-test deploy-check nginx-test image-test-as-root ## What CI runs.

fmt: $(PY_READY) ## Format the Python code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet . || true

lint: $(PY_READY) ## ruff, formatting included.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(PY_READY) ## mypy --strict.
	$(BIN)/mypy

imports: $(PY_READY) ## The layers of DESIGN.md, checked.
	$(BIN)/lint-imports

cov: $(PY_READY) ## Run the Python tests with branch coverage of ecan/ (95 % or it fails).
	$(PYTEST) -m "$(ELSEWHERE)" --cov --cov-report=term:skip-covered

e2e: $(PY_READY) $(GUI_DIST) chromium ## Drive real Chromium against a real server.
	$(BIN)/pytest -m e2e tests/e2e

chromium: ## Install Debian's chromium (system package) if there is none.
	$(call debian,chromium,chromium fonts-noto-cjk,make e2e)

promtool: ## Check the alert rules (Debian's prometheus, a system package, is installed if there is none).
	$(call debian,promtool,prometheus,make promtool; its service is not needed)
	promtool check rules deploy/prometheus/alerts.yml
	promtool check config --syntax-only deploy/prometheus/prometheus.yml
	promtool test rules deploy/prometheus/alerts_test.yml

image: ## Build the image ecan-web (docker or podman).
	$$(command -v docker || command -v podman) build -f Dockerfile.web -t ecan-web .

DEPLOY_READY := .make/deploy/.ready
$(DEPLOY_READY): requirements-deploy.lock
	test -x .make/deploy/bin/python || $(PYTHON) -m venv .make/deploy
	.make/deploy/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-deploy.lock
	@touch $@

deploy-tools: $(DEPLOY_READY) ## Install validators, an AWS emulator and podman-compose into .make/deploy.

guide-test: $(PY_READY) $(GUI_DIST) ## The quick start of README.md, line by line, as a reader types it.
	$(BIN)/pytest -n 2 --dist load -m guide tests/deploy

deploy-check: $(PY_READY) $(DEPLOY_READY) $(GUI_DIST) systemd ## Validate compose, systemd, AWS; run the AWS steps against an emulator.
	$(BIN)/pytest -n 2 --dist load -m aws tests/deploy

image-test: $(PY_READY) $(DEPLOY_READY) ## Build, run, drain and resume the image with podman (root; installs podman, makes base images).
	tests/deploy/containers.sh down
	@trap 'tests/deploy/containers.sh $(if $(CI),purge,down)' EXIT; $(BIN)/pytest -s -m containers tests/deploy

# For check: without root it is left out, but not in silence, and never in CI.
image-test-as-root:
	@if test "$$(id -u)" = 0 || test -n "$$CI"; then $(MAKE) --no-print-directory image-test; \
	else echo "check: image-test is LEFT OUT, because its podman needs root: sudo make image-test"; fi

nginx-test: $(PY_READY) $(GUI_DIST) chromium nginx ## Real nginx with the shipped template before two real servers.
	$(BIN)/pytest -m nginx tests/deploy

nginx: ## Install Debian's nginx (system package) if there is none.
	$(call debian,nginx,nginx-light,make nginx-test; its service is not needed)

systemd:
	$(call debian,systemd-analyze,systemd,make deploy-check; it is not started)

SBOM := build/sbom.json
$(SBOM): $(PY_READY) requirements-image.lock gui_v2/package-lock.json deploy/supply/sbom.py
	@mkdir -p build
	$(BIN)/python deploy/supply/sbom.py --python $(VENV)/lib/python3.*/site-packages --only requirements-image.lock --npm gui_v2/package-lock.json >$@

sbom: $(SBOM) ## Write what is shipped to build/sbom.json (CycloneDX; the image has its own in /app).

licences: $(SBOM) ## List the licences of what is shipped; fails when one is not allowed.
	$(BIN)/python deploy/supply/licences.py $(SBOM)

audit: $(PY_READY) $(DEPLOY_READY) ## Ask for known vulnerabilities of what is shipped (exit code 2 of make: found, or nobody could be asked).
	$(BIN)/python deploy/supply/audit.py .make/deploy/bin

gui: $(GUI_DIST) ## Build the browser app into gui_v2/dist.

gui-dev: $(GUI_READY) ## Vite with hot reload; run the server beside it (make run).
	cd gui_v2 && npm run dev

bench: $(PY_READY) ## Measure against reference servers; results are ratios.
	$(BIN)/python -m benchmarks

bench-smoke: $(PY_READY)
	$(BIN)/python -m benchmarks --quick

perf-check: $(PY_READY) valgrind ## Count the CPU instructions of a request; fail if it became more.
	$(BIN)/python -m benchmarks.instructions --check

perf-baseline: $(PY_READY) valgrind ## Make today's counts the ones that perf-check compares with.
	$(BIN)/python -m benchmarks.instructions --baseline

valgrind: ## Install Debian's valgrind (system package) if there is none.
	$(call debian,valgrind,valgrind,make perf-check)

kill: $(PY_READY) ## Kill -9 a real server a hundred times under load (seven minutes).
	ECAN_KILLS=100 $(BIN)/pytest -s tests/fault/test_kill.py -k test_kill_9

SOAK_MINUTES ?= 30
soak: $(PY_READY) ## Use a real server for SOAK_MINUTES=30; fail if memory, handles, tasks, sessions or latency grew.
	$(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES)

soak-sim: $(PY_READY) ## Run the simulator on new seeds until stopped.
	$(BIN)/python -m ecan.testing.simulator --soak

lock: ## Renew the lock files from pyproject.toml.
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --extra ops --extra tracing --extra fast -c requirements-dev.lock -o requirements-image.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --extra deploy -c requirements-dev.lock -o requirements-deploy.lock
	echo 'hatchling>=1.27' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements-dev.lock - -o requirements-build.lock

clean: ## Remove what was installed and built.
	tests/deploy/containers.sh purge
	rm -rf $(VENV) .make gui_v2/node_modules gui_v2/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* build

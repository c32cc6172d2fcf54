# Needs GNU make (3.81 or newer) and Python 3.11 or newer with venv; all else is installed into .venv from deploy/locks.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
ENGINE ?= docker
IMAGE ?= gateway

BIN := .venv/bin
LOCKS := deploy/locks
REFERENCE := deploy/reference
# Which tests need neither minutes nor containers.
BRIEF := not long and not containers and not kubernetes

COMPOSE = $(ENGINE) compose --file deploy/compose/compose.yaml
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# UV_FIND_LINKS: a developer's folder of wheels must not add hashes to the locks.
COMPILE_LOCK := env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
COMPILE := $(COMPILE_LOCK) pyproject.toml
COMPILE_DEVELOPMENT := $(COMPILE) --extra dev --constraint $(LOCKS)/runtime.txt
# What builds the wheel that goes into the image.
COMPILE_BUILD := echo hatchling | $(COMPILE_LOCK) - --constraint $(LOCKS)/development.txt

.DEFAULT_GOAL := help
# The stamps share one .venv, so they are made one after the other.
.NOTPARALLEL:
.PHONY: help run cluster up down image test test-all test-deploy conformance conformance-long check check-locks lock \
	test-kubernetes reference dashboards manifests loadtest bench fuzz clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

run: .venv/.runtime .venv/.project ## Run one development node (ARGS="…" goes to `gateway serve --dev`)
	@exec $(BIN)/gateway serve --dev $(ARGS)

cluster: .venv/.runtime .venv/.project ## Run three nodes behind HAProxy, with Redis (ARGS="…": try ARGS=--help)
	@exec $(BIN)/python -m deploy.cluster $(ARGS)

image: ## Build the image (ENGINE=podman, IMAGE=registry.example.com/gateway:1; ARGS="…" goes to the build)
	DOCKER_BUILDKIT=1 $(ENGINE) build --file deploy/Containerfile --tag $(IMAGE) \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' gateway/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) $(ARGS) .

up: ## Run HAProxy, three nodes, Redis, Prometheus and Grafana in containers (ARGS="…": what, or --scale gateway=5)
	@deploy/compose/make-secrets
	$(COMPOSE) up --detach --wait $(ARGS)

down: ## Stop them (ARGS=--volumes: and forget what they know)
	$(COMPOSE) down $(ARGS)

# All but those that break things under load, which want the machine for themselves, run on JOBS processes.
test: .venv/.development .venv/.project ## Run the tests but for the long ones (ARGS="…": one pytest, with these)
	@tests/support/install-tools
ifdef ARGS
	$(BIN)/python -m pytest -m "$(BRIEF)" $(ARGS)
else
	$(BIN)/python -m pytest -m "$(BRIEF)" --numprocesses $(JOBS) --dist loadfile \
		--ignore tests/cluster --ignore tests/deploy
	$(BIN)/python -m pytest -m "not long" tests/cluster
endif

test-all: .venv/.development .venv/.project ## Run all tests, the long ones and those with containers and Kubernetes too
	@tests/support/install-tools
	@tests/support/install-tools --containers
	@tests/support/install-tools --kubernetes
	$(BIN)/python -m pytest -rs -m "not kubernetes" $(ARGS)
	$(BIN)/python -m pytest -rs -m kubernetes

test-deploy: .venv/.development .venv/.project ## Run what is in deploy for real: image, Compose, proxies (says what it skips)
	@tests/support/install-tools
	@tests/support/install-tools --containers
	$(BIN)/python -m pytest -rs -m "not kubernetes" tests/deploy $(ARGS)

test-kubernetes: .venv/.development .venv/.project ## Run Kubernetes' manifests on a cluster made for it (root; some minutes)
	@tests/support/install-tools --kubernetes
	$(BIN)/python -m pytest -rs tests/deploy/kubernetes $(ARGS)

conformance: .venv/.development .venv/.project ## Check the protocols' conformance: tests/conformance and Autobahn's test suite
	$(BIN)/python -m pytest --quiet tests/conformance
	$(BIN)/python tests/conformance/autobahn/run.py

conformance-long: .venv/.development .venv/.project ## Run all of Autobahn's cases, also the minutes of compression
	$(BIN)/python tests/conformance/autobahn/run.py --compression

check: .venv/.development .venv/.project ## Check format, lint, types, layers, locks, references, and what is in deploy
	@tests/support/install-tools
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory check-locks
	$(BIN)/gateway config doc --check $(REFERENCE)/configuration.md
	$(BIN)/gateway metrics doc --check $(REFERENCE)/metrics.md
	$(BIN)/python -m deploy.grafana --check
	$(BIN)/python -m deploy.kubernetes --check
	$(BIN)/python -m pytest --quiet -m "$(BRIEF)" tests/deploy

# Recompiles over a copy: uv keeps the pins it finds there, so a new release upstream changes nothing here.
check-locks: .venv/.development
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	cp $(LOCKS)/runtime.txt $(LOCKS)/development.txt $(LOCKS)/build.txt "$$fresh"; \
	$(COMPILE) --output-file "$$fresh/runtime.txt" >/dev/null; \
	$(COMPILE_DEVELOPMENT) --output-file "$$fresh/development.txt" >/dev/null; \
	$(COMPILE_BUILD) --output-file "$$fresh/build.txt" >/dev/null; \
	for lock in runtime development build; do \
		diff -u $(LOCKS)/$$lock.txt "$$fresh/$$lock.txt" || \
			{ echo "$(LOCKS)/$$lock.txt is not what pyproject.toml asks for: run \`make lock\`." >&2; exit 1; }; \
	done

lock: .venv/.development ## Remake the locks from pyproject.toml, keeping pins (all new: make lock ARGS=--upgrade)
	$(COMPILE) --output-file $(LOCKS)/runtime.txt $(ARGS) >/dev/null
	$(COMPILE_DEVELOPMENT) --output-file $(LOCKS)/development.txt $(ARGS) >/dev/null
	$(COMPILE_BUILD) --output-file $(LOCKS)/build.txt >/dev/null

reference: .venv/.development .venv/.project ## Write the references of configuration and metrics
	@mkdir -p $(REFERENCE)
	$(BIN)/gateway config doc > $(REFERENCE)/configuration.md
	$(BIN)/gateway metrics doc > $(REFERENCE)/metrics.md

dashboards: .venv/.development .venv/.project ## Write Grafana's dashboards from deploy/grafana
	$(BIN)/python -m deploy.grafana

manifests: .venv/.development .venv/.project ## Write Kubernetes' manifests that are made of other files
	$(BIN)/python -m deploy.kubernetes

loadtest: .venv/.development .venv/.project ## Load a node of its own for some seconds, or what ARGS="run …" says
	@exec $(BIN)/python -m loadtest $(if $(ARGS),$(ARGS),run)

fuzz: .venv/.development .venv/.project ## Decode a million frames that are nearly right (ARGS="count [seed]")
	$(BIN)/python tests/fuzz/codecs.py $(if $(ARGS),$(ARGS),1000000)

bench: .venv/.development .venv/.project ## Run the benchmarks (ARGS="…" goes to them)
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/benchmarks/run $(ARGS)

clean: ## Remove .venv, caches and what was built
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "'$(PYTHON)' is not Python 3.11 or newer: name one that is, as in \`make PYTHON=python3.12 …\`." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "'$(PYTHON)' has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/.runtime: .venv/.created $(LOCKS)/runtime.txt
	@echo "Installing $(LOCKS)/runtime.txt"
	@$(PIP_INSTALL) --require-hashes --requirement $(LOCKS)/runtime.txt
	@touch $@

# Holds the runtime lock too, at the same pins.
.venv/.development: .venv/.created $(LOCKS)/development.txt
	@echo "Installing $(LOCKS)/development.txt"
	@$(PIP_INSTALL) --require-hashes --requirement $(LOCKS)/development.txt
	@touch $@ .venv/.runtime

# Where the development lock is installed the build backend is at hand, and this needs no network.
.venv/.project: .venv/.created pyproject.toml
	@$(PIP_INSTALL) --no-deps --editable . \
		$$($(BIN)/python -c 'import hatchling' 2>/dev/null && echo --no-build-isolation)
	@touch $@

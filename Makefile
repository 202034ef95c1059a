PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# checkov has its own environment, because it pins other versions of the project's dependencies.
CHECKOV := .venv-checkov
CHECKOV_VERSION := 3.3.30
TOOLS := .venv-tools
PIP_TOOLS_VERSION := 7.6.2
PIP_AUDIT_VERSION := 2.10.1
# Keep the order of the files. Otherwise pytest-xdist runs files with few tests last, and one process waits for a long one.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Tests start hundreds of processes. Without cached bytecode, each would compile its imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup constraints audit demo dev test test-unit test-long test-exhaustive lint docs bench chaos spark-jars package aws-check infra-check infra-e2e infra-scan clean clean-data machine

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(INSTALLED) ## Create .venv with the exact versions and files of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): about two minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Simulate uploads, process them with the job ingest, and print the three Gold tables
	$(BIN)/telemetry-assets simulate --mess
	@mkdir -p .dagster
	@echo "Running the job ingest: its log is .dagster/demo.log, and the UI will show it"
	@DAGSTER_HOME=$${DAGSTER_HOME:-$(CURDIR)} $(BIN)/dagster job execute -m telemetry_assets.definitions -j ingest \
		> .dagster/demo.log 2>&1 || { cat .dagster/demo.log; exit 1; }
	@sed -n 's/.* - INFO - .* - //p' .dagster/demo.log
	@for table in car_current_state fuel_efficiency_monthly performance_alerts; do \
		echo; $(BIN)/telemetry-assets show gold.$$table --limit 5 || exit 1; done

dev: setup ## Open the Dagster UI on port 3000, with the upload sensor on
	@$(BIN)/python -m telemetry_assets.cli.environment
	mkdir -p data/landing
	$(BIN)/python -m telemetry_assets.webserver dev

test: lint ## Run lint and the tests without a marker (CI runs this first)
	$(PYTEST) -m "not long and not alone and not exhaustive"

test-unit: setup ## Run the tests that need no service, JVM or browser (under a minute)
	$(PYTEST) telemetry_assets_tests/unit

test-long: setup ## Run the long tests: JVM, remote steps, Dagster servers, browser, kills, chaos (CI runs this second)
	@$(MAKE) --jobs=2 infra-scan machine
	$(PYTEST) -m "long and not alone and not exhaustive"
	$(PYTEST) -m "alone and not exhaustive"

test-exhaustive: setup ## Run the tests that CI does not run: more seeds and places, larger remote runs, infra-e2e (hours)
	$(BIN)/pytest -m exhaustive

lint: setup ## Check style, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# pip-tools has its own environment, because it needs other versions of the project's dependencies.
constraints: ## Update constraints.txt after a change of pyproject.toml; keeps versions, takes 20 minutes
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check pip-tools==$(PIP_TOOLS_VERSION)
	$(TOOLS)/bin/pip-compile --quiet --generate-hashes --extra dev --extra postgres --build-deps-for editable --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --no-annotate --no-header --allow-unsafe --strip-extras \
		--output-file constraints.txt pyproject.toml
	$(TOOLS)/bin/pip-compile --quiet --generate-hashes --extra postgres --build-deps-for wheel --constraint constraints.txt \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header --allow-unsafe --strip-extras \
		--output-file infra/image/requirements.txt pyproject.toml

audit: ## List known vulnerabilities of the versions in constraints.txt; needs the network
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check pip-audit==$(PIP_AUDIT_VERSION)
	$(TOOLS)/bin/pip-audit --requirement constraints.txt --disable-pip

aws-check: setup ## Check that the AWS account has what the settings need; starts one remote step if the engine is remote
	@$(BIN)/telemetry-assets aws-check

infra-check: setup infra-scan ## Scan infra/ and run its tests, with Terraform if it is installed
	$(BIN)/pytest -m "not exhaustive" telemetry_assets_tests/infra

infra-e2e: setup ## Apply infra/ to a local AWS, process uploads with what it created, and destroy it
	$(BIN)/pytest -m exhaustive telemetry_assets_tests/infra

infra-scan: $(CHECKOV)/.installed
	$(CHECKOV)/bin/checkov --directory infra --framework terraform dockerfile --quiet --compact --skip-download

$(CHECKOV)/.installed: Makefile
	@echo "Installing checkov into $(CHECKOV)"
	$(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check checkov==$(CHECKOV_VERSION)
	@touch $@

# Installs a browser and Java in CI only.
machine:
	@if [ -n "$$CI" ] && ! { command -v chromedriver && command -v java; } >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq chromium chromium-driver openjdk-17-jre-headless >/dev/null; fi

spark-jars: setup ## Download the jars of TELEMETRY_ENGINE=spark into jars/ (about 120 MB)
	$(BIN)/python -m telemetry_assets.engines.spark.jars

package: setup ## Build the package for remote Spark, and upload it to TELEMETRY_SCRIPTS_URI (ARCHITECTURES="x86_64 aarch64")
	$(BIN)/python -m telemetry_assets.engines.package --architecture $(or $(ARCHITECTURES),x86_64)

docs: setup ## Write docs/tables.md from the contracts, and the inputs and outputs in the READMEs of infra/
	$(BIN)/python -m telemetry_assets.tables.documentation > docs/tables.md
	$(BIN)/python -m infra.readme_tables

bench: setup ## Measure what docs/measurements.md states, except the engines
	$(BIN)/python -m benchmarks.command_line
	$(BIN)/python -m benchmarks.layout
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.merge
	$(BIN)/python -m benchmarks.size_of_history
	$(BIN)/python -m benchmarks.upload_to_gold
	$(BIN)/python -m benchmarks.uploads_in_s3

chaos: setup ## Run random schedules of kills, faults and pauses, and check the result of each (SCHEDULES=1000 SEED=1)
	$(BIN)/python -m telemetry_assets_tests.chaos --schedules $(or $(SCHEDULES),1000) --seed $(or $(SEED),1)

clean: ## Remove the virtual environments and caches; keeps data/
	rm -rf $(VENV) $(CHECKOV) $(TOOLS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .tmp_dagster_home_*

clean-data: ## Remove data/ and .dagster/: tables, archive, waiting uploads, Dagster's history
	rm -rf data .dagster

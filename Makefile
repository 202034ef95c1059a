PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help setup demo dev test lint docs bench clean browser

help: ## Say what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(INSTALLED) ## Make .venv with the exact versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## Take simulated uploads to Gold and print the three Gold tables
	$(BIN)/telemetry-assets simulate --mess
	$(BIN)/telemetry-assets process
	@for table in car_current_state fuel_efficiency_monthly performance_alerts; do \
		echo; $(BIN)/telemetry-assets show gold.$$table --limit 5 || exit 1; done

dev: setup ## Open the Dagster UI on port 3000, with the upload sensor on
	mkdir -p data/landing
	$(BIN)/dagster dev

test: setup lint browser ## Everything that CI runs
	$(BIN)/pytest

lint: setup ## Style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Only CI's bare machine gets a browser installed; a person's machine is left as it is.
browser:
	@if [ -n "$$CI" ] && ! command -v chromedriver >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; fi

docs: setup ## Write docs/tables.md from the contracts
	$(BIN)/python -m telemetry_assets.lakehouse.documentation > docs/tables.md

bench: setup ## Measure what the README and docs state
	$(BIN)/python -m benchmarks.command_line
	$(BIN)/python -m benchmarks.upload_to_gold

clean: ## Remove the virtual environment, caches, and what the demo and the UI have made
	rm -rf $(VENV) .dagster data build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Each target is one command; CI runs the same ones. Everything is installed into .venv, made when it is first needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.runtime  ## make .venv with the service's dependencies

$(VENV)/.runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "statsapi needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

serve: $(VENV)/.runtime  ## run the service on port 8000 (Ctrl-C stops it)
	$(BIN)/gunicorn wsgi:app

# By file, so that tests share what their module started; in the order of tests/conftest.py, which is by time.
test: $(VENV)/.dev  ## run the whole test suite, on up to four cores
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-quick: $(VENV)/.dev  ## the tests that start no server, without the slow ones: half a minute
	$(BIN)/python -m pytest --hypothesis-profile=quick --ignore=tests/processes -m "not processes and not slow" -n auto --maxprocesses=4 --dist loadfile $(ARGS)

coverage: $(VENV)/.dev  ## branch coverage by the whole suite, and the lines that no test reaches; below 97 % fails
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/.dev  ## ruff, mypy, and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stress: $(VENV)/.dev  ## long randomised runs: make stress SEED=7 OPS=20000 MINUTES=10
	STATSAPI_STRESS_OPS=$(or $(OPS),2000) STATSAPI_STRESS_SEED=$(or $(SEED),1) STATSAPI_STRESS_MINUTES=$(or $(MINUTES),3) \
		$(BIN)/python -m pytest tests/unit/test_timeline.py tests/unit/test_simulation.py -k "stress or agree_with_a_list"
	STATSAPI_STRESS_DAMAGES=500 STATSAPI_STRESS_CUTS=500 STATSAPI_STRESS_SEED=$(or $(SEED),1) \
		$(BIN)/python -m pytest tests/processes/test_damage.py tests/processes/test_power_cuts.py -k "right_or_refused or cut_loses"

soak: $(VENV)/.dev  ## twenty minutes at half load; figures, and a plot as SVG: make soak MINUTES=20
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),20)

wheel: $(VENV)/.dev  ## build dist/statsapi-VERSION-py3-none-any.whl
	$(BIN)/uv build --quiet --wheel

bench: $(VENV)/.dev  ## every figure the project promises, as ratios
	$(BIN)/python -m benchmarks

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock"

lock: $(VENV)/.dev  ## compile the pinned requirements from pyproject.toml
	$(LOCK) -o requirements.txt pyproject.toml
	$(LOCK) -o requirements-dev.txt -c requirements.txt --group dev

clean:  ## remove .venv and caches; data/ stays
	rm -rf $(VENV) dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help install serve test test-quick coverage lint stress soak wheel bench lock clean

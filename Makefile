# Each target is one plain step; what it needs is installed into .venv on the way.
.PHONY: help install demo test torture fuzz check bench bench-check format sandbox clean

help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile

install: .venv/installed  ## Install bulkusers and the developers' tools into .venv

.venv/installed: pyproject.toml
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --editable '.[dev]'
	touch .venv/installed

demo: .venv/installed  ## Send 300 example users to the sandbox inside the program, and read the report
	mkdir -p demo
	.venv/bin/bulkusers template --rows 300 > demo/users.csv
	.venv/bin/bulkusers run demo/users.csv --env sandbox --no-notify --report demo/results.json
	.venv/bin/bulkusers report demo/results.json

test: .venv/installed  ## Run the tests, with branch coverage
	.venv/bin/python -m pytest --numprocesses 2 --cov --cov-report=term

torture: .venv/installed  ## Kill, stop and crowd runs under faults, resume them, and check the truth
	.venv/bin/python tests/failpoints.py
	.venv/bin/python tests/torture.py --seed 1 --cases 30 --kills 0 --rows 300
	.venv/bin/python tests/torture_undo.py --seed 101 --cases 30 --kills 8 --rows 300
	.venv/bin/python tests/lifecycle.py signals
	.venv/bin/python tests/lifecycle.py starts
	.venv/bin/python tests/lifecycle.py outage
	DRAWN_FILES=300 .venv/bin/python -m pytest tests/test_forecast.py --numprocesses 2

fuzz: .venv/installed  ## Read hostile files and journals for two minutes
	.venv/bin/python -m pip install --quiet --editable '.[dev,fuzz]'
	.venv/bin/python tests/fuzz.py reader -max_total_time=60
	.venv/bin/python tests/fuzz.py journal -max_total_time=60

check: .venv/installed  ## Run every check: lint, types, layers, tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(MAKE) test

bench: .venv/bench  ## Measure everything there is to measure (20 minutes)
	.venv/bin/python -m benchmarks

bench-check: .venv/bench  ## Fail where a row costs more than it may (2 minutes)
	.venv/bin/python -m benchmarks.check

.venv/bench: .venv/installed
	.venv/bin/python -m pip install --quiet --editable '.[dev,bench]'
	touch .venv/bench

format: .venv/installed  ## Format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

sandbox: .venv/installed  ## Run a stand-in API until Ctrl-C
	.venv/bin/bulkusers sandbox

clean:  ## Remove what was made
	rm -rf .venv .fuzz demo .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

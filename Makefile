# Each target creates .venv when it is missing or when pyproject.toml or constraints.txt have changed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv java demo test bench bench-quick lint up down clean

# Every process of Airflow, MLflow and Spark would compile all that it imports: seconds each time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

venv: .venv/.installed ## Create .venv from pyproject.toml, pinned by constraints.txt

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python was not found: expected 3.11 or 3.12. Install it or set PYTHON=/path/to/python3.11." >&2; exit 2; }
	@$(PYTHON) scoring/stack/bootstrap.py venv

java: .venv/.installed ## Find a Java for Spark; as root on Debian or Ubuntu, install one
	@$(BIN)/python scoring/stack/bootstrap.py java

demo: java ## Score nights of real flights end to end, through drift, retraining and redeployment
	@$(BIN)/python -m scoring.demo

test: java ## Run all tests
	@$(BIN)/python scoring/stack/bootstrap.py test-tools
	@$(BIN)/python -m pytest $(ARGS)

bench: java ## Measure scoring beside other ways to score (about an hour); ARGS="--cases light --repeat 5"
	@$(BIN)/python scoring/stack/bootstrap.py bench-tools
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-quick: java ## The same with two cases and fewer rows, in about six minutes
	@$(BIN)/python scoring/stack/bootstrap.py bench-tools
	@$(BIN)/python -m tests.benchmarks --quick $(ARGS)

lint: .venv/.installed ## Check style, types, import directions and docstrings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=plugins $(BIN)/lint-imports
	@$(BIN)/interrogate scoring jobs plugins dags

up: java ## Start Airflow, MLflow and a mail sink on this machine; print their addresses
	@$(BIN)/python -m scoring.stack up

down: .venv/.installed ## Stop what `make up` started
	@$(BIN)/python -m scoring.stack down

clean: ## Stop the stack; remove .scoring (all results!), .venv and caches
	@test ! -x $(BIN)/python || $(BIN)/python -m scoring.stack down
	@rm -rf .scoring .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Every target sets up .venv first; when nothing has changed since, that takes well under a second.
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup test test-slurm slurm-cases lint format fuzz faults mutations demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything into .venv (PYTHON=python3.12 chooses the interpreter)
	@PYTHON='$(PYTHON)' scripts/setup.sh

test: setup ## run the tests, file by file in two processes (ARGS="-k plan" is passed on to pytest)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slurm: setup ## run the tests that start a Slurm of several nodes on this machine
	@$(BIN)/python -m pytest tests/slurm $(ARGS)

slurm-cases: setup ## take a run through all that Slurm can do to it, and print the table (ARGS="--only preempted")
	@$(BIN)/python -m tests.slurm.cases $(ARGS)

lint: setup ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: setup ## put the code into its style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

fuzz: setup ## fuzz the C core under sanitizers, with clang (SECONDS=600)
	@SECONDS_TO_RUN=$(or $(SECONDS),600) tests/fuzz/run.sh

faults: setup ## kill runs at named points, resume them, compare what they end with (KILLS=200 SEED=0)
	@$(BIN)/python -m tests.faults.kill_engine --kills $(or $(KILLS),200) --seed $(or $(SEED),0)

mutations: setup ## plant bugs that would lose work, and see which test catches each
	@$(BIN)/python -m tests.faults.mutations

demo: setup ## draw a data set, then train on it in three phases with two workers
	@$(BIN)/resolute data draw build/demo
	@$(BIN)/resolute run jobs/demo.yaml --mode ray --workers 2

clean: ## remove what was built, drawn and cached; .venv and runs/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find launcher ffcv_datasets tests scripts -name __pycache__ -prune -exec rm -rf {} +

# Every target makes the virtual environment that it needs; a second run finds it made.
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-thorough lint format bench-quick clean

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
TYPING := $(VENV)/typing
export PYTHON

help:
	@echo 'make demo           a convolution under three dataflows, and a digit classifier'
	@echo 'make test           the test suite, the same examples every time'
	@echo 'make test-thorough  the test suite with fresh and many more random examples'
	@echo 'make lint           ruff, ruff format and mypy'
	@echo 'make format         let ruff reformat and fix what it can'
	@echo 'make bench-quick    the layer benchmark against the peers, about a minute'
	@echo 'make clean          remove what the others made'

# A stamp for each set of extras. pip adds to the environment and never takes away, so they share it.
$(VENV)/.core:  EXTRAS :=
$(VENV)/.test:  EXTRAS := test
$(VENV)/.dev:   EXTRAS := dev
$(VENV)/.bench: EXTRAS := bench
$(VENV)/.core $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: pyproject.toml tools/environment.sh
	@tools/environment.sh $(VENV) $(EXTRAS)
	@touch $@

demo: $(VENV)/.core
	@$(BIN)/python examples/demo.py

test: $(VENV)/.test
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup --hypothesis-profile=ci

test-thorough: $(VENV)/.test
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup --hypothesis-profile=thorough -m '' --timeout=3600

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tools/typing_tree.py $(TYPING)
	@cd $(TYPING) && ../bin/mypy --config-file ../../pyproject.toml -p simdflow $(if $(wildcard bench),-p bench)

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-quick: $(VENV)/.core $(VENV)/.bench
	@$(BIN)/python -m bench layers --quick --peers

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache

# Every target sets up what it needs: a virtual environment in .venv, remade when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CPUS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.DEFAULT_GOAL := install
.PHONY: install lint types test

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "m2e needs Python 3.11 or newer; say which: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow setuptools' folder mapping: show it the tree as a namespace.
types: install
	@mkdir -p .types && ln -sfn .. .types/m2e
	MYPYPATH=.types $(BIN)/mypy -p m2e.cache -p m2e.extract -p m2e.manifests -p m2e.train

test: install
	$(BIN)/python -m pytest -n $(CPUS)

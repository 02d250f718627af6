# Every target sets up what it needs: a virtual environment in .venv, remade when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CPUS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.DEFAULT_GOAL := install
.PHONY: install demo test test-long torture lint types clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "m2e needs Python 3.11 or newer; say which: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@# setuptools warns that an editable install follows the working tree, which is the point.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

# The whole job on music that the project synthesises itself: everything it makes is under demo/.
demo: install
	$(BIN)/python -m m2e.synthetic --out demo/data
	M2E_DATA=demo/data $(BIN)/m2e-extract --dataset demo-jamendo --dataset demo-deam --dataset demo-emomusic \
		--dataset demo-pmemo --cache demo/features --encoder tiny --chords cnn --device cpu
	$(BIN)/m2e-train --datasets J,D,E,P --cache demo/features --out demo/runs/JDEP --epochs 50 --lr 3e-4 --device cpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow setuptools' folder mapping: show it the tree as a namespace.
types: install
	@mkdir -p .types && ln -sfn .. .types/m2e
	MYPYPATH=.types $(BIN)/mypy -p m2e.cache -p m2e.common -p m2e.extract -p m2e.manifests -p m2e.predict -p m2e.synthetic -p m2e.train

test: install
	$(BIN)/python -m pytest -n $(CPUS) --dist worksteal

# Runs the whole demo as well, and checks its numbers.
test-long: install
	$(BIN)/python -m pytest -n $(CPUS) --dist worksteal -m "long or not long"

# The long forms of tests/reliability: hours of kills, full disks and flipped bytes.
torture: install
	M2E_TORTURE=1 $(BIN)/python -m pytest -n $(CPUS) --dist worksteal --timeout 7200 tests/reliability

clean:
	rm -rf demo .types .mypy_cache .ruff_cache .pytest_cache

# make demo    a first run: sets up .venv, then a real fit on images that ship with a dependency
# make test    sets up .venv with the developers' tools, then every check that CI makes
# make lowest  a part of the tests with the oldest dependencies that pyproject.toml allows; `make test` does it too
# make litert  an environment of its own for the LiteRT converter (7 GB with torch), and the tests that need it
# make docs    the site of docs/ as HTML, in build/site
# make wheel   builds the wheel, installs it with all it needs into an empty environment, and runs it there
# make bench   other ways to the same classifier beside headstart: an environment for each (6 GB with torch), minutes to hours
# make fix     lets ruff repair what it can
# make clean   removes .venv, so that the next target sets it up from nothing

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test lowest litert docs wheel bench fix clean

demo: $(VENV)/.installed
	$(BIN)/headstart demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal
	$(MAKE) lowest

# The oldest releases lie in a folder that Python looks into first; torch stays, and plugins of newer ones are left out.
LOWEST := $(VENV)/lowest
LOWEST_TESTS := tests/test_table.py tests/test_images.py tests/test_heads.py tests/test_weights.py tests/test_hub.py \
  tests/test_predict.py tests/test_arrow.py tests/test_novelty.py tests/test_sets.py tests/test_two_classes.py \
  tests/test_far.py tests/test_tars.py

lowest: $(LOWEST)/.installed
	PYTHONPATH=$(CURDIR)/$(LOWEST):$(CURDIR)/src PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	  $(BIN)/pytest -q -p xdist -n $(WORKERS) --dist worksteal -k "not messy and not scaled" $(LOWEST_TESTS)

# litert-torch pins releases that the other tests have left behind, so it never comes into $(VENV).
LITERT := $(VENV)/litert

litert: $(VENV)/.installed-dev $(LITERT)/.installed
	HEADSTART_LITERT_PYTHON=$(CURDIR)/$(LITERT)/bin/python $(BIN)/pytest -q tests/test_litert.py

$(LITERT)/.installed: pyproject.toml $(VENV)/.installed-dev
	$(PYTHON) -m venv --clear $(LITERT)
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['litert'], 'simplejpeg', sep='\n')" > $(VENV)/litert.txt
	$(LITERT)/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/litert.txt
	@touch $@

# Every warning is an error; nothing is fetched.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -q -b html -W --keep-going -d build/doctrees -c docs . build/site
	@echo "written: build/site/index.html"

# The wheel as somebody gets it: built, installed with what it needs into an empty environment, and used there.
WHEEL := build/wheel

wheel: $(VENV)/.installed-dev
	rm -rf $(WHEEL)
	$(BIN)/python -m hatchling build -t wheel -d $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip install --quiet --disable-pip-version-check $(WHEEL)/*.whl
	cd $(WHEEL) && venv/bin/headstart --version && venv/bin/headstart demo -o demo

# What has run is kept in $(VENV)/peers-work and not run again. BENCH: more of its options, such as --only fastai or --full.
BENCH ?=

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/peers.py --page docs/peers.md $(BENCH)

fix: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV)

# The stamps are younger than pyproject.toml until that file changes; the install is editable, so no other change needs one.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "headstart needs Python 3.11 or newer with its venv module: install python3 and python3-venv, or name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(LOWEST)/.installed: pyproject.toml $(VENV)/.installed-dev
	rm -rf $(LOWEST)
	$(BIN)/python -c "$$FLOORS" > $(VENV)/lowest.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(LOWEST) -r $(VENV)/lowest.txt
	@touch $@

# Each lower bound of pyproject.toml as a pin, where the release that is installed is another one.
define FLOORS
import tomllib
from importlib import metadata
from packaging.version import Version
for line in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    name, _, floor = line.partition(">=")
    if floor and Version(metadata.version(name)) != Version(floor):
        print(f"{name}=={floor}")
endef
export FLOORS

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# make help says what there is. Everything runs in .venv, which is made when it is missing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8888
ARGS ?=
NOTEBOOK ?= notebooks/00_quickstart.ipynb
REPOSITORY ?=
TAG ?= main

PY := $(VENV)/bin/python
PEERS := $(VENV)-peers
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two tests at a time on two cores, one torch thread each; a browser test has the machine to itself.
PYTEST := $(PY) -m pytest -q --durations=10

.PHONY: help lab test test-fast test-peers test-browser pictures bench soak check clean links

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 24

lab: $(VENV)/.installed-lab  ## open the quickstart in JupyterLab (PORT=8888, ARGS="--no-browser")
	$(PY) -m sae_widget lab --port $(PORT) $(ARGS) $(NOTEBOOK)

test: test-fast test-peers test-browser  ## run every test that belongs to a change (about ten minutes on two cores)

test-fast: $(VENV)/.installed-test  ## run the tests that need no browser
	$(PYTEST) -m "not browser and not soak and not peers" -n 2

test-peers: $(PEERS)/.installed  ## run the tests against SAELens, dictionary_learning and sparsify, in $(VENV)-peers
	SAE_WIDGET_PEERS=1 $(PEERS)/bin/python -m pytest -q -m peers -n 0 tests/interchange

test-browser: $(VENV)/.installed-test  ## run the tests in JupyterLab and Chromium; pictures go to artifacts/
	./.ci/chromium $(PY)
	$(PYTEST) -m browser -n 0 tests/browser

pictures: $(VENV)/.installed-test  ## take the pictures of the README again
	./.ci/chromium $(PY)
	$(PYTEST) -m browser -n 0 tests/browser/test_explorer.py -k both_themes
	mkdir -p docs/images
	cp artifacts/screenshots/explorer-light.png artifacts/screenshots/explorer-dark.png docs/images/

soak: $(VENV)/.installed-test  ## run the long tests (half an hour and more)
	$(PYTEST) -m soak -n 0 --timeout 7200

bench: $(VENV)/.installed-test $(PEERS)/.installed  ## measure, and print one Markdown table (ARGS="throughput size" for some)
	./.ci/chromium $(PY)
	$(PY) -m benchmarks.run --peers $(PEERS)/bin/python $(ARGS)

check: $(VENV)/.installed-dev  ## look at layout, likely bugs and types; changes nothing
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

clean:  ## remove what the commands above made, .venv included
	rm -rf $(VENV) $(PEERS) artifacts .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist

$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v < (3, 14) or sys.exit( \
		f"Python 3.10 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than the files that decide what is installed, so the second run installs nothing.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(PY)
	@echo "Installing sae-widget[$*] into $(VENV) (a few minutes the first time)"
	$(PIP_INSTALL) -e ".[$*]"
	@touch $@

# The peers have an environment of their own. The last two lines leave out what the peers ask for and never use here:
# nnsight would bring torchvision, whose builds for other torches break `import sae_lens`.
$(PEERS)/.installed: constraints.txt constraints-peers.txt | $(PY)
	@echo "Installing SAELens, dictionary_learning and sparsify into $(PEERS) (a few minutes the first time)"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-peers.txt \
		torch sae-lens transformer-lens python-socketio pillow filelock platformdirs psutil pydantic safetensors \
		hypothesis pytest pytest-randomly pytest-timeout pytest-xdist
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints-peers.txt \
		dictionary-learning nnsight eai-sparsify natsort schedulefree zstandard
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

links:  ## print the badges of a published copy and Colab's first cell (REPOSITORY=owner/name, TAG=v0.1.0)
	@test -n "$(REPOSITORY)" || { echo "Say where it is published: make links REPOSITORY=owner/name" >&2; exit 1; }
	@echo "[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/$(REPOSITORY)/$(TAG)?urlpath=lab/tree/$(NOTEBOOK))"
	@echo "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/$(REPOSITORY)/blob/$(TAG)/$(NOTEBOOK))"
	@echo 'First cell on Colab: %pip install "sae-widget @ git+https://github.com/$(REPOSITORY)@$(TAG)"'

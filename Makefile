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
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Where a Python keeps its packages.
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
# Two tests at a time on two cores, one torch thread each; a browser test has the machine to itself.
PYTEST := $(PY) -m pytest -q --durations=10

.PHONY: help lab test test-fast test-peers test-browser chromium pictures bench soak check clean links

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 24

lab: $(VENV)/.installed-lab  ## open the quickstart in JupyterLab (PORT=8888, ARGS="--no-browser")
	$(PY) -m sae_widget lab --port $(PORT) $(ARGS) $(NOTEBOOK)

# What the later parts need is fetched while the first one runs; a fault in either ends it all.
test:  ## run every test that belongs to a change (fifteen to twenty minutes on two cores, the first time)
	@$(MAKE) --no-print-directory $(VENV)/.installed-test
	@$(MAKE) --no-print-directory -j 2 test-fast $(PEERS)/.installed chromium
	@$(MAKE) --no-print-directory test-peers test-browser

test-fast: $(VENV)/.installed-test  ## run the tests that need no browser
	$(PYTEST) -m "not browser and not soak and not peers" -n 2

test-peers: $(PEERS)/.installed  ## run the tests against SAELens, dictionary_learning and sparsify, in $(VENV)-peers
	SAE_WIDGET_PEERS=1 $(PEERS)/bin/python -m pytest -q -m peers -n 0 tests/interchange

test-browser: $(VENV)/.installed-test chromium  ## run the tests in JupyterLab and Chromium; pictures go to artifacts/
	$(PYTEST) -m browser -n 0 --reruns 1 tests/browser

chromium: $(VENV)/.installed-test
	./.ci/chromium $(PY)

pictures: $(VENV)/.installed-test chromium  ## take the pictures of the README again
	$(PYTEST) -m browser -n 0 tests/browser/test_explorer.py -k both_themes
	mkdir -p docs/images
	cp artifacts/screenshots/explorer-light.png artifacts/screenshots/explorer-dark.png docs/images/

soak: $(VENV)/.installed-test  ## run the long tests (half an hour and more)
	$(PYTEST) -m soak -n 0 --timeout 7200

bench: $(VENV)/.installed-test $(PEERS)/.installed chromium  ## measure, and print one Markdown table (ARGS="throughput size" for some)
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
# pip compiles on one core; compileall takes all, and says no to the few files of the packages that are no Python.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(PY)
	@echo "Installing sae-widget[$*] into $(VENV) (a few minutes the first time)"
	$(PIP_INSTALL) -e ".[$*]"
	@$(PY) -m compileall -q -j 0 "$$($(PY) $(PURELIB))" >/dev/null || true
	@touch $@

# The peers have an environment of their own, on top of $(VENV): the .pth file lets it see the packages there, so that
# torch and what else they share is not fetched and unpacked twice. The last two lines leave out what the peers ask for
# and never use here: nnsight would bring torchvision, whose builds for other torches break `import sae_lens`.
$(PEERS)/.installed: constraints-peers.txt $(VENV)/.installed-test
	@echo "Installing SAELens, dictionary_learning and sparsify into $(PEERS) (a minute or two the first time)"
	$(PYTHON) -m venv $(PEERS)
	$(PY) $(PURELIB) > "$$($(PEERS)/bin/python $(PURELIB))/shared.pth"
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-peers.txt \
		sae-lens transformer-lens python-socketio pillow
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints-peers.txt \
		dictionary-learning nnsight eai-sparsify natsort schedulefree zstandard
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

links:  ## print the badges of a published copy and Colab's first cell (REPOSITORY=owner/name, TAG=v0.1.0)
	@test -n "$(REPOSITORY)" || { echo "Say where it is published: make links REPOSITORY=owner/name" >&2; exit 1; }
	@echo "[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/$(REPOSITORY)/$(TAG)?urlpath=lab/tree/$(NOTEBOOK))"
	@echo "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/$(REPOSITORY)/blob/$(TAG)/$(NOTEBOOK))"
	@echo 'First cell on Colab: %pip install "sae-widget @ git+https://github.com/$(REPOSITORY)@$(TAG)"'

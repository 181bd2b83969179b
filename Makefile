# make demo     environment, then the main job: log → models → registry → ranking
# make test     environment, lint, types, tests; CI runs it and make cluster
# make cluster  tests in which several processes or Ray nodes train or serve together
# make bench    training speed of recmoe, of its peers and of the machine; see benchmarks/README.md
# make lock     the requirement locks anew (needs uv)

PYTHON ?= python3.11
VENV ?= .venv
# cpu, or cuda for a machine with an NVIDIA GPU.
STACK ?= cpu
# Where pip should look for torch first, for example PyTorch's index of CPU wheels.
TORCH_INDEX ?=
# Processes that run tests side by side.
WORKERS ?= 2
DATA ?= synthetic
FROM ?=
TO ?= demo/$(DATA)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --progress-bar off --disable-pip-version-check
STAMP := $(VENV)/.installed-$(STACK)

.PHONY: demo test cluster fast bench lint types install lock clean

install: $(STAMP)

# torch first, with its own dependencies; then the complete lock without resolving: torchrec
# would pull the CUDA build of fbgemm.
$(STAMP): requirements/$(STACK).lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "making $(VENV): torch, then what requirements/$(STACK).lock names (two to five minutes)"
	@# Debian's python3 has no ensurepip unless python3-venv is installed; its pip does the same.
	@if $(PYTHON) -c 'import ensurepip' 2> /dev/null; then $(PYTHON) -m venv $(VENV); \
	  else $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; fi
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@$(PIP) --no-deps -r requirements/$(STACK).lock
	@$(PIP) -q --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	$(BIN)/python -m pipelines.demo --data $(DATA) $(if $(FROM),--from $(FROM)) --to $(TO)

test: install lint types
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not cluster"

cluster: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m cluster

fast: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not cluster"

bench: install
	$(BIN)/python -m benchmarks.training

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

lock:
	uv pip compile requirements/cpu.in --override requirements/cpu-overrides.txt --python-version 3.11 \
	  --python-platform x86_64-unknown-linux-gnu --no-emit-package torch --no-header --no-annotate -o requirements/cpu.lock
	uv pip compile requirements/cuda.in --python-version 3.11 \
	  --python-platform x86_64-unknown-linux-gnu --no-emit-package torch --no-header --no-annotate -o requirements/cuda.lock
	uv pip compile requirements/serve.in --constraint requirements/cpu.lock --python-version 3.11 \
	  --python-platform x86_64-unknown-linux-gnu --no-header --no-annotate -o requirements/serve.lock

clean:
	rm -rf $(VENV) demo runs

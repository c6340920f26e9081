# Two commands from a fresh clone: `make demo` and `make test`. Needs Python 3.10 or newer and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Pinned versions are those that the suite was run with; set CONSTRAINTS= to take the newest that setup.cfg allows.
CONSTRAINTS ?= -c constraints.txt
WORKERS ?= auto
comma := ,

.PHONY: demo test fuzz lint bench bench-peers gpu figures clean

# pip compiles what it installs on one core; this takes all. Packages may hold templates that are not Python: no error.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile $(CONSTRAINTS) --editable '.$(1)'
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib ntk_lpft analysis figures >/dev/null 2>&1 || true
	touch $@
endef

$(VENV)/.base: setup.cfg pyproject.toml constraints.txt
	$(call install)

$(VENV)/.analysis: setup.cfg pyproject.toml constraints.txt
	$(call install,[analysis])

$(VENV)/.dev: setup.cfg pyproject.toml constraints.txt
	$(call install,[test$(comma)lint$(comma)tokenizers$(comma)analysis])

demo: $(VENV)/.base
	$(BIN)/python -m ntk_lpft.bundled
	$(BIN)/python -m ntk_lpft.compute --output-dir runs/demo --overwrite

# Every table and figure of the paper, in small: two-layer model, few rows; minutes.
figures: $(VENV)/.analysis
	$(BIN)/python -m ntk_lpft.bundled
	$(BIN)/python -m analysis.run --suite smoke
	$(BIN)/python -m analysis.tables runs/smoke
	$(BIN)/python -m figures runs/smoke
	$(BIN)/python -m analysis.report runs/smoke

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --durations=25

# Malformed inputs to every command and public function; SEED and COUNT choose which, and how many.
SEED ?= 0
COUNT ?= 1200
fuzz: $(VENV)/.dev
	cd tests && PYTHONPATH=..:. $(abspath $(BIN))/python -m fuzz --seed $(SEED) --count $(COUNT)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet ntk_lpft

# The engine against the dense Jacobian, by stage, and against what the machine can do; about ten minutes.
bench: $(VENV)/.base
	$(BIN)/python -m benchmarks.run

# On a machine with a CUDA device: measurements and the tests marked gpu, in nine minutes, without network or package index.
# It installs nothing: `make gpu PYTHON=/usr/bin/python3` takes that interpreter as it is; without PYTHON it is that of VENV.
gpu:
	$(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(BIN)/python),$(PYTHON)),$(PYTHON)) -m benchmarks.gpu

# The engine against other libraries, each in an environment of its own under build/peers, made the first time (3 GB).
bench-peers: $(VENV)/.base
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache

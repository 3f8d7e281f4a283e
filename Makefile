# Everything from nothing but Python >= 3.10, make and a package index. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# the release whose CPU wheel some indexes carry; a CUDA machine gets its usual build of the same release
TORCH ?= torch==2.13.0
# two tests at a time; a file's tests stay together, for they share what they trained, in the order of tests/conftest.py
PYTEST ?= -n 2 --dist loadscope --no-loadscope-reorder

# where sums may come out otherwise on another CPU: what computes, without what starts processes
NUMERICS := tests/golden tests/adapters tests/model tests/backbones tests/training/test_engine.py
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
NO_BF16 := ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI MSEKIT_TEST_BF16=off

# what computes with an LLM, which then is in bf16, with a GPU's attention and masks, by none of a CPU's layers
GPU_LIKE := tests/model tests/training tests/evaluation tests/inference

.PHONY: setup train test fast numerics gpu-like lint docs clean

# threads that wait sleep: spinning ones take the cores from whatever else runs
train test fast numerics gpu-like: export GOMP_SPINCOUNT := 0
train test fast numerics gpu-like: export OMP_WAIT_POLICY := PASSIVE

setup: $(VENV)/.installed
	@echo
	@echo "Next:  source $(BIN)/activate"
	@echo "       msekit train --config quickstart --backbone tiny-llama --output runs/first    # 30 seconds, a made-up LLM"
	@echo "       msekit                                                                        # what else there is"

$(VENV)/.installed: pyproject.toml
	@echo "Setting up $(VENV): 3.7 GB on a CPU (about 7.5 GB with CUDA), a few minutes. What a run keeps in ~/.cache/msekit: 0.6 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# the main job on an embedded default: a real frozen LLM, a data set made on the spot
train: $(VENV)/.installed
	$(BIN)/msekit train --config quickstart --resume
	@echo "These are typed after:  source $(BIN)/activate"

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST)

# without what takes more than a few seconds or several processes
fast: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST) -m "not slow and not multiprocess"

# once more as on other CPUs: limited to AVX2, and as if there were no bf16 unit
numerics: $(VENV)/.installed
	$(AVX2) $(BIN)/python -m pytest $(PYTEST) -m "not slow and not multiprocess" $(NUMERICS)
	$(NO_BF16) $(BIN)/python -m pytest $(PYTEST) -m "not slow and not multiprocess" $(NUMERICS)

# once more as a GPU would compute it; slow on a CPU without a bf16 unit
gpu-like: $(VENV)/.installed
	MSEKIT_TEST_AS_ON_GPU=1 $(BIN)/python -m pytest $(PYTEST) -m "not slow and not multiprocess" $(GPU_LIKE)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the site, into build/site; any broken link ends it
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info

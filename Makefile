# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TORCH = torch==2.13.0

.PHONY: demo test lint types bench samples clean

demo: $(VENV)/.light  ## compress a sample model and show the report
	$(BIN)/compressor run configs/digits_cnn_int8.yaml --overwrite

test: lint types  ## everything that CI checks
	$(BIN)/pytest -W error -n auto --maxprocesses 4 --dist loadfile -m 'not alone'
	$(BIN)/pytest -W error -m alone

lint: $(VENV)/.full
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.full
	$(BIN)/mypy

bench: $(VENV)/.light  ## ours beside onnxruntime's own quantizers
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks.quantizers

samples: $(VENV)/.full  ## train the sample models anew
	$(BIN)/python -m pip install --quiet -e '.[samples]'
	$(BIN)/python sample_models/make.py

$(VENV)/.light: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.full: $(VENV)/.light
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e '.[dev,text,torch]'
	touch $@

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache

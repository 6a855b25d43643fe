# Each target works alone from a fresh clone: Python >= 3.10, make and a C++ compiler are all it needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
NATIVE := $(shell find csrc -type f)

.PHONY: demo test lint docs bench kernels clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/pygen demo

test: lint
	$(BIN)/python -m pytest -q -n auto --dist loadgroup

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

# The variable silences an advertisement that would stand among the warnings.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/installed
	$(BIN)/python bench/compare.py

kernels: .venv/installed
	$(BIN)/python bench/kernels.py

clean:
	rm -rf .venv build runs *.egg-info pygen/_C*.so pygen/native_build.txt .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pygen needs Python >= 3.10; set PYTHON=")'
	$(PYTHON) -m venv .venv

# The build's needs come first and the build runs beside them: isolated, it would fetch a second torch.
.venv/installed: .venv/bin/python pyproject.toml setup.py CMakeLists.txt constraints.txt $(NATIVE)
	$(PIP) setuptools pybind11 cmake ninja torch
	$(PIP) --no-build-isolation -e '.[test,lint,docs,plots]'
	@$(BIN)/python -c 'from pygen.ops import native as n, native_error as e; print("pygen: compiled by", \
	  n.compiler, "and", n.cuda_compiler or "no nvcc, so without CUDA", n.cuda_architectures) if n else \
	  print("pygen: no compiled kernels (slower):", e)'
	@touch $@

# Two commands matter: `make demo` and `make test`. Each sets up what it needs in .venv first.
SHELL := /bin/bash
HOST_PYTHON ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-all guests lint format clean

help:
	@echo 'make demo      run the demonstration guest and hot-plug a CPU into it'
	@echo 'make test      run the tests'
	@echo 'make guests    build the guests nobody here wrote, which more tests need: Linux and others'
	@echo 'make libvirt   fetch the versions of libvirt that some tests drive guests with'
	@echo 'make test-all  run the tests, and the KVM tests on an ordinary host too'
	@echo 'make test-svm  run the KVM tests on an ordinary AMD-V host under QEMU TCG'
	@echo 'make test-svm-quick  run some of them'
	@echo 'make bench     measure against QEMU and plain C'
	@echo 'make lint      ruff, mypy, import-linter'

# An editable install compiles the KVM bindings; it is done again when what it is made of changes.
SOURCES := pyproject.toml setup.py $(wildcard cpufw/kvm/*.[ch] cpufw/kvm/*.cdef cpufw/kvm/build_*.py \
	plugins/x86/kvm/*.[ch] plugins/x86/kvm/*.cdef plugins/x86/kvm/build_*.py)

$(VENV)/.installed: $(SOURCES)
	@test -x $(PYTHON) || $(HOST_PYTHON) -m venv $(VENV) || \
	  { echo 'python3 cannot make a virtual environment: install python3-venv'; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@

demo: $(VENV)/.installed
	$(VENV)/bin/cpufw list-models --arch x86_64
	$(VENV)/bin/cpufw demo

# Tests that need guests nobody here wrote, or libvirt, say so and are skipped where `make guests`
# and `make libvirt` were not run.
test: $(VENV)/.installed
	CPUFW_GUESTS=$$($(PYTHON) tests/guests where 2>/dev/null) $(PYTHON) -m pytest -n auto --dist loadfile $(ARGS)

guests: $(VENV)/.installed
	$(PYTHON) tests/guests build

test-all: test-svm test

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

include tests/svm/svm.mk tests/libvirt/libvirt.mk
test-svm test-svm-quick svm-shell libvirt: $(VENV)/.installed
-include benchmarks/bench.mk

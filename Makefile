# `make repro` runs the study of params.yaml; `make test` checks the code. Both install first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Commands that DVC starts find the environment's tools first.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Nothing here phones home.
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
export HF_HUB_DISABLE_TELEMETRY := 1

TRIALS := experiments/train experiments/evaluate

.PHONY: repro report bench gpu-check gpu-wheels gpu-carried ui push-trials pull-trials test test-floor \
  test-ray lint types install lock clean

repro: $(INSTALLED)
	dvc repro
	@lorascope summary

report: $(INSTALLED)
	lorascope report

# What lorascope costs beside bare scripts: many minutes in which nothing else should run.
bench: $(INSTALLED)
	python -m benchmarks

# One run on a machine with CUDA: eight minutes, offline; elsewhere it says so and ends.
gpu-check: $(INSTALLED)
	python -m benchmarks.gpu_check

# What a machine with CUDA and no network lacks, into gpu-carried/. There, without installing:
# python3 -m benchmarks.gpu_check
gpu-wheels: $(INSTALLED)
	python -m benchmarks.gpu_check.wheels gpu-carried/wheels

# The same, with the study that `make repro` left, its CPU records, and the plans of the timed steps.
gpu-carried: gpu-wheels
	python -m benchmarks.gpu_check.carry gpu-carried

ui: $(INSTALLED)
	lorascope ui

# Trials and scores to the DVC remote, and from it: DVC does not cache them where they lie. Commit
# trials.dvc after the first. What is there already is left alone by the second. Hidden folders are
# those of writers at work.
push-trials:
	rm -rf trials && mkdir trials
	for place in $(TRIALS); do if [ -d $$place ]; then cp -R $$place trials/; fi; done
	find trials -mindepth 1 -name '.*' -exec rm -rf {} +
	dvc add --quiet trials && dvc push trials

pull-trials:
	dvc pull trials.dvc
	mkdir -p $(TRIALS)
	for place in $(TRIALS); do name=$$(basename $$place); if [ -d trials/$$name ]; then \
	  cp -RLn trials/$$name/. $$place/ || exit 1; fi; done
	chmod -R u+w $(TRIALS)

# Two processes of one thread each: threads of two processes on few cores wait for each other.
# Files come in the order of tests/conftest.py, the longest first.
test: lint types
	OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# The suite with each dependency at its floor in pyproject.toml. FLOORS replaces floors that cannot
# be installed, such as FLOORS=torch==2.13.0 where only that comes in a build for CPUs.
FLOOR := .venv-floor
test-floor:
	test -x $(FLOOR)/bin/python || $(PYTHON) -m venv $(FLOOR)
	$(PYTHON) -m tests.floors $(FLOORS) > $(FLOOR)/floors.txt
	$(FLOOR)/bin/python -m pip install --quiet -c $(FLOOR)/floors.txt -e '.[dev,joblib]'
	PATH="$(CURDIR)/$(FLOOR)/bin:$$PATH" OMP_NUM_THREADS=1 \
	  $(FLOOR)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

# The tests that need Ray, in an environment of its own: the locked versions and Ray's 79 MB.
WITH_RAY := .venv-ray
test-ray:
	test -x $(WITH_RAY)/bin/python || $(PYTHON) -m venv $(WITH_RAY)
	$(WITH_RAY)/bin/python -m pip install --quiet -c requirements.lock -e '.[dev,ray]'
	PATH="$(CURDIR)/$(WITH_RAY)/bin:$$PATH" OMP_NUM_THREADS=1 \
	  $(WITH_RAY)/bin/python -m pytest -q tests/execution/test_ray.py

lint: $(INSTALLED)
	ruff check .
	ruff format --check .

types: $(INSTALLED)
	mypy

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"lorascope needs Python 3.11 to 3.13, and {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked versions into $(VENV) (a few minutes)"
	python -m pip install --quiet -r requirements.lock
	python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

lock:
	python -m pip freeze --all --exclude-editable --exclude pip --exclude wheel | \
	  sed 's/+cpu//' | grep -v ' @ file' > requirements.lock

clean:
	rm -rf .lorascope data/biographies models/tiny experiments/train experiments/evaluate

# `make demo` and `make test` do all the set-up on a fresh machine; PYTHON names another interpreter (3.11+).
PYTHON ?= python3
BIN := .venv/bin

# Data of `make models`, see docs/models.md.
PHOTOS ?= data/photographs
RECORDS ?= data/mitbih
RHYTHMS ?= data/rhythms

.PHONY: help install demo test test-cluster lint bench models docs clean

help:            ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: .venv/installed   ## make .venv and install genray in it

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("genray needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear .venv
	@echo "installing: PyTorch alone is some gigabytes, so this takes minutes"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

test: .venv/installed      ## run the tests
	$(BIN)/python -m pytest

test-cluster: .venv/installed  ## run the tests on Ray nodes that share nothing but an S3 server (half an hour; Linux)
	$(BIN)/python -m tests.cluster.nodes

lint: .venv/installed      ## check style (ruff) and types (mypy, strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A few minutes on two cores. Small networks and small images: enough to see fronts form.
demo: .venv/installed      ## make a data set, train pix2pix on it, show where the result is
	$(BIN)/genray fronts data/fronts --count 360 --size 128
	$(BIN)/genray submit train-pix2pix --name demo --set data.size=128 \
		--set generator.filters=32 --set discriminator.filters=32 \
		--set loop.epochs=10 --set loop.batch_size=2 --set loop.ema=0.995

bench: .venv/installed     ## measure speed against plain PyTorch, Ray Data and bytewax
	$(BIN)/python -m tests.benchmarks.bench_loop
	$(BIN)/python -m tests.benchmarks.bench_recipes
	$(BIN)/python -m tests.benchmarks.bench_startup
	$(BIN)/python -m tests.benchmarks.bench_bulk
	$(BIN)/python -m tests.benchmarks.bench_ledger
	$(BIN)/python -m tests.benchmarks.bench_monitor

# Hours on a few cores. Stopped anywhere, the same command resumes; what is finished is not trained again.
models: .venv/installed    ## make the ready models again, from PHOTOS, RECORDS and RHYTHMS
	$(BIN)/genray submit train-denoiser --name photo --config genray/ready/photo.yaml --set data.path=$(PHOTOS)
	$(BIN)/genray submit train-denoiser --name document --config genray/ready/document.yaml
	$(BIN)/python -m jobs.ready.noise_estimator --photos $(PHOTOS)/train \
		--output genray/images/damage/noise_estimator.json
	$(BIN)/genray submit train-ecg --name ecg --config genray/ready/ecg.yaml --set data.path=$(RECORDS)
	$(BIN)/genray submit train-rhythm --name rhythm --config genray/ready/rhythm.yaml --set data.path=$(RHYTHMS)
	for model in photo document ecg rhythm; do \
		$(BIN)/genray bundle shrink runs/$$model/bundle genray/ready/$$model \
			--about genray/ready/$$model.json || exit 1; \
	done

docs: .venv/installed      ## build the pages of docs/ as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

clean:                     ## remove what make made, but for data/ and runs/
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make demo: films in the browser.  make test: all checks.  make test-all: the long proofs too.  Each sets up what it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv

# Where an image sets it, each of the many processes would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

# One process more than two cores: tests wait for servers now and then, and another one works meanwhile. A fourth made it slower.
PYTEST := $(VENV)/bin/pytest --numprocesses 3 --durations 20

.PHONY: demo test test-all pytest check docs observe bench format generate lock sbom audit release-check clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.ready  ## fetch the models, ingest the bundled films, serve them
	@$(VENV)/bin/matinee demo $(if $(METRICS),--metrics)

test: $(VENV)/.ready-dev  ## style, types, imports, tests in three processes; prints the 20 slowest
	@# At once: types take one core for a minute, and tests wait for servers now and then.
	@$(MAKE) --no-print-directory --jobs 2 check pytest

test-all: check  ## the same with the long proofs: full roll-overs, kills and full disks on real models
	$(PYTEST)

pytest: $(VENV)/.ready-dev
	$(PYTEST) -m 'not full'

check: $(VENV)/.ready-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

observe: $(VENV)/.ready-dev  ## Prometheus with our rules beside `make demo METRICS=1`, where it is installed
	@$(VENV)/bin/python -m observability.observe

bench: $(VENV)/.ready-dev  ## beside a peer: make bench CATALOGUE=films.csv QUERIES=queries.jsonl
	$(VENV)/bin/python -m bench.serve $(CATALOGUE) $(QUERIES)

format: $(VENV)/.ready-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

generate: $(VENV)/.ready-dev  ## write every committed file that is made from code
	$(VENV)/bin/python generate.py

docs: $(VENV)/.ready-dev  ## build the documentation site into site/
	$(VENV)/bin/mkdocs build --strict --clean

lock: $(VENV)/.uv  ## resolve pyproject.toml anew: versions and hashes for every Python we support
	.ci/lock

sbom: $(VENV)/.ready-dev  ## write sbom.json, the CycloneDX list of what is installed
	$(VENV)/bin/cyclonedx-py environment $(VENV) --output-reproducible --output-file sbom.json

audit: $(VENV)/.uv  ## fail on a known weakness of a locked package, where the network has a database of them
	@$(VENV)/bin/python .ci/audit.py

release-check: $(VENV)/.ready-dev  ## refuse a release whose images have no digest: make release-check BASE=python:...@sha256:... VALUES=mine.yaml
	@$(VENV)/bin/python -m helm.release_check $(if $(BASE),--base $(BASE)) $(foreach file,$(VALUES),--values $(file))

clean:
	rm -rf $(VENV)

# The stamps are written last: a set-up that was cut off goes on at the next run. uv comes by pip, with the hashes of the lock.
$(VENV)/.uv: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Matinee needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	@$(VENV)/bin/pip install --disable-pip-version-check --quiet --require-hashes --requirement $(VENV)/uv.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.uv pyproject.toml
	@echo "installing Matinee into $(VENV) (about 2 GB, once) ..."
	@.ci/install .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "installing the developers' tools ..."
	@.ci/install '.[dev]'
	@touch $@

# make env       the virtual environment in .venv (every other target makes it first)
# make run_all   the whole study; PROFILE=smoke|quick|mini picks its size, or a .yaml file of your own; DATASETS= and
#                METHODS= narrow it
# make publish   copies the tables, figures and records of PROFILE to results/published
# make site      a site of PROFILE's results, notebooks and documents, in site/; COURSE=1 executes the course first
# make test      the tests
# make lint      the style, the types of the public API, and the rules on imports in pyproject.toml
# make coverage  the tests, and which lines none of them ran
PROFILE ?= $(or $(SELORA_PROFILE),quick)
NAME = $(basename $(notdir $(PROFILE)))
PYTHON ?= python3
export HF_HUB_OFFLINE ?= 1
export TRANSFORMERS_VERBOSITY ?= error
# glibc gives large blocks back and fetches them anew, zeroed, in every step; keeping them saves a tenth of the time
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592

.PHONY: env run_all publish site test lint coverage clean
env: .venv/.ready

# The locks are those of .[study,test]; from pyproject.toml itself `pip install .` takes what the method alone needs.
# torchxrayvision is installed without its dependencies: only its data files are read, and the torchvision it asks for
# does not load beside a CPU-only torch. The last line compiles the bytecode, which saves every first import some 15 s.
.venv/.ready: requirements.lock requirements-nodeps.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --allow-existing --python '>=3.11' .venv && \
	    uv pip install --quiet --python .venv/bin/python -r requirements.lock && \
	    uv pip install --quiet --python .venv/bin/python --no-deps -r requirements-nodeps.lock -e . ; \
	else \
	    $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 env" if sys.version_info < (3, 11) else 0)' && \
	    $(PYTHON) -m venv .venv && \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock && \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-nodeps.lock -e . ; \
	fi
	@.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
	@touch $@

run_all: env
	.venv/bin/selora study --profile "$(PROFILE)" --datasets "$(DATASETS)" --methods "$(METHODS)"

publish: env
	.venv/bin/selora publish $(NAME)

# Sphinx and its parts are no part of the locks: only the site needs them.
.venv/.site: .venv/.ready
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python .venv/bin/python -e '.[site]'; \
	    else .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[site]'; fi
	@touch $@

site: .venv/.site
	.venv/bin/python -m selora.study.report.site $(NAME) $(if $(COURSE),--course)

test: env
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-cache
	.venv/bin/mypy

coverage: env
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .coverage results/smoke  # other results may be hours of work: remove them by hand

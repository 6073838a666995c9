# From nothing but make and Python 3.11 to 3.13:
#   make demo        trains a small encoder on procedural scenes, scores images, draws a picture (demo_out/)
#   make test        runs the tests that need nothing else and take seconds
#   make test-full   runs the others: slow ones, and those that need PyTorch, the compiler for TPUs (which are installed)
#                    or the photographs in ../shared (if they are there)
#   make test-beam   runs those of `bulk`, in an environment of its own: Beam takes an older Pillow and protobuf
#   make docs        builds the site of docs/ in site/: open site/index.html (its search needs a server: python -m http.server -d site)
# Each makes a virtual environment of its own the first time.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# what test-full gives to pip; on Linux without a GPU name a CPU build, which is much smaller
TORCH ?= torch>=2.6
# a comma in a call would begin another argument
WITH_BEAM = .[test,beam]
# one worker a core: most of the time is the compiler's, which has one thread
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: demo demo-short test test-full test-beam lint types docs clean

demo: .venv-demo/installed
	.venv-demo/bin/python -m contrique_jax.demo --out demo_out

# every stage in about a minute, in the environment of the tests
demo-short: .venv-test/installed
	.venv-test/bin/python -m contrique_jax.demo --short --out demo_out/short

test: .venv-test/installed
	.venv-test/bin/python -m pytest $(PYTEST_ARGS) -m "not slow"

test-full: .venv-test/full
	CONTRIQUE_TPU_COMPILER=$(CURDIR)/.venv-test/plan \
	  .venv-test/bin/python -m pytest $(PYTEST_ARGS) -m "slow or torch or shared"

test-beam: .venv-beam/installed
	.venv-beam/bin/python -m pytest tests/shards

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .

types: .venv-test/installed
	.venv-test/bin/mypy contrique_jax

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

.venv-docs/installed: setup.cfg pyproject.toml
	$(call environment,.venv-docs,.[docs])

.venv-beam/installed: setup.cfg pyproject.toml
	$(call environment,.venv-beam,$(WITH_BEAM))

.venv-demo/installed: setup.cfg pyproject.toml
	$(call environment,.venv-demo,.[demo])

.venv-test/installed: setup.cfg pyproject.toml
	$(call environment,.venv-test,.[test])

# The compiler for TPUs lies apart: wherever it is installed, jax looks for chips.
.venv-test/full: .venv-test/installed
	.venv-test/bin/python -m pip install --quiet "$(TORCH)" efficientnet_lite_pytorch --editable ".[browser,docs]"
	.venv-test/bin/python -m pip install --quiet --no-deps --target .venv-test/plan \
	  "$$(sed -n 's/^ *\(libtpu[^;]*\);.*/\1/p' setup.cfg)"
	touch $@

define environment
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11, 3.12 or 3.13 found; install one or say make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --upgrade pip
	$(1)/bin/python -m pip install --quiet --editable $(2)
	touch $@
endef

clean:
	rm -rf .venv-beam .venv-demo .venv-docs .venv-test demo_out site

# make              environment, check, smoke tests on the stand-in, site
# make test         environment, the whole test suite
# make test-lesser  the kit's tests and the exact claims, as a processor without AVX-512 computes, on one thread
# make test-take    every method in one file of its own does the same as here
# make properties   the tests of properties, on examples that nobody has seen yet
# make foreign     methods on networks of torchvision and timm, which are installed for it
# make counts      multiply-adds beside what torchvision and fvcore count, which are installed for it
# make serve        the site on http://127.0.0.1:8000, rebuilt when something changes
# make smoke METHOD=network_slimming
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
JOBS ?= 2

.PHONY: all test test-clone test-lesser test-take smoke-lesser properties counts foreign lint serve smoke check site clean
.DELETE_ON_ERROR:

all: $(READY)
	@$(BIN)/smallprint check
	@SMALLPRINT_CIFAR10= $(BIN)/smallprint smoke -j $(JOBS) $(if $(CI),--again)
	@$(BIN)/smallprint site
	@$(BIN)/smallprint site --offline

test: $(READY) lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

LESSER := OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2

test-lesser: $(READY)
	@$(LESSER) $(BIN)/python -m pytest -n $(JOBS) tests/kit
	@$(LESSER) SMALLPRINT_CIFAR10= $(BIN)/smallprint smoke -j $(JOBS) --again --tier exact

test-take: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m slow tests/running/test_take.py

smoke-lesser: $(READY)
	@$(LESSER) $(BIN)/smallprint smoke -j $(JOBS) --again

lint: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

test-clone: $(READY)
	@$(BIN)/python -m pytest -o addopts= -m clone tests/test_clone.py

properties: $(READY)
	@HYPOTHESIS_PROFILE=free OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m hypothesis

foreign: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torchvision==0.28.0 timm==1.0.31
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m slow tests/methods/test_foreign.py

counts: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torchvision==0.28.0 fvcore==0.1.5.post20221221
	@$(BIN)/python -m pytest -m slow tests/kit/test_products.py

check site: $(READY)
	@$(BIN)/smallprint $@

smoke: $(READY)
	@$(BIN)/smallprint smoke $(METHOD)

serve: $(READY)
	@$(BIN)/smallprint site --serve

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11, 4) or sys.exit("smallprint needs Python 3.11.4 or newer, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the environment into .venv (minutes the first time, then never again)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,site]'
	@touch $@

clean:
	rm -rf build .venv

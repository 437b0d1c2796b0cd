# oxidet. `make help` lists the targets; each does its own set-up in .venv and needs only Rust,
# Python 3.10 or later (with venv) and make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two pips or two cargos at once in the same folders only wait for each other.
.NOTPARALLEL:

# Another interpreter: make PYTHON=python3.12 ...
PYTHON ?=
VENV := .venv
PEERS := .venv-peers
WHEEL := .venv-wheel
STAMPS := $(VENV)/stamps
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

# What the wheel is built from; the folders are there to notice files that are gone.
SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE-MIT LICENSE-APACHE \
  build.rs $(shell find src python -name __pycache__ -prune -o \
    \( -type d -o -name '*.rs' -o -name '*.py' -o -name '*.pyi' -o -name '*.npz' \) -print)

say = @printf '\n\033[1m== %s\033[0m\n' '$(1)'

# --- the two commands ---

.PHONY: demo
demo: $(STAMPS)/demo  ## detect handwritten digits in composed scenes: table, mAP, annotated PNGs
	$(call say,oxidet demo)
	$(VENV)/bin/oxidet demo

.PHONY: test
test: $(STAMPS)/test torch cargo-test  ## all tests but the slow ones, live against torch and torchvision
	$(call say,pytest)
	$(PY) -m pytest
	@$(warn-without-torch)

# --- more of them ---

.PHONY: test-quick
test-quick: $(STAMPS)/test cargo-test  ## the tests that need no torch
	$(call say,pytest without the comparisons with torch)
	$(PY) -m pytest --ignore=tests/parity

.PHONY: test-slow
test-slow: $(STAMPS)/test torch qemu  ## what takes long: trainings, kill tests, big folders, a CPU without AVX
	$(call say,pytest: the slow tests)
	$(PY) -m pytest -m slow
	@$(warn-without-torch)

.PHONY: docs
docs: $(STAMPS)/docs  ## the documentation site, into site/; a warning is an error
	$(call say,mkdocs)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

.PHONY: lint
lint: $(STAMPS)/lint docs  ## rustfmt, clippy, cargo doc, ruff, mypy, stubtest, pyright, and the documentation site
	$(call say,rustfmt and clippy)
	cargo fmt --check
	cargo clippy --locked --quiet --all-targets -- -D warnings
	cargo clippy --locked --quiet --all-targets --features python -- -D warnings
	$(call say,cargo doc)
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --quiet --no-deps --document-private-items
	$(call say,ruff)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(call say,mypy and stubtest)
	$(VENV)/bin/mypy
	$(PY) -m mypy.stubtest --allowlist tests/stubtest-allowlist.txt oxidet._core
	$(call say,pyright)
	$(VENV)/bin/pyright --pythonpath $(PY)
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH pyright --verifytypes oxidet --ignoreexternal

.PHONY: bench
bench: $(STAMPS)/test torch  ## kernels (criterion), layers and networks beside torch's
	$(call say,kernels)
	cargo bench --locked --quiet
	$(call say,layers and networks)
	$(PY) benches/peers/layers.py

.PHONY: bench-peers
bench-peers: $(PEERS)/stamp  ## networks and operators beside onnxruntime, OpenVINO, ncnn, MNN, torch, powerboxes, pycocotools
	$(call say,networks)
	$(PEERS)/bin/python benches/peers/networks.py
	$(call say,every network of the zoo)
	$(PEERS)/bin/python benches/peers/zoo.py
	$(call say,batch, size and threads)
	$(PEERS)/bin/python benches/peers/networks.py --scaling --runtimes oxidet onnxruntime
	$(call say,memory)
	$(PEERS)/bin/python benches/peers/memory.py
	$(call say,detection operators)
	$(PEERS)/bin/python benches/peers/ops.py
	$(PEERS)/bin/python benches/peers/ops.py --calls

.PHONY: bench-training
bench-training: $(PEERS)/stamp  ## steps of training and whole detectors beside torch, onnxruntime, OpenVINO
	$(call say,steps of training)
	$(PEERS)/bin/python benches/peers/training.py
	$(call say,peak memory of training)
	$(PEERS)/bin/python benches/peers/training.py --memory
	$(call say,detectors)
	$(PEERS)/bin/python benches/peers/detectors.py

.PHONY: reference
reference:  ## regenerate tests/golden from the original packages (needs Python 3.8)
	tests/golden/make_reference.sh

.PHONY: build
build: $(STAMPS)/build  ## only build the package and install it into .venv

.PHONY: develop
develop: $(STAMPS)/venv  ## for working on oxidet: .venv uses python/ as it stands (again after changes of Rust)
	@[ -e $(STAMPS)/develop ] || { touch $(STAMPS)/develop; rm -f $(STAMPS)/build; }
	@$(MAKE) --no-print-directory $(STAMPS)/build $(STAMPS)/test $(STAMPS)/lint

# Built with zig's linker, against a glibc of 2014: what runs on every Linux since CentOS 7.
.PHONY: wheel
wheel: $(WHEEL)/stamp  ## the wheel for Linux on x86-64, into dist/: built, audited, used in every CPython here
	$(call say,wheel and sdist)
	rm -rf dist
	PATH=$(CURDIR)/$(WHEEL)/bin:$$PATH \
	  maturin build --release --locked --zig --compatibility manylinux2014 --sdist --out dist
	$(call say,auditwheel and abi3audit)
	$(WHEEL)/bin/auditwheel show dist/*.whl
	$(WHEEL)/bin/abi3audit --strict --verbose dist/*.whl
	$(WHEEL)/bin/python tests/wheels/contents.py dist/*.whl dist/*.tar.gz
	$(call say,fresh environments)
	$(WHEEL)/bin/python tests/wheels/environments.py dist/*.whl

.PHONY: clean
clean:  ## remove .venv, .venv-peers, .venv-wheel, target, dist and site
	rm -rf $(VENV) $(PEERS) $(WHEEL) target dist site

.PHONY: help
help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21

# --- set-up, with stamp files: a second call finds nothing to do ---

$(STAMPS)/venv:
	$(call say,virtual environment in $(VENV))
	@command -v cargo >/dev/null || { \
	  echo 'oxidet is built with Rust, and cargo is not on the PATH (https://rustup.rs)' >&2; exit 1; }
	@python=; for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; \
	  then python=$$candidate; break; fi; done; \
	[ -n "$$python" ] || { \
	  echo 'oxidet needs Python 3.10 or later with its venv module, and none was found' \
	    '(name one: make PYTHON=/path/to/python3 ...)' >&2; exit 1; }; \
	rm -rf $(VENV); "$$python" -m venv $(VENV)
	@$(PY) --version
	$(PIP) install --upgrade 'pip>=23.1'
	@mkdir -p $(STAMPS); touch $@

$(STAMPS)/build: $(STAMPS)/venv $(SOURCES)
	$(call say,release build (minutes the first time) and installation)
	$(PIP) install $(if $(wildcard $(STAMPS)/develop),--editable) .
	@touch $@

# Extras are named on the package that was just installed, which satisfies the requirement; its
# own build is not repeated.
$(STAMPS)/demo $(STAMPS)/test $(STAMPS)/lint $(STAMPS)/docs: pyproject.toml | $(STAMPS)/build

$(STAMPS)/demo: EXTRAS := images,cli,digits,notebook
$(STAMPS)/test: EXTRAS := test
$(STAMPS)/lint: EXTRAS := test,lint
$(STAMPS)/docs: EXTRAS := docs
$(STAMPS)/demo $(STAMPS)/test $(STAMPS)/lint $(STAMPS)/docs:
	$(call say,extras: $(EXTRAS))
	$(PIP) install 'oxidet[$(EXTRAS)]'
	@touch $@

# The rivals have an environment of their own: they ask for other versions of torch than the tests.
$(PEERS)/stamp: benches/peers/requirements.txt $(STAMPS)/build
	$(call say,the rivals in $(PEERS) (some GB))
	[ -x $(PEERS)/bin/python ] || $(PY) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --force-reinstall --no-deps .
	@touch $@

$(WHEEL)/stamp: tests/wheels/requirements.txt | $(STAMPS)/venv
	$(call say,maturin with zig and the auditors in $(WHEEL))
	[ -x $(WHEEL)/bin/python ] || $(PY) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=24.1' -r $<
	@touch $@

# Tried again in every run until it has succeeded.
.PHONY: torch
torch: | $(STAMPS)/build
	@rm -f $(STAMPS)/no-torch; \
	if [ $(STAMPS)/torch -nt pyproject.toml ]; then exit 0; fi; \
	printf '\n\033[1m== %s\033[0m\n' 'torch and torchvision, for the comparisons (some GB the first time)'; \
	if $(PIP) install 'oxidet[parity]' && $(PY) -c 'import torch, torchvision'; then \
	  touch $(STAMPS)/torch; \
	else \
	  rm -f $(STAMPS)/torch; touch $(STAMPS)/no-torch; $(warn-without-torch); \
	  if [ -n "$${CI:-}" ]; then echo 'With CI set, that is a failure.' >&2; exit 1; fi; \
	fi

warn-without-torch = if [ -e $(STAMPS)/no-torch ]; then printf '\n\033[1;31m%s\n%s\n%s\033[0m\n' \
  '**********************************************************************' \
  'torch and torchvision could not be installed: NOTHING IS COMPARED WITH THEM' \
  '**********************************************************************' >&2; fi

# The emulator of tests/test_without_avx.py: the system's, or Debian's package unpacked here.
.PHONY: qemu
qemu: | $(STAMPS)/venv
	@[ "$$(uname -sm)" = 'Linux x86_64' ] || exit 0; \
	find-qemu() { PATH=$$PATH:$(CURDIR)/$(VENV)/qemu/usr/bin command -v qemu-x86_64 || \
	  PATH=$$PATH:$(CURDIR)/$(VENV)/qemu/usr/bin command -v qemu-x86_64-static; }; \
	for package in qemu-user-static qemu-user; do \
	  if find-qemu >/dev/null; then exit 0; fi; \
	  mkdir -p $(VENV)/qemu; \
	  (cd $(VENV)/qemu && apt-get download --quiet=2 $$package && dpkg -x $${package}_*.deb . && \
	    rm $${package}_*.deb) 2>/dev/null || true; \
	done; \
	if ! find-qemu >/dev/null; then \
	  echo 'qemu-user is not there (Debian: apt-get update && apt-get install qemu-user-static):' \
	    'tests/test_without_avx.py will be skipped' >&2; \
	fi

.PHONY: cargo-test
cargo-test:
	$(call say,cargo test)
	cargo test --locked --quiet

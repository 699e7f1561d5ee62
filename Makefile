# The doors of the course; `make help` lists them. GNU Make 3.81 and a plain sh suffice.

SHELL = /bin/sh
.DEFAULT_GOAL := help
BUILT := .venv/built
MPTEACH := .venv/bin/mpteach
NOTEBOOK_GATE := --nbval --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg

# Stored outputs are those of one thread and no GPU.
PINNED := CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# Pythons to try, the first that answers wins. A name can be there and still fail to run.
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)
ASKED := $(or $(PYTHON),what this machine has on its PATH)
# Status 0: usable. 3: the right version, without what builds an environment.
PROBE := import sys, importlib.util as u; \
	(3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit(1); \
	sys.exit(0 if u.find_spec("venv") and u.find_spec("ensurepip") else 3)

# An environment that is broken, or moved with its folder, counts as not built.
ifneq ($(shell .venv/bin/python -c "" 2>/dev/null && cat $(BUILT) 2>/dev/null),$(CURDIR))
.PHONY: $(BUILT)
endif

.PHONY: help lab edit lecture test test-all exhaustive notebooks slides site release bench clean

help: ## list the targets (this is what a bare make does)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

lab: $(BUILT) ## open the course: your own copy of the chapters, in work/
	@$(MPTEACH) lab

edit: $(BUILT) ## open the chapters themselves, solutions included, in notebooks/
	@$(MPTEACH) lab --edit

lecture: $(BUILT) ## open your copy with type that a back row can read
	@$(MPTEACH) lab --lecture

test: $(BUILT) ## run everything that must hold: unit tests and every notebook
	@$(PINNED) .venv/bin/python -m pytest tests notebooks static/template.ipynb \
		$(NOTEBOOK_GATE) -n 2 --dist loadfile

test-all: .venv/extra-site .venv/extra-slides .venv/extra-release ## drive all in Chromium and nbgrader
	@$(PINNED) .venv/bin/python -m pytest tests -m 'browser or explorer or nbgrader'

exhaustive: $(BUILT) ## round all 2^32 float32 numbers, trace all measured steps (15 minutes)
	@$(PINNED) .venv/bin/python -m tests.exhaustive

notebooks: $(BUILT) ## run every notebook again and store it in canonical form
	@$(PINNED) .venv/bin/python -m mpteach.editions

slides: .venv/extra-slides ## build a deck a chapter, to be shown offline, in build/slides
	@.venv/bin/python -m mpteach.slides

site: .venv/extra-site ## build the book of all chapters, to be read offline, in build/site
	@.venv/bin/python -m mpteach.site

release: .venv/extra-release ## make the assignments for nbgrader: see TEACHING.md
	@.venv/bin/python -m mpteach.release

bench: $(BUILT) ## measure how fast the course rounds, beside other libraries
	@$(MPTEACH) bench rounding

clean: ## remove the environment and what was built (never work/)
	rm -rf .venv build

.venv/extra-%: $(BUILT)
	@.venv/bin/python -m mpteach.install $*

$(BUILT): pyproject.toml constraints.txt
	@right=; for python in $(PYTHONS); do \
		"$$python" -c '$(PROBE)' >/dev/null 2>&1; status=$$?; \
		if [ $$status -eq 0 ]; then exec "$$python" -m mpteach.install; fi; \
		if [ $$status -eq 3 ]; then right="$$python"; fi; \
	done; \
	if [ -n "$$right" ]; then \
		echo "$$right cannot make environments: install its venv module (Debian and" \
			"Ubuntu: apt install python3-venv) or name another with 'make PYTHON=...'."; \
	else \
		echo "The course needs Python 3.11, 3.12 or 3.13 and $(ASKED) is none:" \
			"install one or name it with 'make PYTHON=...'."; \
	fi >&2; exit 2

# Every target makes .venv first if it is not there: about 5 GB, some minutes, once.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help demo toy-tables miniature test test-slow test-gpu lint bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12
	@echo 'PYTHON=python3.11 picks the interpreter (3.10 to 3.13), ARGS="..." goes to the program run.'

BGAUG := HF_HUB_OFFLINE=1 $(BIN)/bgaug
MINIATURE := output/miniature

demo: $(STAMP)  ## the whole way on a built-in toy data set and a tiny model, on CPU, offline
	$(BGAUG) demo $(ARGS)

toy-tables: $(STAMP)  ## the experiments on the toy world: hours; goes on where it was
	$(BGAUG) plan toy_tables --run --jobs $$(nproc) $(ARGS)

# The toy world stands for COCO, in VOC's layout for VOC; its three fractions are the same images. Swin's
# checkpoints are large and nobody looks at them.
miniature: $(STAMP)  ## every cell of the paper's tables, tiny, from data to table
	for plan in table1 figure6 ablation; do OMP_NUM_THREADS=1 $(BGAUG) plan $$plan --run --seeds 1,2 \
		--out $(MINIATURE)/runs debug=miniature dataset=toy dataset.root=$(MINIATURE)/world $(ARGS) || exit 1; done
	for plan in table2 table3; do OMP_NUM_THREADS=1 $(BGAUG) plan $$plan --run --seeds 0,1 \
		--out $(MINIATURE)/runs debug=miniature dataset=toy dataset.root=$(MINIATURE)/world $(ARGS) || exit 1; \
		find $(MINIATURE)/runs -name 'model_*.pth' -delete; done
	OMP_NUM_THREADS=1 $(BGAUG) plan table4 --run --seeds 0,1 \
		--out $(MINIATURE)/runs debug=miniature dataset=toy_voc dataset.root=$(MINIATURE)/voc $(ARGS)

test: lint  ## lint, then all tests that need neither a GPU nor patience
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not gpu' \
		--cov --cov-report=term $(if $(ARGS),,--cov-fail-under=90) $(ARGS)

test-slow: $(STAMP)  ## the long tests
	$(TEST_ENV) $(BIN)/python -m pytest -q -m 'slow and not gpu' $(ARGS)

test-gpu: $(STAMP)  ## the tests of the engine that need a GPU
	$(TEST_ENV) $(BIN)/python -m pytest -q -m gpu $(ARGS)

lint: $(STAMP)  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bgaug_d2 tools
	$(BIN)/lint-imports

bench: $(STAMP)  ## what painting, loading, iterations, hits and the cache cost on this machine
	$(BIN)/bgaug bench $(ARGS)

clean:  ## remove .venv and all caches
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	find bgaug_d2 tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "There is no program '$(PYTHON)': install Python 3.10, 3.11, 3.12 or 3.13, or name it with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1), allowed are 3.10 to 3.13: name one with PYTHON=..., as in 'make PYTHON=python3.11'."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "'$(PYTHON)' cannot make virtual environments: install its venv package, on Debian and Ubuntu 'apt-get install python3-venv'."; exit 1; }
	$(PYTHON) -m venv .venv

INSTALLER := bgaug_d2/commands/install_detectron2.py bgaug_d2/commands/detectron2_source.py

$(STAMP): setup.py pyproject.toml constraints.txt $(INSTALLER) | $(BIN)/python
	@echo 'Installing into .venv: about 5 GB, some minutes, once.'
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/bgaug install-detectron2
	@$(BIN)/python -c 'import cv2' \
		|| { echo "OpenCV misses a system library: 'apt-get install libgl1 libglib2.0-0' brings it."; exit 1; }
	@touch $@

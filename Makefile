# Each target works as the first command on a fresh clone.
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null && command -v $$name && break; done)
BIN := .venv/bin
# Without compiling every module of every package, which Python does for those that are used.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
EVAL_TASKS ?= Lift,Stack,Door
EVAL_EPISODES ?= 5
EVAL_SEED ?= 0
comma := ,
EVAL_OUT ?= results/runs/eval-$(subst $(comma),-,$(EVAL_TASKS))-x$(EVAL_EPISODES)-seed$(EVAL_SEED)
EVALKIT := $(BIN)/evalkit
# Only as `make POLICY=...`: environments may hold a variable of this name.
ifneq (command line,$(origin POLICY))
POLICY := xwam
endif
# Policies with weights of their own. Without CHECKPOINT, X-WAM runs the embedded ones on robosuite and those of its
# authors elsewhere, the others random ones.
MODEL_POLICIES := xwam uwm dreamzero joint_attention video_in_training
IS_MODEL := $(filter $(MODEL_POLICIES),$(POLICY))
IS_XWAM := $(filter xwam,$(POLICY))
ifeq (command line,$(origin CHECKPOINT))
TWO_STAGE_ADVICE = for its inner policy call `evalkit run --policy two_stage` with policy.two_stage.inner=NAME 'policy.two_stage.inner_settings=["checkpoint=FILE"]'
$(if $(IS_MODEL),,$(error CHECKPOINT is for policies with weights: $(MODEL_POLICIES); $(if $(filter two_stage,$(POLICY)),$(TWO_STAGE_ADVICE),leave it out for $(POLICY))))
endif
say_random = $(if $(IS_MODEL),$(if $(filter random-%,$(1)),@echo "No CHECKPOINT is given: $(POLICY) has random weights ($(1))$(comma) which only show that a run works."))
# CHECKPOINT of such a policy runs on EVAL_DEVICE and reads its prompts with EVAL_TOKENIZER if it has umT5 and holds no
# tokenizer. Random weights run on a CPU.
model_settings = $(if $(IS_MODEL),policy.$(POLICY).checkpoint=$(1) $(if $(filter random-%,$(1)),,policy.$(POLICY).device=$(2) policy.$(POLICY).tokenizer=$(EVAL_TOKENIZER)))
EVAL_TOKENIZER ?= google/umt5-xxl
FOUND_DEVICE := $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
# The weights of X-WAM's authors are too large for a CPU.
BENCH_DEVICE := $(or $(EVAL_DEVICE),$(if $(IS_XWAM),cuda,$(FOUND_DEVICE)))
BENCH_PRECISION := $(if $(IS_XWAM),$(if $(filter cuda%,$(BENCH_DEVICE)),policy.xwam.precision=bfloat16))
EVAL_CHECKPOINT := $(or $(CHECKPOINT),$(if $(IS_XWAM),,random-nano))
EVAL_MODEL = $(if $(EVAL_CHECKPOINT),$(call model_settings,$(EVAL_CHECKPOINT),$(or $(EVAL_DEVICE),$(FOUND_DEVICE))))
EVAL_RUNS := $(EVAL_OUT)/$(POLICY) $(if $(filter scripted,$(POLICY)),,$(EVAL_OUT)/scripted)
EVAL_REPORT := $(EVAL_OUT)/report$(if $(IS_XWAM),,-$(POLICY))
ROBOCASA_CHECKPOINT ?= $(or $(CHECKPOINT),$(if $(IS_XWAM),sharinka0715/X-WAM-checkpoints/robocasa_sft,random-nano-robocasa))
ROBOCASA_EPISODES ?= 100
ROBOCASA_TASKS ?=
ROBOCASA_OUT ?= results/runs/robocasa-24-$(POLICY)
ROBOCASA_BENCH ?= bench.robocasa.protocol=xwam
ROBOCASA_SETTINGS ?= $(BENCH_PRECISION) run.workers=8
ROBOCASA_MODEL = $(call model_settings,$(ROBOCASA_CHECKPOINT),$(BENCH_DEVICE))
ROBOCASA_RUN = $(EVALKIT) run --policy $(POLICY) --bench robocasa --episodes $(ROBOCASA_EPISODES) $(if $(ROBOCASA_TASKS),--tasks $(ROBOCASA_TASKS))
ROBOTWIN_CHECKPOINT ?= $(or $(CHECKPOINT),$(if $(IS_XWAM),sharinka0715/X-WAM-checkpoints/robotwin_sft,random-nano-robotwin))
ROBOTWIN_EPISODES ?= 100
ROBOTWIN_TASKS ?=
ROBOTWIN_OUT ?= results/runs/robotwin-50-$(POLICY)
ROBOTWIN_BENCH ?= bench.robotwin.protocol=xwam
ROBOTWIN_SETTINGS ?= $(BENCH_PRECISION) run.workers=8
ROBOTWIN_MODEL = $(call model_settings,$(ROBOTWIN_CHECKPOINT),$(BENCH_DEVICE))
ROBOTWIN_TEXTURES = $(wildcard $(EVALKIT_ROBOTWIN_ROOT)/assets/background_texture/unseen/*)
ROBOTWIN_RUN = $(EVALKIT) run --policy $(POLICY) --bench robotwin --episodes $(ROBOTWIN_EPISODES) $(if $(ROBOTWIN_TASKS),--tasks $(ROBOTWIN_TASKS))
BENCH := --bench robosuite --tasks $(EVAL_TASKS) --episodes $(EVAL_EPISODES) --seed $(EVAL_SEED)

.PHONY: help eval eval-robocasa eval-robotwin chaos check test test-slow partners lint types golden bench hooks setup setup-dev clean

help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

eval: setup  ## Run, score and report nano X-WAM, or POLICY=uwm CHECKPOINT=FILE, and the scripted experts on robosuite.
	$(EVALKIT) run --policy scripted $(BENCH) --out $(EVAL_OUT)/scripted
	$(call say_random,$(EVAL_CHECKPOINT))
	$(if $(filter scripted,$(POLICY)),,$(EVALKIT) run --policy $(POLICY) $(BENCH) --out $(EVAL_OUT)/$(POLICY) $(EVAL_MODEL))
	$(EVALKIT) score run $(EVAL_OUT)/$(POLICY)
	$(EVALKIT) report $(EVAL_RUNS) --out $(EVAL_REPORT)
	@echo "Everything lies in $(EVAL_OUT): the report in $(notdir $(EVAL_REPORT))/, an mp4 an episode in */videos/."

eval-robocasa: setup  ## RoboCasa, 24 tasks x 100 with X-WAM's released weights, or POLICY=uwm CHECKPOINT=FILE (docs/robocasa.md).
	@test -n "$$EVALKIT_ROBOCASA_PYTHON" || { echo "RoboCasa is not here: install v0.2 with robosuite 1.5.2 into an interpreter of its own (docs/robocasa.md), export EVALKIT_ROBOCASA_PYTHON=<its python> and run this again; 'evalkit doctor robocasa' tells what is missing." >&2; exit 2; }
	$(call say_random,$(ROBOCASA_CHECKPOINT))
	$(EVALKIT) doctor robocasa $(ROBOCASA_BENCH)
	$(ROBOCASA_RUN) --out $(ROBOCASA_OUT) $(ROBOCASA_BENCH) $(ROBOCASA_MODEL) $(ROBOCASA_SETTINGS)
	$(EVALKIT) score run $(ROBOCASA_OUT)
	$(EVALKIT) report $(ROBOCASA_OUT) --published results/published

eval-robotwin: setup  ## RoboTwin 2.0, 50 tasks x 100 in both settings with X-WAM's released weights, or POLICY=uwm CHECKPOINT=FILE (docs/robotwin.md).
	@test -n "$$EVALKIT_ROBOTWIN_ROOT" || { echo "RoboTwin is not here: clone it, check out c3ddfa8, install its packages and assets (docs/robotwin.md), export EVALKIT_ROBOTWIN_ROOT=<its folder> and EVALKIT_ROBOTWIN_PYTHON=<its python>, and run this again; 'evalkit doctor robotwin' says what is missing." >&2; exit 2; }
	$(call say_random,$(ROBOTWIN_CHECKPOINT))
	$(EVALKIT) doctor robotwin $(ROBOTWIN_BENCH)
	$(if $(ROBOTWIN_TEXTURES),,@echo "The setting 'randomized' is left out: $$EVALKIT_ROBOTWIN_ROOT has no background textures.")
	$(ROBOTWIN_RUN) --setting clean --out $(ROBOTWIN_OUT)/clean $(ROBOTWIN_BENCH) $(ROBOTWIN_MODEL) $(ROBOTWIN_SETTINGS)
	$(if $(ROBOTWIN_TEXTURES),$(ROBOTWIN_RUN) --setting randomized --out $(ROBOTWIN_OUT)/randomized $(ROBOTWIN_BENCH) $(ROBOTWIN_MODEL) $(ROBOTWIN_SETTINGS))
	$(EVALKIT) score run $(ROBOTWIN_OUT)/clean
	$(if $(ROBOTWIN_TEXTURES),$(EVALKIT) score run $(ROBOTWIN_OUT)/randomized)
	$(EVALKIT) report $(ROBOTWIN_OUT)/clean $(if $(ROBOTWIN_TEXTURES),$(ROBOTWIN_OUT)/randomized) --published results/published --out $(ROBOTWIN_OUT)/report

check: lint types test  ## Run lint, types and test; CI runs this.

lint: setup-dev  ## Check style.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev  ## Check types.
	$(BIN)/mypy

test: setup-dev  ## Run the tests; those that take minutes are in test-slow.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not gpu" -n 2 --dist loadfile

test-slow: setup-dev  ## Run the tests that take minutes.
	$(BIN)/python -m pytest -q -m "slow"

partners: setup-dev .partners/installed  ## Run the tests with other people's packages: openpi-client, and a policy and a bench that are installed for real.
	EVALKIT_OPENPI_PYTHON=$(CURDIR)/.partners/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q \
		tests/unit/test_remote_partner.py tests/unit/test_write_pages.py

CHAOS_MINUTES ?= 15
chaos: setup-dev  ## Disturb runs at random for CHAOS_MINUTES (15); their records must be those of calm runs.
	$(BIN)/python -m tests.chaos --minutes $(CHAOS_MINUTES)

golden: setup-dev  ## Rewrite tests/golden; explain each change in the commit.
	$(BIN)/python -m tests.golden

hooks: setup-dev  ## Let git run lint and types before each commit, and test before each push.
	$(BIN)/pre-commit install

# Words after `bench` are figures, not targets: `make bench score_chunk`.
ifeq (bench,$(firstword $(MAKECMDGOALS)))
NAME ?= $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
$(eval $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS)):;@:)
endif

bench: setup-dev  ## Measure speed ratios, or one: make bench NAME. NAME=--list lists them. Writes results/bench.json.
	$(BIN)/python -m tests.bench $(NAME)

setup: .venv/installed  ## Install what running needs into .venv.

setup-dev: .venv/installed-dev  ## Install what developing needs into .venv.

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "There is no Python 3.11 or 3.12 here; install one, or run 'make setup PYTHON=<its path>'." >&2; exit 2; }
	@tools/system-libraries
	@$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a few minutes the first time) ..."
	@$(PIP_INSTALL) -e .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv, with what developing needs (a few minutes the first time) ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch .venv/installed $@

.partners/installed: tests/partners.txt | .venv/bin/python
	@echo "Installing the partners of the tests into .partners ..."
	@$(BIN)/python -m venv .partners
	@.partners/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r tests/partners.txt
	@touch $@

clean:  ## Remove .venv, .partners and caches; results stay.
	rm -rf .venv .partners *.egg-info .pytest_cache .mypy_cache .ruff_cache

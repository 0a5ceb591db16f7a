# A few verbs. Needs Python 3 and nothing else: what is missing is fetched into .venv and .local.
#
#   make demo     events through queue, functions, database, API and archive, on this machine, in one go (KEEP=1: leave it running)
#   make test     every test that this machine can run
#   make up       leave the local stack running; `source .local/stack.env` to use it (CONTAINERS=1: `sam local invoke` too)
#   make down     stop it; its data stays for the next `make up`
#   make bench    what the claims about speed rest on: ratios of two sides in one run
#   make lint     style, types, imports, templates, policies
#   make deploy   build and deploy to AWS (samconfig.toml, ENV=prod)
#   make lock     renew uv.lock and the requirements that follow from it
#
# PYTHON=3.12 (or a path) chooses the interpreter, T=tests/unit narrows `make test`.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test up down bench lint deploy lock environment

UV := $(or $(shell command -v uv),.local/uv/bin/uv)
# The machine's own Python where it fits; else uv brings one.
PYTHON ?= $(shell python3 -c 'import sys; v = sys.version_info[:2]; print("%d.%d" % (v if (3, 11) <= v <= (3, 13) else (3, 13)))')
ENV ?= prod
RUN := .venv/bin
SAM := $(UV) run --quiet --isolated --only-group sam sam
SIGNERS := functions/checkpoint/requirements.txt functions/witness/requirements.txt
REQUIREMENTS := layer/requirements.txt $(foreach name,ingest query archive verify,functions/$(name)/requirements.txt) $(SIGNERS)
EXPORT := $(UV) export --frozen --no-default-groups --no-emit-project --no-header --no-annotate --quiet
export UV_PYTHON := $(PYTHON)

help:
	@sed -n 's/^#   //p' Makefile

.local/uv/bin/uv:
	@python3 local/get_uv.py .local/uv

environment: | $(filter .local/%,$(UV))
	@$(UV) sync --quiet --locked

demo: environment
	@$(RUN)/python -m local demo$(if $(KEEP),-keep)

up: environment
	@$(if $(CONTAINERS),PROOFTRAIL_CONTAINERS=1) $(RUN)/python -m local up

down: environment
	@$(RUN)/python -m local down

test: environment
	@$(RUN)/python -m pytest --numprocesses 2 --dist loadgroup $(T)

bench: environment
	@for file in benchmarks/*.py; do \
		case $$file in */side_by_side.py) ;; *) PYTHONPATH=client $(RUN)/python -m benchmarks.$$(basename $$file .py) || exit 1 ;; esac; done

lint: environment
	$(RUN)/ruff format --check
	$(RUN)/ruff check
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(SAM) validate --lint
	$(SAM) validate --lint --template infrastructure/database.yaml
	$(SAM) validate --lint --template infrastructure/witness.yaml
	$(UV) run --quiet --isolated --only-group checkov checkov --config-file .checkov.yaml
	@for file in $(REQUIREMENTS); do $(MAKE) --silent print-$$file | diff $$file - || \
		{ echo "$$file is not what uv.lock says: run make lock"; exit 1; }; done

# What each part of the deployment carries; the layer's own packages are left out of the functions' lists.
lock: | $(filter .local/%,$(UV))
	@$(UV) lock
	@for file in $(REQUIREMENTS); do $(MAKE) --silent print-$$file > $$file.new && mv $$file.new $$file; done

print-layer/requirements.txt:
	@$(EXPORT)

$(foreach name,ingest query archive,print-functions/$(name)/requirements.txt): print-functions/%/requirements.txt:
	@$(EXPORT) --extra $* --prune aws-lambda-powertools --prune msgspec --prune psycopg

print-functions/verify/requirements.txt:
	@$(EXPORT) --extra archive --extra signing --prune aws-lambda-powertools --prune msgspec --prune psycopg

$(addprefix print-,$(SIGNERS)):
	@$(EXPORT) --extra signing --prune aws-lambda-powertools --prune msgspec --prune psycopg

deploy: | $(filter .local/%,$(UV))
	$(SAM) build --config-env $(ENV)
	$(SAM) deploy --config-env $(ENV)

# Thin over `phase2`. Every target sets up what it needs: the virtual environment from requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help setup up down env demo run recon model parity rehearse go-no-go rollback status bundle scenarios round-trip fault-matrix crash-matrix test test-all lint format bench bench-cutover bench-ingest serve console-shots drill docs runbooks clean

VENV := .venv
PYTHON ?= python3
STAMP := $(VENV)/.installed
PHASE2 := $(VENV)/bin/phase2
BATCH ?=
M ?=
BOOKINGS ?= 20000
RUNS ?= 1
EVENTS ?= 2000
SECONDS ?= 30
ARGS ?=
SEED ?= 7
SCENARIO ?= healthy
SQLFLUFF := $(VENV)/bin/sqlfluff lint --disable-progress-bar
LINTED := $(VENV)/.linted
# the SQL files there that are newer than the last clean lint; all of them when a macro or the linter's rules are
stale = find $(1) -name '*.sql' $$(test -e $(LINTED) && test -z "$$(find dbt_project/macros dbt_project/dbt_project.yml \
  pyproject.toml -newer $(LINTED) -type f)" && echo -newer $(LINTED))
need_batch = @test -n "$(BATCH)" || { echo 'name the batch: make $@ BATCH=D' >&2; exit 2; }

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

setup: $(STAMP) ## Virtual environment from the lock file (uv when there is one, else venv and pip)

# .pyc files are written once here: without them every start of dbt costs seconds more
$(STAMP): requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv -q --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install -q --python $(VENV)/bin/python -r requirements.lock && \
	  uv pip install -q --python $(VENV)/bin/python --no-deps -e .; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(VENV)/bin/pip install -q --disable-pip-version-check -r requirements.lock && \
	  $(VENV)/bin/pip install -q --disable-pip-version-check --no-deps -e .; \
	fi
	@$(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

up: setup ## Start the databases
	@$(PHASE2) up
down: setup ## Stop the embedded PostgreSQL
	@$(PHASE2) down
env: setup ## The database URLs as shell exports
	@$(PHASE2) env
demo: setup ## Two sample sources through batches A to E (BOOKINGS=20000 SEED=7 SCENARIO=healthy)
	@$(PHASE2) demo --bookings $(BOOKINGS) --seed $(SEED) --scenario $(SCENARIO)
run: setup ## Run one batch (BATCH=D)
	$(need_batch)
	@$(PHASE2) run --from $(BATCH) --to $(BATCH)
recon: setup ## Evaluate the gates of one batch on the state as it is (BATCH=D)
	$(need_batch)
	@$(PHASE2) recon --batch $(BATCH)
model: setup ## Build one dbt model, test it and its parents, show which rows changed (M=booking_core)
	@test -n "$(M)" || { echo 'name the model: make model M=booking_core' >&2; exit 2; }
	@$(PHASE2) model $(M)
go-no-go: setup ## May a batch start: every criterion, who has signed, who is missing (BATCH=D)
	$(need_batch)
	@$(PHASE2) go-no-go --batch $(BATCH)
rollback: setup ## Roll one batch back (BATCH=D)
	$(need_batch)
	@$(PHASE2) rollback --batch $(BATCH)
parity: setup ## Every booking of bstadmin, field by field, against the read model of the back office
	@$(PHASE2) parity
rehearse: setup ## One batch on a copy of the ops database: run, gates, rollback, run again (BATCH=D)
	$(need_batch)
	@$(PHASE2) rehearse --batch $(BATCH)
status: setup ## Where each batch stands
	@$(PHASE2) status
bundle: setup ## The evidence of one batch as one archive that verifies itself (BATCH=D)
	$(need_batch)
	@$(PHASE2) bundle --batch $(BATCH)
scenarios: setup ## Sample sources that break a gate each
	@$(PHASE2) scenarios
round-trip: setup ## Rehearse every batch, and write docs/round-trip.md anew
	@ROUND_TRIP=write $(VENV)/bin/pytest -n0 -m "" tests/test_rehearsal.py
fault-matrix: setup ## Run every fault against the gates, and write docs/fault-matrix.md anew
	@FAULT_MATRIX=write $(VENV)/bin/pytest -n0 tests/test_faults.py
crash-matrix: BOOKINGS := 2000
crash-matrix: setup ## Kill each step at each point and run it again: the matrix (ONLY='D land')
	@$(VENV)/bin/python -W ignore::UserWarning:multiprocessing.resource_tracker -m tests.crashes \
	  --bookings $(BOOKINGS) --only "$(ONLY)"
test: setup ## The tests, on real databases
	@$(VENV)/bin/pytest
test-all: setup ## The tests, also those that take long
	@FOLLOW_STEPS=4 $(VENV)/bin/pytest -m ""
lint: setup ## ruff, sqlfluff, import contracts; of the SQL what was changed since it was last clean
	@touch $(LINTED).now
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .
	@$(VENV)/bin/lint-imports
	@files="$$($(call stale,dbt_project/models dbt_project/data-tests dbt_project/seeds))"; test -z "$$files" || { \
	  eval "$$($(PHASE2) env)" && $(SQLFLUFF) --processes 2 $$files; }
# plain SQL has no place in dbt's project, whose templater leaves it out without a word; sql/sources stay as the
# applications wrote them
	@files="$$($(call stale,$(addprefix sql/,phase2 ingest emitters ops landing follow sample compose roles explain state.sql ledger.sql status_snapshot.sql \
	  review_snapshot.sql fingerprint.sql) tests/floor))"; test -z "$$files" || $(SQLFLUFF) --processes 2 --templater raw $$files
# statements with parameters
	@files="$$($(call stale,sql/ops_read))"; test -z "$$files" || $(SQLFLUFF) --templater placeholder $$files
# nor does it read dbt's functions; those left out call methods of ref() and source(), or macros, which only dbt has
	@files="$$($(call stale,$(filter-out %/current_as_of.sql %/placeholders.sql %/read_differences.sql,$(wildcard dbt_project/functions/*.sql))))"; \
	  test -z "$$files" || $(SQLFLUFF) --templater jinja $$files
	@mv $(LINTED).now $(LINTED)
format: setup ## ruff and sqlfluff, mending what they can
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .
bench: HISTORY ?= 10
bench: setup ## Seconds, tuples, WAL and memory of each step, beside the floor; a long history (BOOKINGS="10000 100000" RUNS=3 HISTORY=20)
	@$(VENV)/bin/python -m tests.bench --bookings $(BOOKINGS) --runs $(RUNS) --history $(HISTORY)
bench-cutover: setup ## Full parity, reads on both sides, what shadow reads cost; each held to its limit (BOOKINGS=1000000)
	@$(VENV)/bin/python -m tests.bench_cutover --bookings $(BOOKINGS)
bench-ingest: BOOKINGS := 2000
bench-ingest: setup ## Events accepted and applied a second, latencies, where the time goes (EVENTS=2000 SECONDS=30 ARGS=--write)
	@$(VENV)/bin/python -m tests.bench_ingest --bookings $(BOOKINGS) --events $(EVENTS) --seconds $(SECONDS) $(ARGS)
serve: setup ## API and worker on the embedded parts, flags of ingestion on, until Ctrl-C (CORE_API_PORT=4000)
	@$(PHASE2) serve
console-shots: setup ## The pictures of docs/console.md, by the system's Chromium
	@CONSOLE_SHOTS=write $(VENV)/bin/pytest -n0 tests/test_console.py -k pictures
drill: setup ## What batch F has to show, on a copy of the ops database: duplicates, order, burst, replay, rollback
	@$(PHASE2) drill
docs: setup ## dbt docs, with the rulebook
	@eval "$$($(PHASE2) env)" && $(VENV)/bin/dbt docs generate --project-dir dbt_project --profiles-dir .
runbooks: setup ## Write docs/runbooks/ anew, of the plan, the alert rules and the guardrails
	@$(VENV)/bin/python -m bridge.runbooks
clean: ## Remove the embedded databases, dbt's target and the reports; copies (.phase2/backups) stay
	@test ! -x $(PHASE2) || $(PHASE2) down
	@find .phase2 -mindepth 1 -maxdepth 1 ! -name backups -exec rm -rf {} + 2>/dev/null || true
	@rm -rf reports dbt_project/target

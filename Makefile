# Every target is one call; `make help` lists them.
.DEFAULT_GOAL := help
# Where rustup installs cargo; a shell that was opened before does not know it.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
.PHONY: help setup build demo test e2e-nri e2e-runtimes check fmt lint features layers names pages doc deny docs docs-check book bench bench-node bench-publish bench-nri load fuzz fuzz-smoke install uninstall deb release image e2e-image e2e-browser e2e-rules e2e-helm e2e-deb e2e-first-run e2e-kubernetes screenshots e2e-prometheus e2e-publish e2e-archive e2e-peers e2e-clients e2e-restart e2e-kill e2e-hostile soak soak-publish clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what builds and tests need
	scripts/setup all

build: ## the release binaries, in target/release
	scripts/setup cc rust
	cargo build --release --locked

install: ## programs, manual pages, completions and units into PREFIX (/usr/local), below DESTDIR
	scripts/install

uninstall: ## what install put there, out again
	scripts/install --uninstall

deb: ## a Debian package of the release binaries, in target/
	$(MAKE) build
	scripts/deb

release: ## static programs as an archive, their SBOM and checksums, in target/dist
	scripts/setup cc rust musl
	scripts/release

image: ## a container image of the static programs, by podman, buildah or docker
	$(MAKE) release
	scripts/image

demo: ## an agent, an application that knows nothing of it, and what it reports; about 8 minutes the first time
	scripts/demo

test: ## set up, then run every test; about 30 minutes the first time, on two cores
	scripts/setup all
	scripts/ci/test

e2e-nri: ## pods of real containerds with the agent as their plugin; needs root, builds containerd once
	scripts/setup cc rust
	scripts/e2e-nri

e2e-restart: ## twenty hand-overs in a row under a load of known totals, and stops of five seconds beside a keeper
	scripts/setup cc rust
	scripts/e2e-restart

e2e-publish: ## deliveries to a real InfluxDB, Prometheus and carbon, with known totals, through refusals and outages; needs their packages
	scripts/setup cc rust prometheus
	scripts/e2e-publish

e2e-archive: ## history in the archive, exact through kills at random moments; KILLS=100 for more of them
	scripts/setup cc rust
	scripts/e2e-archive

e2e-peers: ## the same as e2e-publish to Prometheus 3, VictoriaMetrics, Mimir, InfluxDB 1.13 and the OpenTelemetry Collector, each built once; PEERS=mimir for one
	scripts/setup cc rust
	scripts/e2e-peers $(PEERS)

e2e-kill: ## a hundred kills under a load of known totals, and one at every call that writes
	scripts/setup cc rust
	scripts/e2e-kill

e2e-hostile: ## every known attack beside quiet containers, with what each costs them as a table
	scripts/setup cc rust
	scripts/e2e-hostile $(OPTIONS)

soak: ## an hour of everything at random, or make soak SECONDS=600
	scripts/setup cc rust
	scripts/soak $(or $(SECONDS),3600)

soak-publish: ## half an hour of kills, hand-overs and an outage beside a real InfluxDB and Prometheus; OPTIONS="--outage 30 --kills 10 --handovers 5" is short
	scripts/setup cc rust
	cargo build --release --locked --bin tallyport
	integration/publish/soak.py target/release $(OPTIONS)

check: ## everything CI asks for: format, lints, layers, names, tests, documents, dependencies
	scripts/setup all
	scripts/ci/check

fmt: ## format the code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path integration/nri/Cargo.toml

lint: ## clippy with warnings denied
	scripts/ci/lint

features: ## the agent without its optional products, and with each alone
	scripts/ci/features --each

layers: ## which module may use which
	scripts/ci/layers

names: ## what functions and types are called
	scripts/ci/names

pages: ## the navigation and the links of the documentation
	scripts/ci/pages

doc: ## the code's documentation, with warnings denied
	scripts/ci/doc

deny: ## licences, advisories and doubles among the dependencies
	scripts/ci/deny

docs: ## regenerate the pages that are made from the program
	scripts/docs

book: ## the documentation as a site, in target/book; needs mdbook
	scripts/book

docs-check: ## run every command of the documentation and compare its output; needs root
	scripts/setup cc rust
	cargo build --release --locked --bin tallyport
	scripts/docs-check

bench: ## what the core costs: a line, an insert, a window, in time and in instructions, and a published record
	cargo bench --locked --bench core
	cargo bench --locked -p tallyport-formats --bench publish
	cargo bench --locked --bench instructions -- --json target/bench-instructions.json

bench-node: ## what receiving costs: the agent beside two receivers that do nothing and other servers, as ratios
	scripts/peers
	cargo bench --locked --bench node -- --json target/bench-node.json

bench-publish: ## what publishing costs: CPU time and memory of an agent with and without publishers, by turns, and how fast a backlog is delivered
	scripts/setup cc rust prometheus
	cargo build --release --locked --bin tallyport
	integration/publish/cost.py target/release --json target/bench-publish.json $(OPTIONS)

bench-nri: ## what the plugin adds to the start of a container, by turns with and without it
	scripts/setup cc rust
	scripts/e2e-nri --cost 200

load: ## two million values of known totals into a release agent
	scripts/load

e2e-runtimes: ## containerd, podman and docker through the wrapper, as root
	scripts/setup containers engines
	cargo build --release --locked --bin tallyport --bin tallyport-oci
	integration/runtimes/run

e2e-browser: ## the page of a real agent in a headless Chromium
	scripts/setup cc rust node browser
	cargo build --locked --bin tallyport
	node --test --test-concurrency=1 integration/browser/page.test.mjs integration/browser/views.test.mjs integration/browser/publishers.test.mjs integration/browser/layout.test.mjs

e2e-rules: ## alert rules where they fire and where they do not, by promtool; the dashboards' queries, by a real Prometheus
	scripts/setup cc rust prometheus
	scripts/e2e-rules
	scripts/e2e-dashboards

e2e-helm: ## the Helm chart beside the manifests, and what its schema refuses; needs kubectl, builds helm once
	scripts/setup cc rust
	scripts/e2e-helm

e2e-kubernetes: ## deploy/ on a real Kubernetes node by kustomize and Helm, as root; builds Kubernetes once
	$(MAKE) release
	scripts/setup containers engines kubernetes
	scripts/image
	integration/kubernetes/run $(SCENARIOS)

e2e-first-run: ## what a new user does, on a bare Debian 12, as root: the README's commands until the demo; OPTIONS=--test runs the tests too
	scripts/setup package
	scripts/first-run $(OPTIONS)

e2e-deb: ## the package on a clean Debian 12, as root: install, upgrade, remove, nothing left
	$(MAKE) build
	scripts/setup package
	scripts/e2e-deb

e2e-image: ## the image as an ordinary user and as deploy/kubernetes runs it, by podman, as root
	$(MAKE) release
	scripts/setup containers engines
	scripts/e2e-image

screenshots: ## the page's pictures in docs/images, made anew
	scripts/setup cc rust node browser
	cargo build --locked --bin tallyport
	node integration/browser/screenshots.mjs

e2e-prometheus: ## a real Prometheus scrapes an agent with 200 tasks
	scripts/setup cc rust prometheus
	scripts/e2e-prometheus
	scripts/e2e-prometheus --secure --tasks 20
	scripts/e2e-prometheus --histograms --tasks 20
	scripts/e2e-prometheus --native --tasks 20

e2e-clients: ## real programs and clients send, two real Prometheus servers read: names, labels and exact totals
	scripts/setup cc rust
	scripts/e2e-clients

fuzz-smoke: ## build every fuzz target and run each for ten seconds
	scripts/ci/fuzz-smoke 10

fuzz: ## run one fuzz target: make fuzz TARGET=datagram SECONDS=600
	scripts/fuzz $(or $(TARGET),datagram) $(or $(SECONDS),600)

clean: ## remove what was built
	cargo clean
	rm -rf fuzz/target fuzz/artifacts integration/nri/target integration/.venv integration/clients/node/node_modules integration/browser/node_modules

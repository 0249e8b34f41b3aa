# Knarr. `make help` lists the targets; CONTRIBUTING.md says how to work on it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO ?= go
RELEASE ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DATA_DIR ?= /var/lib/knarr
export KNARR_DATA_DIR = $(DATA_DIR)
# What is built does not depend on where, so that checkouts share the build cache and releases can be built again.
export GOFLAGS := $(filter-out -trimpath,$(shell $(GO) env GOFLAGS)) -trimpath

include build/Makefile.inc

# What the build needs besides Go and make, and why (the README repeats this):
#   gcc, libc6-dev   runc, the pause program and the race detector are or need C
#   libseccomp-dev   runc's system call filters
#   pkg-config       finds libseccomp
DEBIAN_BUILD = gcc libc6-dev libseccomp-dev pkg-config
# The end-to-end tests look at the machine with these.
DEBIAN_TEST = nftables iproute2 procps curl

KNARR_TAGS = $(CONTAINERD_TAGS)
KNARR_LDFLAGS = -s -w -X github.com/knarr-io/knarr/internal/machine.Release=$(RELEASE)
TEST_TAGS = -tags "$(KNARR_TAGS)"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: deps deps-test
deps:
	@build/install-packages $(DEBIAN_BUILD)
deps-test: deps
	@build/install-packages $(DEBIAN_TEST)

.PHONY: build
build: deps $(LIBEXEC_BINARIES) knarr ## build bin/knarr and what it ships with

.PHONY: knarr
knarr:
	CGO_ENABLED=0 $(GO) build -tags "$(KNARR_TAGS)" -ldflags '$(KNARR_LDFLAGS)' -o bin/knarr ./cmd/knarr
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(LIBEXEC)/knarr-cni ./cmd/knarr-cni

.PHONY: up
up: build ## start a single-machine cluster with the example application (as root)
	@bin/knarr up
	@examples/guestbook/up

.PHONY: down
down: ## stop it and remove every trace, data included (as root)
	@if [ -x bin/knarr ]; then bin/knarr down --delete-data; else echo "bin/knarr is not built, so nothing runs"; fi

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l cmd internal test examples build); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	CGO_ENABLED=0 $(GO) vet $(TEST_TAGS) ./...
	CGO_ENABLED=0 $(GO) tool staticcheck $(TEST_TAGS) ./...

.PHONY: unit
unit: bin/gotestsum ## unit tests and simulated clusters, with the race detector
	CGO_ENABLED=1 build/verdict -race -vet=off -timeout 25m $(TEST_TAGS) -- $$($(GO) list $(TEST_TAGS) ./... | grep -v /test/e2e)
bin/gotestsum: go.mod
	CGO_ENABLED=0 $(GO) build -o $@ gotest.tools/gotestsum

# How long each fuzz target runs, and in which packages.
FUZZTIME ?= 30s
FUZZ_PACKAGES ?= $(shell grep -rlE --include='*_test.go' '^func Fuzz' internal | xargs -n1 dirname | sort -u)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s), or those of FUZZ_PACKAGES
	@for p in $(FUZZ_PACKAGES); do for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$p/*_test.go | cut -c6-); do \
		echo "$$p $$f"; CGO_ENABLED=0 $(GO) test $(TEST_TAGS) ./$$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME); done; done

.PHONY: e2e
e2e: deps-test build bin/gotestsum ## end-to-end tests on real containerd (as root)
	CGO_ENABLED=0 KNARR_E2E=1 KNARR_BIN=$(abspath bin/knarr) build/verdict -vet=off $(TEST_TAGS) -count=1 -timeout 40m -p 1 -- $(E2E_PACKAGES)

.PHONY: drills
drills: deps-test build bin/gotestsum ## the drills of make e2e, ten rounds of each in place of three (as root)
	CGO_ENABLED=0 KNARR_E2E=1 KNARR_BIN=$(abspath bin/knarr) KNARR_DRILL_ROUNDS=10 build/verdict $(TEST_TAGS) -count=1 -timeout 40m -run 'TestDrill|TestServersAreLost' -- ./test/e2e

# Packages with tests that need root, real namespaces or a real runtime.
E2E_PACKAGES = $(shell grep -rlE --include='*_test.go' 'KNARR_E2E' internal test cmd | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: test left-out
test: left-out deps-test lint unit e2e clients-test conformance-smoke ## lint, unit, simulated and end-to-end tests, other people's clients, a sample of the conformance suite: what CI runs
left-out:
	@echo "Not run by make test: make nightly (fuzzers, ten rounds of each drill, differential tests, long simulations, foreign API servers and definitions); make bench and make bench-peers (figures, never a verdict); make conformance (the whole suite)."

.PHONY: bench
bench: deps-test build ## measure: pods/s on hollow nodes, RSS, idle CPU, start, pod start on real containerd
	CGO_ENABLED=0 $(GO) run $(TEST_TAGS) ./test/bench -knarr $(abspath bin/knarr)

# What Knarr is measured against, each in a module that pins its version. Compiling them takes minutes the first time.
PEERS = bin/peers
PEER_BINARIES = $(addprefix $(PEERS)/,etcd kube-apiserver kube-controller-manager kube-scheduler kwok kwok-stages.yaml)
KUBERNETES_LDFLAGS = -s -w -X k8s.io/component-base/version.gitVersion=v1.37.2
KWOK_STAGES = node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete
# More settings, e.g. make bench-peers PEERS_FLAGS='-only plane -runs 3'
PEERS_FLAGS ?=

$(PEERS)/etcd: $(wildcard test/bench/peers/etcd/go.*)
	cd test/bench/peers/etcd && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) go.etcd.io/etcd/server/v3
$(PEERS)/kube-%: $(wildcard test/bench/peers/kubernetes/go.*)
	cd test/bench/peers/kubernetes && CGO_ENABLED=0 $(GO) build -ldflags '$(KUBERNETES_LDFLAGS)' -o $(abspath $@) k8s.io/kubernetes/cmd/kube-$*
$(PEERS)/kwok: $(wildcard test/bench/peers/kwok/go.*)
	cd test/bench/peers/kwok && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) sigs.k8s.io/kwok/cmd/kwok
$(PEERS)/kwok-stages.yaml: $(PEERS)/kwok
	cd test/bench/peers/kwok && stages=$$($(GO) list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage && \
		for s in $(KWOK_STAGES); do echo ---; cat $$stages/$$s.yaml; done > $(abspath $@)

.PHONY: bench-peers
bench-peers: deps build $(PEER_BINARIES) ## Knarr and Kubernetes 1.37 under the same load, in turn, about half an hour (as root)
	CGO_ENABLED=0 $(GO) run $(TEST_TAGS) ./test/bench/peers -knarr $(abspath bin/knarr) -peers $(abspath $(PEERS)) -json $(PEERS)/peers.json $(PEERS_FLAGS)

.PHONY: scheduling-test
scheduling-test: ## feasible nodes beside kube-scheduler's own filters, a thousand random clusters (compiling takes minutes the first time)
	cd test/scheduling && CGO_ENABLED=0 $(GO) test . -seeds 1000

.PHONY: authority-test
authority-test: ## default roles and bindings beside those of kube-apiserver (compiling takes minutes the first time)
	cd test/authority && CGO_ENABLED=0 $(GO) test .

.PHONY: workloads-test lives all-lives churns
workloads-test: ## controllers of workloads beside Kubernetes' own, in random histories (compiling takes minutes the first time)
	cd test/workloads && CGO_ENABLED=0 $(GO) test -timeout 40m . -histories 1000
lives: ## 200 lives of StatefulSets and DaemonSets drawn from a seed, in simulated clusters
	CGO_ENABLED=0 $(GO) test $(TEST_TAGS) -count=1 -timeout 30m ./test/sim -run TestSetsEndAsDeclared -sets 200
all-lives: ## 200 lives of workloads of all kinds, of 10,000 steps each, in simulated clusters (hours)
	CGO_ENABLED=0 $(GO) test $(TEST_TAGS) -count=1 -timeout 24h ./test/sim -run TestLivesEndAsDeclared -lives 200 -steps 10000
churns: ## watchers of custom resources while definitions come, go and change, in 100 worlds drawn from a seed
	CGO_ENABLED=0 $(GO) test $(TEST_TAGS) -count=1 -timeout 30m ./internal/controlplane -run TestWatchersSeeWhatWasWritten -churns 100

.PHONY: clients-test aggregated-test
clients-test: build bin/gotestsum ## Helm, an operator on controller-runtime and a client of five minor versions ago, unmodified (compiling takes minutes the first time)
	cd test/clients && CGO_ENABLED=0 ../../build/verdict -count=1 -- .
	cd test/clients/old && CGO_ENABLED=0 ../../../build/verdict -count=1 -- .
aggregated-test: ## an aggregated API server, unmodified, behind Knarr (compiling takes minutes the first time)
	cd test/clients/aggregated && CGO_ENABLED=0 $(GO) test $(TEST_TAGS) .

.PHONY: nightly
nightly: fuzz drills lives all-lives churns workloads-test scheduling-test authority-test crds-test aggregated-test ## the long tests that make test leaves out, but for the whole conformance suite

# A checkout of sigs.k8s.io/gateway-api adds its tests of CEL rules, which no module has: make crds-test GATEWAY_API=~/gateway-api
.PHONY: crds-test
crds-test: $(LIBEXEC_BINARIES) ## custom resources judged by the definitions of Gateway API and network-policy-api (compiling takes minutes the first time)
	cd test/crds && CGO_ENABLED=0 GATEWAY_API=$(GATEWAY_API) $(GO) test -count=1 .

# Kubernetes' end-to-end suite is a module of its own and takes minutes to compile the first time.
CONFORMANCE = bin/conformance
CONFORMANCE_BINARIES = $(addprefix $(CONFORMANCE)/,e2e.test ginkgo agnhost nnp sample-apiserver etcd)
FOCUS ?= \[Conformance\]
# The suite makes pods by the Pod Security Standards of the version that it was built as.
CONFORMANCE_LDFLAGS = -s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37
# More settings of the runner, e.g. make conformance CONFORMANCE_FLAGS=-all
CONFORMANCE_FLAGS ?=

$(CONFORMANCE)/e2e.test: test/conformance/go.mod test/conformance/go.sum $(wildcard test/conformance/suite/*.go)
	cd test/conformance && CGO_ENABLED=0 $(GO) test -c -vet=off -ldflags '$(CONFORMANCE_LDFLAGS)' -o $(abspath $@) ./suite
$(CONFORMANCE)/ginkgo: test/conformance/go.mod test/conformance/go.sum
	cd test/conformance && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) github.com/onsi/ginkgo/v2/ginkgo
$(CONFORMANCE)/agnhost: test/conformance/go.mod test/conformance/go.sum
	cd test/conformance && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) k8s.io/kubernetes/test/images/agnhost
	cd test/conformance && install -m 0644 $$($(GO) list -f '{{.Dir}}' k8s.io/kubernetes/test/images/agnhost)/porter/localhost.* $(abspath $(@D))
$(CONFORMANCE)/nnp: test/conformance/go.mod test/conformance/go.sum
	cd test/conformance && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) k8s.io/kubernetes/test/images/nonewprivs

$(CONFORMANCE)/sample-apiserver: test/conformance/go.mod test/conformance/go.sum
	cd test/conformance && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) k8s.io/sample-apiserver
$(CONFORMANCE)/etcd: test/conformance/go.mod test/conformance/go.sum
	cd test/conformance && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(abspath $@) go.etcd.io/etcd/server/v3

.PHONY: conformance-runner
conformance-runner:
	cd test/conformance && CGO_ENABLED=0 $(GO) build -o $(abspath $(CONFORMANCE)/runner) .

.PHONY: conformance conformance-smoke
conformance: deps-test build $(CONFORMANCE_BINARIES) conformance-runner ## Kubernetes' conformance suite on two nodes (as root; FOCUS=regex), and docs/conformance.md
	cd test/conformance && $(abspath $(CONFORMANCE)/runner) -update -focus '$(FOCUS)' $(CONFORMANCE_FLAGS)
conformance-smoke: deps-test build $(CONFORMANCE_BINARIES) conformance-runner ## a sample of the conformance tests that pass, in minutes (as root)
	cd test/conformance && $(abspath $(CONFORMANCE)/runner) -smoke -procs 8 -timeout 20m $(CONFORMANCE_FLAGS)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build/cache

# Millrace. `make help` lists what there is; everything needs only Go, git and make.
SHELL := bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X millrace/cmd/cli.Version=$(VERSION) -X millrace/cmd/cli.Commit=$(COMMIT)

# The race detector needs cgo and a C compiler. Without one the tests run without it, and say so.
CC_FOUND := $(shell command -v gcc || command -v clang)
RACE     := $(if $(CC_FOUND),-race,)
ifneq ($(CC_FOUND),)
TESTENV := CGO_ENABLED=1
else
TESTENV := CGO_ENABLED=0
endif

# Runs tests, and at the end counts them and names those that were skipped, with the reason.
GOTESTSUM := go tool gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg

# What `go install` builds for the tests, pinned, and kept outside the checkout.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/millrace
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
MINIO := $(CACHE)/bin/minio-$(MINIO_VERSION)

# aws, boto3, polars and DuckDB from PyPI, for the test of `context env`; a folder per list of versions.
CLIENTS := $(CACHE)/clients-$(shell cksum < cmd/clustertest/clients.txt | cut -d' ' -f1)

# How long faults strike in `make chaos`, and the seed of their schedule; 0 is a new one.
MINUTES ?= 3
SEED ?= 0

.PHONY: help build demo test test-cluster test-processes test-fleet test-masters test-blockstore test-containers test-init-systems chaos soak model mutants simulation bench nightly fuzz lint generate minio clients images clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' Makefile

build: ## build bin/millrace, one static binary
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./cmd/millrace

demo: build ## a whole local cluster, one real job, its result; then everything is gone
	@bin/millrace demo

# Pure, and tested by much random input: one goroutine, no lock. The race detector would find nothing there, at ten times the cost.
PURE := millrace/master/state millrace/pkg/record

test: ## everything that needs no server and no special machine
	@$(if $(RACE),,echo "test: no C compiler found: running without the race detector")
	$(TESTENV) $(GOTESTSUM) -- $(RACE) -p 4 -timeout 8m $$(go list ./... | grep -vxF $(PURE:%=-e %))
	@$(GOTESTSUM) -- -timeout 8m $(PURE)

# test-cluster has four parts, so that CI can run two at a time: the processes mostly wait for one another. These are the tests of the
# part about the fleet (nodes that come and go, clusters, machines, people), about the block store, and about the set of masters.
BLOCKS := ^Test(BlockStore|JobsInTheBlockStore)
FLEET := ^Test(BootstrapActions|ABootstrapAction|NodesAnswerFor|ANodeLeaves|TheCAIsRotated|AClusterOf|ClustersOnOneSite|ClustersThatEnd|NodesOfThePool|NodesThatAre|TaskUser|ThePageOnReal|AJoinThat|AClusterIsResized|AResize|ALeaderDiesInAResize|NoSecretIs|AStrangerGets|UserData|WorkersCome)
MASTERS := ^Test(ThreeMasters|TheSetOfMasters|BackupAndRestore|MastersDiskFills|Upgrade|RefusedSkew|KillMaster)
CLUSTER_TEST = MILLRACE_BIN=$(CURDIR)/bin/millrace MILLRACE_MINIO=$(MINIO) MILLRACE_CLIENTS=$(CLIENTS) $(GOTESTSUM) -- -tags cluster -count=1 -timeout 20m

test-fleet: build minio ## the part of test-cluster about nodes, clusters, machines (network namespaces, if root) and people
	$(CLUSTER_TEST) -run '$(FLEET)' ./cmd/clustertest/

test-blockstore: build minio ## the part of test-cluster about the block store
	$(CLUSTER_TEST) -run '$(BLOCKS)' ./cmd/clustertest/

test-masters: build minio ## the part of test-cluster about the set of masters: its changes, backups, upgrades, full disks
	$(CLUSTER_TEST) -run '$(MASTERS)' ./cmd/clustertest/

test-processes: build minio clients ## the rest of test-cluster
	$(CLUSTER_TEST) -skip '$(FLEET)|$(BLOCKS)|$(MASTERS)' ./cmd/clustertest/

test-cluster: test-processes test-fleet test-masters test-blockstore ## real processes, the embedded store and a real MinIO: kills, restarts, cancels

test-containers: images ## docker-compose.yml on a real engine (.ci/dockerd starts one): jobs while it grows, shrinks, and loses a core node and the leader
	MILLRACE_BIN=$(CURDIR)/bin/millrace MILLRACE_MINIO=$(MINIO) $(GOTESTSUM) -- -tags 'cluster containers' -count=1 -timeout 15m -run '^TestContainers' ./cmd/clustertest/

# Roots of Debian with an init system, made by debootstrap once.
ROOTS := $(CACHE)/roots

test-init-systems: build minio ## services under systemd and OpenRC, booted in containers of our own (root, debootstrap): killed, powered off, removed, uninstalled
	MILLRACE_ROOTS=$(ROOTS) MILLRACE_BIN=$(CURDIR)/bin/millrace MILLRACE_MINIO=$(MINIO) $(GOTESTSUM) -- -tags 'cluster initsystems' -count=1 -timeout 15m -run '^TestInitSystems$$' ./cmd/clustertest/

chaos: build minio ## faults without a pause on three masters and five workers; every result and every file checked (MINUTES=3, SEED=N to replay)
	CGO_ENABLED=0 go build -trimpath -o bin/chaos ./cmd/chaos
	bin/chaos -minutes $(MINUTES) -seed $(SEED) -binary bin/millrace -minio $(MINIO)

JOBS ?= 500

soak: build ## JOBS small jobs (500) on three masters and two workers: nothing that a process holds may keep rising
	MILLRACE_BIN=$(CURDIR)/bin/millrace go test -tags 'cluster soak' -run '^(TestSoak|TestATrendIsTold)$$' -v -count=1 -timeout 2h ./cmd/clustertest/ -soak.jobs $(JOBS)

# How long a scenario of `make model` may take; beyond, it says how far it came.
MODEL_TIME ?= 30m

model: ## every order of a small job's requests and log entries, with a fault or a change of leader anywhere
	go test -run '^TestModel$$' -v -count=1 -timeout 60m ./master/tracker -model.budgets '0,1;1,0' -model.time $(MODEL_TIME)

mutants: ## the same without each safeguard of the commit in turn: something must go wrong
	go test -tags mutants -run '^TestMutants$$' -v -timeout 5h ./master/tracker

simulation: ## 10,000 nodes and 1,000,000 tasks in virtual time, with nodes and leaders that fail (some 10 minutes, 8 GB)
	go test -run '^TestSimulation$$' -v -count=1 -timeout 3h ./master/tracker -sim.nodes 10000 -sim.tasks 1000000 -sim.seeds 1

bench: build ## latency and throughput, measured in one run
	MILLRACE_BIN=$(CURDIR)/bin/millrace go test -tags cluster -run '^$$' -bench . -benchtime 1x -count=1 -timeout 60m ./cmd/clustertest/
	go test -run '^$$' -bench . -benchtime 1s ./pkg/record/ ./jobs/... ./master/scheduler/ ./hdfs/namespace/
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./hdfs/...
	go test -run '^$$' -bench Round -benchtime 5000x -timeout 60m ./master/tracker/

nightly: test model mutants simulation ## the long forms: the commit without its safeguards, every kind of commit struck, half an hour of chaos, five minutes of fuzzing a target
	go test -run '^TestModel$$' -v -count=1 -timeout 5h ./master/tracker -model.budgets '1,1' -model.time 15m
	go test -run '^TestLinearizable$$' -count=20 -timeout 30m ./master -linear.seed 0 -linear.faults 16
	go test -timeout 2h ./hdfs/namespace ./hdfs/blockmanager ./hdfs/blockstore ./hdfs/client -rapid.checks=2000
	MILLRACE_NIGHTLY=1 $(MAKE) test-cluster
	$(MAKE) test-init-systems
	$(MAKE) chaos MINUTES=30
	.ci/fuzz 5m

fuzz: ## every fuzz target for ten seconds
	.ci/fuzz 10s

lint: ## gofmt, go vet, staticcheck, govulncheck
	.ci/lint

generate: ## regenerate pkg/api from its .proto files
	go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate

minio: $(MINIO) ## build the pinned MinIO that the cluster tests use (once; about two minutes)

$(MINIO):
	@mkdir -p $(dir $@)
	@echo "building MinIO $(MINIO_VERSION) (once)"
	@tmp=$$(mktemp -d) && GOBIN=$$tmp CGO_ENABLED=0 go install github.com/minio/minio@$(MINIO_VERSION) && mv $$tmp/minio $@ && rmdir $$tmp

clients: $(CLIENTS)/complete ## install the pinned clients of object stores that the cluster tests use (once; needs python3)

$(CLIENTS)/complete: cmd/clustertest/clients.txt
	@echo "installing clients: $$(grep -v '^#' $< | xargs)"
	@rm -rf $(CLIENTS) && mkdir -p $(CLIENTS) && python3 -m venv $(CLIENTS) && $(CLIENTS)/bin/pip install -q --disable-pip-version-check -r $< && touch $@

# What the images are built of: binaries that were compiled here, and the roots of trust that this machine has for an object store in https.
IMAGES := bin/images

images: build minio ## build the images of docker-compose.yml, from nothing: nothing is pulled
	@rm -rf $(IMAGES) && mkdir -p $(IMAGES)/root/tmp $(IMAGES)/root/etc/ssl/certs && chmod 1777 $(IMAGES)/root/tmp
	@cp bin/millrace $(IMAGES)/millrace && cp $(MINIO) $(IMAGES)/minio
	@if [ -f /etc/ssl/certs/ca-certificates.crt ]; then cp /etc/ssl/certs/ca-certificates.crt $(IMAGES)/root/etc/ssl/certs/; fi
	DOCKER_BUILDKIT=0 docker build -q --target millrace -t millrace:local -f Dockerfile $(IMAGES)
	DOCKER_BUILDKIT=0 docker build -q --target minio -t millrace-minio:local -f Dockerfile $(IMAGES)

clean: ## remove what was built here
	rm -rf bin

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

.PHONY: help build demo test test-cluster model mutants bench nightly fuzz lint generate minio clients clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

build: ## build bin/millrace, one static binary
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./cmd/millrace

demo: build ## a whole local cluster, one real job, its result; then everything is gone
	@bin/millrace demo

test: ## everything that needs no server and no special machine
	@$(if $(RACE),,echo "test: no C compiler found: running without the race detector")
	$(TESTENV) $(GOTESTSUM) -- $(RACE) -timeout 5m ./...

test-cluster: build minio clients ## real processes, the embedded store and a real MinIO: kills, restarts, cancels
	MILLRACE_BIN=$(CURDIR)/bin/millrace MILLRACE_MINIO=$(MINIO) MILLRACE_CLIENTS=$(CLIENTS) $(GOTESTSUM) -- -tags cluster -count=1 -timeout 15m ./cmd/clustertest/

model: ## every order of a small job's requests and log entries, with a fault or a change of leader anywhere
	go test -run '^TestModel$$' -v -count=1 -timeout 30m ./master/tracker -model.budgets '0,1;1,0'

mutants: ## the same without each safeguard of the commit in turn: something must go wrong
	go test -tags mutants -run '^TestMutants$$' -v -timeout 5h ./master/tracker

bench: build ## latency and throughput, measured in one run
	MILLRACE_BIN=$(CURDIR)/bin/millrace go test -tags cluster -run '^$$' -bench . -benchtime 1x -count=1 -timeout 60m ./cmd/clustertest/
	go test -run '^$$' -bench . -benchtime 1s ./pkg/record/ ./jobs/... ./master/scheduler/

nightly: test model mutants ## the long forms: the commit without its safeguards, every kind of commit struck, five minutes of fuzzing a target
	go test -run '^TestModel$$' -v -count=1 -timeout 5h ./master/tracker -model.budgets '1,1' -model.time 15m
	MILLRACE_NIGHTLY=1 $(MAKE) test-cluster
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

clean: ## remove what was built here
	rm -rf bin

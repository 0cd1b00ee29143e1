# The commands of daily work. `make lab` and `make test` install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

CACHE := .cache
SCENARIO ?=
FUZZTIME ?= 20s
BENCH ?= dhcp,storm,kill,memory,tftp,lossy,http
LABBUNDLES := $(addprefix --,image=$(CACHE)/lab/image installer=$(CACHE)/lab/installer trust=$(CACHE)/lab/trust.yaml key=$(CACHE)/lab/lab.key)

.PHONY: build setup lab lab-full lab-secureboot test test-kube test-guest check bench bench-go bench-image fuzz conformance clean

build: ## both binaries, static
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

setup:
	@scripts/setup

lab: setup build ## blank virtual servers go through the lane; SCENARIO=a plays one
	scripts/lab-bundles $(CACHE)/lab
	bin/bootlane lab $(LABBUNDLES) --out lab-out $(SCENARIO)

lab-full: build ## every scenario, the slow ones too; writes the table of docs/firmware.md
	@scripts/setup full
	scripts/lab-bundles $(CACHE)/lab full
	bin/bootlane lab --full $(LABBUNDLES) --kubernetes=$(CACHE)/lab/kubernetes --encryptable=$(CACHE)/lab/encryptable --out lab-out
	go test ./internal/lab -run FirmwarePage -table ../../lab-out/firmware.md

lab-secureboot: setup build ## of these, the scenarios of Secure Boot: firmware that enforces it
	scripts/lab-bundles $(CACHE)/lab
	bin/bootlane lab $(LABBUNDLES) --out lab-out s t u o

test: setup check ## everything but the lab
	go test -race ./...

test-kube: ## a join into real Kubernetes, which is built for it first: 15 minutes on two cores, once
	@scripts/setup kube
	scripts/build-kube $(CACHE)/kube
	BOOTLANE_KUBE=$(abspath $(CACHE)/kube) go test -tags kube -count=1 -timeout 20m -v -run Kube ./internal/join

test-guest: ## Debian's own network daemons and cloud-init on virtual servers, by what the installers write: 5 minutes
	@scripts/setup
	scripts/build-guest $(CACHE)/guest
	BOOTLANE_GUEST=$(abspath $(CACHE)/guest) go test -tags guest -count=1 -timeout 25m -v -run Guest ./internal/seed

check: ## format, vet, shell scripts
	@test -z "$$(gofmt -l cmd internal)" || { gofmt -l cmd internal; echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go vet -tags kube ./internal/join
	go vet -tags guest ./internal/seed
	shellcheck scripts/* .ci/run

bench-image: ## the agent's write of an image over a link of 10 Gbit/s, against link and disk alone; LINK=25gbit is another
	go test -c -o $(CACHE)/agent.test ./internal/agent
	unshare -n sh -c 'ip link set lo up && tc qdisc add dev lo root tbf rate $(or $(LINK),10gbit) burst 4mb latency 20ms && exec $(CACHE)/agent.test -test.run ^$$ -test.bench Write -test.benchtime 7x'

bench-go: ## speed of single parts, by Go's own benchmarks
	go test -run '^$$' -bench . -benchmem ./internal/...

bench: build ## side by side with Kea, dnsmasq, atftpd, tftpd-hpa and nginx; BENCH=storm,kill plays some
	@scripts/setup bench
	@scripts/bench-peers $(CACHE)/peers
	go run ./internal/bench -peers $(CACHE)/peers -bootlane bin/bootlane -work $(CACHE)/bench -json $(CACHE)/bench.json -only $(BENCH)

fuzz: ## every fuzz target for FUZZTIME
	@scripts/fuzz $(FUZZTIME)

conformance: ## docs/conformance.md, from a run of the tests that play its cases
	@mkdir -p $(CACHE)
	go test -json ./internal/... >$(CACHE)/played.json || true
	go test ./internal/archtest -run ConformancePage -played ../../$(CACHE)/played.json

clean:
	rm -rf bin lab-out $(CACHE)

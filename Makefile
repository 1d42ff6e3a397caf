.DEFAULT_GOAL := help

# The linter has a place of its own, so that its version is ours.
LINT := bin/golangci-lint

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Run all tests
	go test ./...

.PHONY: examples
examples: ## Test the examples that are modules of their own
	.ci/run examples

.PHONY: race
race: ## Run all tests with the race detector
	go test -race ./...

.PHONY: vet
vet: ## Run go vet
	go vet ./...

.PHONY: fmt
fmt: $(LINT) ## Format all files
	$(LINT) fmt ./...

.PHONY: lint
lint: $(LINT) ## Run the linters
	$(LINT) config verify
	$(LINT) run ./...

.PHONY: bench
bench: ## Measure against raw nats.go; ROW=load-10k for one row
	go run ./test/bench $(if $(ROW),-row $(ROW))

.PHONY: torture-short
torture-short: ## Run against faults and deliberate defects (minutes)
	go run ./test/torture -short

.PHONY: torture
torture: ## Run the whole matrix of faults for FOR=8h and write docs/reliability.md's tables
	mkdir -p bin/torture
	go run ./test/torture -dir bin/torture -for $(or $(FOR),8h) -report docs/reliability.md

.PHONY: demo
demo: ## Run the money-transfer demo
	go run ./cmd/demo

.PHONY: docs
docs: ## Bring the code in the documents up to date, and test what they say
	go test ./test/docs -count=1 -run Snippets -update
	go test ./test/docs ./docs/... -count=1

.PHONY: golden
golden: ## Write new golden files of the format and the events; fails when an old one changes
	go test ./jetstream -count=1 -run Golden -update
	ROSSBY_UPDATE=1 go test ./jetstream/schematest ./cmd/demo/... -count=1 -run Golden
	git diff --exit-code --diff-filter=MD HEAD -- jetstream/testdata jetstream/schematest/testdata '*/testdata/events'

.PHONY: ci
ci: ## Run what CI runs
	.ci/run

$(LINT): .ci/run
	.ci/run lint-install

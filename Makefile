# Two commands for users: `make run` and `make test`. The rest is for CI and for
# those who change the code. Nothing needs to be installed but Go.
.PHONY: run test generate generated lint alone check breaking

tool = $$(GOWORK=off go -C tools tool -n $(1))
mods = $$(go list -m -f '{{.Dir}}')

# run starts the whole suite on this machine; flags: make run ARGS="--ephemeral"
# It is `go run ./cmd/llmproxy up`, without go run between the terminal's signals
# and the suite.
run:
	@go build -o bin/llmproxy ./cmd/llmproxy
	@exec bin/llmproxy up $(ARGS)

# test runs every test of every module under the race detector, on a real
# Postgres that dev/testdb starts for the run, and that it installs if need be.
test:
	go run ./dev/testdb $(call tool,gotestsum) --format pkgname-and-test-fails -- -race -timeout 8m work

# generate writes gen/ anew from proto/.
generate:
	rm -rf gen/*/ gen/api.swagger.json
	$(call tool,buf) generate

# generated fails when gen/ is not what proto/ makes.
generated: generate
	@test -z "$$(git status --porcelain gen)" || { git status --porcelain gen; git --no-pager diff --stat gen; \
		echo "gen/ is not current: run make generate and commit it"; exit 1; }

lint:
	$(call tool,buf) lint
	$(call tool,buf) format --diff --exit-code proto
	$(call tool,golangci-lint) run $$(go list -m -f '{{.Dir}}/...')

# alone builds each module by itself, where an undeclared sibling does not
# compile, and checks that its go.mod is tidy.
alone:
	for m in $(mods); do (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./... && GOWORK=off go mod tidy -diff) || exit 1; done

# breaking compares the contracts with those on main, or with another commit:
# make breaking AGAINST='.git#ref=HEAD~1'
AGAINST = .git\#branch=main
breaking:
	$(call tool,buf) breaking --against '$(AGAINST)'

check: generated lint alone test

# Two commands for users: `make run` and `make test`. The rest is for CI and for
# those who change the code. `make run` needs Go, `make test` Go and npm (Node.js).
.PHONY: run test chaos books bench pgo bench-micro allocs generate generated lint alone check breaking

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

# chaos runs many seeds of the storm over the whole suite: make chaos SEEDS=200
SEEDS = 200
chaos:
	CHAOS_SEEDS=$(SEEDS) go test -race -v -count=1 -timeout 4h -run TestChaos ./dev/chaos

# books runs many seeds of the charges' way to Autumn, with billing on Postgres, on
# a clock of its own: make books SEEDS=200
books:
	BOOKS_SEEDS=$(SEEDS) go run ./dev/testdb go test -race -v -count=1 -timeout 4h -run TestBooks ./dev/chaos

# bench measures the proxy side by side with others and writes docs/bench; it
# installs nginx and Portkey's gateway if need be: make bench BENCH=plain,paced
# ROUNDS=1 SECONDS=3. PROFILE=dir also says where proxysvc's CPU goes, and which
# system calls it makes; that needs perf and strace.
BENCH =
ROUNDS = 3
SECONDS = 10
bench:
	@go build -o bin/bench ./dev/bench
	@exec bin/bench -run '$(BENCH)' -rounds $(ROUNDS) -seconds $(SECONDS) -commit "$$(git describe --always --dirty)" -profile '$(PROFILE)'

# pgo makes the profile anew by which the compiler knows what is hot in proxysvc.
pgo:
	@go build -o bin/bench ./dev/bench
	@bin/bench -targets proxysvc -run plain8,plain64,limited64,paced200,body200k -rounds 1 -out bin -pgo services/proxysvc/cmd/proxysvc/default.pgo

# bench-micro compares the hot functions with those of another commit:
# make bench-micro AGAINST=HEAD~3 COUNT=10
COUNT = 6
bench-micro: AGAINST = HEAD
bench-micro:
	@dev/bench/micro.sh '$(AGAINST)' $(COUNT) $(call tool,benchstat)

# allocs fails when the hot path allocates more often than it did. A count of its
# own run: the race detector allocates too. So have sockets: with it they are read and
# written as net does it.
allocs:
	go test -count=1 -timeout 200s ./kit/sock ./kit/serve/lean ./services/proxysvc/internal/upstream
	cd services/proxysvc && go test -count=1 -timeout 200s -run TestAllocs ./internal/proxy ./internal/ledger ./internal/pricing

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

check: generated lint alone allocs test

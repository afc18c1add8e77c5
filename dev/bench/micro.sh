#!/bin/sh
# Compares the benchmarks of the hot functions with those of another commit:
# times, and allocations. The benchmarks themselves are today's in both.
set -eu
against=$1 count=$2 benchstat=$3
base=$(mktemp -d)
trap 'git worktree remove --force "$base/tree" 2>/dev/null || true; rm -rf "$base"' EXIT
git worktree add --detach --quiet "$base/tree" "$against"

run() {
	(cd "$1/services/proxysvc" && go test -run '^$' -bench . -count "$count" -benchtime 200ms \
		./internal/proxy ./internal/ledger ./internal/pricing)
}

for file in services/proxysvc/internal/*/hot_bench_test.go; do
	cp "$file" "$base/tree/$file"
done
run . >"$base/now.txt"
run "$base/tree" >"$base/before.txt"
"$benchstat" "before=$base/before.txt" "now=$base/now.txt"

// Package chaos proves that the ledger is exact and that budgets hold while
// everything breaks: four replicas and the other services as processes on a
// Postgres of their own, clients that stream, abort and retry, and a storm of
// kills, freezes, restarts, cut and black connections that a seed decides. It
// has tests only, and nobody imports it.
//
// CHAOS_SEEDS says how many seeds are tried, CHAOS_FIRST which is the first:
// `make chaos SEEDS=200`. CHAOS_LOGS names a directory for the processes' logs of
// seeds that failed. A seed fixes what every client asks for and what
// happens to whom in which order; how the two meet is up to the machine, so a
// seed that fails may need a few tries to fail again.
//
// TestBooks does the same to the charges' way to Autumn, with days of downtime,
// on a clock of its own: `make books SEEDS=200`.
package chaos

// Package autumn is a stand-in for Autumn's API (useautumn.com), as its public
// source of August 2026 behaves, with faults on request and with an oracle that
// says what was really deducted. Everything is kept in memory.
//
// # What it serves
//
//	POST /v1/track, /v1/events, /v1/balances.track     deduct
//	POST /v1/check, /v1/entitled, /v1/balances.check   ask, and deduct with send_event
//	POST /v1/customers, /v1/customers.get_or_create    get or create
//	GET  /v1/customers/ID, POST /v1/customers.get      read
//	POST /v1/events/list, /v1/events.list              what was recorded, seconds later
//
// The order of its checks is Autumn's: authentication, version, rate limit,
// idempotency claim, schema, handler. So a 429 claims no key, and a 400 claims
// it and lets it go again.
//
// # The rules that money depends on
//
// Overage_behavior is "cap" unless told otherwise: what does not fit is dropped
// with a 200. A customer without a balance gets a 200 that deducted nothing.
// Idempotency-Key is claimed before the work, kept on every 2xx, let go on
// everything from 400 but 409, and a claimed key is a 409 that says nothing of
// what was applied; its scope is the whole server. A lock is checked and written
// together with the deduction and lives 24 hours; where no balance matches, none
// is written. Without x-api-version the answers are those of 1.2, which do not
// say what was deducted. Unknown fields are ignored, and names are matched
// exactly, so that a misspelt one is.
//
// Amounts are exact multiples of 1e-10 credits; Autumn's own are doubles rounded
// to ten decimals. Not simulated: entities, several balances per customer,
// resets, plans, spend limits, queues, batches, webhooks, locks on check.
//
// # Admin
//
//	GET  /__applied         customer id → what was really deducted, see Applied
//	GET  /__applied?by=key  lock_id, else idempotency key → the same with customer_id
//	POST /__grant           {"customer_id", "credits"}: adds to the customer's grant
//	POST /__faults          replaces the list of faults, see Fault
//	GET  /__faults          the list, with how often each was met and fired
//	POST /__reset           forgets everything, faults too
//
// These need no key.
package autumn

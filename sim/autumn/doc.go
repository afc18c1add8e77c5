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
//	POST /v1/events/aggregate, /v1/events.aggregate    its sum
//	POST /v1/balances.batch_track                      deduct a list, later
//	POST /v1/entities.create, .get, .delete            parts of a customer with credits of
//	     and /v1/customers/ID/entities                 their own, which go first
//	POST /v1/balances.finalize                         confirm or release a lock
//	POST /v1/usage                                     set what is used
//	POST /v1/balances/update, /v1/balances.update      set or add to what is left
//	POST /v1/balances/create, /v1/balances.create      grant, with a reset or an end
//	POST /v1/balances.recalculate                      make usage what events say
//	POST /v1/attach, /v1/billing.attach                sell credits of the top-up plan
//	POST /v1/checkout                                  a page to pay on
//
// The order of its checks is Autumn's: authentication, version, rate limit,
// idempotency claim, schema, handler. So a 429 claims no key, and a 400 claims
// it and lets it go again.
//
// # The rules that money depends on
//
// Overage_behavior is "cap" unless told otherwise: what does not fit is dropped
// with a 200. A customer without a balance gets a 200 that deducted nothing. A
// spend limit clamps even an overflow. Idempotency-Key is claimed before the
// work, kept on every 2xx, let go on everything from 400 but 409, and a claimed
// key is a 409 that says nothing of what was applied; its scope is the whole
// server. A lock is checked and written together with the deduction and lives 24
// hours; where no balance matches, none is written. What is queued (202) is
// deducted later by a worker that a message reaches once or more. Without
// x-api-version the answers are those of 1.2, which do not say what was
// deducted. Unknown fields are ignored, and names are matched exactly, so that a
// misspelt one is. What a balance shows as left is floored at zero, each row by
// itself. A declined card is a 400; a card that needs its owner, or none, is a
// 200 with a page to pay on.
//
// Amounts are exact multiples of 1e-10 credits, shown with 14 digits. Not
// simulated: events that deduct several features, track_tokens, scopes of keys,
// the account's aggregate limits. Webhooks leave when they are asked to; one that fails
// is due again when Svix would send it, on the server's clock. Entities are not kept in a file. What recalculate does is read from its name. TestTheContract
// lists all that is served and refused.
//
// # Admin
//
//	GET  /__applied         customer id → what was really deducted, see Applied
//	GET  /__applied?by=key  lock_id, else idempotency key → the same with customer_id
//	POST /__grant           {"customer_id", "credits"}: adds to the customer's grant
//	POST /__customer        changes a customer, see Change
//	POST /__clock           {"advance_ms"}: moves the clock on
//	POST /__webhooks        {"url", "secret"}: where webhooks go
//	POST /__webhooks/deliver  sends those that wait, and answers with the statuses
//	POST /__faults          replaces the list of faults, see Fault
//	GET  /__faults          the list, with how often each was met and fired
//	POST /__reset           forgets everything, faults too
//
// These need no key.
package autumn

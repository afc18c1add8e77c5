// Package stripe is a stand-in for Stripe's billing meters, as Stripe documents
// them, with faults on request and with an oracle that says what was really
// counted. Everything is kept in memory.
//
// # What it serves
//
//	POST /v1/billing/meter_events                     take an event
//	GET  /v1/billing/meters                           list the one meter
//	GET  /v1/billing/meters/ID/event_summaries        what was counted of a customer
//	POST /v1/customers                                create
//	GET  /v1/customers/search                         by metadata['team_id'], with a lag
//
// # The rules that money depends on
//
// An event's identifier is unique for 24 hours; a second one is 400 "An event
// already exists with identifier …". A value is a whole number, as a string. A
// timestamp is at most 35 days old and 5 minutes ahead. A customer's events of
// a meter are taken one at a time, else 429 lock_timeout; 1000 a second in live
// mode, 25 in test mode, else 429 rate_limit. An event of a customer that does
// not exist is taken with 200 and never counted, as Stripe validates that later.
// Idempotency-Key repeats the first answer for 24 hours, a 500 too; the same key
// with other parameters is a 400, and one whose first request still runs a 409.
//
// # Admin
//
//	GET  /__applied  customer id → value counted and number of events
//	POST /__faults   replaces the list of faults, see Fault
//
// These need no key.
package stripe
